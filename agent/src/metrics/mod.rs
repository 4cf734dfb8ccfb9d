//! All metrics of the agent, in one table: prefix `rdslb_`, base units.
//!
//! Registration, the help text at `/metrics` and docs/METRICS.md come from the table. Metrics are
//! changed by events (`events`), by the tasks that own what they count, and by the snapshot.
//!
//! - [`labels`]: label sets and their values.
//! - [`format`]: the two text formats. [`process`]: the usual metrics of a process.

mod format;
pub mod labels;
mod process;

pub use format::Format;

use agent_core::{
    InstanceId,
    health::{ServerConfig, Source, State},
    plan::Retired,
};
use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use labels::{
    CloseResult, LabelNames, LivenessResult, LoginResult, OfAddress, OfAnswer, OfAnswered, OfBackend,
    OfBuild, OfClose, OfDatabase, OfDrain, OfFailure, OfHold, OfInstance, OfLine, OfLiveness, OfLogin,
    OfMode, OfPath, OfPhase, OfProxy, OfPush, OfQuestion, OfReload, OfReset, OfRole, OfServer, OfSource,
    OfState, ReloadResult, Word,
};

type Counters<L> = Family<L, Counter>;
type Gauges<L> = Family<L, Gauge>;
type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;
type Seconds = Gauge<f64, std::sync::atomic::AtomicU64>;

/// `field: Type [= initial value], "name without prefix and suffix", "help";`
macro_rules! metrics {
    ($($field:ident: $type:ty $(= $initial:expr)?, $name:literal, $help:literal;)*) => {
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            $(#[doc = $help] pub $field: $type,)*
        }

        impl Default for Metrics {
            fn default() -> Self {
                let mut registry = Registry::with_prefix("rdslb");
                $(
                    let $field: $type = metrics!(@initial $($initial)?);
                    registry.register($name, $help, $field.clone());
                )*
                Self { registry, $($field),* }
            }
        }

        /// Every metric, in the order of the table.
        pub const DESCRIPTIONS: &[Description] = &[$(Description {
            field: stringify!($field),
            name: $name,
            kind: <$type as Kind>::KIND,
            labels: <$type as Kind>::LABELS,
            help: $help,
        }),*];
    };
    (@initial) => { Default::default() };
    (@initial $initial:expr) => { $initial };
}

