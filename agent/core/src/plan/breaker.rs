//! The breaker: clients that were closed and do not come back.
//!
//! A close is harmless only while the client can log in again. What the agent cannot see (a firewall, an
//! expired role) shows as a change: clients that returned at once after every close no longer do. A few of
//! those in a row pause the group.
//!
//! Clients that never returned at once are no evidence: a pool that reconnects at its next use looks the
//! same. The first few of a group are closed as a trial, and if none returns in time, the group is *lazy*:
//! its returns are not waited for.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use serde::Serialize;

use super::{BreakerPolicy, scope::Network};
use crate::{
    InstanceId, Time,
    session::{BackendKey, ProxySession, Session},
};

/// Clients that are alike: they stand or fall together.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Group {
    pub user: Arc<str>,
    /// What they call themselves.
    pub application: Arc<str>,
    /// Their network, as the proxy sees it.
    pub network: Network,
}

impl Group {
    pub(super) fn of(session: &Session<'_>, proxy: &ProxySession) -> Self {
        Self {
            user: session.row.user.clone(),
            application: session.row.application.clone(),
            network: Network::around(proxy.client_host()),
        }
    }
}

/// A session's begin is known no better than a poll takes, and a client may be back
/// before the close is reported: logins from this long before it count as its return.
const SLACK: Duration = Duration::from_millis(500);

/// A login that has been counted and not been seen for this long is over. Longer than any close
/// takes to be reported, whose return it might be taken for.
const LATE: Duration = Duration::from_secs(60);

/// A close whose return cannot be seen, because the tables cannot be read, counts as one
/// without a return after this.
const GIVEN_UP: Duration = Duration::from_secs(10 * 60);

/// A paused group that has had nothing to try for this long is gone: names of applications
/// carry those of hosts that never come again.
const FORGOTTEN: Duration = Duration::from_secs(24 * 60 * 60);

/// Groups remembered at most, besides those that are paused or awaited.
const MAX_GROUPS: usize = 10_000;

/// All groups that have had a session closed.
#[derive(Debug, Default)]
pub struct Breaker {
    groups: BTreeMap<Group, State>,
    /// Logins that already stand for the return of one close, and when they were last seen.
    counted: HashMap<(InstanceId, BackendKey), Time>,
}

#[derive(Debug, Default)]
struct State {
    /// Closes not yet followed by a login, oldest first.
    outstanding: Vec<AwaitedReturn>,
    misses: u32,
    comes_back: bool,
    /// Returns in time, without a miss in between. A group with enough of them is missed when it stays away.
    streak: u32,
    /// It was given time to return, and did not: its clients log in when they need a session.
    lazy: bool,
    open: Option<Time>,
}

#[derive(Debug)]
struct AwaitedReturn {
    instance: InstanceId,
    key: BackendKey,
    at: Time,
}

/// A session that may be the return of a closed one.
pub(super) struct Login<'a> {
    pub(super) instance: &'a InstanceId,
    pub(super) key: BackendKey,
    pub(super) user: &'a Arc<str>,
    pub(super) application: &'a Arc<str>,
    /// `None` where no proxy sweep has shown it yet.
    pub(super) network: Option<Network>,
    pub(super) begin: Time,
}

impl State {
    /// Closes in a row that count as not answered. Of a group that has been seen to come back,
    /// one that was closed just now does not, and any other does, whether its return could be
    /// seen or not.
    fn unanswered(&self, policy: &BreakerPolicy, now: Time) -> usize {
        let late = |close: &&AwaitedReturn| !self.comes_back || now > close.at + policy.return_within;
        let outstanding = self.outstanding.iter().filter(late).count();
        outstanding + usize::try_from(self.misses).unwrap_or(usize::MAX)
    }
}

impl Breaker {
    /// Whether a session of this group may be closed. `others` are closes of this
    /// group that are under way.
    ///
    /// Until a group has been seen to come back, no more of its sessions are closed
    /// than the number of misses that pauses it.
    pub(super) fn allows(&self, group: &Group, others: usize, policy: &BreakerPolicy, now: Time) -> bool {
        let Some(state) = self.groups.get(group) else { return others < misses(policy) };
        if let Some(since) = state.open {
            // One trial.
            return now.since(since) >= policy.retry_after && others == 0;
        }
        if state.lazy {
            return true;
        }
        let others = if state.comes_back { 0 } else { others };
        state.unanswered(policy, now) + others < misses(policy)
    }

    /// Whether a group has been seen to come back, or is being tried for it.
    pub(super) fn comes_back(&self, group: &Group) -> bool {
        self.groups.get(group).is_some_and(|state| state.comes_back || state.open.is_some())
    }

    /// Whether a session's group is paused, and no trial is due yet.
    pub(super) fn paused(&self, group: &Group, policy: &BreakerPolicy, now: Time) -> bool {
        let open = self.groups.get(group).and_then(|state| state.open);
        open.is_some_and(|since| now.since(since) < policy.retry_after)
    }

