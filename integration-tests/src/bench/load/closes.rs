//! What the agent did, by its own log and by the servers' word on its logins.

use jiff::Timestamp;

use crate::{
    scene::{Proxy, Scene},
    standin::busiest_second,
};

/// The agent, as the database knows it.
pub(super) const AGENT: &str = "lb_agent";

/// What the agent did.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Closes {
    pub count: u64,
    /// Past the session's own limit, at most, in seconds; clients that pause only.
    pub most_overdue_s: f64,
    pub max_with_own_logins_per_s: usize,
}

/// Reads the agent's log, and the journal of the stand-in.
pub(super) fn of<P: Proxy>(scene: &Scene<P>) -> Closes {
    let mut closes = Closes::default();
    let mut moments: Vec<Timestamp> = Vec::new();
    for event in scene.agent.events() {
        let text = |key: &str| event.get(key).and_then(|value| value.as_str());
        let seconds = |key: &str| event.get(key).and_then(serde_json::Value::as_f64).unwrap_or(0.0);
        if text("message") != Some("session retired") {
            continue;
        }
        closes.count += 1;
        if text("user") == Some("app") {
            closes.most_overdue_s = closes.most_overdue_s.max(seconds("age_s") - seconds("limit_s"));
        }
        moments.extend(text("timestamp").and_then(|at| at.parse::<Timestamp>().ok()));
    }
    let attempts = scene.standin.journal().attempts();
    moments.extend(attempts.iter().filter(|attempt| attempt.user == AGENT).map(|attempt| attempt.at));
    moments.sort_unstable();
    closes.max_with_own_logins_per_s = busiest_second(moments);
    closes
}
