//! The instance to log in to, and the time limit of each phase.

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use agent_core::InstanceId;
use serde::Serialize;

/// The `application_name` of agents' sessions, by which agents count one another.
pub const APPLICATION_NAME: &str = "rds-lb-agent";

/// A host and a port, as written in the configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Address {
    /// A DNS name or an IP address, without brackets.
    pub host: Arc<str>,
    pub port: u16,
}

impl Address {
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
/// The name that is signed and verified is kept apart from the address that is dialled: an IAM
/// token is valid for the RDS endpoint only, whatever the route to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub instance: InstanceId,
    /// The RDS name: signed into the token, and verified in the server's certificate.
    pub endpoint: Address,
    /// The address that is dialled.
    pub connect: Address,
    /// The local address to connect from; `None` leaves it to the system.
    pub source: Option<IpAddr>,
    /// The database user. It has to log in by IAM.
    pub user: Arc<str>,
    /// The database name to connect to.
    pub database_name: Arc<str>,
    /// [`APPLICATION_NAME`] by default.
    pub application_name: Arc<str>,
}

impl Target {
    /// An instance that is dialled at its endpoint.
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

/// The time limit of each phase. A phase that takes longer fails with
/// [`FaultKind::TimedOut`](agent_core::FaultKind::TimedOut), DNS with `NameNotResolved`.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    pub dns: Duration,
    /// For all addresses of the name together.
    pub tcp: Duration,
    /// Request for TLS and handshake.
    pub tls: Duration,
    /// From sending the user name until the session is ready, the check with IAM included.
    pub login: Duration,
    /// One query. The server-side statement timeout is a quarter shorter.
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
    fn a_target_is_dialled_at_its_endpoint_by_default() {
        let endpoint = Address::new("orders-a.abc.eu-west-1.rds.amazonaws.com", 5432);
        let target = Target::new(InstanceId::new("orders", "a"), endpoint.clone(), "lb_agent", "postgres");
        assert_eq!(target.connect, endpoint);
        let elsewhere = target.dialled_at(Address::new("10.0.2.7", 5432));
        assert_eq!(elsewhere.endpoint, endpoint);
        assert_eq!(elsewhere.connect.to_string(), "10.0.2.7:5432");
    }
}