    /// The groups that are paused, with the time since when.
    pub fn open(&self) -> impl Iterator<Item = (&Group, Time)> {
        self.groups.iter().filter_map(|(group, state)| Some((group, state.open?)))
    }

    /// Instances whose closed clients are awaited.
    pub(super) fn awaited(&self) -> impl Iterator<Item = &InstanceId> {
        self.groups.values().flat_map(|state| state.outstanding.iter().map(|close| &close.instance))
    }

    /// A session was not closed after all: its client has no reason to come back.
    pub(super) fn not_closed(&mut self, instance: &InstanceId, key: BackendKey) {
        for state in self.groups.values_mut() {
            state.outstanding.retain(|close| close.key != key || close.instance != *instance);
        }
    }

    /// Lifts all pauses: an operator's word.
    pub fn reset(&mut self) {
        self.groups.clear();
        self.counted.clear();
    }

    /// What is known of groups, for a planner that has not seen their sessions: returns
    /// that are still awaited could not be told from logins of long ago.
    pub(super) fn inherited(mut self) -> Self {
        self.counted.clear();
        for state in self.groups.values_mut() {
            state.outstanding.clear();
        }
        self
    }

    /// A session of a group was closed by a command given at `at`. A return is
    /// expected if the group had others, or has been seen to come back.
    ///
    /// A server may show a session a while longer, and close it once more: its client is
    /// awaited once.
    pub(super) fn closed(
        &mut self,
        group: Group,
        instance: InstanceId,
        key: BackendKey,
        had_others: bool,
        at: Time,
    ) {
        let state = self.groups.entry(group).or_default();
        if state.outstanding.iter().any(|close| close.key == key && close.instance == instance) {
            return;
        }
        if had_others || state.comes_back || state.open.is_some() {
            state.outstanding.push(AwaitedReturn { instance, key, at });
        }
        // The trial of a paused group: the next one waits as long again.
        if state.open.is_some() {
            state.open = Some(at);
        }
    }

    /// The earliest moment of interest: logins from before it tell nothing.
    pub(super) fn waits_since(&self) -> Option<Time> {
        let outstanding = self.groups.values().filter_map(|state| state.outstanding.first());
        let open = self.groups.values().filter_map(|state| state.open);
        outstanding.map(|close| close.at).chain(open).min().map(|at| at - SLACK)
    }

    /// A login is there: its first sight may be the return of a closed one.
    pub(super) fn seen(&mut self, login: &Login<'_>, now: Time) {
        let session = (login.instance.clone(), login.key);
        if let Some(last) = self.counted.get_mut(&session) {
            *last = now;
            return;
        }
        let group =
            |network| Group { user: login.user.clone(), application: login.application.clone(), network };
        let (first, last) = match login.network {
            Some(network) => (network, network),
            None => Network::ENDS,
        };
        for (_, state) in self.groups.range_mut(group(first)..=group(last)) {
            if state.open.is_some_and(|since| login.begin + SLACK > since) {
                *state = State { comes_back: true, ..State::default() };
                self.counted.insert(session, now);
                return;
            }
            if state.outstanding.first().is_some_and(|close| login.begin + SLACK >= close.at) {
                state.outstanding.remove(0);
                state.misses = 0;
                state.comes_back = true;
                state.streak = state.streak.saturating_add(1);
                self.counted.insert(session, now);
                return;
            }
        }
    }

    /// Counts closes whose time to be answered is over, by polls made after that of
    /// all instances to which the client may have come back. Returns the groups that
    /// were paused now.
    pub(super) fn expire(
        &mut self,
        policy: &BreakerPolicy,
        now: Time,
        polled: impl Fn(&InstanceId) -> Option<Time>,
    ) -> Vec<Group> {
        let mut paused = Vec::new();
        for (group, state) in &mut self.groups {
            let before = state.outstanding.len();
            state.outstanding.retain(|close| now <= close.at + GIVEN_UP);
            let unseen = before - state.outstanding.len();
            state.outstanding.retain(|close| {
                let deadline = close.at + policy.return_within;
                polled(&close.instance).is_none_or(|polled| polled <= deadline)
            });
            let missed = before - state.outstanding.len();
            if missed == 0 {
                continue;
            }
            // It has to show again that it comes back.
            state.comes_back = false;
            if unseen == 0 && state.open.is_none() && state.streak < policy.misses {
                state.lazy = true;
                state.streak = 0;
                continue;
            }
            state.lazy = false;
            state.misses = state.misses.saturating_add(u32::try_from(missed).unwrap_or(u32::MAX));
            if state.misses >= policy.misses && state.open.is_none() {
                state.open = Some(now);
                paused.push(group.clone());
            }
        }
        self.groups.retain(|_, state| state.open.is_none_or(|since| now.since(since) <= FORGOTTEN));
        self.counted.retain(|_, seen| now.since(*seen) <= LATE);
        // Names of applications come and go: beyond a bound, only what is awaited is kept.
        if self.groups.len() > MAX_GROUPS {
            self.groups.retain(|_, state| state.open.is_some() || !state.outstanding.is_empty());
        }
        paused
    }
}

