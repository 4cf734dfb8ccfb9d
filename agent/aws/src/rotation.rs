//! When to sign, which token to serve, when to retry. Pure: time and randomness are arguments,
//! tokens are opaque.
//!
//! At most two tokens are held. The **served** one is in use. The **candidate** is the next one:
//! it replaces the served one when a login proves it, or when the served one may no longer be
//! used.
//!
//! # Margins
//! A token has to stay valid during the login it is used for, and the database's clock may differ
//! from the agent's. So no token is used in its last 30 seconds. With credentials that live for a
//! minute only, that would be too long: the margin is then a sixth of the *credentials'*
//! lifetime as far as it was observed. It does not depend on the token's own lifetime, since
//! tokens signed with the same expiring credentials get shorter and shorter while a login takes
//! as long as before. The margin is never below one second.
//!
//! The next token is signed at two thirds of a token's lifetime (600 s of 900, 40 of 60), at the
//! latest half a margin before the margin begins.

use std::time::{Duration, SystemTime};

/// The margin of a token of full lifetime. It covers the longest login (8 s) and a clock of the
/// database that is up to 20 s ahead.
pub const MARGIN: Duration = Duration::from_secs(30);
/// The least margin: a login has to fit in.
pub const MARGIN_MIN: Duration = Duration::from_secs(1);
/// The longest wait between attempts while a token is served.
pub const RETRY_MAX: Duration = Duration::from_secs(60);
/// The longest wait between attempts without a token, when every login waits for one.
pub const RETRY_MAX_BARE: Duration = Duration::from_secs(5);
const RETRY_MIN: Duration = Duration::from_secs(1);
/// A clock this far behind a token's date has been set back.
const CLOCK_STEP: Duration = Duration::from_secs(60);

/// The times of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// When the credentials that signed it were first loaded.
    pub known_since: SystemTime,
    pub signed_at: SystemTime,
    /// When the database stops accepting it.
    pub expires_at: SystemTime,
}

#[derive(Clone, Debug)]
struct Slot<T> {
    life: Life,
    token: T,
    /// When it was signed, exactly: the date in a signature has whole seconds.
    taken: SystemTime,
    proved: bool,
}

/// Requirements for the credentials of the next token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Loaded after this time, when a token was signed that the database refused.
    pub newer_than: Option<SystemTime>,
    /// Expiring after this time, until which there is a token.
    pub beyond: Option<SystemTime>,
}

/// The next action of the task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Sign now, with credentials that meet this need.
    Sign(Need),
    /// Nothing before this time.
    Wait(SystemTime),
}

/// The use of a newly signed token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signed {
    /// Served at once, because there was no other.
    Served,
    /// Waits for a login to prove it.
    Candidate,
    /// Dropped, to retry later: it would expire no later than the present one, because the
    /// credentials are still the same.
    NoGain,
    /// Dropped, to retry later: it expires too soon to be used.
    Expiring,
}

/// The tokens of one target, and the history that determines the next one.
#[derive(Clone, Debug)]
pub struct Rotation<T> {
    served: Option<Slot<T>>,
    candidate: Option<Slot<T>>,
    /// Consecutive attempts without a token of later expiry.
    failures: u32,
    /// Consecutive refused logins.
    refusals: u32,
    /// When a token was signed that was refused, if none was signed since.
    refused: Option<SystemTime>,
    retry_at: Option<SystemTime>,
}

// === impl Life ===

impl Life {
    /// The time before its expiry in which it is no longer used.
    pub fn margin(&self) -> Duration {
        let since = self.known_since.min(self.signed_at);
        (span(since, self.expires_at) / 6).clamp(MARGIN_MIN, MARGIN)
    }

    pub fn usable(&self, now: SystemTime) -> bool {
        span(now, self.expires_at) > self.margin()
    }

    /// Until when it may be used.
    pub fn last_use(&self) -> SystemTime {
        before(self.expires_at, self.margin())
    }

    pub fn refresh_at(&self) -> SystemTime {
        let life = span(self.signed_at, self.expires_at);
        let early = life.saturating_sub(self.margin() + self.margin() / 2);
        self.signed_at + (life * 2 / 3).min(early)
    }

