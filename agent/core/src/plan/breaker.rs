//! The breaker: clients that were closed and do not come back.
//!
//! A close is harmless only while the client logs in again. What the agent
//! cannot see (a client without a retry, a firewall, an expired role) shows as
//! closes without a return; a few of those in a row pause the group.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
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

/// All groups that have had a session closed.
#[derive(Debug, Default)]
pub struct Breaker {
    groups: HashMap<Group, State>,
    /// Logins that already stand for the return of one close.
    counted: HashSet<(InstanceId, BackendKey)>,
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
    pub(super) user: &'a str,
    pub(super) application: &'a str,
    /// `None` where no proxy sweep has shown it yet.
    pub(super) network: Option<Network>,
    pub(super) begin: Time,
}

impl Breaker {
    /// Whether a session of this group may be closed.
    pub fn allows(&self, group: &Group, policy: &BreakerPolicy, now: Time) -> bool {
        self.groups
            .get(group)
            .and_then(|state| state.open)
            .is_none_or(|since| now.since(since) >= policy.retry_after)
    }

    /// The groups that are paused, with the time since when.
    pub fn open(&self) -> impl Iterator<Item = (&Group, Time)> {
        self.groups.iter().filter_map(|(group, state)| Some((group, state.open?)))
    }

    /// Lifts all pauses: an operator's word.
    pub fn reset(&mut self) {
        self.groups.clear();
        self.counted.clear();
    }

    /// A session of a group was closed. A return is expected if the group had
    /// others, or has been seen to come back.
    pub(super) fn closed(&mut self, group: Group, instance: InstanceId, had_others: bool, now: Time) {
        let state = self.groups.entry(group).or_default();
        if had_others || state.comes_back || state.open.is_some() {
            state.outstanding.push(Close { instance, at: now });
        }
        // The trial of a paused group: the next one waits as long again.
        if state.open.is_some() {
            state.open = Some(now);
        }
    }

    /// The earliest moment of interest: logins from before it tell nothing.
    pub(super) fn waits_since(&self) -> Option<Time> {
        let outstanding = self.groups.values().filter_map(|state| state.outstanding.first());
        let open = self.groups.values().filter_map(|state| state.open);
        outstanding.map(|close| close.at).chain(open).min()
    }

    /// A login was seen.
    pub(super) fn seen(&mut self, login: &Login<'_>) {
        let same = |group: &Group| {
            *group.user == *login.user
                && *group.application == *login.application
                && login.network.is_none_or(|network| network == group.network)
        };
        let counted = self.counted.contains(&(login.instance.clone(), login.key));
        for (_, state) in self.groups.iter_mut().filter(|(group, _)| same(group)) {
            if state.open.is_some_and(|since| login.begin > since) {
                *state = State { comes_back: true, ..State::default() };
            }
            let answers = state.outstanding.first().is_some_and(|close| login.begin >= close.at);
            if answers && !counted {
                state.outstanding.remove(0);
                state.misses = 0;
                state.comes_back = true;
                self.counted.insert((login.instance.clone(), login.key));
                return;
            }
        }
    }

    /// Counts closes whose time to be answered is over, by a poll of the
    /// instance made after that. Returns the groups that were paused now.
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
            if missed > 0 && state.misses >= policy.misses && state.open.is_none() {
                state.open = Some(now);
                paused.push(group.clone());
            }
        }
        if self.groups.values().all(|state| state.outstanding.is_empty()) {
            self.counted.clear();
        }
        paused
    }
}
