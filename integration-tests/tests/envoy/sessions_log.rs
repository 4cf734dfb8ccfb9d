//! The file log of the shipped configuration: what an agent reads that was away.

use std::fs;

use integration_tests::{envoy::EnvoyConfig, process::wait_for};
use serde_json::Value;

use crate::{
    agent::{Discovery, writer_is},
    client::Client,
    lab::{Lab, PATIENCE},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_session_is_in_the_file_when_it_has_a_server_and_when_it_ends() {
    let lab = Lab::set_up().await;
    let agent = Discovery::serving(writer_is(&lab.standin, "b"));
    let envoy = lab.envoy(EnvoyConfig::shipped().unwrap().agent(agent.address)).await;
    let client = Client::login(&lab.standin, envoy.address("write")).await.unwrap();
    drop(client);
    let lines = wait_for("both lines of the session", PATIENCE, async || {
        let text = fs::read_to_string(envoy.sessions_log()).unwrap_or_default();
        let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        if lines.len() == 2 { Ok(lines) } else { Err(text) }
    })
    .await
    .unwrap();
    let kinds: Vec<&str> = lines.iter().filter_map(|line| line["type"].as_str()).collect();
    assert_eq!(kinds, ["TcpUpstreamConnected", "TcpConnectionEnd"]);
    assert_eq!(lines[0]["sid"], lines[1]["sid"]);
    let b = lab.standin.server("b").unwrap().connect().to_string();
    for line in &lines {
        assert_eq!(line["uh"], b, "{line}");
        assert_eq!(line["cluster"], "writer", "{line}");
    }
    drop(envoy);
    lab.tear_down().await;
}
