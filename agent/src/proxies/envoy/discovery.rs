//! What Envoys call: endpoint discovery, access logs and health by gRPC, on one listener.
//!
//! It outlives reloads, as all listeners do: the tasks of each configuration publish what
//! there is to say, and Envoys stay connected meanwhile.

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use agent_core::Time;
use envoy::{
    access_log::{self, Gate, Intake},
    eds::{self, Bounds, Peer},
    health::Checks,
    serve::{Routes, RoutesBuilder},
};
use tokio::{
    sync::{Mutex, OwnedMutexGuard, mpsc, watch},
    time::{Instant, timeout},
};

use super::{
    access_log::AccessLogs,
    checks::Answers,
    published::{Endpoints, Published},
};
use crate::{
    events::{
        AccessLogRefused, EndpointsRefused, EndpointsRejected, EndpointsTaken, EnvoyConnected, EnvoyLeft,
        Event,
    },
    metrics::Metrics,
};

/// Reports of access logs that may wait for the task that reads them; each has 512 entries at most,
/// some 400 kB if they are made to be large.
const REPORTS: usize = 32;

/// How long Envoys have to take the last endpoints of an agent that stops.
const LAST_WORD: Duration = Duration::from_secs(1);

/// All Envoys: their published state, and which are connected. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Envoys {
    endpoints: watch::Sender<Endpoints>,
    /// When the decision was made that the published state is by.
    decided: watch::Sender<Time>,
    /// Notified when either of the two above changes.
    changed: watch::Sender<()>,
    server: eds::Server<Endpoints>,
    /// One for all listeners: it counts the streams of each Envoy.
    log: access_log::Server,
    /// One task reads at a time: that of the configuration in force.
    access_logs: Arc<Mutex<AccessLogs>>,
}

/// Accepts access logs only from Envoys that receive endpoints.
struct Configured {
    endpoints: watch::Receiver<Endpoints>,
    metrics: Arc<Metrics>,
}

impl Gate for Configured {
    fn knows(&self, node: &str) -> bool {
        self.endpoints.borrow().of(node).is_some()
    }

    fn refused(&self, address: &str, why: &str) {
        AccessLogRefused { address, why }.emit(&self.metrics);
    }
}

// === impl Envoys ===

impl Envoys {
    /// Nothing is published yet.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        let endpoints = watch::Sender::new(Endpoints::default());
        let of = endpoints.subscribe();
        let counted = metrics.clone();
        let report = Arc::new(move |event| report_event(&event, &of, &counted));
        let server = eds::Server::new(endpoints.subscribe(), report, Bounds::default());
        let (sender, reports) = mpsc::channel(REPORTS);
        let configured = Configured { endpoints: endpoints.subscribe(), metrics };
        Self {
            endpoints,
            decided: watch::Sender::new(Time::AGENT_START),
            changed: watch::Sender::new(()),
            server,
            log: access_log::service(Intake::new(sender, configured, access_log::Bounds::default())),
            access_logs: Arc::new(Mutex::new(AccessLogs::new(reports))),
        }
    }

    /// Publishes this state to Envoys.
    pub fn publish(&self, endpoints: Vec<Published>) {
        self.endpoints.send_replace(Endpoints(Arc::new(endpoints)));
        self.changed.send_replace(());
    }

    /// The published state holds by a decision of this time. Called after [`Envoys::publish`]: a newer time beside
    /// an older state would make what was true before a pause of the process look fresh.
    pub fn set_decided(&self, at: Time) {
        self.decided.send_replace(at);
        self.changed.send_replace(());
    }

    /// When the decision was made that the published state is by.
    pub fn decided(&self) -> Time {
        *self.decided.borrow()
    }

    /// Waits until a decision of this time or a later one is published, for a second at most: no task
    /// publishes where no Envoy is configured.
    pub async fn published_since(&self, at: Time) {
        let mut decided = self.decided.subscribe();
        let published = decided.wait_for(|decided| *decided >= at);
        if !self.endpoints.borrow().0.is_empty() {
            let _ = timeout(LAST_WORD, published).await;
        }
    }

    /// Takes back the agent's own drains, since nothing else would: an Envoy keeps the last
    /// endpoints it was sent. Returns when all Envoys have taken that, or after a second.
    pub async fn take_back(&self) {
        let undrained = self.endpoints.borrow().undrained();
        let versions: BTreeSet<String> =
            undrained.0.iter().map(|published| published.endpoints.version().to_owned()).collect();
        self.endpoints.send_replace(undrained);
        self.changed.send_replace(());
        let taken = |peer: &Peer| {
            peer.accepted
                .as_ref()
                .is_none_or(|version| peer.waiting_s.is_none() && versions.contains(version))
        };
        let until = Instant::now() + LAST_WORD;
        while Instant::now() < until && !self.peers().iter().all(taken) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn published(&self) -> watch::Receiver<Endpoints> {
        self.endpoints.subscribe()
    }

    /// Changes whenever the published state may have changed.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// What access logs tell, once the task of the former configuration has let go.
    pub async fn access_logs(&self) -> OwnedMutexGuard<AccessLogs> {
        self.access_logs.clone().lock_owned().await
    }

    /// The Envoys that are connected for endpoints.
    pub fn peers(&self) -> Vec<Peer> {
        self.server.peers().list()
    }

    /// Whether an Envoy with this `node.id`, or any, takes endpoints now: has asked for some.
    pub fn connected(&self, node: Option<&str>) -> bool {
        let asks = |peer: &Peer| peer.asked_all || !peer.asked.is_empty();
        self.peers().iter().any(|peer| asks(peer) && node.is_none_or(|node| peer.node == node))
    }

    /// All services, for a listener.
    pub fn services(&self, checks: Answers) -> Routes {
        let mut routes = RoutesBuilder::default();
        self.server.add_to(&mut routes);
        routes.add_service(self.log.clone());
        Checks::new(Arc::new(checks)).add_to(&mut routes);
        routes.routes()
    }
}

impl Default for Envoys {
    fn default() -> Self {
        Self::new(Arc::default())
    }
}

impl fmt::Debug for Envoys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envoys").finish_non_exhaustive()
    }
}

fn report_event(event: &eds::Event, endpoints: &watch::Receiver<Endpoints>, metrics: &Metrics) {
    let proxy = |node: &str| endpoints.borrow().proxy_of(node);
    match event {
        eds::Event::Connected { node, address, protocol } => {
            EnvoyConnected { proxy: &proxy(node), node, address, protocol: *protocol }.emit(metrics);
        }
        eds::Event::Accepted { node, version, after } => {
            EndpointsTaken { proxy: &proxy(node), node, version, after: *after }.emit(metrics);
        }
        eds::Event::Rejected { node, rejected } => {
            EndpointsRejected { proxy: &proxy(node), node, rejected }.emit(metrics);
        }
        eds::Event::Left { node, address } => EnvoyLeft { node, address }.emit(metrics),
        eds::Event::Refused { address, why } => EndpointsRefused { address, why }.emit(metrics),
    }
}