metrics! {
    build_info: Gauges<OfBuild>, "build_info",
        "1, with the version of the agent";
    mode: Gauges<OfMode>, "mode",
        "1 for the mode of the `sessions` section, `observe`, `drain` or `retire`";
    config_last_reload_successful: Gauge = started(), "config_last_reload_successful",
        "1 while the configuration file is in force, 0 after it changed and was refused";
    snapshot_age_seconds: Seconds, "snapshot_age_seconds",
        "Time since the agent last decided";
    usable_servers: Gauges<OfBackend>, "usable_servers",
        "Servers of the backend whose verdict is up";
    instance_role: Gauges<OfRole>, "instance_role",
        "1 for the role of the instance by its own last answer, `writer` or `reader`, 0 for the other one";
    agents: Gauges<OfInstance>, "agents",
        "Agents on the instance, with this one, by their locks in the database; absent while they cannot be read";
    shared_permits: Gauges<OfInstance>, "shared_permits",
        "Permits of the login budget that all agents share, held by this one: closes in any one second";
    agents_disagree: Gauges<OfDatabase>, "agents_disagree",
        "1 while other agents take another instance of the database for the writer than this one";
    instance_lag_seconds: Family<OfInstance, Seconds>, "instance_lag_seconds",
        "How far a replica is behind, where it can say";
    logins: Counters<OfLogin>, "logins",
        "Full IAM logins. `result` is `ok` or the kind of the fault";
    login_seconds: Histograms<OfPhase> = Family::new_with_constructor(latency), "login_phase_seconds",
        "Duration of each phase of a login";
    liveness: Counters<OfLiveness>, "liveness",
        "Liveness queries. `result` is `ok`, `failed`, or `starved`: not answered in time while the agent had no processor";
    liveness_seconds: Histograms<OfInstance> = Family::new_with_constructor(latency), "liveness_seconds",
        "Duration of liveness queries";
    verdict: Gauges<OfState>, "server_state",
        "1 for the state of the server's verdict, 0 for the other states";
    source_up: Gauges<OfSource>, "source_up",
        "Whether a source on an instance that was lost after a good login (role, sessions) can be read again";
    source_losses: Counters<OfSource>, "source_losses",
        "Losses of a source on an instance after a good login (role, sessions)";
    address_proved: Gauges<OfServer>, "server_address_proved",
        "Whether a login has proved the address that HAProxy dials for the server; only where the agent dials another one";
    verdicts_observed: Counters<OfState>, "verdicts_observed",
        "Verdicts that the proxy did not get because of `routing: observe`, by their state";
    token_file_expires: Gauges<OfPath>, "token_file_expires_timestamp_seconds",
        "When the first token in a token file for clients expires";
    token_expires: Gauges<OfInstance>, "token_expires_timestamp_seconds",
        "When the token in use expires, in seconds since 1970";
    token_failures: Counters<OfInstance>, "token_failures",
        "Tokens that could not be generated";
    certificate_expires: Gauges<OfInstance>, "certificate_expires_timestamp_seconds",
        "When the certificate of the database server expires, in seconds since 1970";
    host_connect_errors: Gauges<OfAddress>, "host_connect_errors",
        "Connect errors that the server has counted for an address of the proxy. A full login from the address resets them to 0 (MySQL, MariaDB)";
    host_connect_errors_limit: Gauges<OfInstance>, "host_connect_errors_limit",
        "`max_connect_errors` of the server: this many connect errors block an address";
    host_connects_aborted: Gauges<OfInstance>, "host_connects_aborted",
        "Failed connections of all clients since the server started. Only where connect errors per address cannot be read";
    host_resets: Counters<OfReset>, "host_resets",
        "Logins made to reset connect errors. `result` is `reset`, `unchanged` or `failed`";
    host_blocked: Gauges<OfInstance>, "host_blocked",
        "1 while the server blocks an address of the proxy or the agent (error 1129)";
    database_ready: Gauges<OfDatabase>, "database_ready",
        "1 while the agent can log in to the database as configured; 0 while its CA file or its region is missing";
    topology_answers: Counters<OfAnswered>, "topology_answers",
        "Questions to RDS's API about the instances of the database. `result` is `ok` or why it did not answer, such as `denied` or `throttled`";
    topology_differences: Gauges<OfDatabase>, "topology_differences",
        "Lasting differences between the configured instances and what AWS last reported; only with `topology`";
    sessions: Gauge, "sessions",
        "Sessions in the ledger";
    due: Gauge, "sessions_due",
        "Sessions that are due";
    holds: Gauges<OfHold>, "holds",
        "Sessions and servers that are due and held";
    closes: Counters<OfClose>, "closes",
        "Attempts to close a session";
    retired_age_seconds: Histograms<OfDatabase> = Family::new_with_constructor(ages), "retired_age_seconds",
        "Age of retired sessions";
    oldest_session_seconds: Seconds, "oldest_session_seconds",
        "Age of the oldest joined session";
    drains: Gauge, "drains",
        "Drains of the agent in progress";
    drains_begun: Counters<OfDrain>, "drains_begun",
        "Drains that the agent began";
    proxy_up: Gauges<OfProxy>, "proxy_up",
        "1 while the runtime socket of the HAProxy answers, or the access log of the Envoy arrives";
    proxy_differences: Gauges<OfProxy>, "proxy_differences",
        "Differences between the HAProxy and the configuration: missing backends and servers, agent checks that do not reach the agent";
    session_failures: Counters<OfFailure>, "session_failures",
        "Client sessions that failed, by the phase in which they did (docs/HANDOFFS.md). `certainty` is `certain`, `likely`, or `suspected` for very short sessions that may have gone well. `backend` is also the cluster of an Envoy, and `other` if it is not configured";
    session_log_lines: Counters<OfLine>, "session_log_lines",
        "Lines on the log of a HAProxy. `result` is `session`, `notice`, `elsewhere` (a backend that is not configured) or `unread`";
    session_log_lost: Counters<OfProxy>, "session_log_lost",
        "Lines on the log of a HAProxy that did not arrive, by their numbers. Lines of `option tcplog` have none";
    envoy_advice: Gauges<OfProxy>, "envoy_advice",
        "Unsafe settings found in the configuration of the Envoy";
    envoy_differences: Gauges<OfProxy>, "envoy_differences",
        "Lasting differences between what the Envoy was sent and what it uses";
    access_log_skipped: Counters<OfProxy>, "access_log_skipped",
        "Access log entries that describe no session";
    access_log_streams_refused: Counter, "access_log_streams_refused",
        "Access log streams refused or closed because of what the peer did";
    address_failures: Counters<OfInstance>, "address_failures",
        "Times that the name of an instance became unresolvable";
    endpoint_pushes: Counters<OfPush>, "endpoint_pushes",
        "Sets of endpoints sent to an Envoy. `result` is `taken` or `rejected`";
    endpoint_push_seconds: Histograms<OfProxy> = Family::new_with_constructor(latency), "endpoint_push_seconds",
        "Time from sending endpoints to the answer of the Envoy";
    endpoint_streams_refused: Counter, "endpoint_streams_refused",
        "Endpoint streams refused or closed because of what the peer did";
    sweep_seconds: Histograms<OfProxy> = Family::new_with_constructor(latency), "sweep_seconds",
        "Duration of listing the sessions of a HAProxy";
    agent_checks: Counters<OfAnswer>, "agent_checks",
        "Agent checks answered. `answer` is `server` or `unknown_server`";
    http_connections_closed: Counter, "http_connections_closed",
        "HTTP connections that were closed because there were too many";
    unknown_names: Counters<OfQuestion>, "unknown_names",
        "Health checks and agent checks of a name that is not configured. `question` is `http` or `agent_check`";
    paused_groups: Gauge, "paused_groups",
        "Groups of clients paused by the breaker";
    paused: Gauge, "paused",
        "1 while an operator has paused the agent";
    reloads: Counters<OfReload>, "config_reloads",
        "Changed configurations. `result` is `taken` or `refused`";
    plan_seconds: Histogram = latency(), "plan_seconds",
        "Duration of making a plan";
    events_collapsed: Counter, "events_collapsed",
        "Log lines suppressed because there were too many of one kind";
}

