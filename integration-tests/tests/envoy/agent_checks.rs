//! The agent's own answers to the real Envoy's health checks, over HTTP and gRPC.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use agent_core::desired::{Check, EndpointHealth as Health, WhileUnknown};
use envoy::{
    eds::Snapshot,
    serve::{Limits, serve},
};
use integration_tests::{
    envoy::{Envoy, EnvoyConfig, Host},
    process::{free_port, wait_for},
};
use rds_lb_agent::{
    clock::Clock,
    proxies::envoy::{
        checks::{Answers, router},
        discovery::Envoys,
        published::{Checked, CheckedEndpoint, Published},
    },
};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    client::{instances_of_new_sessions, new_sessions_reach, new_sessions_settle},
    lab::{Lab, PATIENCE},
    responder::Responder,
};

/// Both listeners of an agent whose verdicts are given by the test.
struct Agent {
    envoys: Envoys,
    http: SocketAddr,
    grpc: SocketAddr,
    /// Of `a`, `b`, `c`.
    instances: Vec<SocketAddr>,
    _tasks: [AbortOnDropHandle<()>; 2],
}

impl Agent {
    async fn start(lab: &Lab) -> Self {
        let envoys = Envoys::default();
        let clock = Clock::start();
        let answers =
            Answers::new(envoys.published(), envoys.changes(), clock, Arc::new(move || clock.now()));
        let http = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let grpc = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addresses = (http.local_addr().unwrap(), grpc.local_addr().unwrap());
        let web = router(answers.clone());
        let tasks = [
            tokio::spawn(async move { axum::serve(http, web).await.unwrap() }),
            tokio::spawn(serve(grpc, envoys.services(answers), Limits::default())),
        ];
        let (http, grpc) = addresses;
        Self { envoys, http, grpc, instances: lab.addresses(), _tasks: tasks.map(AbortOnDropHandle::new) }
    }

    /// The health of `a`, `b`, `c` in `orders_write` and in `orders_read`.
    fn says(&self, write: [Option<Health>; 3], read: [Option<Health>; 3]) {
        let endpoints = |health: [Option<Health>; 3], while_unknown| -> Vec<CheckedEndpoint> {
            let named = NAMES.into_iter().zip(&self.instances).zip(health);
            named
                .map(|((name, address), health)| CheckedEndpoint {
                    name: name.into(),
                    addresses: vec![address.to_string()],
                    check: Check { health, while_unknown },
                })
                .collect()
        };
        let checked = [
            ("orders_write", endpoints(write, WhileUnknown::Waits)),
            ("orders_read", endpoints(read, WhileUnknown::Passes)),
        ];
        self.envoys.publish(vec![Published {
            proxy: "envoy:*".into(),
            node: None,
            endpoints: Snapshot::default(),
            undrained: Snapshot::default(),
            checked: checked.into_iter().map(|(name, them)| (name.to_owned(), them)).collect::<Checked>(),
        }]);
    }
}

