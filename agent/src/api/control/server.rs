//! The server of the control socket.

use std::{
    io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::Path,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
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
    time::{Instant, timeout},
};

use crate::{
    clock::unix_millis,
    messages::{Asked, Failure, Input, Request},
};

/// How long a request may wait for the decider to take it.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How long it may then wait for its effect. The decider gives up earlier.
const EFFECT: Duration = Duration::from_secs(30);

/// Binds a socket with this mode, and replaces one that nothing listens on.
///
/// # Errors
/// If the path is another kind of file, another agent listens there, or the directory is not writable.
pub fn bind(path: &Path, mode: u32) -> io::Result<UnixListener> {
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
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    Ok(listener)
}

#[derive(Deserialize)]
struct Parameters {
    server: Option<String>,
    database: Option<String>,
    instance: Option<String>,
    reason: Option<String>,
    /// The user who runs the client.
    user: Option<String>,
    /// Of a drain, in seconds.
    lasts: Option<u64>,
    empty: Option<bool>,
    force: Option<bool>,
    /// The client waits until then for the request to be taken, in milliseconds since 1970.
    by: Option<u64>,
}

pub fn router(decider: mpsc::Sender<Input>) -> Router {
    let route = |request: fn(Parameters) -> Request| {
        move |state, Query(parameters): Query<Parameters>| {
            let by = parameters.by;
            forward(state, request(parameters), by)
        }
    };
    Router::new()
        .route("/sessions", get(route(|_| Request::Sessions)))
        .route(
            "/pause",
            post(route(|asked| Request::Pause { reason: asked.reason.unwrap_or_default(), by: asked.user })),
        )
        .route("/resume", post(route(|asked| Request::Resume { by: asked.user })))
        .route(
            "/drain",
            post(route(|asked| Request::Drain {
                server: asked.server.unwrap_or_default(),
                lasts: asked.lasts.map(Duration::from_secs),
                empty: asked.empty.unwrap_or_default(),
                force: asked.force.unwrap_or_default(),
            })),
        )
        .route(
            "/writer",
            post(route(|asked| Request::Writer {
                database: asked.database.unwrap_or_default(),
                instance: asked.instance.unwrap_or_default(),
            })),
        )
        .route("/undrain", post(route(|asked| Request::Undrain { server: asked.server })))
        .with_state(decider)
}

async fn forward(
    State(decider): State<mpsc::Sender<Input>>,
    request: Request,
    by: Option<u64>,
) -> (StatusCode, Json<Value>) {
    let unavailable = |error: &str| (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"error": error})));
    // The agent may have been frozen since the client asked.
    let waits = by.map_or(TIMEOUT, |by| Duration::from_millis(by.saturating_sub(unix_millis())).min(TIMEOUT));
    if waits.is_zero() {
        return unavailable("the agent did not take the request in time; it has no effect");
    }
    let (reply, answer) = oneshot::channel();
    let by = Instant::now() + waits;
    let taken = Arc::new(AtomicBool::default());
    let asked = Asked { request, reply, by, taken: taken.clone() };
    let asked = async {
        decider.send(Input::Request(asked)).await.ok()?;
        answer.await.ok()
    };
    let mut asked = pin!(asked);
    // A moment more, for a decider that took it at the last one.
    let answer = match timeout(waits + Duration::from_millis(100), &mut asked).await {
        Err(_) if taken.load(Ordering::Acquire) => timeout(EFFECT, asked).await,
        answer => answer,
    };
    match answer {
        Ok(Some(Ok(value))) => (StatusCode::OK, Json(value)),
        Ok(Some(Err(Failure::Refused(error)))) => (StatusCode::CONFLICT, Json(json!({"error": error}))),
        Ok(Some(Err(Failure::Unchecked(error)))) => unavailable(&error),
        Ok(None) => unavailable("the agent is starting or stopping"),
        Err(_) if taken.load(Ordering::Acquire) => {
            unavailable("the agent took the request and does not report its effect; look at `/state`")
        }
        Err(_) => unavailable("the agent did not take the request in time; it has no effect"),
    }
}
