//! The documented view of the agent's state: `GET /state`, and `rds-lb-agent status --output json`.
//!
//! Plain data. [`api::status`](crate::api) fills it in, [`commands`](crate::commands) renders it. Within one
//! `schema_version` fields are only added.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    events::recent::Line,
    seen::{Difference, ShownServer},
};

/// The version of the format. It changes when a field is removed or gets another meaning.
pub const SCHEMA_VERSION: u32 = 1;

/// One session of `sessions --output json`. Numbers named `_s` are seconds.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SessionRow {
    /// `database/instance`.
    pub instance: String,
    /// Its process or connection id in the database.
    pub pid: u64,
    pub user: String,
    pub application: String,
    /// `backend/server`; absent until it is joined with a session of a proxy.
    pub server: Option<String>,
    /// The client of the proxy.
    pub source: Option<String>,
    /// The client of the database: the proxy's outgoing address.
    pub client: Option<String>,
    /// `joined`, `not_joined` or `sources_disagree`.
    pub join: String,
    /// `idle`, `in_transaction`, `running` or `unknown`.
    pub activity: String,
    pub idle_s: Option<f64>,
    /// Why it is held although it is due, as a word; absent while it is not held.
    pub hold: Option<String>,
    /// The same as a sentence.
    pub explanation: Option<String>,
    pub age_s: f64,
    /// The age at which it has to be retired.
    pub limit_s: f64,
    /// The time until it may be retired; 0 if it is due.
    pub due_in_s: f64,
}

/// The state of the agent. Times are RFC 3339 in UTC; numbers named `_s` are seconds.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// The version of this format: 1.
    pub schema_version: u32,
    pub agent: AgentStatus,
    /// `observe`, `drain` or `retire`.
    pub mode: String,
    /// `act` or `observe`.
    pub routing: String,
    pub max_age_s: f64,
    /// The operator's pause, if any.
    pub paused: Option<PauseStatus>,
    /// Groups of clients whose sessions the breaker keeps: user, application, network.
    pub paused_groups: Vec<String>,
    pub instances: Vec<InstanceStatus>,
    pub proxies: Vec<ProxyStatus>,
    pub servers: Vec<ServerStatus>,
    pub sessions: SessionsStatus,
    pub drains: Vec<DrainStatus>,
    /// Databases of which other agents take another instance for the writer.
    #[serde(default)]
    pub disagreements: Vec<DisagreementStatus>,
    /// Where proxies differ from the configuration of the agent.
    pub differences: Vec<DifferenceStatus>,
    /// What AWS reports of the databases with `topology`.
    #[serde(default)]
    pub topologies: Vec<TopologyStatus>,
    /// The last log lines of level INFO and above, oldest first.
    pub events: Vec<Line>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct AgentStatus {
    pub version: String,
    pub pid: u32,
    pub started: String,
    /// When the agent last decided.
    pub decided: String,
    pub decided_age_s: f64,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PauseStatus {
    pub since: String,
    /// The user who paused the agent, as far as known.
    pub by: Option<String>,
    pub reason: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct InstanceStatus {
    /// `database/instance`.
    pub instance: String,
    /// `writer` or `reader`, by its own last answer.
    pub role: Option<String>,
    /// `unknown`, `usable`, `silent` or `refusing`.
    pub status: String,
    pub last_login: Option<String>,
    pub last_login_age_s: Option<f64>,
    /// Since when the logins of the agent fail.
    pub login_failed_since: Option<String>,
    /// The last fault, if nothing has succeeded since.
    pub fault: Option<String>,
    pub lag_s: Option<f64>,
    pub token_expires: Option<String>,
    pub token_expires_in_s: Option<f64>,
    /// When the certificate of the database server expires.
    pub certificate_expires: Option<String>,
    pub certificate_expires_in_s: Option<f64>,
    /// What cannot be read there: `role`, `sessions`.
    pub lost: Vec<String>,
    /// Whether clients are refused too, while the agent is: `unseen`, `unconfirmed`, `served_for_clients` or
    /// `confirmed`.
    pub refusal: Option<String>,
    /// What the agent may not do there, and what to grant.
    pub missing: Vec<MissingStatus>,
    /// Agents on the instance, with this one, by their locks; absent while the locks cannot be read.
    pub agents: Option<u32>,
    /// Permits of the shared login budget that this agent holds.
    pub shared_permits: Option<u32>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ProxyStatus {
    /// The runtime socket of a HAProxy, or `envoy:` and the node.
    pub proxy: String,
    /// `haproxy` or `envoy`.
    pub kind: String,
    pub version: Option<String>,
    /// Whether the runtime socket answers, or the Envoy is connected.
    pub answers: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ServerStatus {
    /// `backend/server`.
    pub server: String,
    pub proxy: String,
    pub instance: String,
    /// `writer`, `reader` or `any`.
    pub wanted: String,
    /// `up`, `drain`, `down` or `unknown`. With `routing: observe`, the proxy does not get it.
    pub verdict: String,
    /// The reason as a word.
    pub reason: String,
    /// The reason as a sentence.
    pub why: String,
    /// What would change the verdict.
    pub changes: String,
    pub since: String,
    /// The server as HAProxy shows it; absent for an Envoy.
    pub shown: Option<ShownServer>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct SessionsStatus {
    pub known: usize,
    pub due: usize,
    /// Age of the oldest joined session; absent if there is none.
    pub oldest_s: Option<f64>,
    /// Closed by the agent since its start.
    pub retired: u64,
    /// What is due and held, by reason.
    pub held: BTreeMap<String, usize>,
    /// Instances with more sessions than `login_budget` can retire within `max_age`.
    pub shortages: Vec<ShortageStatus>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ShortageStatus {
    pub instance: String,
    pub sessions: usize,
    /// Closes per second.
    pub needed_per_s: f64,
    pub allowed_per_s: f64,
    /// A `login_budget` that is enough.
    pub login_budget: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct MissingStatus {
    /// As a word.
    pub lacks: String,
    /// What to grant, install or turn on, in the engine's terms.
    pub advice: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DrainStatus {
    pub server: String,
    /// `agent`, `operator` (through the agent) or `proxy` (set in HAProxy itself).
    pub by: String,
    /// `sending`, `held` or `undoing`.
    pub phase: String,
    pub reason: Option<String>,
    pub since: Option<String>,
    pub until: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DisagreementStatus {
    pub database: String,
    /// The instance that this agent takes for the writer.
    pub own: String,
    /// The others, and how many agents take them for the writer.
    pub others: BTreeMap<String, u32>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TopologyStatus {
    pub database: String,
    /// What AWS is asked for: `cluster IDENTIFIER` or `instance IDENTIFIER`.
    pub asked: String,
    /// When AWS answered last; absent before the first answer.
    pub answered: Option<String>,
    pub answered_age_s: Option<f64>,
    /// Why AWS does not answer now. The rest is then as old as the last answer.
    pub error: Option<String>,
    /// Lasting differences to the configuration, each in one sentence.
    pub differences: Vec<String>,
    pub members: Vec<TopologyMember>,
}

/// An instance as AWS reports it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TopologyMember {
    pub identifier: String,
    /// AWS's word, such as `available`.
    pub status: String,
    /// HOST:PORT; absent while the instance is being created.
    pub endpoint: Option<String>,
    /// Whether AWS takes it for the writer of the cluster.
    pub writer: Option<bool>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DifferenceStatus {
    pub proxy: String,
    /// The difference in one sentence.
    pub message: String,
    /// Absent for an address that differs.
    pub difference: Option<Difference>,
}
