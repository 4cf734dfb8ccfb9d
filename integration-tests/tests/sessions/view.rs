//! Sessions as the agent reports them.

use std::{fmt::Debug, ops::RangeBounds, time::Duration};

use integration_tests::{
    process::wait_for,
    scene::{PATIENCE, Scene},
};
use serde::Deserialize;

use crate::client::Client;

/// One row of the control socket's `/sessions`.
#[derive(Clone, Debug, Deserialize)]
pub struct Row {
    pub instance: String,
    pub pid: u64,
    pub user: String,
    pub activity: String,
    pub join: String,
    pub hold: Option<String>,
    pub age_s: f64,
    pub limit_s: f64,
}

impl Row {
    /// Negative before the limit.
    pub fn overdue_s(&self) -> f64 {
        self.age_s - self.limit_s
    }
}

/// All sessions that the agent knows.
pub async fn sessions(scene: &Scene) -> Vec<Row> {
    let client = reqwest::Client::builder()
        .unix_socket(scene.agent.control())
        .no_proxy()
        .timeout(Duration::from_secs(5))
        .build()
        .unwrap();
    client.get("http://agent/sessions").send().await.unwrap().json().await.unwrap()
}

/// The session of a client on the writer.
pub async fn row(scene: &Scene, client: &Client) -> Option<Row> {
    sessions(scene).await.into_iter().find(|row| row.instance == "orders/a" && row.pid == client.pid)
}

/// Waits until a client's session is held for this reason, and is `past_s` past its limit.
pub async fn held(scene: &Scene, client: &Client, reason: &str, past_s: f64) -> Row {
    let what = format!("session {} to be held as {reason}, {past_s} s past its limit", client.pid);
    wait_for(&what, PATIENCE, async || match row(scene, client).await {
        Some(row) if row.hold.as_deref() == Some(reason) && row.overdue_s() >= past_s => Ok(row),
        other => Err(format!("{other:?}, open: {}", client.is_open())),
    })
    .await
    .unwrap()
}

/// Waits until `/state` shows this many sessions and servers as held for this reason.
pub async fn holds(scene: &Scene, reason: &str, expected: impl RangeBounds<u64> + Debug) {
    let what = format!("{expected:?} to be held as {reason}");
    wait_for(&what, PATIENCE, async || {
        let state = scene.agent.state().await.unwrap();
        let held = state["state"]["sessions"]["holds"][reason].as_u64().unwrap_or(0);
        if expected.contains(&held) { Ok(()) } else { Err(held) }
    })
    .await
    .unwrap();
}

/// How many log lines have this message.
pub fn said(scene: &Scene, message: &str) -> usize {
    scene.agent.events().iter().filter(|event| event["message"] == message).count()
}
