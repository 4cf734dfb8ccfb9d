//! Health checks that Envoys make of the agent instead of their endpoints, for clusters
//! that are not discovered: `GET /envoy/{cluster}` over HTTP, and `grpc.health.v1`.
//!
//! The endpoint is named by the Host header or by `x-rdslb-endpoint`, as its name or its
//! address. What is answered is decided in [`agent_core::desired`].

use std::{fmt, net::SocketAddr, sync::Arc};

use agent_core::{
    Time,
    desired::{Check, CheckAnswer, EndpointHealth, WhileUnknown},
    freshness::Freshness,
};
use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use envoy::health::{Answer, HEADER, Source, Waiting, named};
use tokio::sync::watch;

use super::published::{Endpoints, wire};
use crate::clock::Clock;

/// Answers health checks from the published state.
#[derive(Clone)]
pub struct Answers {
    endpoints: watch::Receiver<Endpoints>,
    changes: watch::Receiver<()>,
    clock: Clock,
    decided: Decided,
}

/// When the decision was made that the published state is by.
pub type Decided = Arc<dyn Fn() -> Time + Send + Sync>;

// === impl Answers ===

impl Answers {
    /// Answers from `endpoints` while the decider is at work. `changes` wakes waiting checks.
    pub fn new(
        endpoints: watch::Receiver<Endpoints>,
        changes: watch::Receiver<()>,
        clock: Clock,
        decided: Decided,
    ) -> Self {
        Self { endpoints, changes, clock, decided }
    }
}

impl Source for Answers {
    fn answer(&self, cluster: &str, header: Option<&str>, host: Option<&str>) -> Option<Answer> {
        let freshness = Freshness::of(self.clock.now().since((self.decided)()));
        let endpoints = self.endpoints.borrow();
        let known =
            endpoints.0.iter().find_map(|published| published.checked.get(cluster)).into_iter().flatten();
        let names: Vec<_> = known.clone().map(|one| (one.name.as_str(), one.addresses.as_slice())).collect();
        let name = named(header, host, &names);
        let Some(endpoint) = name.and_then(|name| known.clone().find(|one| one.name == name)) else {
            let asked = header.or(host).map(str::trim);
            let by_address = asked.is_some_and(|asked| asked.parse::<SocketAddr>().is_ok());
            let checks = known.map(|one| one.check);
            return if by_address { at_unproved_address(checks, freshness) } else { Some(Answer::PASS) };
        };
        match endpoint.check.answer(freshness) {
            CheckAnswer::Known(health) => Some(Answer::of(Some(wire(health)))),
            CheckAnswer::Passes => Some(Answer::PASS),
            CheckAnswer::Waits => None,
        }
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.changes.clone()
    }
}

/// The answer for an address that is none of the cluster's instances'. Where one of several is the writer, it is
/// judged like one that is not proved: it fails beside the writer, and waits without one.
fn at_unproved_address(checks: impl Iterator<Item = Check>, freshness: Freshness) -> Option<Answer> {
    let checks: Vec<Check> = checks.collect();
    if checks.iter().all(|check| check.while_unknown == WhileUnknown::Passes) {
        return Some(Answer::PASS);
    }
    let writes = CheckAnswer::Known(EndpointHealth::Healthy);
    let elsewhere = checks.iter().any(|check| check.answer(freshness) == writes);
    elsewhere.then(|| Answer::of(Some(wire(EndpointHealth::Unhealthy))))
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers").finish_non_exhaustive()
    }
}

/// The route for HTTP checks.
pub fn router(answers: Answers) -> Router {
    Router::new().route("/envoy/{cluster}", get(check)).with_state(Waiting::new(Arc::new(answers)))
}

async fn check(State(answers): State<Waiting>, Path(cluster): Path<String>, headers: HeaderMap) -> Response {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(answer) = answers.answer(&cluster, text(HEADER), text(header::HOST.as_str())).await else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    match answer.header {
        Some(header) => (status, [header]).into_response(),
        None => status.into_response(),
    }
}
