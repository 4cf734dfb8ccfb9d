//! The structure of the configuration file. The doc comments of the keys are their documentation:
//! `rds-lb-agent schema` prints them, and docs/CONFIGURATION.md is generated from them.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_saphyr::{Location, Spanned};

/// A value with its position in the file.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub struct At<T>(Spanned<T>);

impl<T> At<T> {
    pub fn value(&self) -> &T {
        &self.0.value
    }

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
    /// The RDS instances and clusters that the agent manages.
    pub databases: At<Vec<Database>>,
    /// The proxies in front of the databases, and which instance each of their servers is.
    #[serde(default)]
    pub proxies: Vec<At<Proxy>>,
    /// Whether the agent changes where proxies send new sessions. Default: act
    pub routing: Option<At<Routing>>,
    /// The policy for sessions older than the lifetime of an IAM token. Without this section the
    /// agent only observes: it reports what it would do, and needs no right to close sessions.
    pub sessions: Option<Sessions>,
    /// Files with fresh IAM tokens, for clients that read their password from a file.
    #[serde(default)]
    pub token_files: Vec<At<TokenFile>>,
    /// A Unix socket that gives fresh IAM tokens to programs on this host.
    pub token_socket: Option<TokenSocket>,
    /// The addresses that the agent listens on. By default loopback addresses and a Unix socket.
    #[serde(default)]
    pub listen: Listen,
    /// The directory in which the agent records its drains and the last known roles. Default:
    /// /var/lib/rds-lb-agent
    pub state_dir: Option<At<String>>,
    /// Logging to standard error.
    #[serde(default)]
    pub log: Log,
}

/// Whether the agent changes where proxies send new sessions.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Routing {
    /// It does, by health and role.
    Act,
    /// It does not: proxies get neutral answers, and the verdicts that they would get are logged, counted
    /// and shown in `/state`. HTTP requests for one instance and role are answered as with `act`.
    Observe,
}

/// An RDS instance or cluster.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// A short name of your choice. It is used in logs, metrics and URLs.
    pub name: At<String>,
    /// The database engine.
    pub engine: At<Engine>,
    /// The AWS region. Default: the region in the name of the endpoint, else the one of the AWS
    /// environment
    pub region: Option<At<String>>,
    /// The database user of the agent, which logs in by IAM: a member of `rds_iam` in PostgreSQL, a
    /// user identified with `AWSAuthenticationPlugin` in MySQL and MariaDB.
    pub user: At<String>,
    /// The name of the database to connect to. Default: postgres; none in MySQL and MariaDB
    pub database_name: Option<At<String>>,
    /// A PEM file of certificate authorities, reloaded when it changes. Default: the RDS certificate
    /// authorities of Amazon, which are built in
    pub ca_file: Option<At<String>>,
    /// The database servers, each with its own endpoint (not the endpoint of the cluster).
    pub instances: At<Vec<Instance>>,
    /// The cluster or the instance in AWS that `instances` are compared with. The agent asks RDS's API once a minute
    /// and reports differences: members that are missing here, and instances that are missing there. It changes nothing
    /// by them. It needs the policy deploy/iam/policies/topology.json. Default: AWS is not asked
    pub topology: Option<At<Topology>>,
    /// The interval between full logins on each instance. Default: 30s
    pub probe_interval: Option<At<String>>,
    /// The interval between queries on a connection that the agent keeps open. `off` is for databases
    /// that must be able to pause: the agent then keeps no connection open and does not track
    /// sessions.
    pub liveness: Option<At<Liveness>>,
    /// What happens to an instance that refuses the logins of the agent. Default: auto
    pub on_auth_failure: Option<OnAuthFailure>,
    /// A replica with a greater lag gets no new sessions while another one is usable. Default: no limit
    pub max_lag: Option<At<String>>,
    /// What serves reads while no reader can. Default: writer
    pub reader_fallback: Option<ReaderFallback>,
    /// The method by which the database closes sessions. Default: auto
    pub close_method: Option<At<CloseMethod>>,
    /// How the agent finds out whether a session is in a transaction, in MySQL and MariaDB. Default:
    /// performance_schema
    pub open_transactions: Option<At<OpenTransactions>>,
}

/// What `instances` are compared with: one of the keys.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Topology {
    /// The identifier of an Aurora or a Multi-AZ cluster: its members.
    pub cluster: Option<At<String>>,
    /// The identifier of an instance outside of a cluster: it and its read replicas.
    pub instance: Option<At<String>>,
}

/// The database engine.
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

