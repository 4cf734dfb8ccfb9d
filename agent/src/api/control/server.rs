//! The server of the control socket.

use std::{
    io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::Path,
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::StatusCode,
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    net::UnixListener,
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::messages::{Input, Request};

/// How long a request may wait for the decider.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Binds a socket with mode 0600, and replaces one that nothing listens on.
///
/// # Errors
/// If the path is another kind of file, another agent listens there, or the directory is not writable.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Ok(metadata) = std::fs::symlink_metadata(path) {
        if !metadata.file_type().is_socket() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the path exists and is not a socket"));
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another agent listens there"));
        }
        std::fs::remove_file(path)?;
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

#[derive(Deserialize)]
struct Parameters {
    server: Option<String>,
    database: Option<String>,
    instance: Option<String>,
    reason: Option<String>,
}

pub fn router(decider: mpsc::Sender<Input>) -> Router {
    Router::new()
        .route("/sessions", get(|state| forward(state, Request::Sessions)))
        .route(
            "/pause",
            post(|state, Query(parameters): Query<Parameters>| {
                forward(state, Request::Pause { reason: parameters.reason.unwrap_or_default() })
            }),
        )
        .route("/resume", post(|state| forward(state, Request::Resume)))
        .route(
            "/drain",
            post(|state, Query(parameters): Query<Parameters>| {
                forward(state, Request::Drain { server: parameters.server.unwrap_or_default() })
            }),
        )
        .route(
            "/writer",
            post(|state, Query(parameters): Query<Parameters>| {
                let Parameters { database, instance, .. } = parameters;
                let (database, instance) = (database.unwrap_or_default(), instance.unwrap_or_default());
                forward(state, Request::Writer { database, instance })
            }),
        )
        .route(
            "/undrain",
            post(|state, Query(parameters): Query<Parameters>| {
                forward(state, Request::Undrain { server: parameters.server })
            }),
        )
        .with_state(decider)
}

async fn forward(State(decider): State<mpsc::Sender<Input>>, request: Request) -> (StatusCode, Json<Value>) {
    let (reply, answer) = oneshot::channel();
    let asked = async {
        decider.send(Input::Request(request, reply)).await.ok()?;
        answer.await.ok()
    };
    match timeout(TIMEOUT, asked).await {
        Ok(Some(Ok(value))) => (StatusCode::OK, Json(value)),
        Ok(Some(Err(error))) => (StatusCode::CONFLICT, Json(json!({"error": error}))),
        Ok(None) | Err(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            Json(json!({"error": "the agent is starting or stopping, or does not respond"})),
        ),
    }
}
