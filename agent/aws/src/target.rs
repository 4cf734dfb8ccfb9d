//! What a token is for: one user on one endpoint in one region.
//!
//! The endpoint is the RDS name, never another name or address by which the database is reached
//! (a load balancer, an alias): a database accepts only tokens that are signed for its own name.

use std::{fmt, net::IpAddr, sync::Arc};

use thiserror::Error;

use crate::region::Region;

/// A validated user and RDS endpoint. Cheap to clone. Displayed as `user@host:port`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Target(Arc<Inner>);

#[derive(PartialEq, Eq, Hash)]
struct Inner {
    host: String,
    port: u16,
    user: String,
    region: Region,
}

/// Why the endpoint or the user cannot be signed for. The configuration is at fault.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TargetError {
    /// The host is not a DNS name.
    #[error(
        "endpoint host {host:?} {problem}; write the RDS endpoint alone, \
         like orders.abc123.eu-west-1.rds.amazonaws.com"
    )]
    Host { host: String, problem: &'static str },
    /// The port is 0.
    #[error(
        "endpoint port 0 cannot be signed for; write the port the database listens on, like 5432 or 3306"
    )]
    Port,
    /// The user is empty or not printable.
    #[error("database user {user:?} {problem}; write the name of the database user that logs in by IAM")]
    User { user: String, problem: &'static str },
}

// === impl Target ===

impl Target {
    /// Validates the parts. The host is converted to lower case, which the signature needs.
    pub fn new(host: &str, port: u16, user: &str, region: Region) -> Result<Self, TargetError> {
        if let Some(problem) = host_problem(host) {
            return Err(TargetError::Host { host: host.to_owned(), problem });
        }
        if port == 0 {
            return Err(TargetError::Port);
        }
        if let Some(problem) = user_problem(user) {
            return Err(TargetError::User { user: user.to_owned(), problem });
        }
        Ok(Self(Arc::new(Inner { host: host.to_ascii_lowercase(), port, user: user.to_owned(), region })))
    }

    /// In lower case.
    pub fn host(&self) -> &str {
        &self.0.host
    }

    pub fn port(&self) -> u16 {
        self.0.port
    }

    pub fn user(&self) -> &str {
        &self.0.user
    }

    pub fn region(&self) -> &Region {
        &self.0.region
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}:{}", self.user(), self.host(), self.port())
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({self}, {})", self.region())
    }
}

fn host_problem(host: &str) -> Option<&'static str> {
    if host.is_empty() {
        Some("is empty")
    } else if host.contains("://") {
        Some("has a scheme")
    } else if host.contains(char::is_whitespace) {
        Some("contains white space")
    } else if host.contains(['/', '?', '#']) {
        Some("has a path")
    } else if host.parse::<IpAddr>().is_ok() || host.starts_with('[') {
        Some("is an address; tokens are signed for names")
    } else if host.contains(':') {
        Some("has a port, which is a separate setting")
    } else if host.contains('@') {
        Some("has a user, which is a separate setting")
    } else if !host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_')) {
        Some("has a character that is not allowed in host names")
    } else if host.split('.').any(str::is_empty) {
        Some("begins or ends with a dot, or has two dots in a row")
    } else if host.len() > 253 {
        Some("is longer than 253 characters")
    } else {
        None
    }
}

fn user_problem(user: &str) -> Option<&'static str> {
    if user.is_empty() {
        Some("is empty")
    } else if user.contains(char::is_control) {
        Some("contains a control character")
    } else if user.len() > 255 {
        Some("is longer than 255 bytes")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(host: &str, port: u16, user: &str) -> Result<Target, TargetError> {
        Target::new(host, port, user, Region::parse("eu-west-1").expect("region"))
    }

    #[test]
    fn hosts_are_converted_to_lower_case() {
        let target = target("Orders.ABC.rds.amazonaws.com", 5432, "App").expect("target");
        assert_eq!(target.to_string(), "App@orders.abc.rds.amazonaws.com:5432");
    }

    #[test]
    fn invalid_hosts_are_refused_with_the_reason() {
        for (host, reason) in [
            ("", "is empty"),
            ("https://orders.rds.amazonaws.com", "has a scheme"),
            ("orders.rds.amazonaws.com/", "has a path"),
            ("orders rds", "white space"),
            ("orders\n", "white space"),
            ("orders.rds.amazonaws.com:5432", "has a port"),
            ("10.0.0.1", "is an address"),
            ("::1", "is an address"),
            ("[::1]", "is an address"),
            ("app@orders.rds.amazonaws.com", "has a user"),
            ("orders%2f.rds.amazonaws.com", "not allowed in host names"),
            ("örders.rds.amazonaws.com", "not allowed in host names"),
            ("orders.rds.amazonaws.com.", "dot"),
        ] {
            let error = target(host, 5432, "app").expect_err(host);
            assert!(matches!(error, TargetError::Host { .. }));
            assert!(error.to_string().contains(reason), "{error}");
            assert!(error.to_string().contains("write the RDS endpoint alone"), "{error}");
        }
    }

    #[test]
    fn invalid_ports_and_users_are_refused_with_advice() {
        assert_eq!(target("db.example", 0, "app"), Err(TargetError::Port));
        for user in ["", "a\0b", "app\n"] {
            let error = target("db.example", 5432, user).expect_err(user);
            assert!(error.to_string().contains("write the name of the database user"), "{error}");
        }
    }
}
