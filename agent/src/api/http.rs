//! Health over HTTP, in the words that load balancers already know from Patroni.
//!
//! `/{database}/{instance}/primary` and `/read-write` ask for the writer,
//! `/replica` and `/read-only` for a reader, `/health` for either. 503 only on
//! positive evidence; what the agent does not know is 200, as without an agent.
//! Process: `/livez`, `/readyz`. Insight: `/metrics`, `/state`.

use std::sync::Arc;

use agent_core::{InstanceId, desired::role_check, freshness::Freshness, health::WantedRole};
use axum::{
    Json, Router,
    extract::{Path, State},
    http::{Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;
use tokio::sync::watch;

use crate::{clock::Clock, metrics::Metrics, proxies::envoy::discovery::Envoys, snapshot::Snapshot};

/// What HTTP answers from.
#[derive(Clone, Debug)]
pub struct Source {
    /// The snapshot.
    pub snapshot: watch::Receiver<Arc<Snapshot>>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// To say how old an answer is.
    pub clock: Clock,
    /// Who takes endpoints.
    pub envoys: Envoys,
}

/// The routes that only answer questions.
pub fn router(source: Source) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/state", get(state))
        .route("/{database}/{instance}/{role}", get(health).options(health))
        .with_state(source)
}

/// 200 while the agent decides.
async fn livez(State(source): State<Source>) -> Response {
    let age = source.clock.now().since(source.snapshot.borrow().at);
    let status =
        if Freshness::of(age) < Freshness::Stuck { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({"snapshot_age_s": age.as_secs_f64()}))).into_response()
}

/// 200 once every instance has been asked at least once, whatever it said.
async fn readyz(State(source): State<Source>) -> Response {
    let fleet = source.snapshot.borrow().fleet.clone();
    let waiting: Vec<String> = fleet
        .instances
        .iter()
        .filter(|(_, view)| view.last_proof.is_none() && view.last_fault.is_none())
        .map(|(instance, _)| instance.to_string())
        .collect();
    let ready = waiting.is_empty() && !fleet.instances.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({"ready": ready, "not_probed_yet": waiting}))).into_response()
}

async fn metrics(State(source): State<Source>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], source.metrics.text()).into_response()
}

/// Everything that the agent knows. No secrets: none are in the snapshot.
async fn state(State(source): State<Source>) -> Response {
    let snapshot = source.snapshot.borrow().clone();
    let age = source.clock.now().since(snapshot.at).as_secs_f64();
    let envoys = source.envoys.peers();
    let version = env!("CARGO_PKG_VERSION");
    Json(json!({"version": version, "age_s": age, "state": *snapshot, "envoys": envoys})).into_response()
}

async fn health(
    State(source): State<Source>,
    method: Method,
    Path((database, instance, role)): Path<(String, String, String)>,
) -> Response {
    let wanted = match role.as_str() {
        "primary" | "read-write" => WantedRole::Writer,
        "replica" | "read-only" => WantedRole::Reader,
        "health" => WantedRole::Any,
        _ => {
            return (StatusCode::NOT_FOUND, "ask for primary, replica, read-write, read-only or health\n")
                .into_response();
        }
    };
    let id = InstanceId::new(&database, &instance);
    let snapshot = source.snapshot.borrow().clone();
    let Some(verdict) = snapshot.fleet.by_role.get(&(id.clone(), wanted)) else {
        // Before the first answer nothing is known of anything.
        let known = snapshot.fleet.instances.is_empty();
        let status = if known { StatusCode::OK } else { StatusCode::NOT_FOUND };
        return (status, format!("no instance {id} is known\n")).into_response();
    };
    let now = source.clock.now();
    let passes = role_check(verdict, Freshness::of(now.since(snapshot.at)));
    let status = if passes { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if method != Method::GET {
        return status.into_response();
    }
    let view = snapshot.fleet.instances.get(&id);
    let body = json!({
        "instance": id.to_string(),
        "state": verdict.state,
        "reason": verdict.reason,
        "age_s": now.since(snapshot.at).as_secs_f64(),
        "role": view.and_then(|view| view.role),
        "status": view.map(|view| view.status),
        "lag_s": view.and_then(|view| view.lag).map(|lag| lag.as_secs_f64()),
        "last_answer_age_s": view.and_then(|view| view.last_proof).map(|at| now.since(at).as_secs_f64()),
        "last_login_age_s": view.and_then(|view| view.last_login).map(|at| now.since(at).as_secs_f64()),
    });
    (status, Json(body)).into_response()
}