/// How the agent finds out whether a session is in a transaction (MySQL and MariaDB).
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OpenTransactions {
    /// The transaction events of `performance_schema`. Where they are disabled, every session is held.
    PerformanceSchema,
    /// `information_schema.innodb_trx`, and a quiet time of at least one second. A transaction that
    /// has not touched a row is not listed there and may be cut.
    InnodbTrx,
    /// Both must show no transaction. Where one of them cannot be read, every session is held.
    Strict,
}

/// The interval between liveness queries.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(untagged)]
pub enum Liveness {
    /// `off`, or one interval for all instances.
    Word(String),
    ByRole(LivenessByRole),
    /// YAML reads a bare `off` as false.
    Switch(bool),
}

/// The interval between queries on the connection that the agent keeps open, by the role of the instance.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LivenessByRole {
    /// The interval for the writer. Default: 250ms
    pub writer: Option<At<String>>,
    /// The interval for readers. Default: 1s
    pub reader: Option<At<String>>,
}

impl<'de> Deserialize<'de> for Liveness {
    /// Written by hand because `untagged` loses positions and accepts unknown keys.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyForm;

        impl<'de> Visitor<'de> for AnyForm {
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

        deserializer.deserialize_any(AnyForm)
    }
}

/// What happens to an instance that refuses the logins of the agent.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnAuthFailure {
    /// The instance stays in rotation while all its siblings refuse as well, because then the agent,
    /// the token or IAM is at fault. It is drained if it refuses twice, some seconds apart, while a
    /// sibling accepts logins. This is part of the health check and applies in mode `observe` too.
    Auto,
    /// It stays in rotation.
    Keep,
    /// It is taken down.
    Down,
}

/// What serves reads while no reader can.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReaderFallback {
    /// The writer joins the read backends until a reader can serve again.
    Writer,
    /// Nothing: the writer never serves reads, because all of them could overload it.
    None,
}

/// The method by which the database closes sessions.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CloseMethod {
    /// The function if it is installed, else another method that the agent has the rights for.
    Auto,
    /// The agent's own right: `pg_signal_backend`, or `CONNECTION ADMIN` for `KILL`.
    Signal,
    /// The function of deploy/postgresql/retire.sql, or the procedure of deploy/mysql/retire.sql.
    Function,
    /// `mysql.rds_kill`, which RDS offers in place of `KILL` (MySQL and MariaDB).
    Platform,
}

/// A database server.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Instance {
    /// A short name of your choice.
    pub name: At<String>,
    /// The RDS name and port. Tokens are signed for this name, and the certificate is verified
    /// against it.
    pub endpoint: At<String>,
    /// The address to connect to. Default: the endpoint
    pub connect: Option<At<String>>,
}

/// A proxy: either HAProxy with its backends, or Envoy with its clusters.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Proxy {
    /// The sockets of HAProxy.
    pub haproxy: Option<Haproxy>,
    /// The backends of HAProxy, by name.
    pub backends: Option<BTreeMap<String, Backend>>,
    /// How the agent recognizes Envoy.
    pub envoy: Option<Envoy>,
    /// The clusters of Envoy, by name. An endpoint with the name of a server of HAProxy is called
    /// `envoy:CLUSTER/INSTANCE` in logs, metrics and commands.
    pub clusters: Option<BTreeMap<String, Cluster>>,
}

/// The sockets of HAProxy.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Haproxy {
    /// The runtime socket (`stats socket ... level admin`): /path or HOST:PORT
    pub socket: At<String>,
    /// The master socket (`haproxy -S`), which lists the sessions of old workers after a reload.
    /// Default: sessions of old workers are not seen
    pub master: Option<At<String>>,
    /// HAProxy's server state file (`server-state-file`). The agent replaces it after every change,
    /// without its own drains, so that HAProxy starts in the last state when no agent runs. Default: it is
    /// not written
    pub state_file: Option<At<String>>,
    /// Whether the agent also logs in to the address that HAProxy dials for a server, where it differs from
    /// its own, and reports no server as up whose address it has not proved. `false` is for a HAProxy
    /// in another network, whose addresses the agent cannot reach. Default: true
    pub follow_addresses: Option<bool>,
    /// The address on which the agent receives HAProxy's log, with a line for each session that ends:
    /// HOST:PORT for UDP, or the /path of a Unix datagram socket. `rds-lb-agent render haproxy` prints the
    /// lines for haproxy.cfg. Default: failed sessions are not seen
    pub log: Option<At<String>>,
}

