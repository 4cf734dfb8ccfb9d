//! Measurements: how fast the agent's parts are, and what its work breaks under load.
//!
//! A number is printed, and written to `target/bench/NAME.json`. Most are measurements and no more.
//! Where a rate or a time is promised, which no test can judge, it is judged here: see [`Bar`].
//!
//! # Layout
//! - [`Measurement`]: one number, beside its baseline where there is one
//! - [`Bar`]: what is promised of it
//! - [`all`]: all that can be asked for, by name
//! - `agent_check`, `envoy_role_change`, `envoy_failover`, `envoy_hostile_peers`, `parse`, `session_log`, `plan`,
//!   `tokens`, `idle`: the parts
//! - `failover_logins`: logins while the writer changes
//! - `without_agent`: HAProxy's starts while no agent runs
//! - `commit_to_close`, `restart_to_right`: how soon things are as promised
//! - [`load`]: real clients through a proxy while their sessions are closed

mod agent_check;
mod bar;
mod commit_to_close;
mod envoy_failover;
mod envoy_hostile_peers;
mod envoy_role_change;
mod failover_logins;
mod idle;
pub mod load;
mod measurement;
mod parse;
mod plan;
mod restart_to_right;
mod session_log;
mod tokens;
mod without_agent;

pub use bar::Bar;
pub use measurement::{Measurement, Report};

use crate::{load::LoadError, process, scene, standin};

/// Why something could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stand-in, the proxy or the agent.
    #[error(transparent)]
    Scene(#[from] scene::Error),
    #[error(transparent)]
    StandIn(#[from] standin::Error),
    /// A program, or a deadline.
    #[error(transparent)]
    Process(#[from] process::Error),
    #[error(transparent)]
    Load(Box<LoadError>),
    /// A file or a socket.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A sample, or an answer, that is not what it should be: the bench is wrong.
    #[error("{0}")]
    Unexpected(String),
}

impl From<LoadError> for Error {
    fn from(error: LoadError) -> Self {
        Self::Load(Box::new(error))
    }
}

/// What is measured under one name.
#[derive(Clone, Copy, Debug)]
pub enum Bench {
    /// Answers to agent checks.
    AgentCheck,
    /// A role change on its way to new sessions behind Envoy.
    EnvoyRoleChange,
    /// A failover on its way to new sessions behind Envoy, finding it out included.
    EnvoyFailover,
    /// Logins that fail while the writer changes, behind both proxies.
    FailoverLogins,
    /// Callers that mean no good.
    EnvoyHostilePeers,
    /// Reading `show sess all`.
    Parse,
    /// HAProxy's log at a high rate.
    SessionLog,
    Plan,
    Tokens,
    /// The agent with ten instances and nothing to do.
    Idle,
    /// The agent with sessions that stay for ever.
    IdleHeld,
    /// How soon a session goes after a long transaction.
    CommitToClose,
    /// How soon the proxy is right after a `kill -9`.
    RestartToRight,
    /// HAProxy started while no agent runs.
    WithoutAgent,
    Load(&'static load::Variant),
}

/// All of them: name, what it is, the bench. In the order in which they run: what others are
/// compared with comes first.
pub fn all() -> Vec<(&'static str, &'static str, Bench)> {
    let mut all = vec![
        ("agent_check", "agent-check answers a second, beside a bare server", Bench::AgentCheck),
        ("envoy_role_change", "from a change to new sessions on the right instance", Bench::EnvoyRoleChange),
        ("envoy_failover", "from a failover to new sessions, finding it out included", Bench::EnvoyFailover),
        (
            "failover_logins",
            "logins that fail in 50 failovers, behind HAProxy and Envoy",
            Bench::FailoverLogins,
        ),
        ("envoy_hostile_peers", "memory and answers among hostile callers", Bench::EnvoyHostilePeers),
        ("show_sess", "reading `show sess all` of 10,000 sessions", Bench::Parse),
        ("session_log", "HAProxy's log at 20,000 lines a second", Bench::SessionLog),
        ("planner", "a plan for 10,000 and for 100,000 sessions", Bench::Plan),
        ("tokens", "tokens signed a second", Bench::Tokens),
        ("idle", "memory and CPU of the idle agent with ten instances", Bench::Idle),
        ("idle_held", "the same beside sessions that are held past their limit for ever", Bench::IdleHeld),
        ("commit_to_close", "from a late COMMIT to the close of its session", Bench::CommitToClose),
        (
            "restart_to_right",
            "from a start after kill -9 to the right state in HAProxy",
            Bench::RestartToRight,
        ),
        ("without_agent", "writes to readers in 200 starts of HAProxy without an agent", Bench::WithoutAgent),
    ];
    all.extend(load::VARIANTS.iter().map(|variant| (variant.name, variant.what, Bench::Load(variant))));
    all
}

impl Bench {
    /// Measures, shorter if `quick`. Tells the report each number as soon as it is known.
    pub async fn run(self, quick: bool, report: &mut Report) -> Result<(), Error> {
        match self {
            Bench::AgentCheck => agent_check::run(quick, report).await,
            Bench::EnvoyRoleChange => envoy_role_change::run(quick, report).await,
            Bench::EnvoyFailover => envoy_failover::run(quick, report).await,
            Bench::FailoverLogins => failover_logins::run(quick, report).await,
            Bench::EnvoyHostilePeers => envoy_hostile_peers::run(quick, report).await,
            Bench::Parse => parse::run(quick, report),
            Bench::SessionLog => session_log::run(quick, report).await,
            Bench::Plan => plan::run(quick, report),
            Bench::Tokens => tokens::run(quick, report),
            Bench::Idle => idle::run(quick, report).await,
            Bench::IdleHeld => idle::run_held(quick, report).await,
            Bench::CommitToClose => commit_to_close::run(quick, report).await,
            Bench::RestartToRight => restart_to_right::run(quick, report).await,
            Bench::WithoutAgent => without_agent::run(quick, report).await,
            Bench::Load(variant) => load::run(variant, quick, report).await,
        }
    }
}
