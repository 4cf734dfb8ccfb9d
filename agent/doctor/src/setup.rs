//! What is known beside the files: the agent's configuration, and where HAProxy runs. Every part is optional;
//! a rule that needs an unknown part finds nothing.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

/// A version of HAProxy: major and minor.
pub type Version = (u32, u32);

#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// `None`: conditions on the version count as either way.
    pub haproxy: Option<Version>,
    /// The environment of HAProxy, as far as it is known.
    pub environment: BTreeMap<String, String>,
    pub agent: Option<Agent>,
    /// Days since 1970.
    pub today: Option<i64>,
    /// The instances of the agent's configuration, with which AWS has to agree.
    pub instances: Vec<Instance>,
    /// How many connections to one server HAProxy admits at most.
    pub proxy_connections: Option<u64>,
}

/// An instance of the agent's configuration.
#[derive(Clone, Debug, Default)]
pub struct Instance {
    /// DATABASE/INSTANCE.
    pub id: String,
    /// The endpoint, in lower case.
    pub host: String,
    pub port: u16,
    /// `postgresql`, `mysql` or `mariadb`.
    pub engine: &'static str,
    /// Whether the agent keeps a connection open.
    pub keeps_connection: bool,
    /// Whether AWS was asked for it and has answered.
    pub asked: bool,
}

impl Instance {
    /// The identifier in AWS: the first label of an RDS endpoint.
    pub fn identifier(&self) -> &str {
        self.host.split('.').next().unwrap_or(&self.host)
    }
}

/// The parts of the agent's configuration that the proxies have to agree with.
#[derive(Clone, Debug, Default)]
pub struct Agent {
    /// HOST:PORT of the agent checks and of HTTP.
    pub agent_check: String,
    pub http: String,
    /// Whether the agent closes sessions at an age limit, and the limit.
    pub retires: bool,
    pub max_age: Duration,
    /// Of the HAProxy whose file this is.
    pub stats_socket: Option<String>,
    pub master_socket: bool,
    pub state_file: Option<String>,
    /// Backends of HAProxy and clusters of Envoy, by name.
    pub backends: BTreeMap<String, Backend>,
}

#[derive(Clone, Debug)]
pub struct Backend {
    pub mysql: bool,
    /// Servers by name; behind Envoy the names of instances.
    pub servers: BTreeMap<String, Server>,
}

#[derive(Clone, Debug, Default)]
pub struct Server {
    pub instance: String,
    /// Host names that lead to the instance: `endpoint` and `connect`, in lower case.
    pub names: Vec<String>,
    pub port: u16,
    /// The addresses of these names, if they were resolved.
    pub addresses: Vec<IpAddr>,
}
