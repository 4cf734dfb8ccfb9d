//! The agent's side of the control socket.

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

/// The decider answers within moments; a frozen one must not keep its askers.
const PATIENCE: Duration = Duration::from_secs(5);

/// Binds the socket with mode 0600, over the one that a dead agent left.
///
/// # Errors
/// When another file is in the way, a living agent answers there, or the folder is not writable.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Ok(metadata) = std::fs::symlink_metadata(path) {
        if !metadata.file_type().is_socket() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "a file that is no socket is in the way",
            ));
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another agent answers there"));
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
struct Words {
    server: Option<String>,
    reason: Option<String>,
}

/// The routes.
pub fn router(decider: mpsc::Sender<Input>) -> Router {
    Router::new()
        .route("/sessions", get(|state| forward(state, Request::Sessions)))
        .route(
            "/pause",
            post(|state, Query(words): Query<Words>| {
                forward(state, Request::Pause { reason: words.reason.unwrap_or_default() })
            }),
        )
        .route("/resume", post(|state| forward(state, Request::Resume)))
        .route(
            "/drain",
            post(|state, Query(words): Query<Words>| {
                forward(state, Request::Drain { server: words.server.unwrap_or_default() })
            }),
        )
        .route(
            "/undrain",
            post(|state, Query(words): Query<Words>| {
                forward(state, Request::Undrain { server: words.server })
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
    match timeout(PATIENCE, asked).await {
        Ok(Some(Ok(value))) => (StatusCode::OK, Json(value)),
        Ok(Some(Err(error))) => (StatusCode::CONFLICT, Json(json!({"error": error}))),
        Ok(None) | Err(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            Json(json!({"error": "the agent is starting, stopping or stuck"})),
        ),
    }
}
