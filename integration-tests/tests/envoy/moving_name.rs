//! An instance whose name moves: endpoint discovery takes no names, so the agent follows them.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use envoy::{
    eds::{Cluster, Endpoint, Health, Snapshot},
    resolve::{News, Resolver, Target, resolve},
};
use integration_tests::envoy::EnvoyConfig;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    agent::Discovery,
    client::{Client, instances_of_new_sessions, new_sessions_reach},
    lab::{Lab, PATIENCE},
};

/// Where the name leads now.
#[derive(Clone)]
struct Name(Arc<Mutex<SocketAddr>>);

impl Resolver for Name {
    async fn lookup(&self, _: &Target) -> io::Result<Vec<SocketAddr>> {
        Ok(vec![*self.0.lock().unwrap()])
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_sessions_follow_a_name_that_moves_and_the_old_stay() {
    let lab = Lab::set_up().await;
    let address = |instance: &str| lab.standin.server(instance).unwrap().connect();
    let name = Name(Arc::new(Mutex::new(address("a"))));
    let (found, mut addresses) = watch::channel(BTreeMap::new());
    let of = name.clone();
    let _resolving = AbortOnDropHandle::new(tokio::spawn(async move {
        let target = Target { host: "writer.example".into(), port: 5_432 };
        resolve(&BTreeMap::from([("w", target)]), &of, &found, |_: News<'_, &str>| ()).await;
    }));
    let endpoints = |addresses: &BTreeMap<&str, Vec<SocketAddr>>| {
        let endpoint = Endpoint {
            name: "w".into(),
            addresses: addresses.get("w").cloned().unwrap_or_default(),
            health: Health::Healthy,
        };
        Snapshot::new([Cluster { name: "orders_write".into(), endpoints: Some(vec![endpoint]) }])
    };
    addresses.changed().await.unwrap();
    let agent = Discovery::serving(endpoints(&addresses.borrow_and_update()));
    let envoy = lab.envoy(EnvoyConfig::shipped().unwrap().agent(agent.address)).await;
    let write = envoy.address("write");
    let held = Client::login(&lab.standin, write).await.unwrap();
    assert_eq!(held.instance, "a");

    *name.0.lock().unwrap() = address("b");
    addresses.changed().await.unwrap();
    agent.say(endpoints(&addresses.borrow_and_update()));
    new_sessions_reach(&lab.standin, write, "b", PATIENCE).await;
    assert_eq!(instances_of_new_sessions(&lab.standin, write, 10).await, ["b"]);
    assert!(held.works().await);
    drop(envoy);
    lab.tear_down().await;
}
