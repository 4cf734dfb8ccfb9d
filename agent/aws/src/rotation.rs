//! When to sign, what to serve, when to try again. Pure: `now` and chance are
//! arguments, tokens are opaque.
//!
//! At most two tokens are held. The **served** one is handed out. A **candidate**
//! is the next one: it waits until a login proves it, or until the served one
//! may no longer be handed out, and then takes its place.
//!
//! # Margins
//! A token handed out must survive the login it is for, and the database's clock
//! is not ours. So none is handed out in its last 30 seconds. A token whose
//! credentials live for a minute cannot afford that: its margin is a sixth of the
//! *credentials'* life as far as we have seen it, not of the token's own, since
//! tokens signed again with the same dying credentials get shorter and shorter
//! and the login takes as long as ever. Never below one second.
//!
//! The next token is signed at two thirds of a token's life (600 s of 900, 40 of
//! 60), at the latest half a margin before the margin begins.

use std::time::{Duration, SystemTime};

/// The margin of a token of full life.
pub const MARGIN: Duration = Duration::from_secs(30);
/// No margin is shorter: a login has to fit in.
pub const MARGIN_MIN: Duration = Duration::from_secs(1);
/// The longest wait between attempts while a token is served.
pub const RETRY_MAX: Duration = Duration::from_secs(60);
/// The longest wait between attempts while none is: every login waits for it.
pub const RETRY_MAX_BARE: Duration = Duration::from_secs(5);
const RETRY_MIN: Duration = Duration::from_secs(1);
/// A clock that is this far behind a token's signing has been set back.
const CLOCK_STEP: Duration = Duration::from_secs(60);

/// The dates of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// Since when the credentials that signed it have been known to us.
    pub known_since: SystemTime,
    /// When it was signed.
    pub signed_at: SystemTime,
    /// When it stops being accepted.
    pub expires_at: SystemTime,
}

/// A token and its dates.
#[derive(Clone, Debug)]
struct Slot<T> {
    life: Life,
    token: T,
    /// When it was signed, to the fraction: the date in a signature has none.
    taken: SystemTime,
    proved: bool,
}

/// What the credentials for the next token have to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Loaded later than that: a database refused a token signed then.
    pub newer_than: Option<SystemTime>,
    /// Good for longer than that: there is a token until then.
    pub beyond: Option<SystemTime>,
}

/// What the task has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Sign now, with credentials that meet the need.
    Sign(Need),
    /// Nothing before that moment.
    Wait(SystemTime),
}

/// What became of a newly signed token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signed {
    /// It is served from now on: there was nothing else to serve.
    Served,
    /// It waits to be proved.
    Candidate,
    /// It would end no later than the one there is: the credentials are still the
    /// old ones. Dropped, tried again later.
    NoGain,
    /// It is too near its end to be served. Dropped, tried again later.
    Expiring,
}

/// The tokens of one target, and the history that decides about the next one.
#[derive(Clone, Debug)]
pub struct Rotation<T> {
    served: Option<Slot<T>>,
    candidate: Option<Slot<T>>,
    /// Attempts without a better token, in a row.
    failures: u32,
    /// Logins refused, in a row.
    refusals: u32,
    /// A token signed then was refused, and nothing newer has been signed.
    refused: Option<SystemTime>,
    retry_at: Option<SystemTime>,
}

// === impl Life ===

impl Life {
    /// How long before its end it is no longer handed out.
    pub fn margin(&self) -> Duration {
        let since = self.known_since.min(self.signed_at);
        (span(since, self.expires_at) / 6).clamp(MARGIN_MIN, MARGIN)
    }

    /// Whether it may be handed out.
    pub fn usable(&self, now: SystemTime) -> bool {
        span(now, self.expires_at) > self.margin()
    }

    /// Until when it may be handed out.
    pub fn last_use(&self) -> SystemTime {
        before(self.expires_at, self.margin())
    }

    /// When the next one is signed.
    pub fn refresh_at(&self) -> SystemTime {
        let life = span(self.signed_at, self.expires_at);
        let early = life.saturating_sub(self.margin() + self.margin() / 2);
        self.signed_at + (life * 2 / 3).min(early)
    }

    /// The clock was set back behind its signing: the database may find it dated
    /// in the future.
    fn clock_went_back(&self, now: SystemTime) -> bool {
        span(now, self.signed_at) > CLOCK_STEP
    }
}

// === impl Rotation ===

impl<T> Default for Rotation<T> {
    fn default() -> Self {
        Self { served: None, candidate: None, failures: 0, refusals: 0, refused: None, retry_at: None }
    }
}

impl<T> Rotation<T> {
    /// What to do now.
    pub fn plan(&self, now: SystemTime) -> Action {
        let newest = self.newest(now);
        let due = match newest {
            Some(_) if self.refused.is_some() => now,
            Some(slot) if slot.life.clock_went_back(now) => now,
            Some(slot) => slot.life.refresh_at(),
            None => now,
        };
        // A retry further away than any backoff was set before the clock was set back.
        let retry = self.retry_at.filter(|at| span(now, *at) <= RETRY_MAX * 2);
        let at = retry.map_or(due, |retry| retry.max(due));
        if at > now {
            return Action::Wait(at);
        }
        Action::Sign(Need { newer_than: self.refused, beyond: newest.map(|slot| slot.life.expires_at) })
    }

    /// The token to hand out: the served one while it may be, then the candidate.
    pub fn current(&self, now: SystemTime) -> Option<&T> {
        self.current_slot(now).map(|slot| &slot.token)
    }

    /// The next token, if one waits to be proved.
    pub fn candidate(&self, now: SystemTime) -> Option<&T> {
        self.candidate_slot(now).map(|slot| &slot.token)
    }

