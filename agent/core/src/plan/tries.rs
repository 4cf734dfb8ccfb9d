//! Tries to close sessions, and what follows from those that failed.
//!
//! A session that cannot be closed is tried again ever more rarely, and after the others: it takes neither the
//! budget nor the turn of sessions that can be closed. Several sessions in a row that the database refuses
//! to close show that the right is missing on the instance.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use super::{HoldReason, Retired};
use crate::{InstanceId, Time};

/// Between the first and the second try; it doubles with each failure.
const FIRST: Duration = Duration::from_secs(1);

/// Between two tries at most.
const MOST: Duration = Duration::from_secs(60);

/// So many different sessions in a row refused, without one closed in between, and the right is missing.
const REFUSED: u32 = 3;

/// An instance where the right is missing gets no more closes for this long.
const DENIED: Duration = Duration::from_secs(60);

/// A server may list a closed session for a moment. After this it was not closed.
const LINGERS: Duration = Duration::from_secs(3);

/// The tries of all sessions.
#[derive(Debug)]
pub(super) struct Tries<Session> {
    sessions: HashMap<Session, Tried>,
    refused: BTreeMap<InstanceId, Refused>,
}

#[derive(Copy, Clone, Debug)]
struct Tried {
    at: Time,
    /// Failures without another result in between.
    failures: u32,
    /// Why it is held after a failure.
    reason: HoldReason,
    /// Reported as closed at `at`.
    closed: bool,
}

#[derive(Copy, Clone, Debug)]
struct Refused {
    sessions: u32,
    last: Time,
}

impl<Session> Default for Tries<Session> {
    fn default() -> Self {
        Self { sessions: HashMap::new(), refused: BTreeMap::new() }
    }
}

impl<Session: Copy + Eq + std::hash::Hash> Tries<Session> {
    /// The result of a try.
    pub(super) fn ended(&mut self, instance: &InstanceId, session: Session, retired: Retired, now: Time) {
        let tried = self.sessions.entry(session).or_insert(Tried {
            at: now,
            failures: 0,
            reason: HoldReason::CloseFailed,
            closed: false,
        });
        let first = tried.failures == 0;
        tried.at = now;
        tried.closed = retired == Retired::Closed;
        match retired {
            Retired::Failed | Retired::Denied => {
                tried.failures = tried.failures.saturating_add(1);
                let denied = retired == Retired::Denied;
                tried.reason = if denied { HoldReason::Denied } else { HoldReason::CloseFailed };
            }
            // Its failures count on if it turns out to be still there.
            Retired::Closed => {}
            Retired::Gone | Retired::Busy | Retired::Changed | Retired::OverBudget => tried.failures = 0,
        }
        match retired {
            Retired::Denied => {
                let refused =
                    self.refused.entry(instance.clone()).or_insert(Refused { sessions: 0, last: now });
                refused.sessions += u32::from(first || refused.sessions >= REFUSED);
                refused.last = now;
            }
            Retired::Closed => drop(self.refused.remove(instance)),
            _ => {}
        }
    }

    /// Whether a session that is listed at `seen` was reported as closed, and was not.
    pub(super) fn lingers(&self, session: Session, seen: Time) -> bool {
        self.sessions.get(&session).is_some_and(|tried| tried.closed && seen > tried.at + LINGERS)
    }

    /// A session that was reported as closed was not: that is a failure.
    pub(super) fn not_closed(&mut self, session: Session, now: Time) {
        if let Some(tried) = self.sessions.get_mut(&session) {
            let failures = tried.failures.saturating_add(1);
            *tried = Tried { at: now, failures, reason: HoldReason::CloseFailed, closed: false };
        }
    }

    /// Nothing observed up to this moment counts: a close was tried then.
    pub(super) fn last(&self, session: Session) -> Option<Time> {
        self.sessions.get(&session).map(|tried| tried.at)
    }

    /// Failures without another result in between.
    pub(super) fn failures(&self, session: Session) -> u32 {
        self.sessions.get(&session).map_or(0, |tried| tried.failures)
    }

    /// Why a session is not tried now, and until when.
    pub(super) fn held(&self, session: Session, now: Time) -> Option<(HoldReason, Time)> {
        let tried = self.sessions.get(&session)?;
        if tried.closed {
            // It is not tried again before it is known whether it was closed.
            return Some((HoldReason::CloseFailed, (tried.at + LINGERS).max(now + FIRST)));
        }
        let doubled = 2_u32.saturating_pow(tried.failures.checked_sub(1)?.min(10));
        let until = tried.at + (FIRST * doubled).min(MOST);
        (now < until).then_some((tried.reason, until))
    }

    /// Whether the right to close sessions is missing on this instance.
    pub(super) fn denied(&self, instance: &InstanceId, now: Time) -> bool {
        let refused = self.refused.get(instance);
        refused.is_some_and(|refused| refused.sessions >= REFUSED && now.since(refused.last) <= DENIED)
    }

    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }

    pub(super) fn retain(&mut self, lives: impl Fn(&Session) -> bool) {
        self.sessions.retain(|session, _| lives(session));
    }

    /// An operator resumes the agent: all are tried again.
    pub(super) fn reset(&mut self) {
        self.refused.clear();
        for tried in self.sessions.values_mut() {
            tried.failures = 0;
        }
    }
}