/// A row of the table.
#[derive(Copy, Clone, Debug)]
pub struct Description {
    /// The field of [`Metrics`].
    pub field: &'static str,
    name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    pub labels: &'static [&'static str],
    help: &'static str,
}

impl Description {
    /// The name as it is exposed; of a histogram, without `_bucket`, `_sum` and `_count`.
    pub fn name(&self) -> String {
        let suffix = if self.kind == "counter" { "_total" } else { "" };
        format!("rdslb_{}{suffix}", self.name)
    }

    pub fn help(&self) -> String {
        format!("{}.", self.help)
    }
}

trait Kind {
    const KIND: &'static str;
    const LABELS: &'static [&'static str] = &[];
}

impl Kind for Counter {
    const KIND: &'static str = "counter";
}

impl<N, A> Kind for Gauge<N, A> {
    const KIND: &'static str = "gauge";
}

impl Kind for Histogram {
    const KIND: &'static str = "histogram";
}

impl<L: LabelNames, M: Kind, C> Kind for Family<L, M, C> {
    const KIND: &'static str = M::KIND;
    const LABELS: &'static [&'static str] = L::NAMES;
}

fn started() -> Gauge {
    let gauge = Gauge::default();
    gauge.set(1);
    gauge
}

fn latency() -> Histogram {
    Histogram::new([0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0])
}

fn ages() -> Histogram {
    Histogram::new([
        1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 720.0, 780.0, 840.0, 900.0, 1_200.0, 3_600.0,
    ])
}

