//! The shape of the configuration file. The comments here are the documentation
//! of the keys: `rds-lb-agent schema` prints them.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_saphyr::{Location, Spanned};

/// A value and where it stands.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub struct At<T>(Spanned<T>);

impl<T> At<T> {
    /// The value.
    pub fn value(&self) -> &T {
        &self.0.value
    }

    /// Where it stands.
    pub fn location(&self) -> Location {
        self.0.referenced
    }
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// The configuration of rds-lb-agent.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// The RDS instances and clusters to look after.
    pub databases: At<Vec<Database>>,
    /// The proxies in front of them, and which of their servers is which instance.
    #[serde(default)]
    pub proxies: Vec<At<Proxy>>,
    /// What is done about sessions that outlive a token. Without this section the agent
    /// only observes: it reports what it would do and needs no right to close anything.
    pub sessions: Option<Sessions>,
    /// Where the agent listens. Loopback and a Unix socket by default.
    #[serde(default)]
    pub listen: Listen,
    /// Where the agent remembers its drains and the last roles. Default: /var/lib/rds-lb-agent
    pub state_dir: Option<At<String>>,
    /// What the agent says on standard error.
    #[serde(default)]
    pub log: Log,
}

/// An RDS instance or cluster.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// A short name of your choice: it stands in logs, metrics and URLs.
    pub name: At<String>,
    /// The kind of database.
    pub engine: At<Engine>,
    /// The AWS region. Default: what the endpoint's name says, then the AWS environment's.
    pub region: Option<At<String>>,
    /// The database user that the agent logs in as, by IAM: a member of `rds_iam` in
    /// PostgreSQL, a user of `AWSAuthenticationPlugin` in MySQL and MariaDB.
    pub user: At<String>,
    /// The database name to connect to. Default: postgres; none in MySQL and MariaDB
    pub database_name: Option<At<String>>,
    /// A PEM file of certificate authorities, taken anew when it changes. Default: Amazon's RDS
    /// authorities, built in.
    pub ca_file: Option<At<String>>,
    /// Its database servers, each by its own endpoint (not the cluster's).
    pub instances: At<Vec<Instance>>,
    /// How often a full login is tried. Default: 30s
    pub probe_interval: Option<At<String>>,
    /// How often a kept connection is asked. `off` for databases that must be able to pause:
    /// then the agent keeps no connection and does not follow sessions.
    pub liveness: Option<At<Liveness>>,
    /// What refused logins of the agent do to an instance. Default: auto
    pub on_auth_failure: Option<OnAuthFailure>,
    /// A replica further behind than this takes no new sessions while another can. Default: no bound
    pub max_lag: Option<At<String>>,
    /// How sessions are closed in the database. Default: auto
    pub close_method: Option<At<CloseMethod>>,
    /// MySQL and MariaDB: what tells whether a session is inside a transaction. Default: performance_schema
    pub open_transactions: Option<At<OpenTransactions>>,
}

/// The kind of database.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// RDS for PostgreSQL and Aurora PostgreSQL.
    Postgresql,
    /// RDS for MySQL and Aurora MySQL.
    Mysql,
    /// RDS for MariaDB.
    Mariadb,
}

/// What tells whether a session of MySQL or MariaDB is inside a transaction.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OpenTransactions {
    /// The events of `performance_schema`. Where they are switched off, every session is held.
    PerformanceSchema,
    /// `information_schema.innodb_trx`, and at least a second of quiet. A transaction that
    /// has touched no row yet does not show there: it can be cut.
    InnodbTrx,
    /// Both must say that there is none; where either cannot be seen, every session is held.
    Strict,
}

/// How often a kept connection is asked.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(untagged)]
pub enum Liveness {
    /// `off`, or one interval for all instances.
    Word(String),
    /// By role.
    ByRole(LivenessByRole),
    /// YAML reads a bare `off` as false.
    Switch(bool),
}

/// How often a kept connection is asked, by the role of the instance.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LivenessByRole {
    /// How often the writer is asked. Default: 250ms
    pub writer: Option<At<String>>,
    /// How often readers are asked. Default: 1s
    pub reader: Option<At<String>>,
}

