//! All metrics of the agent, in one place. Prefix `rdslb_`, base units.
//!
//! They are moved by events (`events`) and by the snapshot; nothing else counts.

use std::fmt::Write;

use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// Label names and values of one series.
pub type Labels = Vec<(&'static str, String)>;

/// Gauges of seconds.
type Seconds = Gauge<f64, std::sync::atomic::AtomicU64>;

type Histograms = Family<Labels, Histogram, fn() -> Histogram>;

/// The agent's metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Full logins, by `database`, `instance` and `result` (`ok` or the fault's kind).
    pub logins: Family<Labels, Counter>,
    /// How long each phase of a login took, by `database`, `instance`, `phase`.
    pub login_seconds: Histograms,
    /// Liveness queries, by `database`, `instance`, `result`.
    pub liveness: Family<Labels, Counter>,
    /// How long liveness queries took, by `database`, `instance`.
    pub liveness_seconds: Histograms,
    /// The verdict of each server (1 for the state it is in), by `server`, `state`.
    pub verdict: Family<Labels, Gauge>,
    /// When the token in use expires, in seconds since 1970, by `database`, `instance`.
    pub token_expires: Family<Labels, Gauge>,
    /// Tokens that could not be made, by `database`, `instance`.
    pub token_failures: Family<Labels, Counter>,
    /// When the server's certificate expires, in seconds since 1970, by `database`, `instance`.
    pub certificate_expires: Family<Labels, Gauge>,
    /// Failed connections that the server counts against an address of the proxy's, by
    /// `database`, `instance`, `address`. A full login from there takes them back to 0 (MySQL, MariaDB).
    pub host_connect_errors: Family<Labels, Gauge>,
    /// `max_connect_errors`: so many block an address, by `database`, `instance`.
    pub host_connect_errors_limit: Family<Labels, Gauge>,
    /// Connections that failed since the server started, whoever's they were, by `database`,
    /// `instance`. Only where the counts of addresses cannot be seen.
    pub host_connects_aborted: Family<Labels, Gauge>,
    /// Logins made to take such a count back, by `database`, `instance`, `result` (`reset`, `unchanged`, `failed`).
    pub host_resets: Family<Labels, Counter>,
    /// Whether the server blocks an address of the proxy's or the agent's (1129), by `database`, `instance`.
    pub host_blocked: Family<Labels, Gauge>,
    /// Sessions in the ledger.
    pub sessions: Gauge,
    /// Sessions that are due.
    pub due: Gauge,
    /// Held sessions and servers, by `reason`.
    pub holds: Family<Labels, Gauge>,
    /// Closes, by `database`, `instance`, `result`.
    pub closes: Family<Labels, Counter>,
    /// The age of retired sessions, by `database`.
    pub retired_age_seconds: Histograms,
    /// The oldest session that is joined, in seconds.
    pub oldest_session_seconds: Seconds,
    /// Drains of the agent's own under way.
    pub drains: Gauge,
    /// Drains begun, by `server`, `reason`.
    pub drains_begun: Family<Labels, Counter>,
    /// Whether each proxy's runtime socket answers, by `proxy`.
    pub proxy_up: Family<Labels, Gauge>,
    /// Clients that an Envoy did not hand to a server, and very short sessions, by `proxy`,
    /// `cluster` (`other` where an Envoy told of one that is not configured), `reason`.
    pub hand_offs: Family<Labels, Counter>,
    /// Settings of Envoy's that are not safe, by `proxy`.
    pub envoy_advice: Family<Labels, Gauge>,
    /// What Envoy has lastingly otherwise than it was sent, by `proxy`.
    pub envoy_differences: Family<Labels, Gauge>,
    /// Access log entries that told of no session, by `proxy`.
    pub access_log_skipped: Family<Labels, Counter>,
    /// Streams of access logs that were not opened, or were ended for what the peer did.
    pub access_log_streams_refused: Counter,
    /// Names of instances that could not be resolved, counted when it begins, by `database`, `instance`.
    pub address_failures: Family<Labels, Counter>,
    /// Endpoints that an Envoy was sent, by `proxy`, `result` (`taken`, `rejected`).
    pub endpoint_pushes: Family<Labels, Counter>,
    /// From sending an Envoy its endpoints to its answer, by `proxy`.
    pub endpoint_push_seconds: Histograms,
    /// Streams for endpoints that were not opened, or were ended for what the peer did.
    pub endpoint_streams_refused: Counter,
    /// How long listing a proxy's sessions took, by `proxy`.
    pub sweep_seconds: Histograms,
    /// Agent-check answers, by `answer`.
    pub agent_checks: Family<Labels, Counter>,
    /// Groups of clients paused by the breaker.
    pub paused_groups: Gauge,
    /// Whether an operator has paused all acting.
    pub paused: Gauge,
    /// Configurations taken or refused, by `result`.
    pub reloads: Family<Labels, Counter>,
    /// How long making a plan took.
    pub plan_seconds: Histogram,
    /// Events left out of the log because there were too many of one kind.
    pub events_collapsed: Counter,
}

