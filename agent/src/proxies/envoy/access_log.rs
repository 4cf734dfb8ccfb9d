//! The sessions of all Envoys, from the access logs that they stream to the agent.
//!
//! They are sent to the decider as HAProxy's are: all of one proxy at once. Until the list is
//! complete, it is sent as incomplete. Of several Envoys of one
//! configuration each has its own list: one whose stream breaks again and again does not delay the
//! sessions of the others.

use std::{
    collections::BTreeSet,
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use agent_core::{
    ProxyIndex, ServerId,
    health::ServerConfig,
    session::{ProxySession, ProxySessionKey},
};
use envoy::access_log::{Event as Entry, Kind, Limits, Origin, Report, Session, Sessions};
use tokio::{
    sync::{OwnedMutexGuard, mpsc, watch},
    time::{Instant, MissedTickBehavior, interval},
};

use super::{
    drains::Drained,
    hand_offs::Ends,
    session_addresses::{Addresses, SessionAddresses, database, label},
};
use crate::{
    events::{AccessLogHeard, AccessLogLost, EntriesSkipped, Episodes, Event},
    hand_offs::envoy::Place,
    messages::Input,
    shared::Shared,
};

/// Between two messages to the decider.
const ROUND: Duration = Duration::from_millis(500);

/// Between two listings of one proxy's sessions.
const REST: Duration = Duration::from_secs(1);

/// A round that starts this late means that the process was suspended; an entry that waited this long,
/// that Envoys had to wait. They may have dropped entries that they could not send.
const LATE: Duration = Duration::from_secs(2);

/// One configured Envoy, or all that share its configuration.
pub struct Config {
    /// Its index in the configuration.
    pub proxy: ProxyIndex,
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

/// What the access logs of all Envoys have reported. It outlives a reload of the configuration, as their
/// streams do: sessions that are known stay known.
#[derive(Debug)]
pub struct AccessLogs {
    reports: mpsc::Receiver<Report>,
    table: Sessions,
    known: SessionAddresses,
    /// The Envoys that stream their log now.
    connected: BTreeSet<Origin>,
}

impl AccessLogs {
    pub fn new(reports: mpsc::Receiver<Report>) -> Self {
        let (table, known) = (Sessions::new(Limits::default()), SessionAddresses::default());
        Self { reports, table, known, connected: BTreeSet::new() }
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
    logs: OwnedMutexGuard<AccessLogs>,
    addresses: watch::Receiver<Addresses>,
    ends: Ends,
    shared: Shared,
) {
    let mut task = Task {
        envoys,
        logs,
        addresses,
        ends,
        shared,
        episodes: Episodes::default(),
        listed: None,
        incomplete: BTreeSet::new(),
    };
    let mut rounds = interval(ROUND);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = Instant::now();
    loop {
        tokio::select! {
            biased;
            _ = rounds.tick() => {
                if last.elapsed() > ROUND + LATE {
                    task.logs.table.missed(Instant::now());
                }
                last = Instant::now();
                task.logs.table.set_interval(*flush.borrow_and_update());
                task.round().await;
            }
            report = task.logs.reports.recv() => match report {
                Some(report) => task.take(report),
                // Everything stops.
                None => return std::future::pending().await,
            }
        }
    }
}

struct Task {
    envoys: Vec<Config>,
    logs: OwnedMutexGuard<AccessLogs>,
    addresses: watch::Receiver<Addresses>,
    ends: Ends,
    shared: Shared,
    episodes: Episodes,
    /// When sessions were last listed.
    listed: Option<Instant>,
    /// The proxies whose last list was incomplete; they are listed again.
    incomplete: BTreeSet<ProxyIndex>,
}

impl Task {
    fn take(&mut self, report: Report) {
        match report {
            Report::Opened { origin, at } => {
                self.logs.table.opened(&origin, at);
                self.report_connections();
            }
            Report::Closed { origin, at, left } => {
                self.logs.table.closed(&origin, left, at);
                if left == 0 {
                    self.episodes.ends(&skipping(&origin));
                }
                self.report_connections();
            }
            Report::Said { origin, at, events, skipped } => {
                if at.elapsed() > LATE {
                    self.logs.table.missed(Instant::now());
                }
                // The time of this host when the report arrived.
                let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let clock = clock.saturating_sub(at.elapsed());
                let envoy = self.envoys.iter().find(|envoy| envoy.is(&origin.node));
                for event in &events {
                    self.logs.table.observe(&origin, at, clock, event);
                    if let Some(envoy) = envoy.filter(|_| event.kind == Kind::End) {
                        let place = place(&self.logs.known, envoy, event);
                        self.ends.pass(place, event, &self.shared);
                    }
                }
                if skipped > 0 {
                    let news = self.episodes.begins(&skipping(&origin), "");
                    let proxy = envoy.map_or("-", |envoy| &*envoy.name);
                    EntriesSkipped { proxy, node: &origin.node, count: skipped, news }
                        .emit(&self.shared.metrics);
                }
            }
        }
    }

    /// Reports Envoys that have connected or disconnected.
    fn report_connections(&mut self) {
        let origins = self.logs.table.origins();
        let now: BTreeSet<Origin> =
            origins.filter(|(_, connected)| *connected).map(|(origin, _)| origin.clone()).collect();
        for envoy in &self.envoys {
            let own = |origin: &&Origin| envoy.is(&origin.node);
            for Origin { node, .. } in now.difference(&self.logs.connected).filter(own) {
                AccessLogHeard { proxy: &envoy.name, node }.emit(&self.shared.metrics);
            }
            let others = now.iter().any(|origin| own(&origin));
            for Origin { node, .. } in self.logs.connected.difference(&now).filter(own) {
                AccessLogLost { proxy: &envoy.name, node, others }.emit(&self.shared.metrics);
            }
        }
        self.logs.connected = now;
    }

    async fn round(&mut self) {
        let now = Instant::now();
        let logs = &mut *self.logs;
        logs.table.expire(now);
        logs.known.update(&self.addresses.borrow_and_update(), now);
        let at = self.shared.clock.now();
        let mut inputs = Vec::new();
        let rested = self.listed.is_none_or(|listed| now.duration_since(listed) >= REST);
        if rested {
            self.listed = Some(now);
        }
        for envoy in &self.envoys {
            let origins: Vec<&Origin> =
                logs.connected.iter().filter(|origin| envoy.is(&origin.node)).collect();
            if origins.is_empty() && !(envoy.connected)() {
                continue;
            }
            let servers: Vec<ServerId> = envoy.servers.iter().map(|server| server.id.clone()).collect();
            inputs.push(Input::Endpoints { proxy: envoy.proxy, at, shown: envoy.drained.shown(&servers) });
            let wanted = self.shared.snapshot.borrow().watch.sweep.contains(&envoy.proxy)
                || self.incomplete.contains(&envoy.proxy);
            if !rested || origins.is_empty() || !wanted {
                continue;
            }
            // The list of one Envoy is complete for its ports. Sessions that another has not reported yet are
            // unknown, and kept, until a complete list has them.
            let mut all = Vec::new();
            let mut complete = 0;
            for origin in &origins {
                let swept = logs.table.sweep(origin, now);
                complete += usize::from(swept.is_some());
                all.extend(swept.unwrap_or_else(|| logs.table.certain(origin, now)));
            }
            if complete < origins.len() {
                self.incomplete.insert(envoy.proxy);
            } else {
                self.incomplete.remove(&envoy.proxy);
            }
            let (proxy, known) = (envoy.proxy, &logs.known);
            let sessions =
                all.into_iter().filter_map(|session| proxy_session(known, envoy, session)).collect();
            inputs.push(if complete > 0 {
                Input::Swept { proxy, at, sessions }
            } else {
                Input::Incomplete { proxy, at, sessions }
            });
        }
        for input in inputs {
            self.shared.send(input).await;
        }
    }
}

/// The subject of a peer whose entries are skipped.
fn skipping(origin: &Origin) -> String {
    format!("skipped {} {}", origin.peer, origin.node)
}

/// Where an entry's session belongs, as far as it is known.
fn place<'a>(known: &SessionAddresses, envoy: &'a Config, entry: &'a Entry) -> Place<'a> {
    let cluster = entry.cluster.as_deref();
    let server = cluster.zip(entry.peer).and_then(|(name, peer)| known.server(&envoy.servers, name, peer));
    let instance = |server: &ServerId| envoy.servers.iter().find(|one| one.id == *server);
    Place {
        proxy: &envoy.name,
        label: label(&envoy.servers, cluster),
        database: cluster.and_then(|cluster| database(&envoy.servers, cluster)),
        instance: server.and_then(instance).map(|one| one.instance.clone()),
    }
}

/// The session for the ledger, if its server is known.
fn proxy_session(known: &SessionAddresses, envoy: &Config, session: Session) -> Option<ProxySession> {
    let server = known.server(&envoy.servers, &session.cluster, session.peer)?.clone();
    Some(ProxySession {
        key: ProxySessionKey::Envoy(session.id),
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
    use std::sync::Arc;

    use agent_core::{InstanceId, health::WantedRole, plan::Policy};
    use envoy::access_log::Flags;
    use tokio::{sync::Mutex, time::timeout};

    use super::*;
    use crate::{clock::Clock, metrics::Format, snapshot::Snapshot};

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

    /// The next input of this kind that the decider receives within a minute, if any.
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

    /// The first incomplete list of sessions.
    async fn glimpsed(inputs: &mut mpsc::Receiver<Input>) -> Vec<ProxySession> {
        loop {
            match inputs.recv().await {
                Some(Input::Incomplete { sessions, .. }) if !sessions.is_empty() => return sessions,
                Some(Input::Swept { .. }) | None => panic!("they are not all"),
                Some(_) => {}
            }
        }
    }

    /// What the tasks of one configured Envoy are started with, and what they tell.
    struct Scene {
        shared: Shared,
        inputs: mpsc::Receiver<Input>,
        reports: mpsc::Sender<Report>,
        logs: Arc<Mutex<AccessLogs>>,
        addresses: watch::Receiver<Addresses>,
        flush: watch::Receiver<Duration>,
        _published: (watch::Sender<Arc<Snapshot>>, watch::Sender<Addresses>, watch::Sender<Duration>),
    }

    impl Scene {
        fn new() -> Self {
            let clock = Clock::start();
            let (decider, inputs) = mpsc::channel(64);
            let mut first = Snapshot::empty(clock.now());
            first.watch.sweep.insert(ProxyIndex(0));
            let (publish, snapshot) = watch::channel(Arc::new(first));
            let shared = Shared::new(clock, Arc::default(), &Policy::default(), snapshot, decider);
            let instance = InstanceId::new("orders", "a");
            let (found, addresses) =
                watch::channel(Addresses::from([(instance, vec![([10, 0, 0, 3], 5_432).into()])]));
            let (longest, flush) = watch::channel(Duration::from_secs(10));
            let (reports, receiver) = mpsc::channel(8);
            let logs = Arc::new(Mutex::new(AccessLogs::new(receiver)));
            let kept = (publish, found, longest);
            Self { shared, inputs, reports, logs, addresses, flush, _published: kept }
        }

        async fn start(&self) -> tokio::task::JoinHandle<()> {
            let config = Config {
                proxy: ProxyIndex(0),
                name: "envoy:*".into(),
                node: None,
                servers: vec![ServerConfig {
                    id: ServerId::new(ProxyIndex(0), "w", "a"),
                    instance: InstanceId::new("orders", "a"),
                    wanted: WantedRole::Writer,
                    commandable: false,
                }],
                drained: Drained::default(),
                connected: Box::new(|| false),
            };
            let logs = self.logs.clone().lock_owned().await;
            let (flush, addresses) = (self.flush.clone(), self.addresses.clone());
            tokio::spawn(run(vec![config], flush, logs, addresses, Ends::default(), self.shared.clone()))
        }
    }

    fn envoy(node: &str) -> Origin {
        Origin { node: node.into(), peer: "unix:1".into() }
    }

    fn opened(node: &str) -> Report {
        Report::Opened { origin: envoy(node), at: Instant::now() }
    }

    fn closed(node: &str) -> Report {
        Report::Closed { origin: envoy(node), at: Instant::now(), left: 0 }
    }

    fn entries(node: &str, events: Vec<Entry>) -> Report {
        Report::Said { origin: envoy(node), at: Instant::now(), events, skipped: 0 }
    }

    #[tokio::test(start_paused = true)]
    async fn a_complete_list_is_sent_and_sessions_stay_known_over_a_reload() {
        let key = ProxySessionKey::Envoy("session".into());
        let mut scene = Scene::new();
        let task = scene.start().await;
        scene.reports.send(opened("envoy-1")).await.unwrap();
        let began = Instant::now();
        scene.reports.send(entries("envoy-1", vec![entry()])).await.unwrap();
        let some = glimpsed(&mut scene.inputs).await;
        assert_eq!((some.len(), &some[0].key), (1, &key), "those that are known need not wait");
        assert!(began.elapsed() <= Duration::from_secs(2), "{:?}", began.elapsed());
        let reports = scene.reports.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(10)).await;
            reports.send(entries("envoy-1", vec![entry()])).await.unwrap();
        });
        let sessions = swept(&mut scene.inputs).await.unwrap();
        assert!(began.elapsed() >= Duration::from_secs(10), "others might be missing");
        assert_eq!(sessions.len(), 1);
        assert_eq!(sessions[0].server, ServerId::new(ProxyIndex(0), "w", "a"));
        assert_eq!(sessions[0].key, key);

        task.abort();
        let _ = task.await;
        while scene.inputs.try_recv().is_ok() {}
        let task = scene.start().await;
        let reloaded = Instant::now();
        assert_eq!(swept(&mut scene.inputs).await.unwrap().len(), 1);
        assert!(reloaded.elapsed() <= Duration::from_secs(2), "{:?}", reloaded.elapsed());

        scene.reports.send(closed("envoy-1")).await.unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        while scene.inputs.try_recv().is_ok() {}
        assert_eq!(
            swept(&mut scene.inputs).await,
            None,
            "the sessions of a disconnected Envoy are not listed"
        );
        task.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_breaks_off_again_and_again_keeps_nobody_waiting_for_the_others_sessions() {
        let mut scene = Scene::new();
        let task = scene.start().await;
        scene.reports.send(opened("honest")).await.unwrap();
        let reports = scene.reports.clone();
        let flapping = tokio::spawn(async move {
            loop {
                reports.send(entries("honest", vec![entry()])).await.unwrap();
                reports.send(opened("flapping")).await.unwrap();
                tokio::time::sleep(Duration::from_secs(10)).await;
                reports.send(closed("flapping")).await.unwrap();
            }
        });
        for _ in 0..60 {
            let sessions = swept(&mut scene.inputs).await.expect("they are listed");
            assert_eq!(sessions.len(), 1);
        }
        flapping.abort();
        task.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn ten_thousand_clusters_and_nodes_of_a_peers_own_choice_name_no_series() {
        let mut scene = Scene::new();
        let task = scene.start().await;
        let mut lines = BTreeSet::new();
        for number in 0..10_000 {
            let node = format!("node-{number}");
            let cluster = Some(format!("cluster-{number}").into());
            let id = format!("session-{number}").into();
            let flags = Flags::from_text("UH");
            let failed = Entry { kind: Kind::End, id, cluster, outgoing: None, flags, ..entry() };
            let listed =
                Report::Said { origin: envoy(&node), at: Instant::now(), events: vec![failed], skipped: 1 };
            for report in [opened(&node), listed, closed(&node)] {
                scene.reports.send(report).await.unwrap();
            }
            if number % 1_000 == 999 {
                // All reports are processed before the next round.
                while received_more(&mut scene.inputs) {}
                tokio::time::sleep(ROUND).await;
                lines.insert(scene.shared.metrics.text(Format::OpenMetrics).lines().count());
            }
        }
        assert_eq!(lines.len(), 1, "{lines:?}");
        let text = scene.shared.metrics.text(Format::OpenMetrics);
        let failed = r#"rdslb_session_failures_total{proxy="envoy:*",backend="other",server="other",phase="no_server",certainty="certain"} 10000"#;
        assert!(text.contains(failed), "{text}");
        assert!(text.contains(r#"rdslb_access_log_skipped_total{proxy="envoy:*"} 10000"#), "{text}");
        task.abort();
    }

    /// Whether the decider received anything more.
    fn received_more(inputs: &mut mpsc::Receiver<Input>) -> bool {
        inputs.try_recv().is_ok()
    }
}
