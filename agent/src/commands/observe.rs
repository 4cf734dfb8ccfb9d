//! `observe`: the sessions of a HAProxy with their ages, without any configuration.
//!
//! It only reads from the runtime socket. Whether a session would be held depends on its activity in the
//! database, which `sessions` of a running agent shows.

use std::time::Duration;

use agent_core::plan::Policy;
use haproxy::{
    runtime::{Connection, Limits, RuntimeError},
    show_sess::Session,
    sweep::{Worker, sweep, sweep_worker, workers},
};
use serde_json::{Value, json};

use super::{Exit, complain, print, print_json};
use crate::{
    cli::{Format, Observe},
    config,
};

pub(super) async fn observe(arguments: &Observe) -> Exit {
    let max_age = match config::duration(&arguments.max_age) {
        Ok(max_age) => max_age,
        Err(hint) => {
            complain(format_args!("--max-age: {hint}"));
            return Exit::Usage;
        }
    };
    match all(arguments).await {
        Ok((version, mut sessions)) => {
            sessions.sort_by_key(|(_, session)| std::cmp::Reverse(session.age()));
            match arguments.output.output {
                Format::Json => print_json(&as_json(&version, &sessions, max_age)),
                Format::Text => as_text(&version, &sessions, max_age),
            }
            Exit::Ok
        }
        Err(error) => {
            complain(error);
            Exit::CouldNotCheck
        }
    }
}

async fn all(arguments: &Observe) -> Result<(String, Vec<(Worker, Session)>), RuntimeError> {
    let limits = Limits::default();
    let info = Connection::open(&arguments.socket, limits).await?.info().await?;
    let current = Worker { pid: info.pid, old: false };
    let mut sweeps = vec![sweep(&arguments.socket, current, limits).await?];
    if let Some(master) = &arguments.master {
        for worker in workers(master, limits).await?.into_iter().filter(|worker| worker.pid != info.pid) {
            sweeps.push(sweep_worker(master, worker, limits).await?);
        }
    }
    let sessions = sweeps.into_iter().flat_map(|sweep| {
        let worker = sweep.worker;
        sweep.sessions.into_iter().map(move |session| (worker, session))
    });
    Ok((info.version_text, sessions.collect()))
}

/// The age of a session compared with `max_age`. Its own limit may differ by the jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// HAProxy does not show its age.
    Unknown,
    Young,
    /// In its window: an agent would retire it at the next quiet moment.
    Due,
    /// Due, and past `max_age`.
    Past,
}

impl Standing {
    fn of(session: &Session, max_age: Duration) -> Self {
        let window = Policy { max_age, ..Policy::default() }.window();
        match session.age() {
            None => Self::Unknown,
            Some(age) if age >= max_age => Self::Past,
            Some(age) if age >= max_age.saturating_sub(window) => Self::Due,
            Some(_) => Self::Young,
        }
    }

    fn is_due(self) -> bool {
        matches!(self, Self::Due | Self::Past)
    }

    fn mark(self) -> &'static str {
        match self {
            Self::Unknown | Self::Young => "",
            Self::Due => "  due",
            Self::Past => "  due, past max_age",
        }
    }
}

fn client_of(session: &Session) -> String {
    session.source.map_or_else(|| "unix".to_owned(), |source| source.to_string())
}

fn as_json(version: &str, sessions: &[(Worker, Session)], max_age: Duration) -> Value {
    let rows = sessions.iter().map(|(worker, session)| {
        let standing = Standing::of(session, max_age);
        let known = |answer: bool| (standing != Standing::Unknown).then_some(answer);
        json!({
            "server": format!("{}/{}", session.backend, session.server),
            "source": client_of(session),
            "outgoing": session.outgoing.to_string(),
            "peer": session.peer.to_string(),
            "age_s": session.age().map(|age| age.as_secs_f64()),
            "due": known(standing.is_due()),
            "past_max_age": known(standing == Standing::Past),
            "worker": worker.pid,
            "old_worker": worker.old,
        })
    });
    json!({"haproxy": version, "max_age_s": max_age.as_secs_f64(), "sessions": rows.collect::<Vec<_>>()})
}

fn as_text(version: &str, sessions: &[(Worker, Session)], max_age: Duration) {
    print(format_args!("HAProxy {version}: {} sessions to servers", sessions.len()));
    print(format_args!("{:<28} {:<24} {:<24} {:>10}", "SERVER", "CLIENT", "DATABASE", "AGE"));
    for (worker, session) in sessions {
        let age = session.age().map_or_else(|| "?".to_owned(), |age| format!("{:.1}s", age.as_secs_f64()));
        let mark = Standing::of(session, max_age).mark();
        let old = if worker.old { "  old worker" } else { "" };
        let server = format!("{}/{}", session.backend, session.server);
        print(format_args!(
            "{server:<28} {:<24} {:<24} {age:>10}{mark}{old}",
            client_of(session),
            session.peer.to_string()
        ));
    }
    let standings = || sessions.iter().map(|(_, session)| Standing::of(session, max_age));
    let due = standings().filter(|standing| standing.is_due()).count();
    let past = standings().filter(|standing| *standing == Standing::Past).count();
    print(format_args!(
        "{due} due, {past} of them past {}s: an agent would retire those between two transactions.\n\
         Which of them would be held, and why, depends on the database: see `sessions` of a running agent.",
        max_age.as_secs_f64()
    ));
}