impl<'de> Deserialize<'de> for Liveness {
    /// By hand: `untagged` would lose the places, and let unknown keys pass.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyOfThem;

        impl<'de> Visitor<'de> for AnyOfThem {
            type Value = Liveness;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`off`, an interval like 500ms, or {writer: 250ms, reader: 1s}")
            }

            fn visit_bool<E: Error>(self, on: bool) -> Result<Liveness, E> {
                Ok(Liveness::Switch(on))
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<Liveness, E> {
                Ok(Liveness::Word(word.to_owned()))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Liveness, E> {
                Ok(Liveness::Word(number.to_string()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Liveness, A::Error> {
                LivenessByRole::deserialize(MapAccessDeserializer::new(map)).map(Liveness::ByRole)
            }
        }

        deserializer.deserialize_any(AnyOfThem)
    }
}

/// What refused logins of the agent do to an instance.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnAuthFailure {
    /// Keep it while all its siblings refuse too (then it is the agent, the token or IAM);
    /// drain it when it refuses twice, some seconds apart, and a sibling accepts. That is
    /// health, and not about sessions: it happens in mode `observe` too.
    Auto,
    /// Keep it.
    Keep,
    /// Take it down.
    Down,
}

/// How sessions are closed in the database.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CloseMethod {
    /// By the function if it is installed, else by whatever else is allowed.
    Auto,
    /// By the agent's own right: `pg_signal_backend`, or `CONNECTION ADMIN` for `KILL`.
    Signal,
    /// By the function of deploy/postgresql/retire.sql, or the procedure of deploy/mysql/retire.sql.
    Function,
    /// By `mysql.rds_kill`, which RDS gives in place of `KILL` (MySQL and MariaDB).
    Platform,
}

/// One database server.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Instance {
    /// A short name of your choice.
    pub name: At<String>,
    /// The RDS name and port: what is signed and what TLS verifies.
    pub endpoint: At<String>,
    /// What is dialled. Default: the endpoint
    pub connect: Option<At<String>>,
}

/// One proxy: a HAProxy with its backends, or an Envoy with its clusters.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Proxy {
    /// A HAProxy.
    pub haproxy: Option<Haproxy>,
    /// Its backends, by name.
    pub backends: Option<BTreeMap<String, Backend>>,
    /// An Envoy.
    pub envoy: Option<Envoy>,
    /// Its clusters, by name.
    pub clusters: Option<BTreeMap<String, Cluster>>,
}

/// How to reach a HAProxy.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Haproxy {
    /// Its runtime socket (`stats socket ... level admin`): /path, or HOST:PORT
    pub socket: At<String>,
    /// Its master socket (`haproxy -S`), to see sessions that live on in old workers after a reload.
    pub master: Option<At<String>>,
}

/// How to know an Envoy. It comes to the agent (`listen.envoy`) for its endpoints and with its
/// access log.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Envoy {
    /// Its `node.id`. Default: any, where there is one Envoy alone
    pub node: Option<At<String>>,
    /// Its admin interface, to see that it took what it was sent: /path, or HOST:PORT. Default: it is not asked
    pub admin: Option<At<String>>,
    /// Its access log as a file of JSON lines, for what happened while the agent was away. Default: it is not read
    pub access_log: Option<At<String>>,
}

/// One cluster of an Envoy: which role it wants, and of which instances.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// The database behind it.
    pub database: At<String>,
    /// The role it wants of its endpoints.
    pub role: Role,
    /// Its instances. Default: all of the database
    pub instances: Option<At<Vec<At<String>>>>,
}

/// One backend: which role it wants, and which of its servers is which instance.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// The database behind it.
    pub database: At<String>,
    /// The role it wants of its servers.
    pub role: Role,
    /// Its servers: HAProxy's name of each, and the instance's name.
    pub servers: At<BTreeMap<String, At<String>>>,
}

/// The role a backend wants.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The one that takes writes.
    Writer,
    /// Replicas; the writer only when no replica is usable.
    Reader,
    /// Whatever answers.
    Any,
}

