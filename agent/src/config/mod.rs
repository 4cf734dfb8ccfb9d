//! The configuration: what the user may say, and what the program means by it.
//!
//! - [`file`]: the shape of the YAML file, with the documentation of each key.
//! - [`value`]: durations, shares and addresses as people write them.
//! - [`problem`]: what is wrong, where, and what to do about it.
//! - [`state_dir`]: the one key that is read from an invalid file too.
//! - [`check`]: from the file to its meaning; all problems at once.
//!
//! [`Config`] and its parts are the meaning: every name resolved, every default
//! filled in, nothing left to check.

mod check;
pub mod file;
mod problem;
mod state_dir;
mod value;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use agent_core::{
    InstanceId,
    health::{HealthRules, ServerConfig},
    plan::Policy,
};
use agent_database::{Method, Target, TrustSource};

/// A Unix socket, or `HOST:PORT`.
pub use envoy::admin::Address;
pub use problem::{Problem, Problems};
pub use state_dir::state_dir;
pub use value::duration;

/// The whole configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The databases.
    pub databases: Vec<Database>,
    /// The proxies, in the order of the file.
    pub proxies: Vec<Proxy>,
    /// What is done about sessions.
    pub sessions: Policy,
    /// Where the agent listens.
    pub listen: Listen,
    /// Where it remembers.
    pub state_dir: PathBuf,
    /// What it says.
    pub log: Log,
}

/// One database.
#[derive(Clone, Debug, PartialEq)]
pub struct Database {
    /// Its kind.
    pub engine: file::Engine,
    /// What tells open transactions (the MySQL family).
    pub open_transactions: file::OpenTransactions,
    /// Its instances.
    pub instances: Vec<Instance>,
    /// The rules about its health.
    pub rules: HealthRules,
    /// How often each instance is probed.
    pub probe_interval: Duration,
    /// Whether connections are kept for liveness and sessions.
    pub liveness: bool,
    /// Which certificate authorities vouch for it.
    pub trust: TrustSource,
    /// How its sessions are closed; `None` takes what the rights allow.
    pub method: Option<Method>,
}

/// One instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// Its names and addresses.
    pub target: Target,
    /// The region that tokens are signed for, where the file or the endpoint's name says.
    pub region: Option<String>,
}

impl Instance {
    /// Its name.
    pub fn id(&self) -> &InstanceId {
        &self.target.instance
    }
}

/// One proxy.
#[derive(Clone, Debug, PartialEq)]
pub struct Proxy {
    /// How it is reached.
    pub kind: ProxyKind,
    /// Its servers.
    pub servers: Vec<ServerConfig>,
}

/// How a proxy is reached.
#[derive(Clone, Debug, PartialEq)]
pub enum ProxyKind {
    /// By its runtime socket.
    Haproxy(Haproxy),
    /// It comes to the agent.
    Envoy(Envoy),
}

/// A HAProxy.
#[derive(Clone, Debug, PartialEq)]
pub struct Haproxy {
    /// Its runtime socket.
    pub socket: haproxy::Address,
    /// Its master socket.
    pub master: Option<haproxy::Address>,
}

/// An Envoy.
#[derive(Clone, Debug, PartialEq)]
pub struct Envoy {
    /// Its `node.id`; `None` where any will do.
    pub node: Option<String>,
    /// Its admin interface.
    pub admin: Option<Address>,
    /// Its access log.
    pub access_log: Option<PathBuf>,
}

/// What the names of Envoys begin with. No runtime socket's does.
pub const ENVOY: &str = "envoy:";

impl Proxy {
    /// Its name in logs, metrics and records: the runtime socket, or the node.
    pub fn name(&self) -> String {
        match &self.kind {
            ProxyKind::Haproxy(haproxy) => haproxy.socket.to_string(),
            ProxyKind::Envoy(envoy) => {
                format!("{ENVOY}{}", envoy.node.as_deref().unwrap_or("*"))
            }
        }
    }
}

/// Where the agent listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// For HAProxy's agent checks.
    pub agent_check: SocketAddr,
    /// For HTTP.
    pub http: SocketAddr,
    /// For Envoy; `None` where none is configured.
    pub envoy: Option<Address>,
    /// For operators' commands.
    pub control: PathBuf,
}

/// What the agent says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Lines of JSON, or text for people.
    pub format: file::LogFormat,
    /// The least important lines that are written.
    pub level: file::LogLevel,
}

/// A configuration that was taken, and what is odd about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Odd, but not wrong.
    pub warnings: Vec<Problem>,
}

/// Reads and checks a file.
///
/// # Errors
/// Everything that is wrong with it, each with line, column and a hint.
pub fn load(path: &Path) -> Result<Loaded, Problems> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| Problems::unreadable(&name, &error))?;
    parse(&name, &text)
}

/// Checks the text of a file called `name`.
///
/// # Errors
/// As [`load`].
pub fn parse(name: &str, text: &str) -> Result<Loaded, Problems> {
    let file: file::File = match serde_saphyr::from_str(text) {
        Ok(file) => file,
        Err(error) => return Err(Problems::new(name, text, vec![problem::of_yaml(&error)])),
    };
    let (config, problems, warnings) = check::check(&file);
    match config {
        Some(config) if problems.is_empty() => Ok(Loaded { config, warnings }),
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
