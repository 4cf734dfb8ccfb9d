//! Sessions that Envoy could not hand to a database server, and those that may have
//! been refused there.
//!
//! Only an end tells, and only with the whole entry: the flags of a first try that
//! failed stay on a session that a second try made work (measured), and a login that
//! the database refuses looks like any short session.

use std::{fmt, time::Duration};

use super::{Event, Flags, Kind};

/// A refused login is over sooner than this. RDS checks an IAM token in well under a second.
const LOGIN_TAKES: Duration = Duration::from_secs(3);

/// The server sends no more than this to a client that it refuses: its certificates and an error.
const REFUSAL_BYTES: u64 = 16 * 1024;

/// What became of a hand-off that went wrong.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum HandOff {
    /// No host of the cluster may have new sessions.
    NoHealthyHost,
    /// The server refused the connection.
    Refused,
    /// The server could not be reached in time.
    TimedOut,
    /// The connection failed in another way.
    ConnectFailed,
    /// The cluster is not there.
    NoCluster,
    /// The name of the server was not resolved.
    NotResolved,
    /// A limit of Envoy's own.
    Overflow,
    /// Connected, and over at once: a refused login, or a very short session.
    ShortSession,
    /// Connected, and idle for longer than Envoy allows.
    IdleTimedOut,
    /// Connected, and open for longer than Envoy allows.
    Cut,
}

impl HandOff {
    /// What an event says; `None` for a session that went well, or goes on.
    pub fn of(event: &Event) -> Option<Self> {
        if event.kind != Kind::End {
            return None;
        }
        if event.outgoing.is_some() {
            return if event.flags.has(Flags::STREAM_IDLE_TIMEOUT) {
                Some(Self::IdleTimedOut)
            } else if event.flags.has(Flags::DURATION_TIMEOUT) {
                Some(Self::Cut)
            } else {
                short(event).then_some(Self::ShortSession)
            };
        }
        let flags = event.flags;
        let reason = event.transport_failure.as_deref().unwrap_or_default();
        Some(if flags.has(Flags::NO_HEALTHY_UPSTREAM) {
            Self::NoHealthyHost
        } else if flags.has(Flags::NO_CLUSTER_FOUND) || flags.has(Flags::NO_ROUTE_FOUND) {
            Self::NoCluster
        } else if flags.has(Flags::DNS_RESOLUTION_FAILURE) {
            Self::NotResolved
        } else if flags.has(Flags::UPSTREAM_OVERFLOW) || flags.has(Flags::OVERLOAD_MANAGER) {
            Self::Overflow
        } else if flags.has(Flags::UPSTREAM_CONNECTION_FAILURE) {
            match reason {
                // A timeout of Envoy's own comes without a reason.
                "" => Self::TimedOut,
                reason if reason.contains("refused") => Self::Refused,
                reason if reason.contains("timed_out") || reason.contains("timed out") => Self::TimedOut,
                _ => Self::ConnectFailed,
            }
        } else {
            // The client left before it was connected.
            return None;
        })
    }

    /// Whether it failed for certain.
    pub fn failed(self) -> bool {
        self != Self::ShortSession
    }
}

/// Over at once, ended by neither a limit of Envoy's nor a broken connection.
fn short(event: &Event) -> bool {
    let cut = [Flags::DURATION_TIMEOUT, Flags::STREAM_IDLE_TIMEOUT, Flags::UPSTREAM_CONNECTION_TERMINATION];
    event.lasted.is_some_and(|lasted| lasted <= LOGIN_TAKES)
        && event.sent.is_some_and(|sent| sent <= REFUSAL_BYTES)
        && event.received.is_some_and(|received| received > 0)
        && !cut.iter().any(|flag| event.flags.has(*flag))
}

impl fmt::Display for HandOff {
    /// The word for metrics and logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoHealthyHost => "no_healthy_host",
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::ConnectFailed => "connect_failed",
            Self::NoCluster => "no_cluster",
            Self::NotResolved => "not_resolved",
            Self::Overflow => "overflow",
            Self::ShortSession => "short_session",
            Self::IdleTimedOut => "idle_timed_out",
            Self::Cut => "cut",
        })
    }
}
