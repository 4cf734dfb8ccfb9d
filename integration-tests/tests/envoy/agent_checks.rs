//! The agent's own answers to the real Envoy's health checks, over HTTP and gRPC.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use envoy::{
    eds::{Health, Snapshot},
    serve::{Limits, serve},
};
use integration_tests::{envoy::EnvoyConfig, process::free_port};
use rds_lb_agent::{
    clock::Clock,
    serve::{
        checks::{Answers, Checked, Endpoint, router},
        xds::{Envoys, Told},
    },
};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    client::{instances_of_new_sessions, new_sessions_reach},
    lab::{Lab, PATIENCE},
};

/// Both listeners of an agent whose verdicts are given by the test.
struct Agent {
    envoys: Envoys,
    http: SocketAddr,
    grpc: SocketAddr,
    _tasks: [AbortOnDropHandle<()>; 2],
}

impl Agent {
    async fn start() -> Self {
        let envoys = Envoys::default();
        let clock = Clock::start();
        let answers = Answers::new(&envoys, clock, Arc::new(move || clock.now()));
        let http = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let grpc = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addresses = (http.local_addr().unwrap(), grpc.local_addr().unwrap());
        let web = router(answers.clone());
        let tasks = [
            tokio::spawn(async move { axum::serve(http, web).await.unwrap() }),
            tokio::spawn(serve(grpc, envoys.services(answers), Limits::default())),
        ];
        Self { envoys, http: addresses.0, grpc: addresses.1, _tasks: tasks.map(AbortOnDropHandle::new) }
    }

    /// The health of `a`, `b`, `c` in `orders_write` and in `orders_read`.
    fn says(&self, write: [Option<Health>; 3], read: [Option<Health>; 3]) {
        let endpoints = |health: [Option<Health>; 3]| -> Vec<Endpoint> {
            let named = ["a", "b", "c"].into_iter().zip(health);
            named.map(|(name, health)| Endpoint { name: name.into(), addresses: vec![], health }).collect()
        };
        let checked = [("orders_write", endpoints(write)), ("orders_read", endpoints(read))];
        self.envoys.publish(vec![Told {
            proxy: "envoy:*".into(),
            node: None,
            endpoints: Snapshot::default(),
            undrained: Snapshot::default(),
            checked: checked.into_iter().map(|(name, them)| (name.to_owned(), them)).collect::<Checked>(),
        }]);
    }
}

const UP: Option<Health> = Some(Health::Healthy);
const DRAIN: Option<Health> = Some(Health::Draining);
const DOWN: Option<Health> = Some(Health::Unhealthy);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http_one_answer_is_enough_and_a_drained_endpoint_comes_after_dns() {
    let lab = Lab::set_up().await;
    let agent = Agent::start().await;
    agent.says([UP, DOWN, DOWN], [DOWN, DRAIN, UP]);
    let envoy = lab.envoy(config(&lab, agent.http)).await;
    let (write, read) = (envoy.address("write"), envoy.address("read"));
    new_sessions_reach(&lab.standin, write, "a", PATIENCE).await;
    new_sessions_reach(&lab.standin, read, "c", PATIENCE).await;
    assert_eq!(instances_of_new_sessions(&lab.standin, read, 20).await, ["c"], "not to the drained one");

    agent.says([DOWN, UP, DOWN], [DOWN, DRAIN, DOWN]);
    let took = new_sessions_reach(&lab.standin, write, "b", PATIENCE).await;
    println!("over HTTP, the first new session on the new writer {took:.2?} after the verdict changed");
    // One interval with its jitter: the threshold of two failures is not waited for.
    assert!(took < Duration::from_secs(2), "{took:?}");
    // By DNS: a degraded endpoint comes after every healthy one, those to fall back to included.
    new_sessions_reach(&lab.standin, read, "c", PATIENCE).await;
    assert_eq!(instances_of_new_sessions(&lab.standin, read, 10).await, ["c"]);
    drop(envoy);
    lab.tear_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_grpc_new_sessions_follow_the_verdicts_as_well() {
    let lab = Lab::set_up().await;
    let agent = Agent::start().await;
    agent.says([UP, DOWN, DOWN], [DOWN, UP, UP]);
    let http2 = json!({
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}}
        }
    });
    let checks = json!([{
        "interval": "1s", "timeout": "1s", "unhealthy_threshold": 2, "healthy_threshold": 1,
        "no_traffic_interval": "1s", "grpc_health_check": {"service_name": "orders_write"}
    }]);
    let config = config(&lab, agent.grpc)
        .set("orders_write", "/typed_extension_protocol_options", http2)
        .set("orders_write", "/health_checks", checks);
    let envoy = lab.envoy(config).await;
    let write = envoy.address("write");
    new_sessions_reach(&lab.standin, write, "a", PATIENCE).await;
    assert_eq!(instances_of_new_sessions(&lab.standin, write, 20).await, ["a"]);
    agent.says([DOWN, UP, DOWN], [UP, DOWN, UP]);
    let took = new_sessions_reach(&lab.standin, write, "b", PATIENCE).await;
    println!("over gRPC, the first new session on the new writer {took:.2?} after the verdict changed");
    drop(envoy);
    lab.tear_down().await;
}

fn config(lab: &Lab, checks: SocketAddr) -> EnvoyConfig {
    // Where no check in `orders_write` ever sends anybody.
    lab.names.answer(lab.ip("c"));
    let nobody = (Ipv4Addr::LOCALHOST, free_port().unwrap()).into();
    EnvoyConfig::static_checks()
        .unwrap()
        .agent(nobody)
        .health_checks_at(checks)
        .addresses("orders_write", &lab.addresses())
        .addresses("orders_read", &lab.addresses())
}
