//! Endpoint discovery out of the test itself: what an agent serves, without the agent.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use envoy::eds::{Cluster, Endpoint, Event, Health, Snapshot, serve};
use integration_tests::{process::wait_for, standin::StandIn};
use tokio::{net::TcpSocket, sync::watch};
use tokio_util::task::AbortOnDropHandle;

use crate::lab::PATIENCE;

/// Serves while it exists.
pub struct Discovery {
    pub address: SocketAddr,
    snapshots: watch::Sender<Snapshot>,
    events: Arc<Mutex<Vec<Event>>>,
    _server: AbortOnDropHandle<()>,
}

impl Discovery {
    pub fn serving(snapshot: Snapshot) -> Self {
        Self::at((Ipv4Addr::LOCALHOST, 0).into(), snapshot)
    }

    /// On the address of one that is gone.
    pub fn at(address: SocketAddr, snapshot: Snapshot) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        // Connections of the one before may not have ended for the kernel.
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        let listener = socket.listen(64).unwrap();
        let address = listener.local_addr().unwrap();
        let (snapshots, watched) = watch::channel(snapshot);
        let events = Arc::new(Mutex::new(Vec::new()));
        let into = events.clone();
        let report = Arc::new(move |event| into.lock().unwrap().push(event));
        let server = AbortOnDropHandle::new(tokio::spawn(serve(listener, watched, report)));
        Self { address, snapshots, events, _server: server }
    }

    pub fn say(&self, snapshot: Snapshot) {
        self.snapshots.send_replace(snapshot);
    }

    /// Waits until Envoy has taken what both clusters are said to be.
    pub async fn taken(&self, snapshot: &Snapshot) {
        wait_for("Envoy to take the endpoints", PATIENCE, async || {
            let events = self.events.lock().unwrap();
            let taken = |event: &&Event| matches!(event, Event::Accepted { version, .. } if *version == snapshot.version());
            if events.iter().any(|event| taken(&event)) { Ok(()) } else { Err(format!("{events:?}")) }
        })
        .await
        .unwrap();
    }
}

/// All instances in both clusters: this one is the writer, the others are readers.
pub fn writer_is(standin: &StandIn, writer: &str) -> Snapshot {
    roles(standin, |instance| {
        if instance == writer {
            [Health::Healthy, Health::Unhealthy]
        } else {
            [Health::Unhealthy, Health::Healthy]
        }
    })
}

/// All instances, with the health each has in `orders_write` and in `orders_read`.
pub fn roles(standin: &StandIn, health: impl Fn(&str) -> [Health; 2]) -> Snapshot {
    let cluster = |name: &str, role: usize| {
        let endpoints = standin.servers().iter().map(|server| Endpoint {
            name: server.name().to_owned(),
            addresses: vec![server.connect()],
            health: health(server.name())[role],
        });
        Cluster { name: name.to_owned(), endpoints: Some(endpoints.collect()) }
    };
    Snapshot::new([cluster("orders_write", 0), cluster("orders_read", 1)])
}

/// What an agent says that knows nothing yet.
pub fn nothing_known() -> Snapshot {
    let cluster = |name: &str| Cluster { name: name.to_owned(), endpoints: None };
    Snapshot::new([cluster("orders_write"), cluster("orders_read")])
}
