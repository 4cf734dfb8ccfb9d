//! Health over gRPC, as Envoy asks for it: a service name per cluster, an authority per endpoint.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{collections::HashMap, net::SocketAddr, sync::Arc, sync::Mutex, time::Duration};

use envoy::{
    eds::Health,
    health::{Answer, Checks, HEADER, Source, named},
    proto::{HealthCheckRequest, HealthClient, ServingStatus},
    serve::{Limits, serve},
};
use tokio::{net::TcpListener, sync::watch, task::AbortHandle};
use tonic::{
    Code, Request,
    service::RoutesBuilder,
    transport::{Channel, Endpoint},
};

/// Two endpoints of the cluster `writer`.
struct Known {
    health: Mutex<HashMap<&'static str, Health>>,
    changed: watch::Sender<()>,
}

impl Source for Known {
    fn answer(&self, cluster: &str, header: Option<&str>, authority: Option<&str>) -> Option<Answer> {
        if cluster == "unknown" {
            return None;
        }
        let endpoints = [("a", &[][..]), ("b", &[][..])];
        let name = if cluster == "writer" { named(header, authority, &endpoints) } else { None };
        Some(Answer::of(name.and_then(|name| self.health.lock().unwrap().get(name).copied())))
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

struct Agent {
    known: Arc<Known>,
    address: SocketAddr,
    task: AbortHandle,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Agent {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let health = Mutex::new(HashMap::from([("a", Health::Healthy), ("b", Health::Unhealthy)]));
        let known = Arc::new(Known { health, changed: watch::Sender::new(()) });
        let mut routes = RoutesBuilder::default();
        Checks::new(known.clone()).add_to(&mut routes);
        let task = tokio::spawn(serve(listener, routes.routes(), Limits::default())).abort_handle();
        Self { known, address, task }
    }

    fn set(&self, endpoint: &'static str, health: Health) {
        self.known.health.lock().unwrap().insert(endpoint, health);
        self.known.changed.send_replace(());
    }

    async fn client(&self, authority: &str) -> HealthClient<Channel> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        let endpoint = endpoint.origin(format!("http://{authority}").parse().unwrap());
        HealthClient::new(endpoint.connect().await.unwrap())
    }

    async fn check(&self, cluster: &str, authority: &str, header: Option<&str>) -> ServingStatus {
        let mut request = Request::new(HealthCheckRequest { service: cluster.into() });
        if let Some(header) = header {
            request.metadata_mut().insert(HEADER, header.parse().unwrap());
        }
        self.client(authority).await.check(request).await.unwrap().into_inner().status()
    }
}

#[tokio::test]
async fn the_authority_names_the_endpoint_unless_a_header_does() {
    let agent = Agent::start().await;
    assert_eq!(agent.check("writer", "a", None).await, ServingStatus::Serving);
    assert_eq!(agent.check("writer", "b", None).await, ServingStatus::NotServing);
    assert_eq!(agent.check("writer", "b:50051", None).await, ServingStatus::NotServing);
    assert_eq!(agent.check("writer", "a", Some("b")).await, ServingStatus::NotServing);
}

#[tokio::test]
async fn what_the_agent_does_not_know_serves() {
    let agent = Agent::start().await;
    assert_eq!(agent.check("writer", "elsewhere", None).await, ServingStatus::Serving);
    assert_eq!(agent.check("another", "b", None).await, ServingStatus::Serving);
    assert_eq!(agent.check("", "b", None).await, ServingStatus::Serving, "the agent itself");
    agent.set("b", Health::Draining);
    assert_eq!(agent.check("writer", "b", None).await, ServingStatus::Serving, "a drain is no failure");
}

#[tokio::test(start_paused = true)]
async fn a_check_that_there_is_no_answer_to_waits_and_then_fails() {
    let agent = Agent::start().await;
    let mut client = agent.client("a").await;
    let began = tokio::time::Instant::now();
    let refused = client.check(HealthCheckRequest { service: "unknown".into() }).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(began.elapsed() >= Duration::from_secs(10));
}

#[tokio::test]
async fn a_watch_tells_changes_and_only_changes() {
    let agent = Agent::start().await;
    let request = HealthCheckRequest { service: "writer".into() };
    let mut watch = agent.client("a").await.watch(request).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    agent.set("b", Health::Healthy);
    agent.set("a", Health::Degraded);
    agent.set("a", Health::Unhealthy);
    let next = tokio::time::timeout(Duration::from_secs(20), watch.message()).await.unwrap();
    assert_eq!(next.unwrap().unwrap().status(), ServingStatus::NotServing);
}

#[tokio::test]
async fn many_watches_and_long_names_are_refused() {
    let agent = Agent::start().await;
    let mut client = agent.client("a").await;
    let long = HealthCheckRequest { service: "x".repeat(10_000) };
    assert_eq!(client.check(long).await.unwrap_err().code(), Code::OutOfRange);
    let mut watches = Vec::new();
    for number in 0..65 {
        // A connection has fewer streams than that.
        if number % 32 == 0 {
            client = agent.client("a").await;
        }
        watches.push(client.watch(HealthCheckRequest { service: "writer".into() }).await);
    }
    let refused = watches.iter().filter(|watch| watch.is_err()).count();
    assert_eq!(refused, 1);
    assert_eq!(agent.check("writer", "b", None).await, ServingStatus::NotServing, "checks go on");
}
