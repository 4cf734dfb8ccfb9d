//! Client sessions that failed behind any proxy: the journal that all tasks share, and what the agent itself knows about
//! each instance at that time. Decisions about a session are pure and in [`agent_core::hand_offs`].
//!
//! - [`haproxy`]: what a line of HAProxy's log means. [`envoy`]: the same for an entry of Envoy's access log.
//! - [`sockets`]: the sockets for HAProxy's log, which outlive reloads.
//! - [`view`]: the documented view, for `/handoffs` and the command.

pub mod envoy;
pub mod haproxy;
pub mod sockets;
pub mod view;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use agent_core::{
    InstanceId, Time,
    hand_offs::{Certainty, Failure, Journal, News, Phase},
    health::{Fleet, Status},
    plan::{Retire, Retired},
};

use crate::{
    config::LogAddress,
    events::{Event, SessionFailed, SessionsFailed},
    metrics::Metrics,
};

/// A login of the agent says how clients' logins fare for this long.
const LOGIN_COUNTS: Duration = Duration::from_secs(60);

/// Sessions that ended this long before the last good answer of an instance may have ended with it.
const SLACK: Duration = Duration::from_millis(500);

/// The journal. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct HandOffs {
    kept: Arc<Mutex<Kept>>,
    pub sockets: sockets::Sockets,
}

#[derive(Debug, Default)]
struct Kept {
    journal: Journal,
    logins: BTreeMap<InstanceId, OwnLogin>,
    logs: BTreeMap<String, LogCounts>,
}

/// The agent's own last login on an instance.
#[derive(Clone, Debug)]
pub struct OwnLogin {
    pub at: Time,
    /// Whether the database refused it.
    pub refused: bool,
    /// When its token was signed.
    pub signed: SystemTime,
    pub tls_version: Option<String>,
    pub tls_cipher: Option<String>,
}

/// What arrived on the log of one HAProxy.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct LogCounts {
    /// Sessions that ended.
    pub sessions: u64,
    /// HAProxy's other lines.
    pub notices: u64,
    /// Sessions of backends that are not configured.
    pub elsewhere: u64,
    pub unread: u64,
    pub lost: u64,
}

impl HandOffs {
    /// Keeps and reports a failure of a session that ended at `at`.
    pub fn failed(&self, now: Time, at: Time, mut failure: Failure, metrics: &Metrics) {
        let mut kept = self.kept();
        let login = failure.instance.as_ref().and_then(|id| kept.logins.get(id)).cloned();
        let refused = login.as_ref().is_some_and(|own| own.refused && now.since(own.at) <= LOGIN_COUNTS);
        if failure.phase == Phase::LoginRefused && failure.certainty == Certainty::Suspected && refused {
            failure.certainty = Certainty::Likely;
        }
        let news = kept.journal.record(now, at, failure.clone()) == News::Each;
        drop(kept);
        SessionFailed { failure: &failure, own: login.as_ref().map(OwnLogin::view).as_ref(), news }
            .emit(metrics);
    }

    /// Keeps a session that ended without a sign of failure, until it is known whether its server is gone.
    pub fn ended(&self, now: Time, failure: Failure) {
        self.kept().journal.ends.push(now, failure);
    }

    /// Whether the agent closed a session itself.
    pub fn is_own(&self, now: Time, failure: &Failure) -> bool {
        self.kept().journal.closes.is_own(failure.source, failure.outgoing, now)
    }

    /// The agent begins to close a session.
    pub fn close_begins(&self, now: Time, command: &Retire) {
        self.kept().journal.closes.begins(&command.proxy, now);
    }

    /// The close has ended. One whose outcome is unknown may have taken effect.
    pub fn close_ended(&self, now: Time, command: &Retire, retired: Retired) {
        let closed = matches!(retired, Retired::Closed | Retired::Failed);
        self.kept().journal.closes.ends(&command.proxy, closed, now);
    }

    /// The agent has tried to log in.
    pub fn logged_in(&self, instance: &InstanceId, login: OwnLogin) {
        self.kept().logins.insert(instance.clone(), login);
    }

    /// Adds to the counts of a log.
    pub fn count(&self, proxy: &str, counts: LogCounts) {
        let mut kept = self.kept();
        if !kept.logs.contains_key(proxy) {
            kept.logs.insert(proxy.to_owned(), LogCounts::default());
        }
        if let Some(all) = kept.logs.get_mut(proxy) {
            all.sessions += counts.sessions;
            all.notices += counts.notices;
            all.elsewhere += counts.elsewhere;
            all.unread += counts.unread;
            all.lost += counts.lost;
        }
    }

    /// Forgets the logs of proxies that are no longer configured, and closes their sockets.
    pub fn keep_logs(&self, proxies: &[String], addresses: &[LogAddress]) {
        self.kept().logs.retain(|proxy, _| proxies.contains(proxy));
        self.sockets.keep_only(addresses);
    }

    /// Once a second: finds the sessions that ended with their server, and reports what was counted.
    pub fn round(&self, now: Time, fleet: &Fleet, metrics: &Metrics) {
        for (instance, view) in &fleet.instances {
            let gone = match view.status {
                Status::Refusing => true,
                Status::Silent(times) => times > 1,
                Status::Usable | Status::Unknown => false,
            };
            if !gone {
                continue;
            }
            let since = view.last_proof.unwrap_or(now) - SLACK;
            let ended = self.kept().journal.ends.of_gone(instance, since);
            for (at, failure) in ended {
                self.failed(now, at, failure, metrics);
            }
        }
        let due = self.kept().journal.round(now);
        for many in &due {
            SessionsFailed { many }.emit(metrics);
        }
    }

    /// Held for moments only.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OwnLogin {
    fn view(&self) -> crate::events::OwnLogin {
        let age = SystemTime::now().duration_since(self.signed).unwrap_or_default();
        crate::events::OwnLogin {
            result: if self.refused { "refused" } else { "accepted" },
            token_age_s: age.as_secs_f64(),
            tls_version: self.tls_version.clone(),
            tls_cipher: self.tls_cipher.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