    /// Whether the clock was set back to before its signing: to the database its date may be in
    /// the future.
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
    pub fn plan(&self, now: SystemTime) -> Action {
        let newest = self.newest(now);
        let due = match newest {
            Some(_) if self.refused.is_some() => now,
            Some(slot) if slot.life.clock_went_back(now) => now,
            Some(slot) => slot.life.refresh_at(),
            None => now,
        };
        // A retry later than any backoff dates from before the clock was set back.
        let retry = self.retry_at.filter(|at| span(now, *at) <= RETRY_MAX * 2);
        let at = retry.map_or(due, |retry| retry.max(due));
        if at > now {
            return Action::Wait(at);
        }
        Action::Sign(Need { newer_than: self.refused, beyond: newest.map(|slot| slot.life.expires_at) })
    }

    /// The token to use: the served one while it is usable, then the candidate.
    pub fn current(&self, now: SystemTime) -> Option<&T> {
        self.current_slot(now).map(|slot| &slot.token)
    }

    /// The next token, until a login has proved it.
    pub fn candidate(&self, now: SystemTime) -> Option<&T> {
        self.candidate_slot(now).map(|slot| &slot.token)
    }

    /// The times of [`Self::current`], and whether a login proved it.
    pub fn current_life(&self, now: SystemTime) -> Option<(Life, bool)> {
        self.current_slot(now).map(|slot| (slot.life, slot.proved))
    }

    /// The times of [`Self::candidate`].
    pub fn candidate_life(&self, now: SystemTime) -> Option<Life> {
        self.candidate_slot(now).map(|slot| slot.life)
    }

    /// Consecutive attempts without a token of later expiry.
    pub fn failures_in_a_row(&self) -> u32 {
        self.failures
    }

    /// Records a signed token. `chance` in 0..1 spreads the retries of many agents.
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
            // Signed with credentials that expire soon; the next ones need a moment.
            self.put_off(now, 1, chance);
        }
        signed
    }

    /// Records a failed attempt. `chance` in 0..1.
    pub fn failed(&mut self, now: SystemTime, chance: f64) {
        self.failures = self.failures.saturating_add(1);
        self.put_off(now, self.failures, chance);
    }

    /// Records that a login with the token matching `is` was accepted; a candidate becomes the
    /// served token. `false` if the token is no longer held.
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
        // The refusal of an older token no longer matters.
        self.refusals = 0;
        self.refused = None;
        true
    }

    /// Records that a login with the token matching `is` was refused (class 28, 1045). A candidate
    /// is dropped. A served token stays, since there is no better one. Either way the next token
    /// is signed with newly loaded credentials. `false` if the token is no longer held.
    pub fn refused(&mut self, now: SystemTime, is: impl Fn(&T) -> bool, chance: f64) -> bool {
        self.drop_unusable(now);
        let dropped = self.candidate.take_if(|slot| is(&slot.token)).map(|slot| slot.taken);
        let served = self.served.as_ref().filter(|slot| is(&slot.token)).map(|slot| slot.taken);
        let Some(taken) = dropped.or(served) else { return false };
        // One refusal of the served token is enough to request a candidate; further ones change
        // nothing until it arrives.
        if dropped.is_some() || (self.refused.is_none() && self.candidate.is_none()) {
            self.refusals = self.refusals.saturating_add(1);
            self.refused = Some(taken);
            self.put_off(now, self.refusals, chance);
        }
        true
    }

    fn put_off(&mut self, now: SystemTime, times: u32, chance: f64) {
        // At least four attempts fit into the remaining time of the served token.
        let most = match self.newest(now) {
            Some(slot) => (span(now, slot.life.last_use()) / 4).clamp(RETRY_MIN, RETRY_MAX),
            None => RETRY_MAX_BARE,
        };
        let wait = RETRY_MIN.saturating_mul(1 << times.saturating_sub(1).min(10)).min(most);
        self.retry_at = Some(now + wait.mul_f64(0.75 + chance.clamp(0.0, 1.0) / 2.0));
    }

    /// Drops tokens that may no longer be used, so that the candidate takes over.
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
