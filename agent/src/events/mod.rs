//! A type for each event: it writes the log line and changes the metric together, so that they agree.
//!
//! The same field has the same name everywhere: `database`, `instance`,
//! `server`, `user`, `client`, `source`, `age_s`, `limit_s`, `token_age_s`, `reason`.
//! No event has a field that could hold a secret.

mod address;
mod drain;
mod endpoints;
mod envoy;
mod health;
mod host_block;
mod outage;
mod process;
mod proxy;
mod question;
pub mod recent;
mod session;

use std::collections::HashMap;

pub use address::{AddressDiffers, AddressFound, AddressLost};
pub use drain::{DrainBegun, DrainEnded, DrainForgotten, DrainHeld, DrainNotRecorded, DrainNotTaken};
pub use endpoints::{EndpointsRefused, EndpointsRejected, EndpointsTaken, EnvoyConnected, EnvoyLeft};
pub use envoy::{
    AccessLogHeard, AccessLogLost, AccessLogRefused, AdminBack, AdminLost, EntriesSkipped, HandOffFailed,
    LogEntriesLost, NotTaken, SettingUnsafe,
};
pub use health::{
    Conflict, InstanceChanged, LoginFailed, LoginWorks, RefusedAlone, SourceChanged, TokenFailed,
    VerdictChanged, WriterChosen,
};
pub use host_block::{
    ConnectErrorsHidden, ConnectErrorsSeen, ConnectErrorsUnknown, HostBlockNear, HostBlockReset, HostBlocked,
    HostResetFailed, HostUnblocked,
};
pub use outage::{
    AllLoginsRefused, LoginsAcceptedAgain, NoUsableServer, ServerUsableAgain, SessionsUnjoined, WriterMoved,
};
pub use process::{
    AgentBroken, AuthoritiesKept, ConfigRefused, ConfigRepaired, ConfigTaken, DatabaseReady,
    DatabaseUnusable, PauseChanged, Started, StateFailed, Stopping,
};
pub use proxy::{
    OldWorkersNotListed, ProxyBack, ProxyCompared, ProxyLost, RivalFound, SessionsNotListed, StaysDown,
};
pub use question::{ConnectionsClosed, UnknownNames};
pub use recent::Recent;
pub use session::{BudgetTooSmall, CloseFailed, GroupPaused, Retired, RightsMissing};

use crate::metrics::Metrics;

pub trait Event {
    /// Writes the log line and changes the metric.
    fn emit(&self, metrics: &Metrics);
}

/// AccessLogs a lasting failure when it begins, changes and ends, and not at every retry.
#[derive(Debug, Default)]
pub struct Episodes {
    open: HashMap<String, String>,
}

impl Episodes {
    /// Whether the subject did not have this failure before.
    pub fn begins(&mut self, subject: &str, failure: &str) -> bool {
        if self.open.get(subject).is_some_and(|known| known == failure) {
            return false;
        }
        self.open.insert(subject.to_owned(), failure.to_owned());
        true
    }

    /// Whether the subject had a failure before.
    pub fn ends(&mut self, subject: &str) -> bool {
        self.open.remove(subject).is_some()
    }
}

/// A number for a log line, with three digits after the point.
fn rounded(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_log_lines_are_rounded() {
        assert_eq!(rounded(1.692_141_000_000_000_1).to_string(), "1.692");
        assert_eq!(rounded(900.0).to_string(), "900");
    }

    #[test]
    fn a_failure_is_reported_once_until_it_changes_or_ends() {
        let mut episodes = Episodes::default();
        assert!(episodes.begins("a", "refused"));
        assert!(!episodes.begins("a", "refused"));
        assert!(episodes.begins("a", "timed out"));
        assert!(episodes.begins("b", "refused"));
        assert!(episodes.ends("a"));
        assert!(!episodes.ends("a"));
        assert!(episodes.begins("a", "refused"));
    }
}
