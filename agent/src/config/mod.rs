//! The configuration: the file that users write, and its checked meaning.
//!
//! - [`file`]: the structure of the YAML file, with the documentation of each key.
//! - [`value`]: the syntax of durations, shares and addresses.
//! - [`recover`]: all errors of structure in one go.
//! - [`problem`]: errors and warnings with positions and hints.
//! - [`state_dir`]: the one key that is read from an invalid file too.
//! - [`check`]: from the file to its meaning. All errors are found at once.
//!
//! [`Config`] and its parts are the meaning: names are resolved and defaults filled in.

mod check;
pub mod file;
mod problem;
mod recover;
mod state_dir;
mod value;

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use agent_core::{
    InstanceId,
    health::{HealthRules, Routing, ServerConfig},
    plan::Policy,
};
use agent_database::{Method, Target, TrustSource};

/// A Unix socket, or `HOST:PORT`.
pub use envoy::admin::Address;
pub use problem::{Problem, Problems, nearest};
pub use state_dir::state_dir;
pub use value::duration;

#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub databases: Vec<Database>,
    /// The proxies, in the order of the file.
    pub proxies: Vec<Proxy>,
    pub routing: Routing,
    pub sessions: Policy,
    pub token_files: Vec<TokenFile>,
    pub socket_tokens: Vec<SocketToken>,
    pub listen: Listen,
    pub state_dir: PathBuf,
    pub log: Log,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Database {
    pub name: String,
    pub lines: Lines,
    pub engine: file::Engine,
    /// Only for MySQL and MariaDB.
    pub open_transactions: file::OpenTransactions,
    pub instances: Vec<Instance>,
    /// What they are compared with.
    pub topology: Option<Topology>,
    pub rules: HealthRules,
    pub probe_interval: Duration,
    /// Whether connections are kept open for liveness queries and sessions.
    pub liveness: bool,
    pub trust: TrustSource,
    /// How sessions are closed; `None` is the first method that the agent has the rights for.
    pub method: Option<Method>,
}

/// What the instances of a database are compared with in AWS: identifiers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topology {
    Cluster(String),
    /// It and its read replicas.
    Instance(String),
}

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster(identifier) => write!(f, "cluster {identifier}"),
            Self::Instance(identifier) => write!(f, "instance {identifier}"),
        }
    }
}

/// The lines of a database in the file, for messages.
#[derive(Copy, Clone, Debug, Default)]
pub struct Lines {
    pub name: u64,
    pub ca_file: u64,
}

/// A database that moved in the file is the same database.
impl PartialEq for Lines {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    pub target: Target,
    /// The region in the file, else the one in the name of the endpoint, else `None`.
    pub region: Option<String>,
}

impl Instance {
    pub fn id(&self) -> &InstanceId {
        &self.target.instance
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Proxy {
    pub kind: ProxyKind,
    pub servers: Vec<ServerConfig>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ProxyKind {
    Haproxy(Haproxy),
    Envoy(Envoy),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Haproxy {
    pub socket: haproxy::Address,
    pub master: Option<haproxy::Address>,
    /// The server state file that the agent keeps current.
    pub state_file: Option<PathBuf>,
    /// Whether verdicts follow the addresses that HAProxy dials.
    pub follow_addresses: bool,
    /// Where its log is received.
    pub log: Option<LogAddress>,
}

/// Where the log of a HAProxy is received.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LogAddress {
    Udp(SocketAddr),
    /// A Unix datagram socket.
    Unix(PathBuf),
}

impl fmt::Display for LogAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Envoy {
    /// The `node.id`; `None` matches any.
    pub node: Option<String>,
    pub admin: Option<Address>,
    pub access_log: Option<PathBuf>,
}

/// The prefix of the names of Envoys. No runtime socket begins with it.
pub const ENVOY: &str = "envoy:";

impl Proxy {
    /// The name in logs, metrics and records: the runtime socket, or the node.
    pub fn name(&self) -> String {
        match &self.kind {
            ProxyKind::Haproxy(haproxy) => haproxy.socket.to_string(),
            ProxyKind::Envoy(envoy) => {
                format!("{ENVOY}{}", envoy.node.as_deref().unwrap_or("*"))
            }
        }
    }
}

/// A file with tokens for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenFile {
    pub path: PathBuf,
    pub format: file::TokenFormat,
    /// One, or several in a pgpass file.
    pub endpoints: Vec<agent_database::Address>,
    pub user: String,
    /// `None`: the one in the name of the endpoint, or of the environment.
    pub region: Option<String>,
    /// Who may read it, by name or number; `None` is the agent's own user.
    pub owner: Option<String>,
}

/// A token that the token socket gives to clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketToken {
    pub database: String,
    pub user: String,
    pub endpoint: agent_database::Address,
    /// `None`: the one in the name of the endpoint, or of the environment.
    pub region: Option<String>,
    /// The users of this host who get it, by name or number.
    pub peers: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    pub agent_check: SocketAddr,
    pub http: SocketAddr,
    /// `None` if no Envoy is configured.
    pub envoy: Option<Address>,
    pub control: PathBuf,
    /// The token socket.
    pub tokens: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    pub format: file::LogFormat,
    pub level: file::LogLevel,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    pub config: Config,
    /// `Display` shows them with excerpts.
    pub warnings: Problems,
}

/// Reads and checks a file; `-` is standard input.
///
/// # Errors
/// All errors in it, each with line, column and a hint.
pub fn load(path: &Path) -> Result<Loaded, Problems> {
    let name = path.display().to_string();
    let text = if path.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(path)
    };
    let text = text.map_err(|error| Problems::unreadable(&name, &error))?;
    parse(&name, &text)
}

/// Checks the text of a file called `name`.
///
/// # Errors
/// As [`load`].
pub fn parse(name: &str, text: &str) -> Result<Loaded, Problems> {
    // Some editors begin a file with a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (file, mut problems) = recover::read(text);
    let Some(file) = file else { return Err(Problems::new(name, text, problems)) };
    let (config, found, warnings) = check::check(&file);
    problems.extend(found);
    match config {
        Some(config) if problems.is_empty() => {
            let mut warnings = Problems::new(name, text, warnings);
            warnings.kind = "warning";
            Ok(Loaded { config, warnings })
        }
        _ => Err(Problems::new(name, text, problems)),
    }
}

impl Config {
    /// All instances of all databases.
    pub fn instances(&self) -> impl Iterator<Item = (&Database, &Instance)> {
        self.databases
            .iter()
            .flat_map(|database| database.instances.iter().map(move |instance| (database, instance)))
    }

    /// All servers of all proxies.
    pub fn servers(&self) -> Vec<ServerConfig> {
        self.proxies.iter().flat_map(|proxy| proxy.servers.iter().cloned()).collect()
    }
}
