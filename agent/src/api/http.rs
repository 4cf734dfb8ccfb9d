//! Health over HTTP, at the paths that load balancers know from Patroni.
//!
//! `/{database}/{instance}/primary`, `/read-write`, `/leader` and `/master` ask for the writer, `/replica`
//! for a reader, `/read-only` and `/health` for either. 503 only on positive evidence; what the agent does
//! not know is 200, as without an agent. But of several instances that may be the writer, none is until
//! one of them is known to be.
//! Of the process: `/livez`, `/readyz`. For monitoring: `/metrics`, `/state`, `/history`. For bug reports: `/debug/state`.

use agent_core::{InstanceId, desired::role_check, freshness::Freshness, health::WantedRole};
use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Deserialize;
use serde_json::json;

pub use super::status::Source;
use super::status::status;
use crate::{config::nearest, metrics::Format, snapshot::Snapshot};

/// The routes, all of which are read-only.
pub fn router(source: Source) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/state", get(async |State(source): State<Source>| Json(status(&source))))
        .route("/history", get(history))
        .route("/debug/state", get(debug_state))
        .route("/{database}/{instance}/{role}", get(health).options(health))
        .with_state(source)
}

/// 200 while the decider publishes snapshots.
async fn livez(State(source): State<Source>) -> Response {
    let now = source.clock.now();
    let (age, stuck) = {
        let snapshot = source.snapshot.borrow();
        (now.since(snapshot.at), snapshot.is_stuck(now))
    };
    let status = if stuck { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    (status, Json(json!({"snapshot_age_s": age.as_secs_f64()}))).into_response()
}

/// 200 once a login has succeeded, or the roles that an earlier agent has seen are in force. One database that
/// cannot be logged in to does not keep the agent from being ready for the others.
async fn readyz(State(source): State<Source>) -> Response {
    let fleet = source.snapshot.borrow().fleet.clone();
    let mut views = fleet.instances.values();
    let by = if views.clone().any(|view| view.last_login.is_some()) {
        Some("login")
    } else if views.any(|view| view.role.is_some()) {
        Some("last_known_roles")
    } else {
        None
    };
    let without = fleet.instances.iter().filter(|(_, view)| view.last_login.is_none());
    let without: Vec<String> = without.map(|(instance, _)| instance.to_string()).collect();
    let status = if by.is_some() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({"ready": by.is_some(), "by": by, "without_login": without});
    (status, Json(body)).into_response()
}

async fn metrics(State(source): State<Source>, headers: HeaderMap) -> Response {
    let age = source.clock.now().since(source.snapshot.borrow().at);
    source.metrics.snapshot_age_seconds.set(age.as_secs_f64());
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let format = Format::accepted(accept);
    ([(header::CONTENT_TYPE, format.content_type())], source.metrics.text(format)).into_response()
}

/// The whole snapshot, in no stable format. It contains no secrets.
async fn debug_state(State(source): State<Source>) -> Response {
    let snapshot = source.snapshot.borrow().clone();
    let age = source.clock.now().since(snapshot.at).as_secs_f64();
    let envoys = source.envoys.peers();
    let version = env!("CARGO_PKG_VERSION");
    Json(json!({"version": version, "age_s": age, "state": *snapshot, "envoys": envoys})).into_response()
}

#[derive(Deserialize)]
struct Wanted {
    /// A server, an instance or a PID; empty is everything.
    #[serde(default)]
    about: String,
    most: Option<usize>,
}

/// The last log lines of level INFO and above.
async fn history(State(source): State<Source>, Query(wanted): Query<Wanted>) -> Response {
    let Wanted { about, most } = wanted;
    Json(source.recent.last(most.unwrap_or(usize::MAX), |line| about.is_empty() || line.is_about(&about)))
        .into_response()
}

/// The last part of a path, and the role that it asks for. As in Patroni's REST API, `read-only` includes
/// the writer.
const ROLES: [(&str, WantedRole); 7] = [
    ("primary", WantedRole::Writer),
    ("read-write", WantedRole::Writer),
    ("leader", WantedRole::Writer),
    ("master", WantedRole::Writer),
    ("replica", WantedRole::Reader),
    ("read-only", WantedRole::Any),
    ("health", WantedRole::Any),
];

/// A path that names no instance or no role. The load balancer takes its server out.
fn not_found(source: &Source, snapshot: &Snapshot, id: &InstanceId, role: &str) -> Response {
    let instances: Vec<String> = snapshot.fleet.instances.keys().map(ToString::to_string).collect();
    let roles = ROLES.map(|(name, _)| name.to_owned());
    let (what, name, choices) = if snapshot.fleet.instances.contains_key(id) {
        ("role", role.to_owned(), roles.to_vec())
    } else {
        ("instance", id.to_string(), instances.clone())
    };
    let paths: Vec<String> =
        instances.iter().flat_map(|id| roles.iter().map(move |role| format!("/{id}/{role}"))).collect();
    source.unknown.asked(&format!("/{id}/{role}"), &paths, &source.metrics);
    let hint = match nearest(&name, &choices) {
        Some(choice) => format!("did you mean `{choice}`?"),
        None => format!("there are {}", choices.join(", ")),
    };
    (StatusCode::NOT_FOUND, format!("no {what} `{}`; {hint}\n", name.escape_debug())).into_response()
}

async fn health(
    State(source): State<Source>,
    method: Method,
    Path((database, instance, role)): Path<(String, String, String)>,
) -> Response {
    let id = InstanceId::new(&database, &instance);
    let snapshot = source.snapshot.borrow().clone();
    let wanted = ROLES.iter().find(|(name, _)| *name == role).map(|(_, wanted)| *wanted);
    if snapshot.fleet.instances.is_empty() {
        // Before the first snapshot nothing is known of any instance.
        let status = match wanted {
            Some(WantedRole::Writer) => StatusCode::SERVICE_UNAVAILABLE,
            Some(WantedRole::Reader | WantedRole::Any) => StatusCode::OK,
            None => StatusCode::NOT_FOUND,
        };
        return status.into_response();
    }
    let of_wanted =
        wanted.and_then(|wanted| Some((wanted, snapshot.fleet.by_role.get(&(id.clone(), wanted))?)));
    let Some((wanted, verdict)) = of_wanted else {
        return not_found(&source, &snapshot, &id, &role);
    };
    let now = source.clock.now();
    let passes = role_check(&snapshot.fleet, &id, wanted, Freshness::of(now.since(snapshot.at)));
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
