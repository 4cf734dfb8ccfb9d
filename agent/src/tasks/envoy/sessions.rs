//! The sessions of all Envoys, from the access logs that they stream to the agent.
//!
//! They are told to the decider as HAProxy's are: all of one proxy at once, and only
//! when they are all.

use std::{
    collections::BTreeSet,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use agent_core::{
    ServerId,
    health::ServerConfig,
    session::{ProxySession, ProxySessionKey},
};
use envoy::access_log::{Limits, Report, Session, Sessions};
use tokio::{
    sync::{OwnedMutexGuard, mpsc, watch},
    time::{Instant, MissedTickBehavior, interval},
};

use super::{drains::Drained, eds::Addresses, hand_offs::HandOffs, places::Places};
use crate::{
    events::{AccessLogHeard, AccessLogLost, EntriesSkipped, Episodes, Event},
    tasks::{Input, Shared},
};

/// Between two words to the decider.
const ROUND: Duration = Duration::from_millis(500);

/// Between two listings of one proxy's sessions.
const REST: Duration = Duration::from_secs(1);

/// A round that comes this late means that the process stood still, and an entry that
/// waited so long that Envoys had to wait: they may have dropped what they could not send.
const LATE: Duration = Duration::from_secs(2);

/// One configured Envoy, or all that share its configuration.
pub struct Config {
    /// Its index in the configuration.
    pub proxy: usize,
    /// Its name in logs and metrics.
    pub name: String,
    /// Its `node.id`; `None` where any will do.
    pub node: Option<String>,
    /// Its servers: cluster and instance.
    pub servers: Vec<ServerConfig>,
    /// The agent's own drains on it.
    pub drained: Drained,
    /// Whether it takes endpoints from the agent now.
    pub connected: Box<dyn Fn() -> bool + Send>,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("proxy", &self.proxy).field("node", &self.node).finish_non_exhaustive()
    }
}

impl Config {
    fn is(&self, node: &str) -> bool {
        self.node.as_deref().is_none_or(|own| own == node)
    }
}

/// Follows the access logs of all Envoys, for ever. `addresses` is where the instances are,
/// `flush` the Envoys' longest `access_log_flush_interval`.
pub async fn run(
    envoys: Vec<Config>,
    mut flush: watch::Receiver<Duration>,
    mut reports: OwnedMutexGuard<mpsc::Receiver<Report>>,
    addresses: watch::Receiver<Addresses>,
    told: HandOffs,
    shared: Shared,
) {
    let mut task = Task {
        envoys,
        table: Sessions::new(Limits { interval: *flush.borrow_and_update(), ..Limits::default() }),
        places: Places::default(),
        addresses,
        told,
        shared,
        episodes: Episodes::default(),
        heard: BTreeSet::new(),
        listed: None,
    };
    let mut rounds = interval(ROUND);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = Instant::now();
    loop {
        tokio::select! {
            biased;
            _ = rounds.tick() => {
                if last.elapsed() > ROUND + LATE {
                    task.table.missed(Instant::now());
                }
                last = Instant::now();
                task.table.set_interval(*flush.borrow_and_update());
                task.round().await;
            }
            report = reports.recv() => match report {
                Some(report) => task.take(report),
                // Everything stops.
                None => return std::future::pending().await,
            }
        }
    }
}

struct Task {
    envoys: Vec<Config>,
    table: Sessions,
    places: Places,
    addresses: watch::Receiver<Addresses>,
    told: HandOffs,
    shared: Shared,
    episodes: Episodes,
    /// The Envoys whose log comes.
    heard: BTreeSet<Arc<str>>,
    /// When sessions were last listed.
    listed: Option<Instant>,
}