/// What is done about sessions that outlive a token.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sessions {
    /// observe: report only. drain: drain servers only. retire: close sessions between
    /// transactions, and drain where it helps. Default: observe
    pub mode: Option<Mode>,
    /// The age at which a session has to go, give or take 10 %. Default: 14m
    pub max_age: Option<At<String>>,
    /// How long a session is idle before it is closed, in the first half of its window. Default: 1s
    pub quiet: Option<At<String>>,
    /// The same in the second half and after. Default: 200ms
    pub quiet_min: Option<At<String>>,
    /// What happens at its limit to a session that is never quiet. Default: hold
    pub busy: Option<Busy>,
    /// Who closes. Default: database
    pub close_via: Option<CloseVia>,
    /// Closes by the agent plus its own logins, on one instance, in any second. Default: 5
    pub login_budget: Option<At<u32>>,
    /// Closes on an instance that is no longer the writer, in any second (see `demotion_grace`). Default: 100
    pub failover_budget: Option<At<u32>>,
    /// The share of a server's sessions that has to be due before it is drained. Default: 50%
    pub drain_share: Option<At<String>>,
    /// A drain ends after this, whatever is left. Default: 60s
    pub drain_deadline: Option<At<String>>,
    /// The share of a backend's usable servers that always stays. Default: 50%
    pub capacity_floor: Option<At<String>>,
    /// Whose sessions are looked after. Default: those of users who log in by IAM
    pub users: Option<At<Vec<String>>>,
    /// Who is left alone.
    #[serde(default)]
    pub exempt: Exempt,
    /// Past its limit by this much, a session goes even inside a transaction. Default: never
    pub force_after: Option<At<String>>,
    /// After this, sessions go from an instance that is no longer the writer their backend
    /// wants, even inside a transaction. Default: never
    pub demotion_grace: Option<At<String>>,
}

/// What the agent may do to sessions.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Report what it would do.
    Observe,
    /// Drain servers.
    Drain,
    /// Close sessions between transactions, and drain where it helps.
    Retire,
}

/// What happens at its limit to a session that is never quiet.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Busy {
    /// It is held, and reported.
    Hold,
    /// It is caught within milliseconds of going idle. Some clients see an error at BEGIN.
    Catch,
}

/// Who closes sessions.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CloseVia {
    /// The database, in one guarded statement; the client reads why.
    Database,
    /// The proxy, after the database says idle; the client sees the end of the stream.
    Proxy,
}

/// Who is left alone.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Exempt {
    /// Database users.
    #[serde(default)]
    pub users: Vec<String>,
    /// Names of databases inside the server.
    #[serde(default)]
    pub databases: Vec<String>,
    /// Application names; a trailing * stands for any ending.
    #[serde(default)]
    pub applications: Vec<String>,
    /// Networks of clients, like 10.1.0.0/16.
    #[serde(default)]
    pub networks: Vec<At<String>>,
}

/// Where the agent listens.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// For HAProxy's agent checks. Default: 127.0.0.1:7878
    pub agent_check: Option<At<String>>,
    /// For HTTP: health, metrics, state. Default: 127.0.0.1:7879
    pub http: Option<At<String>>,
    /// For Envoy, by gRPC: endpoint discovery, access logs, health. The /path of a Unix socket,
    /// or HOST:PORT. Default: /run/rds-lb-agent/envoy.sock where an Envoy is configured
    pub envoy: Option<At<String>>,
    /// The control socket. Default: /run/rds-lb-agent/control.sock
    pub control: Option<At<String>>,
    /// Listen on addresses that other hosts can reach. Default: false
    pub allow_remote: Option<bool>,
}

/// What the agent says on standard error.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// json or text. Default: json
    pub format: Option<LogFormat>,
    /// error, warn, info, debug or trace. Default: info
    pub level: Option<LogLevel>,
}

/// How log lines look.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Lines of JSON.
    #[default]
    Json,
    /// Text for people.
    Text,
}

/// The least important lines that are written.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// What needs a person.
    Error,
    /// What may need one.
    Warn,
    /// What happened.
    #[default]
    Info,
    /// What was tried.
    Debug,
    /// Everything.
    Trace,
}
