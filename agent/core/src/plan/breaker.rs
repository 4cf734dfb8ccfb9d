//! The breaker: clients that were closed and do not come back.
//!
//! A close is harmless only while the client logs in again. What the agent
//! cannot see (a client without a retry, a firewall, an expired role) shows as
//! closes without a return; a few of those in a row pause the group.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use serde::Serialize;

use super::{BreakerPolicy, scope::Network};
use crate::{InstanceId, Time, session::BackendKey};

/// Clients that are alike: they stand or fall together.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Group {
    /// The database user.
    pub user: Arc<str>,
    /// What they call themselves.
    pub application: Arc<str>,
    /// Their network, as the proxy sees it.
    pub network: Network,
}

/// A session's begin is known no better than a poll takes, and a client may be back
/// before the close is reported: logins from this long before it count as its return.
const SLACK: Duration = Duration::from_millis(500);

/// Groups remembered at most.
const MAX_GROUPS: usize = 10_000;

/// All groups that have had a session closed.
#[derive(Debug, Default)]
pub struct Breaker {
    groups: BTreeMap<Group, State>,
    /// Logins that already stand for the return of one close, with their begin.
    counted: HashMap<(InstanceId, BackendKey), Time>,
}

#[derive(Debug, Default)]
struct State {
    /// Closes not yet followed by a login, oldest first.
    outstanding: Vec<Close>,
    misses: u32,
    comes_back: bool,
    open: Option<Time>,
}

#[derive(Debug)]
struct Close {
    instance: InstanceId,
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
    /// Closes in a row that have not been seen to come back, or not yet.
    fn unanswered(&self) -> usize {
        self.outstanding.len() + usize::try_from(self.misses).unwrap_or(usize::MAX)
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
        match state.open {
            // One trial.
            Some(since) => now.since(since) >= policy.retry_after && others == 0,
            None => state.comes_back || state.unanswered() + others < misses(policy),
        }
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
    pub(super) fn closed(&mut self, group: Group, instance: InstanceId, had_others: bool, at: Time) {
        let state = self.groups.entry(group).or_default();
        if had_others || state.comes_back || state.open.is_some() {
            state.outstanding.push(Close { instance, at });
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

    /// A login was seen.
    pub(super) fn seen(&mut self, login: &Login<'_>) {
        let session = (login.instance.clone(), login.key);
        if self.counted.contains_key(&session) {
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
                self.counted.insert(session, login.begin);
                return;
            }
            if state.outstanding.first().is_some_and(|close| login.begin + SLACK >= close.at) {
                state.outstanding.remove(0);
                state.misses = 0;
                state.comes_back = true;
                self.counted.insert(session, login.begin);
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
            state.outstanding.retain(|close| {
                let deadline = close.at + policy.return_within;
                polled(&close.instance).is_none_or(|polled| polled <= deadline)
            });
            let missed = before - state.outstanding.len();
            state.misses = state.misses.saturating_add(u32::try_from(missed).unwrap_or(u32::MAX));
            if missed > 0 {
                // It has to show again that it comes back.
                state.comes_back = false;
            }
            if missed > 0 && state.misses >= policy.misses && state.open.is_none() {
                state.open = Some(now);
                paused.push(group.clone());
            }
        }
        match self.waits_since() {
            Some(since) => self.counted.retain(|_, begin| *begin >= since),
            None => self.counted.clear(),
        }
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