/// How the agent recognizes Envoy, which connects to the agent (`listen.envoy`) to get its endpoints
/// and to send its access log.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Envoy {
    /// The `node.id`. Required if several Envoys are configured. Default: any
    pub node: Option<At<String>>,
    /// The admin interface, by which the agent verifies what Envoy uses: /path or HOST:PORT. Default:
    /// it is not used
    pub admin: Option<At<String>>,
    /// A file of JSON lines with the access log, for failures while the agent was not running. Default:
    /// it is not read
    pub access_log: Option<At<String>>,
}

/// A cluster of Envoy: the wanted role, and the instances behind it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// The name of the database.
    pub database: At<String>,
    /// The role that its endpoints must have.
    pub role: Role,
    /// The names of its instances. Default: all instances of the database
    pub instances: Option<At<Vec<At<String>>>>,
}

/// A backend of HAProxy: the wanted role, and the instance behind each server.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// The name of the database.
    pub database: At<String>,
    /// The role that its servers must have.
    pub role: Role,
    /// The name of each server in haproxy.cfg, with the name of its instance.
    pub servers: At<BTreeMap<String, At<String>>>,
}

/// A wanted role.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The instance that accepts writes.
    Writer,
    /// Replicas; the writer only when no replica is usable.
    Reader,
    /// Any instance that accepts logins.
    Any,
}

/// A file with a fresh IAM token, for clients that read their password from a file. It is replaced at once,
/// with mode 0600, well before the token expires and after a change of credentials.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenFile {
    /// The path of the file. Its directory has to exist, and no other user may write to it.
    pub path: At<String>,
    /// The format of the file. Default: plain
    pub format: Option<TokenFormat>,
    /// The RDS names and ports that tokens are signed for: of a cluster or of an instance, never of a load
    /// balancer. A pgpass file has a line for each; the other formats have one.
    pub endpoints: At<Vec<At<String>>>,
    /// The database user that the clients log in as. The credentials of the agent need
    /// `rds-db:connect` for it.
    pub user: At<String>,
    /// The AWS region. Default: the region in the name of the endpoint, else the one of the AWS
    /// environment
    pub region: Option<At<String>>,
    /// The owner of the file, by name or number; another user than the agent's own needs CAP_CHOWN.
    /// Default: the user of the agent
    pub owner: Option<At<String>>,
}

/// A Unix socket that answers `GET /token/DATABASE/USER` with a fresh IAM token. Every program on this host can
/// connect; who gets which token is decided by the user that the program runs as, which the kernel reports.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenSocket {
    /// The path of the socket.
    pub path: At<String>,
    /// The tokens that it gives.
    pub tokens: At<Vec<At<SocketToken>>>,
}

/// A token that the token socket gives.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SocketToken {
    /// The database of the configuration that it is for: DATABASE in the request.
    pub database: At<String>,
    /// The database user that the clients log in as: USER in the request. The credentials of the agent need
    /// `rds-db:connect` for it.
    pub user: At<String>,
    /// The RDS name and port that the token is signed for: of a cluster or of an instance, never of a load balancer.
    pub endpoint: At<String>,
    /// The AWS region. Default: the region in the name of the endpoint, else the one of the AWS
    /// environment
    pub region: Option<At<String>>,
    /// The users of this host whose programs get the token, by number, or by name in /etc/passwd.
    pub peers: At<Vec<At<String>>>,
}

/// The format of a token file.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TokenFormat {
    /// For `PGPASSFILE`: lines of host, port, database, user and token. The client connects with `host` as
    /// the RDS name and `hostaddr` as the address of the load balancer.
    Pgpass,
    /// For `--defaults-extra-file` of MySQL's and MariaDB's clients. MySQL's clients need
    /// `--enable-cleartext-plugin` in addition.
    Mysql,
    /// The token alone, without a newline.
    Plain,
}

