//! What the session task of one instance does next, from times and its queue alone. Pure.
//!
//! One connection serves three needs: closing sessions while they are quiet, looking often at the
//! watched sessions, and listing all sessions from time to time.

use std::time::Duration;

use tokio::time::Instant;

/// The interval between looks at the watched sessions.
pub(super) const WATCHED: Duration = Duration::from_millis(100);

/// The longest interval between lists of all sessions while some may have to be closed.
pub(super) const CLOSING: Duration = Duration::from_secs(1);

/// What there is to do at one moment.
#[derive(Copy, Clone, Debug, Default)]
pub(super) struct Demand {
    pub(super) watched: bool,
    /// Some session may have to be closed before long.
    pub(super) closing: bool,
    /// A close is queued that is one statement: its session is quiet now, and may not be for long.
    pub(super) quick_close: bool,
    /// A close is queued that waits for its session to become idle.
    pub(super) catch: bool,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    QuickClose,
    ListAll,
    LookAtWatched,
    Catch,
    WaitUntil(Instant),
}

#[derive(Debug)]
pub(super) struct Schedule {
    /// The interval between lists while no session may have to be closed.
    interval: Duration,
    /// Added to the first interval, so that agents that are started together do not list together.
    phase: Duration,
    last_list: Instant,
    list_at: Instant,
    look_at: Instant,
}

// === impl Schedule ===

impl Schedule {
    pub(super) fn new(interval: Duration, phase: Duration, now: Instant) -> Self {
        Self { interval, phase, last_list: now, list_at: now, look_at: now }
    }

    pub(super) fn next(&self, now: Instant, demand: Demand) -> Action {
        // Quick closes go first, unless a look is late by a whole interval: many closes in a row must
        // not hide that other sessions become quiet.
        let look_is_late = demand.watched && now >= self.look_at + WATCHED;
        if demand.quick_close && !look_is_late {
            Action::QuickClose
        } else if now >= self.list_at {
            Action::ListAll
        } else if demand.watched && now >= self.look_at {
            Action::LookAtWatched
        } else if demand.catch {
            // Last, because a catch takes its time.
            Action::Catch
        } else {
            let next = if demand.watched { self.list_at.min(self.look_at) } else { self.list_at };
            Action::WaitUntil(if demand.closing { next.min(now + CLOSING) } else { next })
        }
    }

    /// All sessions were listed. The interval counts from the end, so that a slow server has a rest.
    pub(super) fn listed(&mut self, began: Instant, ended: Instant, closing: bool) {
        self.last_list = began;
        let phase = std::mem::take(&mut self.phase);
        self.list_at = ended + if closing { self.interval.min(CLOSING) } else { self.interval + phase };
        self.looked(ended);
    }

    /// The watched sessions were looked at, alone or in a list of all.
    pub(super) fn looked(&mut self, ended: Instant) {
        self.look_at = ended + WATCHED;
    }

    /// The decider needs a new list, at most one per [`CLOSING`].
    pub(super) fn list_soon(&mut self) {
        self.list_at = self.list_at.min(self.last_list + CLOSING);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(5);
    const MS: Duration = Duration::from_millis(1);

    /// A schedule whose last list began and ended at the returned moment.
    fn listed() -> (Schedule, Instant) {
        let now = Instant::now();
        let mut schedule = Schedule::new(INTERVAL, Duration::ZERO, now);
        schedule.listed(now, now, false);
        (schedule, now)
    }

    #[test]
    fn all_sessions_are_listed_first_and_then_at_the_interval() {
        let now = Instant::now();
        let mut schedule = Schedule::new(INTERVAL, Duration::ZERO, now);
        assert_eq!(schedule.next(now, Demand::default()), Action::ListAll);
        schedule.listed(now, now + 20 * MS, false);
        let next = now + 20 * MS + INTERVAL;
        assert_eq!(schedule.next(now + 20 * MS, Demand::default()), Action::WaitUntil(next));
        assert_eq!(schedule.next(next, Demand::default()), Action::ListAll);
    }

    #[test]
    fn the_first_interval_is_longer_by_a_random_phase() {
        let now = Instant::now();
        let mut schedule = Schedule::new(INTERVAL, 300 * MS, now);
        for phase in [300 * MS, Duration::ZERO] {
            schedule.listed(now, now, false);
            let next = schedule.next(now, Demand::default());
            assert_eq!(next, Action::WaitUntil(now + INTERVAL + phase));
        }
    }

    #[test]
    fn lists_are_more_frequent_while_sessions_may_have_to_be_closed() {
        let (mut schedule, now) = listed();
        let closing = Demand { closing: true, ..Demand::default() };
        assert_eq!(schedule.next(now, closing), Action::WaitUntil(now + CLOSING));
        schedule.listed(now, now, true);
        assert_eq!(schedule.next(now + CLOSING, closing), Action::ListAll);
    }

    #[test]
    fn a_list_on_demand_comes_no_sooner_than_a_second_after_the_last_one() {
        let (mut schedule, now) = listed();
        schedule.list_soon();
        assert_eq!(schedule.next(now + MS, Demand::default()), Action::WaitUntil(now + CLOSING));
        assert_eq!(schedule.next(now + CLOSING, Demand::default()), Action::ListAll);
    }

    #[test]
    fn watched_sessions_are_looked_at_ten_times_a_second() {
        let (mut schedule, now) = listed();
        let watched = Demand { watched: true, ..Demand::default() };
        assert_eq!(schedule.next(now, watched), Action::WaitUntil(now + WATCHED));
        assert_eq!(schedule.next(now + WATCHED, watched), Action::LookAtWatched);
        schedule.looked(now + WATCHED);
        assert_eq!(schedule.next(now + WATCHED, watched), Action::WaitUntil(now + 2 * WATCHED));
        assert_eq!(schedule.next(now + 3 * WATCHED, Demand::default()), Action::WaitUntil(now + INTERVAL));
    }

    #[test]
    fn a_quick_close_precedes_lists_and_looks_until_a_look_is_late() {
        let (schedule, now) = listed();
        let demand = Demand { watched: true, quick_close: true, ..Demand::default() };
        assert_eq!(schedule.next(now + WATCHED, demand), Action::QuickClose);
        assert_eq!(schedule.next(now + 2 * WATCHED, demand), Action::LookAtWatched);
        assert_eq!(schedule.next(now + INTERVAL, demand), Action::ListAll);
        let unwatched = Demand { watched: false, ..demand };
        assert_eq!(schedule.next(now + INTERVAL, unwatched), Action::QuickClose, "no look can be late");
    }

    #[test]
    fn a_catch_is_tried_only_when_nothing_else_is_due() {
        let (schedule, now) = listed();
        let demand = Demand { watched: true, catch: true, ..Demand::default() };
        assert_eq!(schedule.next(now, demand), Action::Catch);
        assert_eq!(schedule.next(now + WATCHED, demand), Action::LookAtWatched);
        assert_eq!(schedule.next(now + INTERVAL, demand), Action::ListAll);
        assert_eq!(schedule.next(now, Demand { quick_close: true, ..demand }), Action::QuickClose);
    }
}
