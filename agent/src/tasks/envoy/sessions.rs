//! The sessions of all Envoys, from the access logs that they stream to the agent.
//!
//! They are told to the decider as HAProxy's are: all of one proxy at once. Until they are
//! all, those that are known are told as what they are: some.

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

/// What was heard of all Envoys. It outlives a reload of the configuration, as their
/// streams do: sessions that are known stay known.
#[derive(Debug)]
pub struct Heard {
    reports: mpsc::Receiver<Report>,
    table: Sessions,
    places: Places,
    /// The Envoys whose log comes.
    connected: BTreeSet<Arc<str>>,
}

impl Heard {
    /// Nothing yet.
    pub fn new(reports: mpsc::Receiver<Report>) -> Self {
        let (table, places) = (Sessions::new(Limits::default()), Places::default());
        Self { reports, table, places, connected: BTreeSet::new() }
    }

    /// Says whether Envoys can only call from this host, whose clock is theirs.
    pub fn set_same_host(&mut self, same: bool) {
        self.table.set_same_clock(same);
    }
}

/// Follows the access logs of all Envoys, for ever. `addresses` is where the instances are,
/// `flush` the Envoys' longest `access_log_flush_interval`.
pub async fn run(
    envoys: Vec<Config>,
    mut flush: watch::Receiver<Duration>,
    heard: OwnedMutexGuard<Heard>,
    addresses: watch::Receiver<Addresses>,
    told: HandOffs,
    shared: Shared,
) {
    let mut task =
        Task { envoys, heard, addresses, told, shared, episodes: Episodes::default(), listed: None };
    let mut rounds = interval(ROUND);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = Instant::now();
    loop {
        tokio::select! {
            biased;
            _ = rounds.tick() => {
                if last.elapsed() > ROUND + LATE {
                    task.heard.table.missed(Instant::now());
                }
                last = Instant::now();
                task.heard.table.set_interval(*flush.borrow_and_update());
                task.round().await;
            }
            report = task.heard.reports.recv() => match report {
                Some(report) => task.take(report),
                // Everything stops.
                None => return std::future::pending().await,
            }
        }
    }
}

struct Task {
    envoys: Vec<Config>,
    heard: OwnedMutexGuard<Heard>,
    addresses: watch::Receiver<Addresses>,
    told: HandOffs,
    shared: Shared,
    episodes: Episodes,
    /// When sessions were last listed.
    listed: Option<Instant>,
}

