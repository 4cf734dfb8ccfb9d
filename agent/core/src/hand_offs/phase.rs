//! How a session fails, in the order of its life.

use std::fmt;

use serde::Serialize;

#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// A rule or a limit of the proxy refused the client.
    ProxyRefused,
    /// The proxy ran out of resources, or failed itself.
    ProxyFailed,
    /// The proxy's configuration leads nowhere.
    NoRoute,
    /// No server may take new sessions.
    NoServer,
    /// The proxy could not resolve the server's name.
    NotResolved,
    /// It waited too long for a free connection to a server.
    QueueTimedOut,
    ConnectRefused,
    ConnectTimedOut,
    /// The connection failed in another way.
    ConnectFailed,
    /// The client left after it had waited for a connection to a server.
    GaveUp,
    /// The server accepted the connection and sent nothing.
    NoAnswer,
    /// A very short session with few bytes: TLS or the login was refused, or it was as short as that.
    LoginRefused,
    /// It ended when the server stopped answering.
    ServerGone,
    /// The proxy closed it, and not for the agent.
    CutByProxy,
    /// A time limit of the proxy for idle sessions passed.
    IdleTimedOut,
}

impl Phase {
    pub const ALL: [Self; 15] = [
        Self::ProxyRefused,
        Self::ProxyFailed,
        Self::NoRoute,
        Self::NoServer,
        Self::NotResolved,
        Self::QueueTimedOut,
        Self::ConnectRefused,
        Self::ConnectTimedOut,
        Self::ConnectFailed,
        Self::GaveUp,
        Self::NoAnswer,
        Self::LoginRefused,
        Self::ServerGone,
        Self::CutByProxy,
        Self::IdleTimedOut,
    ];

    /// The word for logs, metrics and JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::ProxyRefused => "proxy_refused",
            Self::ProxyFailed => "proxy_failed",
            Self::NoRoute => "no_route",
            Self::NoServer => "no_server",
            Self::NotResolved => "not_resolved",
            Self::QueueTimedOut => "queue_timed_out",
            Self::ConnectRefused => "connect_refused",
            Self::ConnectTimedOut => "connect_timed_out",
            Self::ConnectFailed => "connect_failed",
            Self::GaveUp => "gave_up",
            Self::NoAnswer => "no_answer",
            Self::LoginRefused => "login_refused",
            Self::ServerGone => "server_gone",
            Self::CutByProxy => "cut_by_proxy",
            Self::IdleTimedOut => "idle_timed_out",
        }
    }

    /// The likely cause.
    pub fn cause(self) -> &'static str {
        match self {
            Self::ProxyRefused => "a rule or a limit of the proxy refused the client",
            Self::ProxyFailed => "the proxy ran out of memory, sockets or ports",
            Self::NoRoute => "the proxy's listener leads to a backend that does not exist",
            Self::NoServer => "no server of the backend was up",
            Self::NotResolved => "the proxy could not resolve the server's name",
            Self::QueueTimedOut => "all servers had as many sessions as `maxconn` allows",
            Self::ConnectRefused => {
                "nothing listened at the server's address: a restart, a failover or a wrong port"
            }
            Self::ConnectTimedOut => {
                "the server did not answer: a security group, a route, or a host that is gone"
            }
            Self::ConnectFailed => "the connection to the server failed",
            Self::GaveUp => "the client waited for a server and left",
            Self::NoAnswer => "the server accepted the connection and sent nothing: it hangs or was stopping",
            Self::LoginRefused => "TLS or the login was refused: token, user, database or certificate",
            Self::ServerGone => "the server stopped answering: a restart, a failover or a crash",
            Self::CutByProxy => "an operator or a rule of the proxy closed the session",
            Self::IdleTimedOut => "a time limit of the proxy for idle sessions passed",
        }
    }

    /// What to look at or to change.
    pub fn advice(self) -> &'static str {
        match self {
            Self::ProxyRefused => {
                "look at the rules and limits of the listener, at `maxconn` and circuit breakers"
            }
            Self::ProxyFailed => "look at `ulimit -n`, `maxconn` and the memory of the proxy's host",
            Self::NoRoute => "compare the names in the proxy's configuration",
            Self::NoServer => {
                "run `rds-lb-agent status`: the verdicts say why; a waiting room keeps clients waiting"
            }
            Self::NotResolved => "look at the resolver of the proxy and at the name",
            Self::QueueTimedOut => {
                "raise `maxconn` of the servers, or find the clients that open too many sessions"
            }
            Self::ConnectRefused => {
                "run `rds-lb-agent check`, and look at the events of the instance at that time"
            }
            Self::ConnectTimedOut => {
                "look at security group, route and network ACL between proxy and instance"
            }
            Self::ConnectFailed => "look at the error in the proxy's own log",
            Self::GaveUp => "compare the client's connect timeout with the time that a failover takes",
            Self::NoAnswer => "look at the instance: CPU, memory, `max_connections`, a failover",
            Self::LoginRefused => {
                "look at the client's error: an expired token, a wrong host name or user, no IAM permission"
            }
            Self::ServerGone => "look at the events of the instance at that time",
            Self::CutByProxy => {
                "look for `shutdown session`, `hard-stop-after`, maintenance, `on-marked-down shutdown-sessions`"
            }
            Self::IdleTimedOut => {
                "raise `timeout client` and `timeout server`, or let clients send keepalives"
            }
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_phase_has_words_of_its_own() {
        let words: BTreeSet<&str> = Phase::ALL.iter().map(|phase| phase.word()).collect();
        assert_eq!(words.len(), Phase::ALL.len());
        for phase in Phase::ALL {
            assert!(phase.cause().len() < 90 && phase.advice().len() < 100, "{phase}");
        }
    }
}
