//! What a session remembers of its server from one query to the next. Data only.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use agent_core::{peers::Look, session::BackendKey};
use rustix::time::{ClockId, clock_gettime};

#[derive(Default)]
pub(super) struct RoleMemory {
    /// The index of the first role query that this server answers.
    pub(super) query: usize,
    /// The last count of agents, and when it was taken.
    pub(super) agents: Option<(u32, Instant)>,
    /// When the replica had last replayed everything it had received. The time since its last
    /// replayed transaction is not lag if the writer was idle meanwhile.
    pub(super) caught_up: Option<Instant>,
}

/// The locks of `peers`, by the server's last answer.
#[derive(Default)]
pub(super) struct Locks {
    pub(super) look: Look,
    /// The keys of the permits that this session holds.
    pub(super) permits: Vec<i32>,
}

/// A change of a session's age by more than this, beyond the time that has passed, is a step of the
/// database's clock. Readings are as inexact as the time that a query takes, 2 s at most.
const STEP: Duration = Duration::from_secs(3);

/// The ages of sessions, which a step of the database's clock does not change.
///
/// An age is a difference on the database's clock. After a step the ages of all older sessions would
/// be wrong by the size of the step for as long as they live. So an age that has jumped is
/// continued from its last reading. A session that was first seen after the step keeps the age by
/// the clock: only it can tell.
#[derive(Default)]
pub(super) struct Ages {
    /// The last age that had not jumped, and when it was read.
    known: HashMap<BackendKey, (Duration, Duration)>,
}

impl Ages {
    /// The age of a session, from its age by the database's clock. `now` is from [`uptime`].
    pub(super) fn age(&mut self, key: BackendKey, by_clock: Duration, now: Duration) -> Duration {
        let (age, read) = self.known.entry(key).or_insert((by_clock, now));
        let expected = *age + now.saturating_sub(*read);
        if by_clock.abs_diff(expected) > STEP {
            return expected;
        }
        (*age, *read) = (by_clock, now);
        by_clock
    }

    /// Forgets all other sessions.
    pub(super) fn retain(&mut self, here: &HashSet<BackendKey>) {
        self.known.retain(|key, _| here.contains(key));
    }
}

/// The time since this host was booted, which goes on while it is suspended.
pub(super) fn uptime() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_follows_the_clock_and_not_its_steps() {
        let key = BackendKey { pid: 7, started_us: 1 };
        let seconds = Duration::from_secs;
        let mut ages = Ages::default();
        assert_eq!(ages.age(key, seconds(100), seconds(0)), seconds(100));
        // Inexact readings and a slow correction of the clock.
        assert_eq!(ages.age(key, seconds(111), seconds(10)), seconds(111));
        // An hour forward, later two hours back, and right again.
        assert_eq!(ages.age(key, seconds(3_600 + 121), seconds(20)), seconds(121));
        assert_eq!(ages.age(key, seconds(0), seconds(30)), seconds(131));
        assert_eq!(ages.age(key, seconds(142), seconds(40)), seconds(142));
        // A session that began after a step has no other age.
        let other = BackendKey { pid: 8, started_us: 2 };
        assert_eq!(ages.age(other, seconds(1), seconds(40)), seconds(1));
        ages.retain(&HashSet::from([other]));
        assert_eq!(ages.age(key, seconds(3_700), seconds(50)), seconds(3_700));
    }
}
