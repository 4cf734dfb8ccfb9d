//! What the fold is given beside observations: the operator's choices, the servers, what a proxy shows.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use serde::Serialize;

use super::{WantedRole, refusal::Connects};
use crate::{InstanceId, ServerId, freshness};

/// What to do when an instance refuses the agent's logins.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnAuthFailure {
    /// Keep it while all siblings refuse too; drain it when a sibling accepts.
    #[default]
    Auto,
    /// Keep it whatever siblings do.
    Keep,
    Down,
}

/// Whether the writer serves reads while no reader can.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReaderFallback {
    #[default]
    Writer,
    /// It never does: all reads could overload it.
    None,
}

/// Whether the agent's verdicts change where proxies send new sessions.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Routing {
    #[default]
    Act,
    /// They are logged, counted and shown. Proxies get neutral answers, as if nothing were known.
    Observe,
}

/// The operator's choices about health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HealthRules {
    /// How often the agent logs in. A login that is older than a few of these no
    /// longer proves that clients could.
    pub probe_interval: Duration,
    /// Missed answers in a row after which silence counts.
    pub liveness_misses: u32,
    /// How often a writer is asked.
    pub liveness_writer: Duration,
    /// How often a reader is asked.
    pub liveness_reader: Duration,
    /// What refused logins do.
    pub on_auth_failure: OnAuthFailure,
    /// A replica further behind than this takes no new sessions while another can.
    pub max_lag: Option<Duration>,
    /// What serves reads while no reader can.
    pub reader_fallback: ReaderFallback,
}

impl HealthRules {
    /// How long what was seen against an instance counts: at least until the next probe, for
    /// where no connection is kept nothing else looks.
    pub(super) fn trouble_lasts(&self) -> Duration {
        freshness::TROUBLE.max(self.probe_interval * 2)
    }
}

impl Default for HealthRules {
    fn default() -> Self {
        Self {
            probe_interval: Duration::from_secs(30),
            liveness_misses: 3,
            liveness_writer: Duration::from_millis(250),
            liveness_reader: Duration::from_secs(1),
            on_auth_failure: OnAuthFailure::Auto,
            max_lag: None,
            reader_fallback: ReaderFallback::Writer,
        }
    }
}

/// A server of a proxy: which instance it is and which role it wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServerConfig {
    pub id: ServerId,
    /// The instance behind it.
    pub instance: InstanceId,
    /// The role its backend wants.
    pub wanted: WantedRole,
    /// Whether the proxy takes commands about it: drains, and closes of single sessions.
    /// HAProxy does. An Envoy only reads endpoints, and keeps the last ones when the agent
    /// dies, so that none but an operator begins a drain there.
    pub commandable: bool,
}

/// What a proxy shows of itself, beside what operators have set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyView {
    /// The servers that it considers up: the memory of an agent that has none.
    pub up: BTreeSet<ServerId>,
    /// The backends with a `backup` server, so that clients wait or go elsewhere while no other is up.
    pub fallbacks: BTreeSet<Arc<str>>,
    /// Its counters of connections to each server.
    pub connects: BTreeMap<ServerId, Connects>,
    /// The address that it dials for each server, where it shows one.
    pub dials: BTreeMap<ServerId, SocketAddr>,
}

/// Everything there is to judge.
#[derive(Clone, Debug, Default)]
pub struct FleetConfig {
    /// All instances, with the rules of their database.
    pub instances: Vec<(InstanceId, HealthRules)>,
    /// All servers of all proxies.
    pub servers: Vec<ServerConfig>,
    pub routing: Routing,
}