    /// The dates of [`Self::current`], and whether a login proved it.
    pub fn current_life(&self, now: SystemTime) -> Option<(Life, bool)> {
        self.current_slot(now).map(|slot| (slot.life, slot.proved))
    }

    /// The dates of [`Self::candidate`].
    pub fn candidate_life(&self, now: SystemTime) -> Option<Life> {
        self.candidate_slot(now).map(|slot| slot.life)
    }

    /// Attempts without a better token, in a row.
    pub fn failures_in_a_row(&self) -> u32 {
        self.failures
    }

    /// A token was signed. `chance` in 0..1 spreads the retries of many agents.
    pub fn signed(&mut self, now: SystemTime, life: Life, token: T, chance: f64) -> Signed {
        self.drop_unusable(now);
        if !life.usable(now) {
            self.failed(now, chance);
            return Signed::Expiring;
        }
        let newest = self.newest(now).map(|slot| slot.life);
        let reset = newest.is_some_and(|old| old.clock_went_back(now));
        let gains = newest.is_none_or(|old| life.expires_at > old.expires_at);
        if !gains && !reset && self.refused.is_none() {
            self.failed(now, chance);
            return Signed::NoGain;
        }
        self.failures = 0;
        self.refused = None;
        self.retry_at = None;
        let refresh_at = life.refresh_at();
        let slot = Some(Slot { life, token, taken: now, proved: false });
        let signed = if self.served.is_none() || reset {
            self.served = slot;
            self.candidate = None;
            Signed::Served
        } else {
            self.candidate = slot;
            Signed::Candidate
        };
        if refresh_at <= now {
            // Signed with credentials near their end: the next ones are not there this moment.
            self.put_off(now, 1, chance);
        }
        signed
    }

    /// An attempt gave nothing. `chance` in 0..1.
    pub fn failed(&mut self, now: SystemTime, chance: f64) {
        self.failures = self.failures.saturating_add(1);
        self.put_off(now, self.failures, chance);
    }

    /// A login with the token for which `is` holds was accepted: a candidate is
    /// served from now on. `false` if it is neither served nor candidate any more.
    pub fn accepted(&mut self, now: SystemTime, is: impl Fn(&T) -> bool) -> bool {
        self.drop_unusable(now);
        if let Some(mut slot) = self.candidate.take_if(|slot| is(&slot.token)) {
            slot.proved = true;
            self.served = Some(slot);
        } else if let Some(slot) = self.served.as_mut().filter(|slot| is(&slot.token)) {
            slot.proved = true;
        } else {
            return false;
        }
        // An older token's refusal is answered by this one's acceptance.
        self.refusals = 0;
        self.refused = None;
        true
    }

    /// A login with the token for which `is` holds was refused (class 28, 1045). A
    /// candidate is dropped; a served one stays, for there is nothing better, and
    /// the next is signed with newly loaded credentials. `false` if it is neither.
    pub fn refused(&mut self, now: SystemTime, is: impl Fn(&T) -> bool, chance: f64) -> bool {
        self.drop_unusable(now);
        let dropped = self.candidate.take_if(|slot| is(&slot.token)).map(|slot| slot.taken);
        let served = self.served.as_ref().filter(|slot| is(&slot.token)).map(|slot| slot.taken);
        let Some(taken) = dropped.or(served) else { return false };
        // One refusal of the served token is enough to ask for a candidate; more of
        // them while that one is awaited change nothing.
        if dropped.is_some() || (self.refused.is_none() && self.candidate.is_none()) {
            self.refusals = self.refusals.saturating_add(1);
            self.refused = Some(taken);
            self.put_off(now, self.refusals, chance);
        }
        true
    }

    fn put_off(&mut self, now: SystemTime, times: u32, chance: f64) {
        // While a token is served there are at least four more attempts before its end.
        let most = match self.newest(now) {
            Some(slot) => (span(now, slot.life.last_use()) / 4).clamp(RETRY_MIN, RETRY_MAX),
            None => RETRY_MAX_BARE,
        };
        let wait = RETRY_MIN.saturating_mul(1 << times.saturating_sub(1).min(10)).min(most);
        self.retry_at = Some(now + wait.mul_f64(0.75 + chance.clamp(0.0, 1.0) / 2.0));
    }

    /// Forgets what may no longer be handed out, so that a candidate moves up.
    fn drop_unusable(&mut self, now: SystemTime) {
        self.candidate.take_if(|slot| !slot.life.usable(now));
        self.served.take_if(|slot| !slot.life.usable(now));
        if self.served.is_none() {
            self.served = self.candidate.take();
        }
    }

    fn served_slot(&self, now: SystemTime) -> Option<&Slot<T>> {
        self.served.as_ref().filter(|slot| slot.life.usable(now))
    }

    fn newest(&self, now: SystemTime) -> Option<&Slot<T>> {
        self.candidate.as_ref().filter(|slot| slot.life.usable(now)).or_else(|| self.served_slot(now))
    }

    fn current_slot(&self, now: SystemTime) -> Option<&Slot<T>> {
        self.served_slot(now).or_else(|| self.newest(now))
    }

    fn candidate_slot(&self, now: SystemTime) -> Option<&Slot<T>> {
        self.served_slot(now)?;
        self.candidate.as_ref().filter(|slot| slot.life.usable(now))
    }
}

/// The time from `from` to `to`; zero if `to` is not later.
fn span(from: SystemTime, to: SystemTime) -> Duration {
    to.duration_since(from).unwrap_or_default()
}

fn before(at: SystemTime, by: Duration) -> SystemTime {
    at.checked_sub(by).unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
#[path = "rotation_tests.rs"]
mod tests;
