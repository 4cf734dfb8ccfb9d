//! Messages between tasks and the decider. Plain data.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use agent_core::{
    Fault, InstanceId, ProxyIndex, ServerId, Time,
    health::{AddressLogin, Observation, ProxyView, Source},
    peers::Look,
    plan::{AdminFlags, AdminWord, Outcome, Retire},
    session::{ActivityRow, BackendKey, ProxySession},
};
use agent_database::{LoginReport, Rights};
use tokio::{sync::oneshot, time::Instant};

use crate::{
    seen::ProxyTable,
    state::{downs::DownRecord, records::DrainRecord},
};

/// From tasks to the decider.
#[derive(Debug)]
pub enum Input {
    /// A probe or a liveness query has answered, or not.
    Health(Observation),
    /// A login at an address went well or failed.
    Address(AddressLogin),
    /// A source on an instance is lost, or is back.
    Source { instance: InstanceId, source: Source, lost: Option<Fault> },
    /// The locks of other agents on an instance, asked for at `asked` and read at `at`.
    Peers { instance: InstanceId, asked: Time, at: Time, look: Result<Look, Fault> },
    /// How a login went.
    Login(InstanceId, Box<LoginReport>),
    /// What the agent may do on an instance.
    Rights(InstanceId, Box<Rights>),
    /// Rows of an instance's connection table. `only` names those that were asked for, or all.
    Activity {
        instance: InstanceId,
        /// When it was asked.
        at: Time,
        /// Those asked for; `None` is all.
        only: Option<Vec<BackendKey>>,
        rows: Vec<ActivityRow>,
    },
    /// All sessions of a proxy.
    Swept {
        proxy: ProxyIndex,
        /// The moment that the ages are of.
        at: Time,
        /// Its sessions, in all workers.
        sessions: Vec<ProxySession>,
    },
    /// Sessions of a proxy of which others are not known yet.
    Incomplete {
        proxy: ProxyIndex,
        /// The moment that the ages are of.
        at: Time,
        /// Those that are known.
        sessions: Vec<ProxySession>,
    },
    /// What a proxy shows of its servers and backends; also proves it alive.
    Admin {
        proxy: ProxyIndex,
        /// When it was asked.
        at: Time,
        flags: Vec<(ServerId, AdminFlags)>,
        view: ProxyView,
        /// It is another process than the one asked before.
        restarted: bool,
    },
    /// The same for people: what a HAProxy shows, and how it differs from the configuration.
    Table {
        /// Its name.
        proxy: String,
        table: Arc<ProxyTable>,
    },
    /// Which servers the endpoints of an Envoy drain; also proves that it listens.
    Endpoints {
        proxy: ProxyIndex,
        at: Time,
        /// Each server, and whether it is drained.
        shown: Vec<(ServerId, bool)>,
    },
    /// What became of a command.
    Outcome(Outcome),
    /// An agent-check answer with an admin word was read.
    Delivered(ServerId, AdminWord),
    /// Whether credentials could be had.
    Credentials(bool),
    /// The drain of a server that is no longer configured is gone.
    StrayGone(DrainRecord),
    /// A server that is no longer configured is not DOWN any more.
    Lifted(DownRecord),
    /// Why the proxy was not sent a drain, or did not take it.
    NotDrained { server: ServerId, error: String },
    /// A request on the control socket.
    Request(Asked),
}

/// A request on the control socket, and where its answer goes.
#[derive(Debug)]
pub struct Asked {
    pub request: Request,
    pub reply: oneshot::Sender<Answer>,
    /// It has no effect if the decider does not take it by then: its client no longer waits.
    pub by: Instant,
    /// Whether the decider has taken it.
    pub taken: Arc<AtomicBool>,
}

/// The answer to a request.
pub type Answer = Result<serde_json::Value, Failure>;

/// A request had no effect, or not the whole one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It was refused, or the effect is known to be missing.
    Refused(String),
    /// The effect could not be checked.
    Unchecked(String),
}

/// What can be asked.
#[derive(Clone, Debug)]
pub enum Request {
    /// All sessions with their ages.
    Sessions,
    /// Stop all acting.
    Pause {
        /// Why, in the operator's words.
        reason: String,
        /// The user who asks.
        by: Option<String>,
    },
    Resume {
        by: Option<String>,
    },
    Drain {
        /// `backend/server`.
        server: String,
        /// How long it lasts, if it ends by itself.
        lasts: Option<Duration>,
        /// Whether its sessions are retired whatever their age.
        empty: bool,
        /// Whether the capacity floor does not count.
        force: bool,
    },
    /// Say which of several instances that claim it is the writer.
    Writer {
        database: String,
        instance: String,
    },
    /// Take back the drain of one server, or all of the agent's own.
    Undrain {
        /// `backend/server`.
        server: Option<String>,
    },
}

/// A session to be closed, and when that was decided.
#[derive(Debug)]
pub struct CloseOrder {
    pub command: Retire,
    pub decided: Instant,
}
