//! Clients through a proxy while something closes their sessions: the agent, or people's habits.
//!
//! - [`Variant`], [`VARIANTS`]: what closes, and what is there beside the clients
//! - `bar`: what is promised of it
//! - `trial`: one variant, from an empty stand-in to its [`Summary`]
//! - `closers`: what people do without an agent
//! - [`watch`]: how old sessions get, asked of the database itself
//! - `closes`: what the agent says it did
//! - [`Summary`]: the result

mod bar;
mod closers;
mod closes;
mod summary;
mod trial;
pub mod watch;

pub use summary::Summary;

use super::{Error, Measurement, Report};
use crate::standin::Engine;
use bar::Promise;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closer {
    /// The agent, with these words in its `sessions` section.
    Agent(&'static str),
    /// `shutdown sessions server` on HAProxy's runtime API, every few seconds.
    Shutdown,
    /// `pg_terminate_backend` of all that are old, without looking at what they do.
    Terminate,
    /// The same for one session at a time, of those that `pg_stat_activity` shows as idle.
    LooseGuard,
}

/// One way of closing under one load.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    /// Its name on the command line, and of its file.
    pub name: &'static str,
    /// What it is, in a line.
    pub what: &'static str,
    engine: Engine,
    behind_envoy: bool,
    /// MariaDB only: whether it shows open transactions by events, or by `innodb_trx` alone.
    performance_schema: bool,
    closer: Closer,
    /// Sessions of a password user that do nothing.
    idle: usize,
    /// Clients that never pause longer than 50 ms.
    busy: usize,
    /// Whether clients try BEGIN once more.
    retry: bool,
    /// What is promised; none of what is only measured beside.
    promise: Option<Promise>,
}

const POSTGRESQL_PROMISE: Option<Promise> =
    Some(Promise { inside_one_in: 1_500, at_begin_per_1000: Some(5) });

const MARIADB_PROMISE: Option<Promise> = Some(Promise { inside_one_in: 1_000, at_begin_per_1000: None });

const PLAIN: Variant = Variant {
    name: "",
    what: "",
    engine: Engine::Postgresql,
    behind_envoy: false,
    performance_schema: true,
    closer: Closer::Agent(""),
    idle: 0,
    busy: 5,
    retry: false,
    promise: None,
};

const ENVOY: Variant = Variant { behind_envoy: true, ..PLAIN };

const MARIADB: Variant = Variant { engine: Engine::Mariadb, ..PLAIN };

/// What the others are compared with.
const fn baseline(engine: Engine) -> &'static str {
    match engine {
        Engine::Postgresql => "load_blind_shutdown",
        Engine::Mariadb => "mariadb_load_blind_shutdown",
    }
}

