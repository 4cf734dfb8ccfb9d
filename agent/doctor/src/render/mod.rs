//! Configurations for the proxies, the databases, IAM and the clients, from the agent's own. The texts come from
//! the recipes in `deploy`, which are what the tests run.

mod clients;
mod envoy;
mod haproxy;
mod iam;
mod sql;

pub use clients::clients;
pub use envoy::envoy;
pub use haproxy::haproxy;
pub use iam::{Feature, Login, policy};
pub use sql::grants;

/// A database, its backends, and where everything is.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// HOST:PORT of the agent checks.
    pub agent_check: (String, u16),
    /// The agent's socket for Envoy.
    pub envoy_socket: String,
    pub stats_socket: Option<String>,
    pub state_file: Option<String>,
    /// Where HAProxy sends its log.
    pub log: Option<String>,
    pub node: Option<String>,
    pub envoy_admin: Option<String>,
    pub access_log: Option<String>,
    /// The address on which clients reach the proxy.
    pub bind: String,
    pub files: ClientFiles,
    pub backends: Vec<Backend>,
}

/// Paths on the clients' hosts.
#[derive(Clone, Debug)]
pub struct ClientFiles {
    /// The token files, by format.
    pub pgpass: String,
    pub option: String,
    pub plain: String,
    /// The certificate authorities of RDS.
    pub ca: String,
}

/// Examples, for what the agent's configuration does not name.
impl Default for ClientFiles {
    fn default() -> Self {
        Self {
            pgpass: "/run/rds-lb-agent/app.pgpass".into(),
            option: "/run/rds-lb-agent/app.cnf".into(),
            plain: "/run/rds-lb-agent/app.token".into(),
            ca: "/etc/ssl/rds-global-bundle.pem".into(),
        }
    }
}

/// A backend or cluster, with the port that clients use.
#[derive(Clone, Debug, Default)]
pub struct Backend {
    pub name: String,
    pub mysql: bool,
    pub writer: bool,
    pub port: u16,
    pub servers: Vec<Server>,
    /// The endpoint of the cluster, which follows the writer or the readers by DNS.
    pub cluster: Option<(String, u16)>,
    pub database_name: String,
}

#[derive(Clone, Debug, Default)]
pub struct Server {
    pub name: String,
    pub endpoint: (String, u16),
    /// The address to connect to.
    pub connect: (String, u16),
}

impl Backend {
    /// The name that clients verify and sign for.
    fn rds_name(&self) -> (&str, u16) {
        let first = self.servers.first().map(|server| &server.endpoint);
        self.cluster.as_ref().or(first).map_or(("", 0), |(host, port)| (host, *port))
    }
}

/// A host with a port, an IPv6 address in brackets.
fn address(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Whether a host is a name that a proxy has to resolve.
fn is_name(host: &str) -> bool {
    host.parse::<std::net::IpAddr>().is_err()
}
