//! The documented view of failed sessions: `GET /handoffs`, and `rds-lb-agent handoffs --output json`. Within one
//! `schema_version` fields are only added.

use std::time::{Duration, SystemTime};

use agent_core::{
    Time,
    hand_offs::{Phase, Record, Top},
};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::HandOffs;

/// The longest time that is looked back.
pub const LONGEST: Duration = Duration::from_secs(3_600);

/// Entries of each list of top offenders.
const TOP: usize = 10;

/// Failed client sessions of the last minutes. Times are RFC 3339 in UTC; numbers named `_s` are seconds.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct HandOffsView {
    /// The version of this format: 1.
    pub schema_version: u32,
    /// What was asked for, at most an hour.
    pub since_s: f64,
    /// Failures that are certain or likely, by whole minutes.
    pub failed: u64,
    /// Very short sessions: refused logins, or sessions that were as short as that.
    pub suspected: u64,
    pub phases: Vec<PhaseCount>,
    pub databases: Vec<Count>,
    /// Servers, as `backend/server`.
    pub servers: Vec<Count>,
    /// Client networks: /24, or /64 in IPv6.
    pub networks: Vec<Count>,
    /// Client networks with very short sessions.
    pub suspected_networks: Vec<Count>,
    /// The logs of HAProxies, since the start of the agent.
    pub logs: Vec<LogView>,
    /// The last failures, oldest first. At most 1,000 are kept, and 200 that are only suspected.
    pub last: Vec<FailureRow>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Count {
    pub name: String,
    pub count: u64,
}

/// How many sessions failed in a phase.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PhaseCount {
    pub phase: String,
    pub count: u64,
    /// The likely cause.
    pub cause: String,
    pub advice: String,
}

/// What arrived on the log of a HAProxy.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LogView {
    pub proxy: String,
    /// Sessions of configured backends that ended.
    pub sessions: u64,
    /// HAProxy's lines about servers and checks.
    pub notices: u64,
    /// Sessions of other backends.
    pub elsewhere: u64,
    /// Datagrams that are no lines of this log.
    pub unread: u64,
    /// Lines that did not arrive, by their numbers.
    pub lost: u64,
}

/// A failed session.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct FailureRow {
    /// When it ended, as far as the log arrived at once.
    pub at: String,
    pub proxy: String,
    /// The backend, or the cluster of an Envoy.
    pub backend: String,
    /// Absent if none was chosen.
    pub server: Option<String>,
    /// `database/instance`.
    pub instance: Option<String>,
    /// The client of the proxy; `unix` for one on a Unix socket.
    pub source: String,
    pub phase: String,
    /// `certain`, `likely` or `suspected`.
    pub certainty: String,
    /// The termination state of HAProxy, or the response flags of Envoy.
    pub state: String,
    /// The same in words.
    pub meaning: String,
    /// From accept to end.
    pub age_s: f64,
    pub connect_s: Option<f64>,
    pub retries: Option<u32>,
    pub bytes_from_client: Option<u64>,
    pub bytes_to_client: Option<u64>,
    /// The proxy's own message.
    pub error: Option<String>,
    pub cause: String,
    pub advice: String,
}

impl HandOffs {
    /// The failures of the last time, and at most so many of them whole.
    pub fn view(&self, now: Time, since: Duration, most: usize) -> HandOffsView {
        let since = since.min(LONGEST);
        let wall = SystemTime::now();
        let kept = self.kept();
        let summary = kept.journal.summary(now, since, TOP);
        let last = kept.journal.last(now, since, most);
        HandOffsView {
            schema_version: 1,
            since_s: since.as_secs_f64(),
            failed: summary.failed,
            suspected: summary.suspected,
            phases: summary.phases.iter().map(PhaseCount::from).collect(),
            databases: counts(summary.databases),
            servers: counts(summary.servers),
            networks: counts(summary.networks),
            suspected_networks: counts(summary.suspected_networks),
            logs: kept
                .logs
                .iter()
                .map(|(proxy, log)| LogView {
                    proxy: proxy.clone(),
                    sessions: log.sessions,
                    notices: log.notices,
                    elsewhere: log.elsewhere,
                    unread: log.unread,
                    lost: log.lost,
                })
                .collect(),
            last: last.iter().map(|record| row(record, wall - now.since(record.at))).collect(),
        }
    }
}

fn counts(tops: Vec<Top>) -> Vec<Count> {
    tops.into_iter().map(|Top { name, count }| Count { name, count }).collect()
}

impl From<&Top> for PhaseCount {
    fn from(top: &Top) -> Self {
        let phase = Phase::ALL.into_iter().find(|phase| phase.word() == top.name);
        let words = |of: fn(Phase) -> &'static str| phase.map(of).unwrap_or_default().to_owned();
        Self {
            phase: top.name.clone(),
            count: top.count,
            cause: words(Phase::cause),
            advice: words(Phase::advice),
        }
    }
}

fn row(record: &Record, at: SystemTime) -> FailureRow {
    let failure = &record.failure;
    let at = Timestamp::try_from(at).unwrap_or(Timestamp::UNIX_EPOCH);
    FailureRow {
        at: at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        proxy: failure.proxy.to_string(),
        backend: failure.backend.to_string(),
        server: failure.server.as_deref().map(str::to_owned),
        instance: failure.instance.as_ref().map(ToString::to_string),
        source: failure.client(),
        phase: failure.phase.word().to_owned(),
        certainty: failure.certainty.word().to_owned(),
        state: failure.state.to_string(),
        meaning: failure.meaning.to_string(),
        age_s: failure.lasted.as_secs_f64(),
        connect_s: failure.connected.map(|took| took.as_secs_f64()),
        retries: failure.retries,
        bytes_from_client: failure.from_client,
        bytes_to_client: failure.to_client,
        error: failure.error.as_deref().map(str::to_owned),
        cause: failure.phase.cause().to_owned(),
        advice: failure.phase.advice().to_owned(),
    }
}
