//! The client of the control socket.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::StatusCode;
use serde_json::Value;

use crate::clock::unix_millis;

#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("{}: cannot reach a running agent: {source}; is it running, and is this its `listen.control`?", .path.display())]
    Unreachable {
        path: PathBuf,
        #[source]
        source: reqwest::Error,
    },
    #[error("{}: {}", .path.display(), advice(.source))]
    Connect {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The agent's own message.
    #[error("{0}")]
    Refused(String),
    /// The agent could not do or check it now.
    #[error("{0}")]
    Unavailable(String),
}

/// The agent takes a request within this time, or it has no effect.
const TAKEN: Duration = Duration::from_secs(5);

/// For its effect, in addition.
const EFFECT: Duration = Duration::from_secs(35);

/// Sends a request: `GET` to read, `POST` to change.
pub async fn ask(
    socket: &Path,
    method: reqwest::Method,
    path: &str,
    query: &[(&str, &str)],
) -> Result<Value, ControlError> {
    let unreachable = |source| ControlError::Unreachable { path: socket.to_owned(), source };
    // The HTTP client does not tell why it cannot connect.
    std::os::unix::net::UnixStream::connect(socket)
        .map_err(|source| ControlError::Connect { path: socket.to_owned(), source })?;
    let client = reqwest::Client::builder()
        .unix_socket(socket)
        .no_proxy()
        .timeout(TAKEN + EFFECT)
        .build()
        .map_err(unreachable)?;
    let by = (unix_millis() + u64::try_from(TAKEN.as_millis()).unwrap_or(u64::MAX)).to_string();
    let query: Vec<String> = query
        .iter()
        .chain([&("by", by.as_str())])
        .map(|(key, value)| format!("{key}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)))
        .collect();
    let url = format!("http://agent{path}?{}", query.join("&"));
    let answer = client.request(method, url).send().await.map_err(unreachable)?;
    let status = answer.status();
    let body: Value = answer.json().await.map_err(unreachable)?;
    if status.is_success() {
        return Ok(body);
    }
    let words = body.get("error").and_then(Value::as_str).unwrap_or("refused without a message");
    Err(match status {
        StatusCode::SERVICE_UNAVAILABLE => ControlError::Unavailable(words.to_owned()),
        _ => ControlError::Refused(words.to_owned()),
    })
}

fn advice(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            "permission denied; run as root or as the agent's user".to_owned()
        }
        std::io::ErrorKind::NotFound => {
            "there is no such socket; is the agent running, and is this its `listen.control`?".to_owned()
        }
        std::io::ErrorKind::ConnectionRefused => "no agent listens there; is it running?".to_owned(),
        _ => format!("cannot connect: {error}"),
    }
}
