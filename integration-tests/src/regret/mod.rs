//! The first law as a number: what clients suffer with the agent acting, less what they suffer without.
//!
//! A [`Script`] is a list of faults with their times. It is played in front of real servers by four
//! [arms](ArmKind) at once, each with a proxy of its own and the same clients: with the agent acting, with the
//! proxy left as the agent left it when the script began (twice, which shows what chance does), and without
//! any agent on the cluster's name by DNS. `docs/REGRET.md` says how to read the outcome.
//!
//! Not here: retirement of sessions, which the load benchmarks judge.
//!
//! # Layout
//! - [`Script`], `scripts`: the faults, as data
//! - [`Outcome`], [`Counts`]: what becomes of an attempt
//! - `client`: scheduled attempts
//! - [`ArmKind`], `arm`, `balancer`: a proxy, its agent and its clients
//! - `names`, `relay`, `last_answers`: DNS, the agent's own path to a server, the check port of a dead agent
//! - `stage`, [`play()`]: one play
//! - [`Row`], [`Summary`]: the table and `summary.json`

mod arm;
mod balancer;
pub(crate) mod client;
mod last_answers;
mod names;
mod outcome;
mod play;
mod relay;
mod report;
pub(crate) mod script;
mod scripts;
mod stage;

pub use arm::ArmKind;
pub use outcome::{Counts, Outcome};
pub use play::{Play, play};
pub use report::{Row, Summary, header};
pub use script::{Cell, ProxyKind, Script};
pub use scripts::all;

use crate::{process, scene, standin};

/// Why a script could not be played.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Process(#[from] process::Error),
    #[error(transparent)]
    Scene(#[from] scene::Error),
    #[error(transparent)]
    StandIn(#[from] standin::Error),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("{event}: {source}")]
    Event { event: String, source: Box<Error> },
    #[error("HAProxy says {0:?}")]
    Operator(String),
    #[error("the agent's command exits with {0}")]
    Command(String),
    /// The proxy does not route as it did a moment before, with the same answers.
    #[error("a proxy without its agent routes otherwise: {0}")]
    Muted(String),
    /// The script is wrong.
    #[error("{0}")]
    Script(&'static str),
}
