//! A type for each event: it writes the log line and changes the metric together, so that they agree.
//!
//! The same field has the same name everywhere: `database`, `instance`,
//! `server`, `user`, `client`, `source`, `age_s`, `limit_s`, `token_age_s`, `reason`.
//! No event has a field that could hold a secret.

mod address;
mod drain;
mod endpoints;
mod envoy;
mod hand_off;
mod health;
mod host_block;
mod outage;
mod peers;
mod process;
mod proxy;
mod question;
pub mod recent;
mod session;
mod tokens;
mod topology;

use std::{collections::HashMap, time::Duration};

pub use address::{AddressDiffers, AddressFound, AddressLost};
pub use drain::{
    DrainBegun, DrainEnded, DrainForced, DrainForgotten, DrainHeld, DrainNotRecorded, DrainNotTaken,
};
pub use endpoints::{EndpointsRefused, EndpointsRejected, EndpointsTaken, EnvoyConnected, EnvoyLeft};
pub use envoy::{
    AccessLogHeard, AccessLogLost, AccessLogRefused, AdminBack, AdminLost, EntriesSkipped, LogEntriesLost,
    NotTaken, SettingUnsafe,
};
pub use hand_off::{
    OwnLogin, SessionFailed, SessionLogLost, SessionLogOpened, SessionLogRead, SessionLogUnread,
    SessionsFailed,
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
pub use peers::{AgentsAgree, AgentsDisagree, PeersSeen, PeersUnseen};
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
pub use tokens::{TokenFileFailed, TokenFileWritten, TokenRefused};
pub use topology::{TopologyAgrees, TopologyDiffers, TopologyRead, TopologyUnread};

use tokio::time::Instant;

use crate::metrics::Metrics;

pub trait Event {
    /// Writes the log line and changes the metric.
    fn emit(&self, metrics: &Metrics);
}

/// Reports a lasting failure when it begins, changes and ends, and not at every retry. A failure that comes
/// back within one episode, as when two alternate, is reported again after ten minutes.
#[derive(Debug, Default)]
pub struct Episodes {
    open: HashMap<String, Episode>,
}

/// From the first failure of a subject to its end.
#[derive(Debug)]
struct Episode {
    began: Instant,
    /// When each failure was reported last.
    reported: HashMap<String, Instant>,
    failures: u64,
}

/// An episode that is over.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    pub failures: u64,
    pub lasted: Duration,
}

/// A failure that lasts is reported again after this time only if it came back meanwhile.
const AGAIN: Duration = Duration::from_secs(600);

/// Different failures that are reported in one episode: more may be one whose text has a number in it.
const DIFFERENT: usize = 16;

impl Episodes {
    /// Whether the subject did not have this failure before.
    pub fn begins(&mut self, subject: &str, failure: &str) -> bool {
        let now = Instant::now();
        let episode = self.open.entry(subject.to_owned()).or_insert_with(|| Episode {
            began: now,
            reported: HashMap::new(),
            failures: 0,
        });
        episode.failures += 1;
        match episode.reported.get(failure) {
            // The same all the time.
            Some(_) if episode.reported.len() == 1 => return false,
            Some(at) if now.duration_since(*at) < AGAIN => return false,
            None if episode.reported.len() >= DIFFERENT => return false,
            Some(_) | None => {}
        }
        episode.reported.insert(failure.to_owned(), now);
        true
    }

    /// Whether the subject had a failure before.
    pub fn ends(&mut self, subject: &str) -> bool {
        self.end(subject).is_some()
    }

    /// The same, with what the episode was.
    pub fn end(&mut self, subject: &str) -> Option<Ended> {
        let episode = self.open.remove(subject)?;
        Some(Ended { failures: episode.failures, lasted: episode.began.elapsed() })
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

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_reported_once_until_its_episode_ends() {
        let mut episodes = Episodes::default();
        assert!(episodes.begins("a", "refused"));
        assert!(!episodes.begins("a", "refused"));
        assert!(episodes.begins("a", "timed out"));
        assert!(episodes.begins("b", "refused"));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(episodes.end("a"), Some(Ended { failures: 3, lasted: Duration::from_secs(5) }));
        assert!(!episodes.ends("a"));
        assert!(episodes.begins("a", "refused"));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_that_alternate_are_reported_again_after_ten_minutes() {
        let mut episodes = Episodes::default();
        let report = |episodes: &mut Episodes| {
            let failures = ["refused", "timed out"].repeat(50);
            failures.into_iter().filter(|failure| episodes.begins("a", failure)).count()
        };
        assert_eq!(report(&mut episodes), 2);
        assert_eq!(report(&mut episodes), 0);
        tokio::time::advance(AGAIN).await;
        assert_eq!(report(&mut episodes), 2);
    }
}