/// The policy for sessions older than the lifetime of an IAM token.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sessions {
    /// What the agent may do to sessions. Default: observe
    pub mode: Option<Mode>,
    /// The age limit of a session, with a fixed jitter of ±10 % per session. A session is due in a
    /// window before its limit: 2/7 of it, at most 4 minutes. Default: 14m
    pub max_age: Option<At<String>>,
    /// How long a session must have been idle to be closed in the first half of its window. Default: 1s
    pub quiet: Option<At<String>>,
    /// The same in the second half of the window and past the limit. Default: 200ms
    pub quiet_min: Option<At<String>>,
    /// What happens to a session that reaches its limit without having been quiet. Default: hold
    pub busy: Option<Busy>,
    /// Which side closes sessions. Default: database
    pub close_via: Option<CloseVia>,
    /// The maximum of closed sessions plus logins of the agent per instance and second. Default: 5
    pub login_budget: Option<At<u32>>,
    /// The maximum of closed sessions per second on an instance that is no longer the writer (see
    /// `demotion_grace`). Default: 100
    pub failover_budget: Option<At<u32>>,
    /// The share of the sessions of a server that must be due before it is drained. Default: 50%
    pub drain_share: Option<At<String>>,
    /// The maximum duration of a drain. Default: 60s
    pub drain_deadline: Option<At<String>>,
    /// The minimum share of the usable servers of a backend that stay undrained. The last usable server
    /// is never drained. Default: 50%
    pub capacity_floor: Option<At<String>>,
    /// The database users whose sessions are in scope. Default: users who log in by IAM
    pub users: Option<At<Vec<String>>>,
    /// Exempt sessions.
    #[serde(default)]
    pub exempt: Exempt,
    /// When closes stop because clients do not come back.
    #[serde(default)]
    pub breaker: Breaker,
    /// A session past its limit by this time is closed even in a transaction. Default: never
    pub force_after: Option<At<String>>,
    /// When an instance is no longer the writer that a backend wants, its sessions from that backend
    /// are closed after this time, even in a transaction. Default: never
    pub demotion_grace: Option<At<String>>,
}

/// What the agent may do to sessions.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// It only reports what it would do.
    Observe,
    /// It only drains servers.
    Drain,
    /// It closes sessions between transactions, and drains servers where that helps.
    Retire,
}

/// What happens to a session that reaches its limit without having been quiet.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Busy {
    /// It is kept and reported as held.
    Hold,
    /// It is closed within milliseconds of becoming idle. Some clients see an error at BEGIN.
    Catch,
}

/// Which side closes sessions.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CloseVia {
    /// The database, in one guarded statement. The client receives the reason.
    Database,
    /// The proxy, after the database has shown the session as idle. The client sees the connection end.
    Proxy,
}

/// Sessions that the agent never closes.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Exempt {
    /// Database users.
    #[serde(default)]
    pub users: Vec<String>,
    /// Names of databases on the server.
    #[serde(default)]
    pub databases: Vec<String>,
    /// Application names. A trailing * matches any suffix.
    #[serde(default)]
    pub applications: Vec<String>,
    /// Networks of clients as the proxy sees them, such as 10.1.0.0/16. The network of a client on a Unix
    /// socket is unknown: it is exempt if any network is.
    #[serde(default)]
    pub networks: Vec<At<String>>,
}

/// When closes stop because clients do not come back. Clients with the same user, application name and
/// network are one group.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Breaker {
    /// How soon after a close a client of the group must log in to count as returned. Default: 10s
    pub return_within: Option<At<String>>,
    /// A group that returned in time this often in a row, and then stays away this often in a row, is
    /// paused. A group that never returned in time is not: its pool reconnects at the next use. Default: 3
    pub misses: Option<At<u32>>,
    /// After this time one session of a paused group is closed as a trial. Default: 5m
    pub retry_after: Option<At<String>>,
}

/// The addresses that the agent listens on.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// For the agent checks of HAProxy. Default: 127.0.0.1:7878
    pub agent_check: Option<At<String>>,
    /// For HTTP requests: health, metrics, state. Default: 127.0.0.1:7879
    pub http: Option<At<String>>,
    /// For gRPC from Envoy: endpoint discovery, access logs, health checks. The /path of a Unix socket,
    /// or an address and a port. Default: /run/rds-lb-agent/envoy.sock if an Envoy is configured
    pub envoy: Option<At<String>>,
    /// The control socket for the commands of an operator, of mode 0600. Default:
    /// /run/rds-lb-agent/control.sock
    pub control: Option<At<String>>,
    /// Allow addresses that other hosts can reach. Requests to them are not authenticated. Default:
    /// false
    pub allow_remote: Option<bool>,
}

/// Logging to standard error.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// The format of log lines. Default: json
    pub format: Option<LogFormat>,
    /// The least severe level that is logged. Default: info
    pub level: Option<LogLevel>,
}

/// The format of log lines.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One JSON object per line.
    #[default]
    Json,
    /// Text for a terminal.
    Text,
}

/// The least severe level that is logged.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// What needs an operator's attention.
    Error,
    /// What may need attention.
    Warn,
    /// Changes of state and actions.
    #[default]
    Info,
    /// Attempts and details.
    Debug,
    /// Everything.
    Trace,
}