impl Task {
    fn take(&mut self, report: Report) {
        let now = Instant::now();
        match report {
            Report::Opened { node } => {
                self.table.opened(&node, now);
                self.changes();
            }
            Report::Closed { node, left } => {
                self.table.closed(&node, left, now);
                self.changes();
            }
            Report::Said { node, at, events, skipped } => {
                if at.elapsed() > LATE {
                    self.table.missed(now);
                }
                // What the clock of this host was when it came.
                let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let clock = clock.saturating_sub(at.elapsed());
                // Streams outlive a reload of the configuration, and this table does not.
                if !self.table.is_connected(&node) {
                    self.table.opened(&node, at);
                    self.changes();
                }
                let name = self.envoys.iter().find(|envoy| envoy.is(&node)).map(|envoy| envoy.name.as_str());
                for event in &events {
                    self.table.observe(&node, at, clock, event);
                    if let Some(name) = name {
                        self.told.tell(name, event, &self.shared.metrics);
                    }
                }
                if skipped > 0 {
                    let news = self.episodes.begins(&format!("skipped {node}"), "");
                    EntriesSkipped { node: &node, count: skipped, news }.emit(&self.shared.metrics);
                }
            }
        }
    }

    /// Tells which Envoys have come and gone.
    fn changes(&mut self) {
        let now: BTreeSet<Arc<str>> =
            self.table.nodes().filter(|(_, connected)| *connected).map(|(node, _)| node.clone()).collect();
        for envoy in &self.envoys {
            let own = |node: &&Arc<str>| envoy.is(node);
            for node in now.difference(&self.heard).filter(own) {
                AccessLogHeard { proxy: &envoy.name, node }.emit(&self.shared.metrics);
            }
            for node in self.heard.difference(&now).filter(own) {
                AccessLogLost { proxy: &envoy.name, node }.emit(&self.shared.metrics);
            }
        }
        self.heard = now;
    }

    async fn round(&mut self) {
        let now = Instant::now();
        self.table.expire(now);
        self.places.learn(&self.addresses.borrow_and_update(), now);
        let at = self.shared.clock.now();
        let mut inputs = Vec::new();
        let rested = self.listed.is_none_or(|listed| now.duration_since(listed) >= REST);
        if rested {
            self.listed = Some(now);
        }
        for envoy in &self.envoys {
            let nodes: Vec<&Arc<str>> = self.heard.iter().filter(|node| envoy.is(node)).collect();
            if nodes.is_empty() && !(envoy.connected)() {
                continue;
            }
            let servers: Vec<ServerId> = envoy.servers.iter().map(|server| server.id.clone()).collect();
            inputs.push(Input::Admin { proxy: envoy.proxy, at, flags: envoy.drained.flags(&servers) });
            if !rested
                || nodes.is_empty()
                || !self.shared.snapshot.borrow().watch.sweep.contains(&envoy.proxy)
            {
                continue;
            }
            // All of all of them, or nothing: one Envoy that is silent may have any session.
            let mut all = Vec::new();
            let mut complete = true;
            for node in nodes {
                match self.table.sweep(node, now) {
                    Some(sessions) => all.extend(sessions),
                    None => complete = false,
                }
            }
            if complete {
                let places = &self.places;
                let own = |session| told(places, envoy, session);
                let sessions = all.into_iter().filter_map(own).collect();
                inputs.push(Input::Swept { proxy: envoy.proxy, at, sessions });
            }
        }
        for input in inputs {
            self.shared.tell(input).await;
        }
    }
}

/// A session as the ledger knows it, if its server is known.
fn told(places: &Places, envoy: &Config, session: Session) -> Option<ProxySession> {
    let server = places.server(&envoy.servers, &session.cluster, session.peer)?.clone();
    Some(ProxySession {
        // The stream id alone is unique, over all Envoys.
        key: ProxySessionKey {
            worker: 0,
            pointer: session.id,
            id: 0,
            accepted: format!("{:.6}", session.started.as_secs_f64()).into(),
        },
        server,
        source: session.source,
        outgoing: session.outgoing,
        peer: session.peer,
        age: session.age,
        old_worker: false,
    })
}
