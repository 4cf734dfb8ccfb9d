//! What is going on at one moment.

use serde_json::Value;

use crate::{
    load::{Load, LoadReport},
    scene::{Proxy, Scene},
};

/// One session, as the agent tells it.
#[derive(Clone, Debug)]
pub(super) struct SessionView {
    pub(super) server: String,
    pub(super) pid: u64,
    pub(super) user: String,
    pub(super) application: String,
    pub(super) activity: String,
    pub(super) hold: Option<String>,
    pub(super) age_s: f64,
    pub(super) limit_s: f64,
}

#[derive(Clone, Debug)]
pub(super) struct Picture {
    /// `/state` of the agent.
    pub(super) state: Value,
    /// Its sessions through the proxy, oldest first.
    pub(super) sessions: Vec<SessionView>,
    /// What clients have counted.
    pub(super) report: LoadReport,
}

impl Picture {
    pub(super) async fn take<P: Proxy>(scene: &Scene<P>, load: &Load) -> Self {
        let state = scene.agent.state().await.unwrap_or_default();
        let control = scene.agent.control();
        let rows = rds_lb_agent::api::control::ask(&control, reqwest::Method::GET, "/sessions", &[]).await;
        let rows = rows.unwrap_or_default();
        let sessions = rows.as_array().into_iter().flatten().filter_map(session).collect();
        Self { state, sessions, report: load.report() }
    }

    /// A value of the agent's state.
    pub(super) fn value(&self, pointer: &str) -> &Value {
        self.state.pointer(&format!("/state{pointer}")).unwrap_or(&Value::Null)
    }
}

/// Only what came through the proxy.
fn session(row: &Value) -> Option<SessionView> {
    let text = |key: &str| row.get(key).and_then(Value::as_str).map(str::to_owned);
    let number = |key: &str| row.get(key).and_then(Value::as_f64);
    Some(SessionView {
        server: text("server")?,
        pid: row.get("pid").and_then(Value::as_u64)?,
        user: text("user")?,
        application: text("application").unwrap_or_default(),
        activity: text("activity")?,
        hold: text("hold"),
        age_s: number("age_s")?,
        limit_s: number("limit_s")?,
    })
}
