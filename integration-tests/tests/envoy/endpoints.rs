//! Which instance new sessions reach, as endpoint discovery says it: with the shipped settings,
//! and with one instance of three that is healthy.

use envoy::eds::{Cluster, Endpoint, Health, Snapshot};
use integration_tests::{envoy::EnvoyConfig, process::wait_for};

use crate::{
    agent::{Discovery, roles, writer_is},
    client::{Client, instances_of_new_sessions, new_sessions_reach},
    lab::{Lab, PATIENCE},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_change_moves_new_sessions_and_leaves_the_old() {
    let lab = Lab::set_up().await;
    for (api_type, aggregated) in
        [("GRPC", false), ("DELTA_GRPC", false), ("GRPC", true), ("DELTA_GRPC", true)]
    {
        // What goes to `c` as a writer went there by DNS.
        lab.names.answer(lab.ip("c"));
        let agent = Discovery::serving(writer_is(&lab.standin, "a"));
        let config = EnvoyConfig::shipped().unwrap().discovery(api_type, aggregated).agent(agent.address);
        let envoy = lab.envoy(config).await;
        let (write, read) = (envoy.address("write"), envoy.address("read"));
        assert_eq!(instances_of_new_sessions(&lab.standin, write, 20).await, ["a"]);
        assert_eq!(instances_of_new_sessions(&lab.standin, read, 20).await, ["b", "c"]);

        let held = Client::login(&lab.standin, write).await.unwrap();
        agent.say(writer_is(&lab.standin, "b"));
        let took = new_sessions_reach(&lab.standin, write, "b", PATIENCE).await;
        println!("{api_type} aggregated={aggregated}: the first login on the new writer after {took:.1?}");
        assert_eq!(instances_of_new_sessions(&lab.standin, write, 20).await, ["b"]);
        assert_eq!(instances_of_new_sessions(&lab.standin, read, 20).await, ["a", "c"]);
        assert!(held.works().await);
    }
    lab.tear_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_health_that_is_not_healthy_stops_new_sessions_and_closes_none() {
    let lab = Lab::set_up().await;
    lab.names.answer(lab.ip("a"));
    let only = |left: &'static str, others: Health| {
        roles(&lab.standin, move |instance| [if instance == left { Health::Healthy } else { others }; 2])
    };
    let agent = Discovery::serving(only("a", Health::Healthy));
    let envoy = lab.envoy(EnvoyConfig::shipped().unwrap().agent(agent.address)).await;
    let write = envoy.address("write");
    assert_eq!(instances_of_new_sessions(&lab.standin, write, 40).await, ["a", "b", "c"]);
    let mut held = Vec::new();
    for _ in 0..6 {
        held.push(Client::login(&lab.standin, write).await.unwrap());
    }

    // Two of three, then all of them: by DNS, to `a`.
    for (others, left) in [(Health::Draining, "b"), (Health::Unhealthy, "c"), (Health::Degraded, "b")] {
        let snapshot = only(left, others);
        agent.say(snapshot.clone());
        agent.taken(&snapshot).await;
        new_sessions_reach(&lab.standin, write, left, PATIENCE).await;
        assert_eq!(instances_of_new_sessions(&lab.standin, write, 40).await, [left], "{others:?}");
    }
    for health in [Health::Draining, Health::Unhealthy] {
        agent.say(only("nobody", health));
        new_sessions_reach(&lab.standin, write, "a", PATIENCE).await;
        assert_eq!(instances_of_new_sessions(&lab.standin, write, 20).await, ["a"], "{health:?}");
    }
    for client in &held {
        assert!(client.works().await);
    }
    drop(envoy);
    lab.tear_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_is_taken_away_keeps_its_sessions() {
    let lab = Lab::set_up().await;
    let agent = Discovery::serving(writer_is(&lab.standin, "a"));
    let envoy = lab.envoy(EnvoyConfig::shipped().unwrap().agent(agent.address)).await;
    let write = envoy.address("write");
    let held = Client::login(&lab.standin, write).await.unwrap();
    assert_eq!(held.instance, "a");

    let b = lab.standin.server("b").unwrap();
    let alone = Endpoint { name: "b".to_owned(), addresses: vec![b.connect()], health: Health::Healthy };
    agent.say(Snapshot::new([Cluster { name: "orders_write".to_owned(), endpoints: Some(vec![alone]) }]));
    new_sessions_reach(&lab.standin, write, "b", PATIENCE).await;
    wait_for("one endpoint", PATIENCE, async || {
        let hosts = envoy.hosts("orders_write").await.map_err(|error| error.to_string())?;
        if hosts.len() == 1 { Ok(()) } else { Err(format!("{hosts:?}")) }
    })
    .await
    .unwrap();
    assert!(held.works().await);
    drop(envoy);
    lab.tear_down().await;
}