fn latency() -> Histogram {
    Histogram::new([0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0])
}

fn ages() -> Histogram {
    Histogram::new([
        1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 720.0, 780.0, 840.0, 900.0, 1_200.0, 3_600.0,
    ])
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("rdslb"),
            logins: Family::default(),
            login_seconds: Family::new_with_constructor(latency),
            liveness: Family::default(),
            liveness_seconds: Family::new_with_constructor(latency),
            verdict: Family::default(),
            token_expires: Family::default(),
            token_failures: Family::default(),
            certificate_expires: Family::default(),
            host_connect_errors: Family::default(),
            host_connect_errors_limit: Family::default(),
            host_connects_aborted: Family::default(),
            host_resets: Family::default(),
            host_blocked: Family::default(),
            sessions: Gauge::default(),
            due: Gauge::default(),
            holds: Family::default(),
            closes: Family::default(),
            retired_age_seconds: Family::new_with_constructor(ages),
            oldest_session_seconds: Seconds::default(),
            drains: Gauge::default(),
            drains_begun: Family::default(),
            proxy_up: Family::default(),
            hand_offs: Family::default(),
            envoy_advice: Family::default(),
            envoy_differences: Family::default(),
            access_log_skipped: Family::default(),
            access_log_streams_refused: Counter::default(),
            address_failures: Family::default(),
            endpoint_pushes: Family::default(),
            endpoint_push_seconds: Family::new_with_constructor(latency),
            endpoint_streams_refused: Counter::default(),
            sweep_seconds: Family::new_with_constructor(latency),
            agent_checks: Family::default(),
            paused_groups: Gauge::default(),
            paused: Gauge::default(),
            reloads: Family::default(),
            plan_seconds: latency(),
            events_collapsed: Counter::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("logins", "Full IAM logins by result", self.logins.clone());
        r.register("login_phase_seconds", "Time of each phase of a login", self.login_seconds.clone());
        r.register("liveness", "Liveness queries by result", self.liveness.clone());
        r.register("liveness_seconds", "Time of a liveness query", self.liveness_seconds.clone());
        r.register("server_state", "1 for the state a server's verdict is in", self.verdict.clone());
        r.register(
            "token_expires_timestamp_seconds",
            "When the token in use expires",
            self.token_expires.clone(),
        );
        r.register("token_failures", "Tokens that could not be made", self.token_failures.clone());
        r.register(
            "certificate_expires_timestamp_seconds",
            "When the server's certificate expires",
            self.certificate_expires.clone(),
        );
        r.register(
            "host_connect_errors",
            "Failed connections counted against an address",
            self.host_connect_errors.clone(),
        );
        r.register(
            "host_connect_errors_limit",
            "So many block an address",
            self.host_connect_errors_limit.clone(),
        );
        r.register(
            "host_connects_aborted",
            "Failed connections since the server started",
            self.host_connects_aborted.clone(),
        );
        r.register("host_resets", "Logins to take such a count back", self.host_resets.clone());
        r.register("host_blocked", "Whether an address is blocked", self.host_blocked.clone());
        r.register("sessions", "Sessions known", self.sessions.clone());
        r.register("sessions_due", "Sessions that are due", self.due.clone());
        r.register("holds", "Sessions and servers that are due and left alone", self.holds.clone());
        r.register("closes", "Closes tried, by what became of them", self.closes.clone());
        r.register("retired_age_seconds", "Age of retired sessions", self.retired_age_seconds.clone());
        r.register(
            "oldest_session_seconds",
            "Age of the oldest joined session",
            self.oldest_session_seconds.clone(),
        );
        r.register("drains", "Drains of the agent's own under way", self.drains.clone());
        r.register("drains_begun", "Drains begun", self.drains_begun.clone());
        r.register("proxy_up", "Whether a proxy's runtime socket answers", self.proxy_up.clone());
        r.register("hand_offs", "Clients not handed to a server by Envoy", self.hand_offs.clone());
        r.register("envoy_advice", "Settings of Envoy that are not safe", self.envoy_advice.clone());
        r.register("envoy_differences", "What Envoy has not as sent", self.envoy_differences.clone());
        r.register("access_log_skipped", "Access log entries of no session", self.access_log_skipped.clone());
        r.register(
            "access_log_streams_refused",
            "Streams of access logs refused or ended",
            self.access_log_streams_refused.clone(),
        );
        r.register("address_failures", "Names of instances not resolved", self.address_failures.clone());
        r.register("endpoint_pushes", "Endpoints sent to an Envoy", self.endpoint_pushes.clone());
        r.register(
            "endpoint_push_seconds",
            "From sending endpoints to Envoy's answer",
            self.endpoint_push_seconds.clone(),
        );
        r.register(
            "endpoint_streams_refused",
            "Streams for endpoints refused or ended",
            self.endpoint_streams_refused.clone(),
        );
        r.register("sweep_seconds", "Time of listing a proxy's sessions", self.sweep_seconds.clone());
        r.register("agent_checks", "Agent-check answers", self.agent_checks.clone());
        r.register("paused_groups", "Groups of clients paused by the breaker", self.paused_groups.clone());
        r.register("paused", "Whether an operator has paused all acting", self.paused.clone());
        r.register("config_reloads", "Configurations taken or refused", self.reloads.clone());
        r.register("plan_seconds", "Time of making a plan", self.plan_seconds.clone());
        r.register("events_collapsed", "Log events left out", self.events_collapsed.clone());
    }

    /// Forgets what states were of, for another configuration: its tasks set their own at once,
    /// and those of what is no longer configured would stay as they were. What is counted stays.
    pub fn forget_states(&self) {
        for states in [
            &self.verdict,
            &self.token_expires,
            &self.certificate_expires,
            &self.host_connect_errors,
            &self.host_connect_errors_limit,
            &self.host_connects_aborted,
            &self.host_blocked,
            &self.proxy_up,
            &self.envoy_advice,
            &self.envoy_differences,
        ] {
            states.clear();
        }
    }

    /// The exposition text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            // Writing to a String fails only if a metric's own encoder does.
            let _ = write!(text, "# encoding failed");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_longer_configured_has_no_state() {
        let metrics = Metrics::default();
        let labels = vec![("server", "orders/gone".to_owned()), ("state", "up".to_owned())];
        metrics.verdict.get_or_create(&labels).set(1);
        metrics.drains_begun.get_or_create(&vec![("server", "orders/gone".to_owned())]).inc();
        metrics.forget_states();
        let text = metrics.text();
        assert!(!text.contains("rdslb_server_state{"), "{text}");
        assert!(text.contains("rdslb_drains_begun_total{"), "what has happened has happened: {text}");
    }
}
