//! The login budget: closes and own logins on one instance in any one second.
//!
//! Every close makes a client log in again, and logins are what IAM throttles.
//! An operation counts from the moment it begins until a second, and a little more,
//! after it has ended. Whenever the database really saw it, it was between those two, so no
//! window of one second at the database can hold more than the budget.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use serde::Serialize;

use crate::{InstanceId, Time};

/// Closes on a demoted writer in a second, until it is set otherwise.
const FAILOVER: u32 = 100;

const WINDOW: Duration = Duration::from_secs(1);

/// A server process that received the order to end takes a moment to do so, more on a busy host.
const SETTLE: Duration = Duration::from_millis(100);

/// A failed operation that never reports back must not shrink the budget for ever.
const LOST: Duration = Duration::from_secs(60);

/// What a place in the budget is for.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// A login of the agent's own. It may use the whole budget.
    Login,
    /// A close. It leaves one place to logins, so that health is never starved.
    Close,
    /// A close of a session on a demoted writer. It has a budget of its own: the
    /// clients log in at the new writer, and the sooner the better.
    Failover,
}

/// A place in the budget, until it is [finished](Budget::finish).
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a ticket counts against the budget until it is finished"]
pub struct Ticket {
    instance: InstanceId,
    number: u64,
}

/// The budgets of all instances.
#[derive(Debug)]
pub struct Budget {
    per_second: u32,
    failover_per_second: u32,
    next: u64,
    used: BTreeMap<InstanceId, VecDeque<Use>>,
    /// What is shared with other agents, by instance. Where it is missing the budget is this agent's alone.
    shared: BTreeMap<InstanceId, Shared>,
}

/// This agent's part of a budget that all agents of a database share.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Shared {
    /// Shared permits that it holds: see [`peers`](crate::peers).
    pub permits: u32,
    /// Other agents.
    pub peers: u32,
}

#[derive(Debug)]
struct Use {
    number: u64,
    purpose: Purpose,
    began: Time,
    ended: Option<Time>,
}

impl Budget {
    /// `per_second` operations on each instance, one of them for logins alone: with
    /// less than 2 nothing is closed. Closes on a demoted writer: 100 a second.
    pub fn new(per_second: u32) -> Self {
        Self {
            per_second,
            failover_per_second: FAILOVER,
            next: 0,
            used: BTreeMap::new(),
            shared: BTreeMap::new(),
        }
    }

    pub fn per_second(&self) -> u32 {
        self.per_second
    }

    /// Changes the number from now on.
    pub fn set_per_second(&mut self, per_second: u32) {
        self.per_second = per_second;
    }

    /// Changes the number of closes on a demoted writer from now on.
    pub fn set_failover_per_second(&mut self, per_second: u32) {
        self.failover_per_second = per_second;
    }

    /// This agent's part of the budget of an instance from now on; `None` is all of it.
    pub fn share(&mut self, instance: &InstanceId, shared: Option<Shared>) {
        match shared {
            Some(shared) => drop(self.shared.insert(instance.clone(), shared)),
            None => drop(self.shared.remove(instance)),
        }
    }

    /// How many permits operations of this kind count against now.
    pub fn counted(&self, instance: &InstanceId, purpose: Purpose, now: Time) -> u32 {
        let counted = self.used_with(instance, purpose).filter(|one| one.counts(now)).count();
        u32::try_from(counted).unwrap_or(u32::MAX)
    }

    /// How many operations of this kind may begin now.
    pub fn free(&self, instance: &InstanceId, purpose: Purpose, now: Time) -> u32 {
        let shared = self.shared.get(instance);
        let permitted = match purpose {
            // Health comes first: logins are few, and left out of what is shared.
            Purpose::Login => self.per_second,
            Purpose::Close => {
                let closes = self.per_second.saturating_sub(1);
                shared.map_or(closes, |shared| shared.permits.min(closes))
            }
            Purpose::Failover => {
                let agents = shared.map_or(1, |shared| shared.peers.saturating_add(1));
                (self.failover_per_second / agents).max(u32::from(self.failover_per_second > 0))
            }
        };
        permitted.saturating_sub(self.counted(instance, purpose, now))
    }

