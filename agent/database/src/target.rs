//! Whom to log in to, and how long each step may take.

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use agent_core::InstanceId;
use serde::Serialize;

/// What agents call themselves to a database, and how they count one another.
pub const APPLICATION_NAME: &str = "rds-lb-agent";

/// A host and a port, as written in the configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Address {
    /// A DNS name or an IP address, without brackets.
    pub host: Arc<str>,
    /// The TCP port.
    pub port: u16,
}

impl Address {
    /// The address `host:port`.
    pub fn new(host: &str, port: u16) -> Self {
        Self { host: host.into(), port }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// One instance to log in to.
///
/// What is signed, what TLS verifies and what is dialled are kept apart: an IAM
/// token is good for the RDS endpoint only, however the agent gets there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Which instance it is.
    pub instance: InstanceId,
    /// The RDS name: signed into the token, and verified in the server's certificate.
    pub endpoint: Address,
    /// What is dialled.
    pub connect: Address,
    /// This host's address that is dialled from; the system's choice if there is none.
    pub source: Option<IpAddr>,
    /// The database user, who must be allowed to log in by IAM.
    pub user: Arc<str>,
    /// The database name to connect to.
    pub database_name: Arc<str>,
    /// What the agent calls itself, [`APPLICATION_NAME`] by default.
    pub application_name: Arc<str>,
}

impl Target {
    /// An instance that is dialled by its endpoint.
    pub fn new(instance: InstanceId, endpoint: Address, user: &str, database_name: &str) -> Self {
        Self {
            instance,
            connect: endpoint.clone(),
            endpoint,
            source: None,
            user: user.into(),
            database_name: database_name.into(),
            application_name: APPLICATION_NAME.into(),
        }
    }

    /// The same instance, dialled by another address.
    #[must_use]
    pub fn dialled_at(mut self, connect: Address) -> Self {
        self.connect = connect;
        self
    }

    /// The same instance, dialled from one address of this host.
    #[must_use]
    pub fn dialled_from(mut self, source: IpAddr) -> Self {
        self.source = Some(source);
        self
    }
}

/// How long each step may take. A step that takes longer fails as timed out
/// (a name that takes longer, as not resolved).
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Resolving the name.
    pub dns: Duration,
    /// Opening the TCP connection, all addresses of the name together.
    pub tcp: Duration,
    /// Asking for TLS and the handshake.
    pub tls: Duration,
    /// Handing over the token until the server is ready. IAM's answer is part of it.
    pub login: Duration,
    /// One query on an open session. The server is told to give up a little earlier.
    pub query: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            dns: Duration::from_secs(2),
            tcp: Duration::from_secs(2),
            tls: Duration::from_secs(3),
            // IAM logins of a loaded instance take seconds and still succeed.
            login: Duration::from_secs(8),
            query: Duration::from_secs(2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_address_is_shown_in_brackets() {
        assert_eq!(Address::new("fd00::7", 5432).to_string(), "[fd00::7]:5432");
        assert_eq!(Address::new("db.example", 5432).to_string(), "db.example:5432");
    }

    #[test]
    fn a_target_is_dialled_by_its_endpoint_unless_told_otherwise() {
        let endpoint = Address::new("orders-a.abc.eu-west-1.rds.amazonaws.com", 5432);
        let target = Target::new(InstanceId::new("orders", "a"), endpoint.clone(), "lb_agent", "postgres");
        assert_eq!(target.connect, endpoint);
        let elsewhere = target.dialled_at(Address::new("10.0.2.7", 5432));
        assert_eq!(elsewhere.endpoint, endpoint);
        assert_eq!(elsewhere.connect.to_string(), "10.0.2.7:5432");
    }
}