const NAMES: [&str; 3] = ["a", "b", "c"];
const UP: Option<Health> = Some(Health::Healthy);
const DRAIN: Option<Health> = Some(Health::Draining);
const DOWN: Option<Health> = Some(Health::Unhealthy);
const UNKNOWN: Option<Health> = None;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http_one_answer_is_enough_and_a_drained_endpoint_comes_after_dns() {
    let lab = Lab::set_up().await;
    let agent = Agent::start(&lab).await;
    agent.says([UP, DOWN, DOWN], [DOWN, DRAIN, UP]);
    let envoy = lab.envoy(config(&lab, agent.http)).await;
    let (write, read) = (envoy.address("write"), envoy.address("read"));
    new_sessions_reach(&lab.standin, write, "a", PATIENCE).await;
    new_sessions_reach(&lab.standin, read, "c", PATIENCE).await;
    new_sessions_settle(&lab.standin, read, 20, &["c"]).await;
    let drained = envoy.hosts("orders_read").await.unwrap().swap_remove(1);
    assert!(drained.degraded && !drained.check_fails, "a drain is no failure: {drained:?}");

    agent.says([DOWN, UP, DOWN], [DOWN, DRAIN, DOWN]);
    let took = new_sessions_reach(&lab.standin, write, "b", PATIENCE).await;
    println!("over HTTP, the first new session on the new writer {took:.2?} after the verdict changed");
    // One interval with its jitter: the threshold of two failures is not waited for.
    assert!(took < Duration::from_secs(2), "{took:?}");
    // By DNS: a degraded endpoint comes after every healthy one, those to fall back to included.
    new_sessions_reach(&lab.standin, read, "c", PATIENCE).await;
    new_sessions_settle(&lab.standin, read, 10, &["c"]).await;
    drop(envoy);
    lab.tear_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_grpc_new_sessions_follow_the_verdicts_as_well() {
    let lab = Lab::set_up().await;
    let agent = Agent::start(&lab).await;
    agent.says([UNKNOWN; 3], [DOWN, UP, UP]);
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
    unanswered(&envoy, 9).await;
    new_sessions_settle(&lab.standin, write, 10, &["c"]).await;
    agent.says([UP, DOWN, DOWN], [DOWN, UP, UP]);
    new_sessions_reach(&lab.standin, write, "a", PATIENCE).await;
    new_sessions_settle(&lab.standin, write, 20, &["a"]).await;
    agent.says([DOWN, UP, DOWN], [UP, DOWN, UP]);
    let took = new_sessions_reach(&lab.standin, write, "b", PATIENCE).await;
    println!("over gRPC, the first new session on the new writer {took:.2?} after the verdict changed");
    drop(envoy);
    lab.tear_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_writer_is_unknown_sessions_go_by_dns_and_readers_stay() {
    let lab = Lab::set_up().await;
    let agent = Agent::start(&lab).await;
    agent.says([UNKNOWN; 3], [UNKNOWN, DOWN, UNKNOWN]);
    let envoy = lab.envoy(config(&lab, agent.http)).await;
    let (write, read) = (envoy.address("write"), envoy.address("read"));
    unanswered(&envoy, 9).await;
    new_sessions_settle(&lab.standin, write, 20, &["c"]).await;
    new_sessions_reach(&lab.standin, read, "a", PATIENCE).await;
    new_sessions_settle(&lab.standin, read, 30, &["a", "c"]).await;

    // An Envoy that knew the writer keeps it for two checks, and one that did not takes it at once.
    agent.says([DOWN, UP, DOWN], [UP, DOWN, UP]);
    new_sessions_reach(&lab.standin, write, "b", PATIENCE).await;
    agent.says([UNKNOWN; 3], [UP, DOWN, UP]);
    new_sessions_reach(&lab.standin, write, "c", PATIENCE).await;
    new_sessions_settle(&lab.standin, write, 20, &["c"]).await;
    drop(envoy);
    lab.tear_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_names_the_endpoint_by_its_metadata_or_by_its_address() {
    let lab = Lab::set_up().await;
    let agent = Agent::start(&lab).await;
    for value in ["%UPSTREAM_METADATA(rdslb:endpoint)%", "%UPSTREAM_HOST%"] {
        agent.says([UP, DOWN, DOWN], [DOWN, UP, UP]);
        let mut config = config(&lab, agent.http).set(
            "orders_write",
            "/health_checks/0/http_health_check",
            json!({
                "path": "/envoy/orders_write",
                "request_headers_to_add": [{"header": {"key": "x-rdslb-endpoint", "value": value}}],
            }),
        );
        for (place, name) in NAMES.into_iter().enumerate() {
            let endpoint = format!("/load_assignment/endpoints/0/lb_endpoints/{place}");
            // The Host header says nothing.
            let hostname = format!("{endpoint}/endpoint/health_check_config/hostname");
            config = config.set("orders_write", &hostname, json!("orders.example"));
            let metadata = json!({"filter_metadata": {"rdslb": {"endpoint": name}}});
            config = config.set("orders_write", &format!("{endpoint}/metadata"), metadata);
        }
        let envoy = lab.envoy(config).await;
        let write = envoy.address("write");
        new_sessions_reach(&lab.standin, write, "a", PATIENCE).await;
        new_sessions_settle(&lab.standin, write, 20, &["a"]).await;
        agent.says([DOWN, UP, DOWN], [UP, DOWN, UP]);
        passes(&envoy, [false, true, false]).await;
        new_sessions_settle(&lab.standin, write, 20, &["b"]).await;
    }
    lab.tear_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_that_are_names_are_checked_alike() {
    let lab = Lab::set_up().await;
    for name in NAMES {
        lab.names.answer_for(name, lab.ip(name));
    }
    let agent = Agent::start(&lab).await;
    let port = lab.addresses()[0].port();
    // A LOGICAL_DNS cluster has one endpoint.
    for (kind, names) in [
        ("STRICT_DNS", &["a.instances.example", "b.instances.example", "c.instances.example"][..]),
        ("LOGICAL_DNS", &["a.instances.example"]),
    ] {
        agent.says([UP, DOWN, DOWN], [DOWN, UP, UP]);
        let config = config(&lab, agent.http)
            .set("orders_write", "/type", json!(kind))
            .set("orders_write", "/dns_lookup_family", json!("V4_PREFERRED"))
            .names("orders_write", names, port, lab.names.address);
        let envoy = lab.envoy(config).await;
        let write = envoy.address("write");
        new_sessions_reach(&lab.standin, write, "a", PATIENCE).await;
        new_sessions_settle(&lab.standin, write, 20, &["a"]).await;
        agent.says([DOWN, UP, DOWN], [UP, DOWN, UP]);
        // Where it has only the one, by DNS.
        let next = if names.len() > 1 { "b" } else { "c" };
        new_sessions_reach(&lab.standin, write, next, PATIENCE).await;
        new_sessions_settle(&lab.standin, write, 20, &[next]).await;
    }
    lab.tear_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_503_waits_for_no_threshold_and_the_agents_takes_its_endpoint_out_of_the_count() {
    let lab = Lab::set_up().await;
    // Envoy's own share for one healthy endpoint of three, and a threshold that is never reached.
    let config = |address| {
        config(&lab, address).set("orders_write", "/load_assignment/policy", json!({})).set(
            "orders_write",
            "/health_checks/0/unhealthy_threshold",
            json!(1_000),
        )
    };
    let responder = Responder::start(&["orders_write/a"]).await;
    let envoy = lab.envoy(config(responder.address)).await;
    passes(&envoy, [true, false, false]).await;
    responder.answer(&["orders_write/b"]);
    let plain = passes(&envoy, [false, true, false]).await;
    assert!(plain.iter().all(|host| !host.excluded), "{plain:?}");
    let reached = instances_of_new_sessions(&lab.standin, envoy.address("write"), 60).await;
    assert_eq!(reached, ["b", "c"], "two of three have failed: some go by DNS");
    drop(envoy);

    let agent = Agent::start(&lab).await;
    agent.says([UP, DOWN, DOWN], [DOWN, UP, UP]);
    let envoy = lab.envoy(config(agent.http)).await;
    passes(&envoy, [true, false, false]).await;
    agent.says([DOWN, UP, DOWN], [DOWN, UP, UP]);
    let at_once = passes(&envoy, [false, true, false]).await;
    assert_eq!(at_once.iter().map(|host| host.excluded).collect::<Vec<_>>(), [true, false, true]);
    let reached = instances_of_new_sessions(&lab.standin, envoy.address("write"), 60).await;
    assert_eq!(reached, ["b"], "there is one, and it is healthy");
    drop(envoy);
    lab.tear_down().await;
}

/// Waits until checks of exactly these in the writer's cluster pass; what Envoy has of them then.
async fn passes(envoy: &Envoy, expected: [bool; 3]) -> Vec<Host> {
    wait_for("the checks", PATIENCE, async || {
        let hosts = envoy.hosts("orders_write").await.map_err(|error| error.to_string())?;
        let passes: Vec<bool> = hosts.iter().map(|host| !host.check_fails).collect();
        if passes == expected { Ok(hosts) } else { Err(format!("{hosts:?}")) }
    })
    .await
    .unwrap()
}

/// Waits until so many checks of the writer's cluster have failed.
async fn unanswered(envoy: &Envoy, checks: u64) {
    wait_for("checks without an answer", PATIENCE, async || {
        match envoy.stat("cluster.orders_write.health_check.failure").await {
            Ok(failed) if failed >= checks => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap();
}

fn config(lab: &Lab, checks: SocketAddr) -> EnvoyConfig {
    // Where no check in `orders_write` ever sends anybody.
    lab.names.answer(lab.ip("c"));
    let unused = (Ipv4Addr::LOCALHOST, free_port().unwrap()).into();
    EnvoyConfig::static_checks()
        .unwrap()
        .agent(unused)
        .health_checks_at(checks)
        .addresses("orders_write", &lab.addresses())
        .addresses("orders_read", &lab.addresses())
}