    /// How many operations of just this kind are under way.
    pub fn running(&self, instance: &InstanceId, purpose: Purpose, now: Time) -> usize {
        let used = self.used.get(instance).into_iter().flatten();
        used.filter(|one| one.purpose == purpose && one.ended.is_none() && one.counts(now)).count()
    }

    /// All that take their places from the same budget.
    fn used_with(&self, instance: &InstanceId, purpose: Purpose) -> impl Iterator<Item = &Use> {
        let failover = |purpose| purpose == Purpose::Failover;
        let used = self.used.get(instance).into_iter().flatten();
        used.filter(move |one| failover(one.purpose) == failover(purpose))
    }

    /// Takes a place, if there is one.
    pub fn try_begin(&mut self, instance: &InstanceId, purpose: Purpose, now: Time) -> Option<Ticket> {
        if self.free(instance, purpose, now) == 0 {
            return None;
        }
        let number = self.next;
        self.next += 1;
        let used = self.used.entry(instance.clone()).or_default();
        used.retain(|one| one.counts(now));
        used.push_back(Use { number, purpose, began: now, ended: None });
        Some(Ticket { instance: instance.clone(), number })
    }

    /// The operation has ended, whether well or not.
    pub fn finish(&mut self, ticket: Ticket, now: Time) {
        let Ticket { instance, number } = ticket;
        let used = self.used.get_mut(&instance).into_iter().flatten();
        if let Some(one) = used.into_iter().find(|one| one.number == number) {
            one.ended = Some(now);
        }
    }

    /// The operation did nothing at the database: its place is free at once.
    pub fn cancel(&mut self, ticket: Ticket) {
        let Ticket { instance, number } = ticket;
        if let Some(used) = self.used.get_mut(&instance) {
            used.retain(|one| one.number != number);
        }
    }

    /// When the next place for this purpose is free, as far as that is known.
    pub fn next_free(&self, instance: &InstanceId, purpose: Purpose, now: Time) -> Time {
        if self.free(instance, purpose, now) > 0 {
            return now;
        }
        let ended = self.used_with(instance, purpose).filter_map(|one| one.ended);
        // One in flight may end at any time: look again soon.
        ended
            .map(|ended| ended + WINDOW + SETTLE + Duration::from_micros(1))
            .filter(|at| *at > now)
            .min()
            .unwrap_or(now + WINDOW / 10)
    }
}

