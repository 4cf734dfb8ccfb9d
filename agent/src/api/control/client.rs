//! The client of the control socket.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;

#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("{}: cannot reach a running agent: {source}; is it running, and is this its `listen.control`?", .path.display())]
    Unreachable {
        path: PathBuf,
        #[source]
        source: reqwest::Error,
    },
    /// The agent's own message.
    #[error("{0}")]
    Refused(String),
}

/// Sends a request: `GET` to read, `POST` to change.
pub async fn ask(
    socket: &Path,
    method: reqwest::Method,
    path: &str,
    query: &[(&str, &str)],
) -> Result<Value, ControlError> {
    let unreachable = |source| ControlError::Unreachable { path: socket.to_owned(), source };
    let client = reqwest::Client::builder()
        .unix_socket(socket)
        .no_proxy()
        .timeout(Duration::from_secs(10))
        .build()
        .map_err(unreachable)?;
    let query: Vec<String> = query.iter().map(|(key, value)| format!("{key}={}", escape(value))).collect();
    let url = format!("http://agent{path}?{}", query.join("&"));
    let answer = client.request(method, url).send().await.map_err(unreachable)?;
    let good = answer.status().is_success();
    let body: Value = answer.json().await.map_err(unreachable)?;
    if good {
        return Ok(body);
    }
    let words = body.get("error").and_then(Value::as_str).unwrap_or("refused without a message");
    Err(ControlError::Refused(words.to_owned()))
}

/// Percent-encodes a value of a query.
fn escape(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    value
        .bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
