//! One type for each thing worth telling: it writes the log line and moves the
//! metric together, so that neither can say what the other does not.
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
mod process;
mod proxy;
mod session;

use std::collections::HashMap;

pub use address::{AddressFound, AddressLost};
pub use drain::{DrainBegun, DrainEnded, DrainForgotten, DrainHeld, DrainNotRecorded, DrainNotTaken};
pub use endpoints::{EndpointsRefused, EndpointsRejected, EndpointsTaken, EnvoyConnected, EnvoyLeft};
pub use envoy::{
    AccessLogHeard, AccessLogLost, AccessLogRefused, AdminBack, AdminLost, EntriesSkipped, HandOffFailed,
    LogEntriesLost, NotTaken, SettingUnsafe,
};
pub use health::{Conflict, InstanceChanged, LoginFailed, LoginWorks, TokenFailed, VerdictChanged};
pub use host_block::{
    ConnectErrorsHidden, ConnectErrorsSeen, ConnectErrorsUnknown, HostBlockNear, HostBlockReset, HostBlocked,
    HostResetFailed, HostUnblocked,
};
pub use process::{AgentBroken, ConfigRefused, ConfigTaken, PauseChanged, Started, StateFailed, Stopping};
pub use proxy::{OldWorkersNotListed, ProxyBack, ProxyLost, SessionsNotListed};
pub use session::{CloseFailed, GroupPaused, Retired, RightsMissing};

use crate::metrics::Metrics;

/// Something worth telling.
pub trait Event {
    /// Writes the line and moves the metric.
    fn emit(&self, metrics: &Metrics);
}

/// Tells a lasting trouble once when it begins, when it changes, and when it ends,
/// not at every retry.
#[derive(Debug, Default)]
pub struct Episodes {
    open: HashMap<String, String>,
}

impl Episodes {
    /// Whether this trouble of this subject is news.
    pub fn begins(&mut self, subject: &str, trouble: &str) -> bool {
        if self.open.get(subject).is_some_and(|known| known == trouble) {
            return false;
        }
        self.open.insert(subject.to_owned(), trouble.to_owned());
        true
    }

    /// Whether this subject had a trouble until now.
    pub fn ends(&mut self, subject: &str) -> bool {
        self.open.remove(subject).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_is_told_once_until_it_changes_or_ends() {
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