impl Task {
    fn take(&mut self, report: Report) {
        let now = Instant::now();
        match report {
            Report::Opened { node } => {
                self.heard.table.opened(&node, now);
                self.changes();
            }
            Report::Closed { node, left } => {
                self.heard.table.closed(&node, left, now);
                self.changes();
            }
            Report::Said { node, at, events, skipped } => {
                if at.elapsed() > LATE {
                    self.heard.table.missed(now);
                }
                // What the clock of this host was when it came.
                let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let clock = clock.saturating_sub(at.elapsed());
                let name = self.envoys.iter().find(|envoy| envoy.is(&node)).map(|envoy| envoy.name.as_str());
                for event in &events {
                    self.heard.table.observe(&node, at, clock, event);
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
        let now: BTreeSet<Arc<str>> = self
            .heard
            .table
            .nodes()
            .filter(|(_, connected)| *connected)
            .map(|(node, _)| node.clone())
            .collect();
        for envoy in &self.envoys {
            let own = |node: &&Arc<str>| envoy.is(node);
            for node in now.difference(&self.heard.connected).filter(own) {
                AccessLogHeard { proxy: &envoy.name, node }.emit(&self.shared.metrics);
            }
            for node in self.heard.connected.difference(&now).filter(own) {
                AccessLogLost { proxy: &envoy.name, node }.emit(&self.shared.metrics);
            }
        }
        self.heard.connected = now;
    }

    async fn round(&mut self) {
        let now = Instant::now();
        let heard = &mut *self.heard;
        heard.table.expire(now);
        heard.places.learn(&self.addresses.borrow_and_update(), now);
        let at = self.shared.clock.now();
        let mut inputs = Vec::new();
        let rested = self.listed.is_none_or(|listed| now.duration_since(listed) >= REST);
        if rested {
            self.listed = Some(now);
        }
        for envoy in &self.envoys {
            let nodes: Vec<&Arc<str>> = heard.connected.iter().filter(|node| envoy.is(node)).collect();
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
            // They are all if they are of each: one Envoy that is silent may have any session.
            let mut all = Vec::new();
            let mut complete = true;
            for node in nodes {
                let sessions = heard.table.sweep(node, now).unwrap_or_else(|| {
                    complete = false;
                    heard.table.sessions(node, now)
                });
                all.extend(sessions);
            }
            let (proxy, places) = (envoy.proxy, &heard.places);
            let sessions = all.into_iter().filter_map(|session| told(places, envoy, session)).collect();
            inputs.push(if complete {
                Input::Swept { proxy, at, sessions }
            } else {
                Input::Glimpsed { proxy, at, sessions }
            });
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

#[cfg(test)]
mod tests {
    use agent_core::{InstanceId, health::WantedRole, plan::Policy};
    use envoy::access_log::{Event as Entry, Flags, Kind};
    use tokio::{sync::Mutex, time::timeout};

    use super::*;
    use crate::{
        clock::Clock,
        serve::xds::Envoys,
        tasks::{Errands, SharedBudget, snapshot::Snapshot},
    };

    /// A session to the only instance, that began now.
    fn entry() -> Entry {
        Entry {
            kind: Kind::Connected,
            id: "session".into(),
            started: SystemTime::now().duration_since(UNIX_EPOCH).unwrap(),
            lasted: None,
            source: Some(([10, 0, 0, 1], 40_000).into()),
            outgoing: Some(([10, 0, 0, 2], 50_000).into()),
            peer: Some(([10, 0, 0, 3], 5_432).into()),
            cluster: Some("w".into()),
            received: None,
            sent: None,
            flags: Flags::default(),
            transport_failure: None,
            termination: None,
        }
    }

    /// What the decider is told next of this kind, if anything within a minute.
    async fn swept(inputs: &mut mpsc::Receiver<Input>) -> Option<Vec<ProxySession>> {
        let next = async {
            loop {
                if let Some(Input::Swept { sessions, .. }) = inputs.recv().await {
                    return sessions;
                }
            }
        };
        timeout(Duration::from_secs(60), next).await.ok()
    }

    /// The first sessions that it is told as some of more.
    async fn glimpsed(inputs: &mut mpsc::Receiver<Input>) -> Vec<ProxySession> {
        loop {
            match inputs.recv().await {
                Some(Input::Glimpsed { sessions, .. }) if !sessions.is_empty() => return sessions,
                Some(Input::Swept { .. }) | None => panic!("they are not all"),
                Some(_) => {}
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn sessions_are_told_when_they_are_all_and_stay_known_over_a_reload() {
        let clock = Clock::start();
        let (decider, mut inputs) = mpsc::channel(64);
        let mut first = Snapshot::empty(clock.now());
        first.watch.sweep.insert(0);
        let (_publish, snapshot) = watch::channel(Arc::new(first));
        let shared = Shared {
            clock,
            metrics: Arc::default(),
            budget: SharedBudget::new(&Policy::default()),
            snapshot,
            decider,
            probe_now: Arc::default(),
            errands: Errands::default(),
            envoys: Envoys::default(),
        };
        let instance = InstanceId::new("orders", "a");
        let (_found, addresses) =
            watch::channel(Addresses::from([(instance.clone(), vec![([10, 0, 0, 3], 5_432).into()])]));
        let (_longest, flush) = watch::channel(Duration::from_secs(10));
        let (say, reports) = mpsc::channel(8);
        let heard = Arc::new(Mutex::new(Heard::new(reports)));
        let start = |heard| {
            let config = Config {
                proxy: 0,
                name: "envoy:*".into(),
                node: None,
                servers: vec![ServerConfig {
                    id: ServerId::new(0, "w", "a"),
                    instance: instance.clone(),
                    wanted: WantedRole::Writer,
                    commandable: false,
                }],
                drained: Drained::default(),
                connected: Box::new(|| false),
            };
            let (flush, addresses, shared) = (flush.clone(), addresses.clone(), shared.clone());
            tokio::spawn(run(vec![config], flush, heard, addresses, HandOffs::default(), shared))
        };
        let node: Arc<str> = "envoy-1".into();
        let task = start(heard.clone().lock_owned().await);
        say.send(Report::Opened { node: node.clone() }).await.unwrap();
        let began = Instant::now();
        let said =
            |node: Arc<str>| Report::Said { node, at: Instant::now(), events: vec![entry()], skipped: 0 };
        say.send(said(node.clone())).await.unwrap();
        let some = glimpsed(&mut inputs).await;
        assert_eq!((some.len(), &*some[0].key.pointer), (1, "session"), "those that are known need not wait");
        assert!(began.elapsed() <= Duration::from_secs(2), "{:?}", began.elapsed());
        let (again, sayer) = (node.clone(), say.clone());
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(10)).await;
            sayer.send(said(again)).await.unwrap();
        });
        let sessions = swept(&mut inputs).await.unwrap();
        assert!(began.elapsed() >= Duration::from_secs(10), "others might not have been told of");
        assert_eq!(sessions.len(), 1);
        assert_eq!(sessions[0].server, ServerId::new(0, "w", "a"));
        assert_eq!(&*sessions[0].key.pointer, "session");

        task.abort();
        let _ = task.await;
        while inputs.try_recv().is_ok() {}
        let task = start(heard.clone().lock_owned().await);
        let reloaded = Instant::now();
        assert_eq!(swept(&mut inputs).await.unwrap().len(), 1);
        assert!(reloaded.elapsed() <= Duration::from_secs(2), "{:?}", reloaded.elapsed());

        say.send(Report::Closed { node, left: 0 }).await.unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        while inputs.try_recv().is_ok() {}
        assert_eq!(swept(&mut inputs).await, None, "an Envoy that is not heard is not spoken for");
        task.abort();
    }
}