impl Use {
    fn counts(&self, now: Time) -> bool {
        match self.ended {
            Some(ended) => now.since(ended) <= WINDOW + SETTLE,
            None => now.since(self.began) <= LOST,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn instance() -> InstanceId {
        InstanceId::new("orders", "a")
    }

    #[test]
    fn a_close_leaves_one_place_to_logins() {
        let mut budget = Budget::new(5);
        let now = Time::AGENT_START;
        for _ in 0..4 {
            assert!(budget.try_begin(&instance(), Purpose::Close, now).is_some());
        }
        assert_eq!(budget.try_begin(&instance(), Purpose::Close, now), None);
        assert!(budget.try_begin(&instance(), Purpose::Login, now).is_some());
        assert_eq!(budget.try_begin(&instance(), Purpose::Login, now), None);
    }

    #[test]
    fn instances_have_budgets_of_their_own() {
        let mut budget = Budget::new(2);
        let other = InstanceId::new("orders", "b");
        assert!(budget.try_begin(&instance(), Purpose::Close, Time::AGENT_START).is_some());
        assert!(budget.try_begin(&other, Purpose::Close, Time::AGENT_START).is_some());
    }

    #[test]
    fn a_budget_of_one_is_for_logins_and_one_of_none_is_for_nothing() {
        let mut one = Budget::new(1);
        assert_eq!(one.try_begin(&instance(), Purpose::Close, Time::AGENT_START), None);
        assert!(one.try_begin(&instance(), Purpose::Login, Time::AGENT_START).is_some());
        let mut none = Budget::new(0);
        none.set_failover_per_second(0);
        for purpose in [Purpose::Close, Purpose::Login, Purpose::Failover] {
            assert_eq!(none.try_begin(&instance(), purpose, Time::AGENT_START), None);
        }
    }

    #[test]
    fn a_failover_has_places_of_its_own() {
        let mut budget = Budget::new(2);
        budget.set_failover_per_second(3);
        for _ in 0..3 {
            assert!(budget.try_begin(&instance(), Purpose::Failover, Time::AGENT_START).is_some());
        }
        assert_eq!(budget.try_begin(&instance(), Purpose::Failover, Time::AGENT_START), None);
        assert!(budget.try_begin(&instance(), Purpose::Close, Time::AGENT_START).is_some());
    }

    #[test]
    fn closes_take_shared_permits_and_logins_do_not() {
        let mut budget = Budget::new(5);
        let (a, now) = (instance(), Time::AGENT_START);
        budget.share(&a, Some(Shared { permits: 0, peers: 4 }));
        assert_eq!(budget.free(&a, Purpose::Close, now), 0);
        assert_eq!(budget.free(&a, Purpose::Login, now), 5);
        assert_eq!(budget.free(&a, Purpose::Failover, now), 20, "a fifth");
        budget.share(&a, Some(Shared { permits: 2, peers: 4 }));
        let login = budget.try_begin(&a, Purpose::Login, now);
        assert_eq!(budget.free(&a, Purpose::Close, now), 1, "the login took one");
        budget.share(&a, Some(Shared { permits: 9, peers: 0 }));
        assert_eq!(budget.free(&a, Purpose::Close, now), 3, "never more than its own budget");
        budget.share(&a, None);
        assert_eq!(budget.free(&a, Purpose::Close, now), 3);
        assert!(login.is_some());
    }

    #[test]
    fn the_next_free_moment_is_when_the_first_place_is_a_second_old() {
        let mut budget = Budget::new(2);
        let began = Time::AGENT_START;
        let ticket = budget.try_begin(&instance(), Purpose::Close, began).unwrap();
        let ended = began + Duration::from_millis(30);
        budget.finish(ticket, ended);
        let free = budget.next_free(&instance(), Purpose::Close, ended);
        assert!(free >= ended + WINDOW, "{free:?}");
        assert_eq!(budget.free(&instance(), Purpose::Close, free), 1);
    }

    #[test]
    fn a_cancelled_operation_gives_its_place_back() {
        let mut budget = Budget::new(2);
        let ticket = budget.try_begin(&instance(), Purpose::Close, Time::AGENT_START).unwrap();
        assert_eq!(budget.free(&instance(), Purpose::Close, Time::AGENT_START), 0);
        budget.cancel(ticket);
        assert_eq!(budget.free(&instance(), Purpose::Close, Time::AGENT_START), 1);
    }

    proptest! {
        /// Whenever between begin and end the database sees each operation, no
        /// window of one second ever holds more than the budget.
        #[test]
        fn no_second_holds_more_than_the_budget(
            per_second in 2_u32..8,
            steps in prop::collection::vec((1_u64..400, 0_u64..900, 0.0_f64..=1.0, any::<bool>()), 1..200),
        ) {
            let mut budget = Budget::new(per_second);
            let mut now = Time::AGENT_START;
            let mut open: Vec<(Time, Ticket)> = Vec::new();
            let mut seen: Vec<Time> = Vec::new();
            for (wait, lasts, when, close) in steps {
                now = now + Duration::from_millis(wait);
                let (ended, still): (Vec<_>, Vec<_>) = open.into_iter().partition(|(end, _)| *end <= now);
                open = still;
                for (_, ticket) in ended {
                    // Reported late, as a busy agent would.
                    budget.finish(ticket, now);
                }
                let purpose = if close { Purpose::Close } else { Purpose::Login };
                if let Some(ticket) = budget.try_begin(&instance(), purpose, now) {
                    seen.push(now + Duration::from_millis(lasts).mul_f64(when));
                    open.push((now + Duration::from_millis(lasts), ticket));
                }
            }
            seen.sort();
            for (first, begin) in seen.iter().enumerate() {
                let within = seen[first..].iter().take_while(|at| at.since(*begin) < WINDOW).count();
                prop_assert!(within <= per_second as usize, "{within} within one second of {begin:?}");
            }
        }
    }
}
