//! What logins were tried with tokens, and what became of them.
//!
//! Only tokens: a login that never sends one (a password user, a broken handshake) is not
//! here, and neither is what the server decides after it believed the token.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;

use super::token::Refusal;

/// The oldest attempts beyond this are forgotten.
const KEPT: usize = 200_000;

/// One token that was sent to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginAttempt {
    /// When the token was judged.
    pub at: Timestamp,
    /// The server's name, such as `a`.
    pub server: String,
    /// The user that logs in.
    pub user: String,
    /// The address that the server saw: a client's, or a proxy's. Empty on MariaDB, which does
    /// not pass it to PAM.
    pub from: String,
    /// Accepted, or the reason of the refusal.
    pub verdict: Result<(), Refusal>,
}

/// The attempts, oldest first.
#[derive(Debug, Default)]
pub struct Journal {
    attempts: Mutex<VecDeque<LoginAttempt>>,
}

impl Journal {
    pub(super) fn record(&self, attempt: LoginAttempt) {
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        if attempts.len() == KEPT {
            attempts.pop_front();
        }
        attempts.push_back(attempt);
    }

    /// All attempts that are remembered (the latest 200,000), oldest first.
    pub fn attempts(&self) -> Vec<LoginAttempt> {
        self.attempts_since(Timestamp::MIN)
    }

    /// The attempts at or after `since`, oldest first.
    pub fn attempts_since(&self, since: Timestamp) -> Vec<LoginAttempt> {
        let attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        attempts.iter().filter(|attempt| attempt.at >= since).cloned().collect()
    }
}

/// The most of these moments that lie within any one second; they have to be in order.
///
/// ```
/// # use integration_tests::standin::busiest_second;
/// let at = |millis| jiff::Timestamp::from_millisecond(millis).unwrap();
/// assert_eq!(busiest_second([at(0), at(900), at(1_000), at(1_899)]), 3);
/// ```
pub fn busiest_second(moments: impl IntoIterator<Item = Timestamp>) -> usize {
    let mut second = VecDeque::new();
    let mut most = 0;
    for moment in moments {
        second.push_back(moment);
        while second.front().is_some_and(|first| *first + Duration::from_secs(1) <= moment) {
            second.pop_front();
        }
        most = most.max(second.len());
    }
    most
}