fn misses(policy: &BreakerPolicy) -> usize {
    usize::try_from(policy.misses.max(1)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Policy;

    const SECOND: Duration = Duration::from_secs(1);

    fn group(application: &str) -> Group {
        let network = "192.0.2.0/24".parse().unwrap();
        Group { user: "app".into(), application: application.into(), network }
    }

    fn instance() -> InstanceId {
        InstanceId::new("orders", "a")
    }

    fn key(pid: u64) -> BackendKey {
        BackendKey { pid, started_us: 0 }
    }

    fn returns(breaker: &mut Breaker, group: &Group, pid: u64, begin: Time, now: Time) {
        let key = key(pid);
        let (user, application, network) = (&group.user, &group.application, Some(group.network));
        breaker.seen(&Login { instance: &instance(), key, user, application, network, begin }, now);
    }

    /// A group that is paused at this moment: it returned at once, and does not any more.
    fn paused(breaker: &mut Breaker, group: &Group, now: Time) {
        let policy = Policy::default().breaker;
        let earlier = now - policy.return_within - SECOND;
        for pid in 0..u64::from(policy.misses) {
            breaker.closed(group.clone(), instance(), key(pid), true, earlier - SECOND);
            let session = now.since(Time::AGENT_START).as_secs() * 100 + pid;
            returns(breaker, group, session, earlier, earlier);
        }
        for pid in 0..u64::from(policy.misses) {
            breaker.closed(group.clone(), instance(), key(pid + 100), true, now - policy.return_within);
        }
        let opened = breaker.expire(&policy, now + SECOND, |_| Some(now + SECOND));
        assert_eq!(opened, std::slice::from_ref(group));
    }

    #[test]
    fn a_paused_group_that_never_comes_again_is_forgotten_after_a_day() {
        let policy = Policy::default().breaker;
        let mut breaker = Breaker::default();
        let mut now = Time::AGENT_START + SECOND * 1_000;
        for host in 0..100 {
            paused(&mut breaker, &group(&format!("worker-{host}")), now);
            now = now + SECOND * 3_600;
        }
        assert!(breaker.open().count() >= 23, "{}", breaker.open().count());
        breaker.expire(&policy, now, |_| Some(now));
        assert!(breaker.groups.len() <= 25, "{}", breaker.groups.len());
    }

    #[test]
    fn returns_are_remembered_while_they_are_there_however_long_another_group_is_paused() {
        let policy = Policy::default().breaker;
        let mut breaker = Breaker::default();
        let mut now = Time::AGENT_START + SECOND * 1_000;
        paused(&mut breaker, &group("gone"), now);
        let shop = group("shop");
        for pid in 0..1_000 {
            now = now + SECOND * 2;
            breaker.closed(shop.clone(), instance(), key(pid + 10_000), true, now);
            let begin = now + SECOND;
            returns(&mut breaker, &shop, pid, begin, begin);
            // The last ten are still there.
            for known in pid.saturating_sub(9)..pid {
                returns(
                    &mut breaker,
                    &shop,
                    known,
                    begin - SECOND * 2 * u32::try_from(pid - known).unwrap(),
                    begin,
                );
            }
            breaker.expire(&policy, begin, |_| Some(begin));
        }
        assert!(breaker.counted.len() <= 50, "{}", breaker.counted.len());
    }

    #[test]
    fn a_return_answers_one_close_however_long_its_session_lasts() {
        let policy = Policy::default().breaker;
        let mut breaker = Breaker::default();
        let began = Time::AGENT_START + SECOND * 1_000;
        let shop = group("shop");
        breaker.closed(shop.clone(), instance(), key(2), true, began);
        breaker.closed(shop.clone(), instance(), key(3), true, began);
        for second in 0..300 {
            let now = began + SECOND * (second + 1);
            returns(&mut breaker, &shop, 1, began + SECOND, now);
            // Whether the other client is back is unknown.
            breaker.expire(&policy, now, |_| None);
        }
        assert_eq!(breaker.groups[&shop].outstanding.len(), 1);
    }

    #[test]
    fn a_session_that_is_there_a_while_longer_and_closed_again_is_missed_once() {
        let policy = Policy::default().breaker;
        let mut breaker = Breaker::default();
        let now = Time::AGENT_START + SECOND * 1_000;
        for _ in 0..policy.misses {
            breaker.closed(group("shop"), instance(), key(1), true, now);
        }
        assert_eq!(breaker.groups[&group("shop")].outstanding.len(), 1);
    }

    #[test]
    fn a_close_whose_return_nobody_can_see_is_given_up_in_the_end() {
        let policy = Policy::default().breaker;
        let mut breaker = Breaker::default();
        let now = Time::AGENT_START + SECOND * 1_000;
        breaker.closed(group("shop"), instance(), key(1), true, now);
        breaker.expire(&policy, now + GIVEN_UP, |_| None);
        assert_eq!(breaker.awaited().count(), 1);
        breaker.expire(&policy, now + GIVEN_UP + SECOND, |_| None);
        assert_eq!(breaker.awaited().count(), 0);
    }
}
