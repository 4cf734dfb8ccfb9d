//! What the decider publishes and everybody else reads, without waiting.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use agent_core::{
    Fault, InstanceId, ProxyIndex, ServerId, Time,
    freshness::Freshness,
    health::{Fleet, Routing, ServerConfig, Source},
    peers::{Marks, Seen},
    plan::{AdminWord, DrainPhase, HoldReason, Mode, Shortage},
    session::BackendKey,
};
use agent_database::{LoginReport, Rights};
use serde::Serialize;

use crate::{seen::ProxyTable, state::pause::Pause};

/// Everything at one moment. Immutable.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    /// When it was made.
    pub at: Time,
    pub fleet: Arc<Fleet>,
    /// The agent-check answer of each server, by `backend/server`.
    #[serde(skip)]
    pub lines: Arc<HashMap<String, Line>>,
    /// The last login on each instance, as far as it got.
    pub logins: Arc<BTreeMap<String, LoginReport>>,
    /// The sources that are lost on each instance, and why.
    pub lost: Arc<BTreeMap<String, BTreeMap<Source, Fault>>>,
    /// The locks of other agents on each instance.
    pub peers: BTreeMap<String, Seen>,
    /// Why the locks of other agents cannot be read on an instance.
    pub peers_lost: BTreeMap<String, Fault>,
    /// Databases of which other agents take another instance for the writer.
    pub disagreements: Vec<Disagreement>,
    /// What the agent may do on each instance.
    pub rights: Arc<BTreeMap<String, Rights>>,
    /// Where the agent's own drains stand; servers without one are left out.
    pub drains: BTreeMap<String, DrainPhase>,
    /// When an operator's drain ends by itself.
    #[serde(skip)]
    pub until: BTreeMap<String, Time>,
    /// What each HAProxy shows, by its name.
    #[serde(skip)]
    pub tables: Arc<BTreeMap<String, Arc<ProxyTable>>>,
    /// The parts of the configuration that people look for beside the state.
    #[serde(skip)]
    pub setup: Arc<Setup>,
    pub sessions: SessionsView,
    /// The operator's pause, if any.
    pub paused: Option<Pause>,
    /// Groups of clients that the breaker has paused: user, application, network.
    pub paused_groups: Vec<String>,
    /// What tasks have to look at.
    #[serde(skip)]
    pub watch: Watch,
}

/// The parts of the configuration that people look for beside the state.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    pub mode: Mode,
    pub routing: Routing,
    pub max_age: Duration,
    pub proxies: Vec<ProxySetup>,
}

#[derive(Clone, Debug)]
pub struct ProxySetup {
    /// The runtime socket, or the node.
    pub name: String,
    /// Of an Envoy: its node; the inner `None` matches any.
    pub envoy: Option<Option<String>>,
    pub servers: Vec<ServerConfig>,
}

/// The sessions in numbers.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SessionsView {
    /// All that are known.
    pub known: usize,
    /// Those that are due.
    pub due: usize,
    /// The age of the oldest joined one, in seconds.
    pub oldest_s: f64,
    /// Closed by the agent since it started.
    pub retired: u64,
    /// Rows that did not fit into the ledger.
    pub dropped: usize,
    /// Instances with more sessions than `login_budget` can close within `max_age`.
    pub shortages: Vec<Shortage>,
    /// What is due and left alone, by reason.
    pub holds: BTreeMap<HoldReason, usize>,
}

/// Agents that take different instances of a database for the writer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Disagreement {
    pub database: String,
    /// The instance that this agent takes for the writer.
    pub own: String,
    /// The others, and how many agents take them for the writer.
    pub others: BTreeMap<String, u32>,
}

/// What the agent wants to hold and to know on an instance, beside other agents.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Meeting {
    pub marks: Marks,
    /// Closes that could begin now.
    pub permits: u32,
    /// The locks have to be read now.
    pub now: bool,
}

/// What tasks have to look at.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    /// Sessions to look at again very soon.
    pub focus: Arc<BTreeMap<InstanceId, Vec<BackendKey>>>,
    /// Instances whose sessions have to be listed again.
    pub poll: BTreeSet<InstanceId>,
    /// Proxies whose sessions have to be listed again.
    pub sweep: BTreeSet<ProxyIndex>,
    /// Instances to log in to now, before sessions are closed there.
    pub probe: BTreeSet<InstanceId>,
    /// Whether any session may have to be closed before long.
    pub closing: bool,
    /// How often each instance is asked whether it lives.
    pub cadence: Arc<BTreeMap<InstanceId, Duration>>,
    /// Addresses that proxies dial for an instance and the agent does not.
    pub dialled: Arc<BTreeMap<InstanceId, BTreeSet<SocketAddr>>>,
    /// Where each instance's joined sessions come from: the proxies' outgoing addresses.
    pub outgoing: Arc<BTreeMap<InstanceId, BTreeSet<IpAddr>>>,
    pub meetings: Arc<BTreeMap<InstanceId, Meeting>>,
}

/// The agent-check answer of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub server: ServerId,
    /// The line, newline included.
    pub text: String,
    /// The admin word in it.
    pub admin: Option<AdminWord>,
}

impl Snapshot {
    /// Whether the decider hangs: the agent has to be restarted.
    pub fn is_stuck(&self, now: Time) -> bool {
        Freshness::of(now.since(self.at)) == Freshness::Stuck
    }

    /// Nothing known yet: every answer is neutral.
    pub fn empty(at: Time) -> Self {
        Self {
            at,
            fleet: Arc::new(Fleet::empty(at)),
            lines: Arc::default(),
            logins: Arc::default(),
            lost: Arc::default(),
            peers: BTreeMap::new(),
            peers_lost: BTreeMap::new(),
            disagreements: Vec::new(),
            rights: Arc::default(),
            drains: BTreeMap::new(),
            until: BTreeMap::new(),
            tables: Arc::default(),
            setup: Arc::default(),
            sessions: SessionsView::default(),
            paused: None,
            paused_groups: Vec::new(),
            watch: Watch::default(),
        }
    }
}