impl Metrics {
    /// Begins the counters of a configuration at 0, so that their first increase is visible.
    pub fn begin<'a>(
        &self,
        mode: &impl serde::Serialize,
        instances: impl Iterator<Item = &'a InstanceId>,
        servers: &[ServerConfig],
    ) {
        self.build_info.get_or_create(&OfBuild { version: env!("CARGO_PKG_VERSION").to_owned() }).set(1);
        self.mode.clear();
        self.mode.get_or_create(&OfMode { mode: Word::of(mode) }).set(1);
        for result in [ReloadResult::Taken, ReloadResult::Refused] {
            drop(self.reloads.get_or_create(&OfReload { result }));
        }
        for id in instances {
            let OfInstance { database, instance } = &id.into();
            let (database, instance) = (|| database.clone(), || instance.clone());
            drop(self.token_failures.get_or_create(&id.into()));
            let of_login = OfLogin { database: database(), instance: instance(), result: LoginResult::Ok };
            drop(self.logins.get_or_create(&of_login));
            for result in [LivenessResult::Ok, LivenessResult::Failed] {
                let labels = OfLiveness { database: database(), instance: instance(), result };
                drop(self.liveness.get_or_create(&labels));
            }
            for source in [Source::Role, Source::Sessions] {
                let labels =
                    OfSource { database: database(), instance: instance(), source: Word::of(&source) };
                drop(self.source_losses.get_or_create(&labels));
            }
            for result in [Retired::Closed, Retired::Failed] {
                let result = CloseResult(Word::of(&result));
                drop(self.closes.get_or_create(&OfClose {
                    database: database(),
                    instance: instance(),
                    result,
                }));
            }
        }
        for server in servers {
            for state in [State::Up, State::Drain, State::Down, State::Unknown] {
                drop(self.verdict.get_or_create(&OfState::new(&server.id, &state)));
            }
            let OfServer { backend, .. } = (&server.id).into();
            drop(self.usable_servers.get_or_create(&OfBackend { backend }));
        }
    }

    /// Clears all states at a reload: tasks of the new configuration set theirs at once, and those of
    /// removed instances, servers and proxies would never change again. Counters stay.
    pub fn forget_states(&self) {
        self.verdict.clear();
        self.usable_servers.clear();
        self.instance_role.clear();
        self.instance_lag_seconds.clear();
        self.token_expires.clear();
        self.token_file_expires.clear();
        self.certificate_expires.clear();
        self.host_connect_errors.clear();
        self.host_connect_errors_limit.clear();
        self.host_connects_aborted.clear();
        self.host_blocked.clear();
        self.database_ready.clear();
        self.topology_differences.clear();
        self.proxy_up.clear();
        self.proxy_differences.clear();
        self.envoy_advice.clear();
        self.envoy_differences.clear();
    }

    /// The exposition, with the metrics of the process.
    pub fn text(&self, format: Format) -> String {
        format.text(&self.registry, &process::text())
    }
}

#[cfg(test)]
mod tests {
    use agent_core::{FaultKind, ProxyIndex, ServerId, plan::DrainReason, plan::Retired};

    use super::{
        labels::{CloseResult, LoginResult, Word},
        *,
    };

    #[test]
    fn a_reload_clears_states_and_keeps_counters() {
        let metrics = Metrics::default();
        let server = ServerId::new(ProxyIndex(0), "orders", "gone");
        metrics.verdict.get_or_create(&OfState::new(&server, &State::Up)).set(1);
        metrics.drains_begun.get_or_create(&OfDrain::new(&server, DrainReason::SessionsDue)).inc();
        metrics.forget_states();
        let text = metrics.text(Format::Prometheus);
        assert!(!text.contains("rdslb_server_state{"), "{text}");
        assert!(text.contains("rdslb_drains_begun_total{"), "{text}");
    }

    #[test]
    fn label_values_are_snake_case_words() {
        let metrics = Metrics::default();
        let (database, instance) = ("orders".to_owned(), "a".to_owned());
        let result = LoginResult::Failed(FaultKind::LoginRefused);
        metrics
            .logins
            .get_or_create(&OfLogin { database: database.clone(), instance: instance.clone(), result })
            .inc();
        let result = CloseResult(Word::of(&Retired::OverBudget));
        metrics.closes.get_or_create(&OfClose { database, instance, result }).inc();
        let server = ServerId::new(ProxyIndex(0), "w", "pg1");
        metrics.drains_begun.get_or_create(&OfDrain::new(&server, DrainReason::SessionsDue)).inc();
        metrics.verdict.get_or_create(&OfState::new(&server, &State::Unknown)).set(1);
        let text = metrics.text(Format::Prometheus);
        for line in [
            r#"rdslb_logins_total{database="orders",instance="a",result="login_refused"} 1"#,
            r#"rdslb_closes_total{database="orders",instance="a",result="over_budget"} 1"#,
            r#"rdslb_drains_begun_total{backend="w",server="pg1",reason="sessions_due"} 1"#,
            r#"rdslb_server_state{backend="w",server="pg1",state="unknown"} 1"#,
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