/// All variants. What people do without an agent comes first.
pub const VARIANTS: &[Variant] = &[
    Variant {
        name: baseline(Engine::Postgresql),
        what: "`shutdown sessions server` every few seconds, no agent acting",
        closer: Closer::Shutdown,
        ..PLAIN
    },
    Variant {
        name: "load_blind_terminate",
        what: "pg_terminate_backend of every old session, no agent acting",
        closer: Closer::Terminate,
        ..PLAIN
    },
    Variant {
        name: "load_loose_guard_1000_idle",
        what: "old sessions that pg_stat_activity shows as idle, 20 a second, 1,000 idle ones beside",
        closer: Closer::LooseGuard,
        idle: 1_000,
        ..PLAIN
    },
    Variant {
        name: "load_database",
        what: "the agent retires through the database",
        closer: Closer::Agent("close_via: database"),
        promise: POSTGRESQL_PROMISE,
        ..PLAIN
    },
    Variant {
        name: "load_database_1000_idle",
        what: "the same with 1,000 idle sessions beside",
        closer: Closer::Agent("close_via: database"),
        idle: 1_000,
        promise: POSTGRESQL_PROMISE,
        ..PLAIN
    },
    Variant {
        name: "load_proxy",
        what: "the agent retires through the proxy",
        closer: Closer::Agent("close_via: proxy"),
        ..PLAIN
    },
    Variant {
        name: "load_catch",
        what: "the agent catches sessions that are never quiet",
        closer: Closer::Agent("close_via: database, busy: catch"),
        busy: 20,
        ..PLAIN
    },
    Variant {
        name: "load_retry",
        what: "through the database; clients try BEGIN once more",
        closer: Closer::Agent("close_via: database"),
        retry: true,
        promise: POSTGRESQL_PROMISE,
        ..PLAIN
    },
    Variant {
        name: "envoy_load_database",
        what: "behind Envoy: the agent retires through the database",
        closer: Closer::Agent("close_via: database"),
        promise: POSTGRESQL_PROMISE,
        ..ENVOY
    },
    Variant {
        name: "envoy_load_database_1000_idle",
        what: "the same with 1,000 idle sessions beside",
        closer: Closer::Agent("close_via: database"),
        idle: 1_000,
        promise: POSTGRESQL_PROMISE,
        ..ENVOY
    },
    Variant {
        name: "envoy_load_catch",
        what: "behind Envoy: the agent catches sessions that are never quiet",
        closer: Closer::Agent("close_via: database, busy: catch"),
        busy: 20,
        ..ENVOY
    },
    Variant {
        name: "envoy_load_retry",
        what: "behind Envoy: clients try BEGIN once more",
        closer: Closer::Agent("close_via: database"),
        retry: true,
        promise: POSTGRESQL_PROMISE,
        ..ENVOY
    },
    Variant {
        name: baseline(Engine::Mariadb),
        what: "MariaDB: `shutdown sessions server` every few seconds, no agent acting",
        closer: Closer::Shutdown,
        ..MARIADB
    },
    Variant {
        name: "mariadb_load_database",
        what: "MariaDB: the agent retires through the database",
        closer: Closer::Agent("close_via: database"),
        promise: MARIADB_PROMISE,
        ..MARIADB
    },
    Variant {
        name: "mariadb_load_database_1000_idle",
        what: "the same with 1,000 idle sessions beside",
        closer: Closer::Agent("close_via: database"),
        idle: 1_000,
        promise: MARIADB_PROMISE,
        ..MARIADB
    },
    Variant {
        name: "mariadb_load_proxy",
        what: "MariaDB: the agent retires through the proxy",
        closer: Closer::Agent("close_via: proxy"),
        ..MARIADB
    },
    Variant {
        name: "mariadb_load_catch",
        what: "MariaDB: the agent catches sessions that are never quiet",
        closer: Closer::Agent("close_via: database, busy: catch"),
        busy: 20,
        ..MARIADB
    },
    Variant {
        name: "mariadb_load_retry",
        what: "MariaDB: clients try BEGIN once more",
        closer: Closer::Agent("close_via: database"),
        retry: true,
        promise: MARIADB_PROMISE,
        ..MARIADB
    },
    Variant {
        name: "mariadb_load_innodb_trx",
        what: "MariaDB: without performance_schema, by innodb_trx",
        // What this witness needs at least.
        closer: Closer::Agent("close_via: database, quiet_min: 1s"),
        performance_schema: false,
        promise: MARIADB_PROMISE,
        ..MARIADB
    },
];

/// Runs one variant until enough sessions were closed.
pub(super) async fn run(variant: &Variant, quick: bool, report: &mut Report) -> Result<(), Error> {
    let retirements = match (quick, variant.performance_schema) {
        (true, _) => 150,
        (false, true) => 1_500,
        // They take longer there.
        (false, false) => 1_000,
    };
    let summary = trial::run(variant, retirements).await?;
    let mut measurement =
        Measurement::new(variant.name, summary.broken.rate * 1_000.0, "per 1,000").details(&summary);
    let baseline = baseline(variant.engine);
    if let Some(baseline) = report.told(baseline).filter(|_| variant.name != baseline) {
        measurement = measurement.beside("blind shutdown", baseline);
    }
    for line in summary.lines() {
        measurement = measurement.note(line);
    }
    if let Some(promise) = variant.promise {
        measurement = measurement.bar(promise.judge(&summary));
    }
    report.tell(&measurement)
}
