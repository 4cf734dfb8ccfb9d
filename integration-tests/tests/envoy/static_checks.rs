//! Endpoints in Envoy's file, health checks answered by the agent, DNS while there are no answers.

use std::{net::Ipv4Addr, time::Instant};

use integration_tests::{
    envoy::EnvoyConfig,
    process::{free_port, wait_for},
};

use crate::{
    client::{Client, new_sessions_reach, new_sessions_settle},
    lab::{Lab, PATIENCE},
    responder::Responder,
};

const WRITER_A: [&str; 3] = ["orders_write/a", "orders_read/b", "orders_read/c"];
const WRITER_B: [&str; 3] = ["orders_write/b", "orders_read/a", "orders_read/c"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_follow_the_checks_and_then_dns() {
    let lab = Lab::set_up().await;
    let responder = Responder::start(&WRITER_A).await;
    let envoy = lab.envoy(config(&lab, responder.address)).await;
    let write = envoy.address("write");
    // An address that no instance has by checks: what goes there went by DNS.
    lab.names.answer(lab.ip("c"));

    new_sessions_reach(&lab.standin, write, "a", PATIENCE).await;
    new_sessions_settle(&lab.standin, write, 30, &["a"]).await;
    new_sessions_settle(&lab.standin, envoy.address("read"), 30, &["b", "c"]).await;

    let held = Client::login(&lab.standin, write).await.unwrap();
    responder.answer(&WRITER_B);
    let took = new_sessions_reach(&lab.standin, write, "b", PATIENCE).await;
    println!("the first new session on the new writer {took:.2?} after the answer changed");
    wait_for("the old writer to fail its check", PATIENCE, async || {
        let hosts = envoy.hosts("orders_write").await.map_err(|error| error.to_string())?;
        if hosts[0].check_fails && !hosts[1].check_fails { Ok(()) } else { Err(format!("{hosts:?}")) }
    })
    .await
    .unwrap();
    new_sessions_settle(&lab.standin, write, 30, &["b"]).await;
    assert!(held.works().await, "a failed check closes nothing");

    // No more answers.
    drop(responder);
    let took = new_sessions_reach(&lab.standin, write, "c", PATIENCE).await;
    println!("by DNS {took:.2?} after the end of the answers");
    new_sessions_settle(&lab.standin, write, 10, &["c"]).await;
    assert!(held.works().await, "an agent that died closes nothing");
    drop(envoy);
    lab.tear_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_envoy_whose_checks_were_never_answered_routes_by_dns() {
    let lab = Lab::set_up().await;
    let unused = (Ipv4Addr::LOCALHOST, free_port().unwrap()).into();
    let began = Instant::now();
    let envoy = lab.envoy(config(&lab, unused)).await;
    println!("ready {:.1?} after the start", began.elapsed());
    let took = new_sessions_reach(&lab.standin, envoy.address("write"), "a", PATIENCE).await;
    println!("by DNS {took:.2?} after that");
    drop(envoy);
    lab.tear_down().await;
}

fn config(lab: &Lab, agent: std::net::SocketAddr) -> EnvoyConfig {
    let unused = (Ipv4Addr::LOCALHOST, free_port().unwrap()).into();
    EnvoyConfig::static_checks()
        .unwrap()
        .agent(unused)
        .health_checks_at(agent)
        .addresses("orders_write", &lab.addresses())
        .addresses("orders_read", &lab.addresses())
}
