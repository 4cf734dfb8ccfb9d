//! What clients get while the agent has nothing to say: RDS's cluster endpoint, by DNS.

use std::{net::Ipv4Addr, time::Instant};

use integration_tests::{
    envoy::EnvoyConfig,
    process::{free_port, wait_for},
};

use crate::{
    agent::{Discovery, nothing_known, writer_is},
    client::{Client, instances_of_new_sessions, new_sessions_reach},
    lab::{Lab, PATIENCE},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_envoy_without_an_agent_serves_by_the_cluster_endpoint() {
    let lab = Lab::set_up().await;
    let unused = (Ipv4Addr::LOCALHOST, free_port().unwrap()).into();
    let began = Instant::now();
    let envoy = lab.envoy(EnvoyConfig::shipped().unwrap().agent(unused)).await;
    println!("ready {:.1?} after the start, without an agent", began.elapsed());

    let write = envoy.address("write");
    assert_eq!(instances_of_new_sessions(&lab.standin, write, 5).await, ["a"]);
    assert_eq!(instances_of_new_sessions(&lab.standin, envoy.address("read"), 5).await, ["a"]);

    // DNS is followed, and sessions stay where they are.
    let held = Client::login(&lab.standin, write).await.unwrap();
    lab.names.answer(lab.ip("b"));
    let took = new_sessions_reach(&lab.standin, write, "b", PATIENCE).await;
    println!("new sessions follow a change of DNS after {took:.1?}");
    assert!(held.works().await);
    drop(envoy);
    lab.tear_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_knows_nothing_leaves_new_sessions_to_the_cluster_endpoint() {
    let lab = Lab::set_up().await;
    lab.names.answer(lab.ip("c"));
    let agent = Discovery::serving(nothing_known());
    let envoy = lab.envoy(EnvoyConfig::shipped().unwrap().agent(agent.address)).await;
    let (write, read) = (envoy.address("write"), envoy.address("read"));
    wait_for("Envoy at the agent", PATIENCE, async || {
        match envoy.stat("cluster.agent.upstream_rq_active").await {
            Ok(2) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap();
    assert_eq!(instances_of_new_sessions(&lab.standin, write, 10).await, ["c"]);
    assert_eq!(instances_of_new_sessions(&lab.standin, read, 10).await, ["c"]);

    let held = Client::login(&lab.standin, write).await.unwrap();
    agent.say(writer_is(&lab.standin, "a"));
    new_sessions_reach(&lab.standin, write, "a", PATIENCE).await;
    assert_eq!(instances_of_new_sessions(&lab.standin, write, 10).await, ["a"]);
    assert!(held.works().await);
    drop(envoy);
    lab.tear_down().await;
}
