//! From those who may go to commands: most overdue first, as far as budget and breaker allow.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use super::{Flight, Planner, survey::Pass};
use crate::{
    Time,
    freshness::{LOGIN_PROOF, LOGIN_RENEWAL},
    plan::{Budget, CloseVia, Command, Group, HoldReason, How, Network, Purpose, Retire, Scope},
    session::{Join, Ledger, ProxySession, Session},
};

/// Where all places are taken by closes that have been commanded: another look after this. The
/// end of one of them is told at once.
const LOOK: Duration = Duration::from_millis(100);

impl Planner {
    /// Turns candidates into commands, most overdue first, as far as the budget goes.
    pub(super) fn fire(
        &mut self,
        now: Time,
        pass: &mut Pass<'_>,
        ledger: &Ledger,
        budget: &Budget,
        commands: &mut Vec<Command>,
    ) {
        let mut candidates = std::mem::take(&mut pass.candidates);
        if candidates.is_empty() {
            return;
        }
        candidates.sort_by_key(|one| {
            let overdue = one.age.saturating_sub(one.limit);
            (std::cmp::Reverse((overdue, one.age)), one.session.row.key)
        });
        let mut free: BTreeMap<(usize, Purpose), (u32, Time)> = BTreeMap::new();
        let mut under_way: HashMap<Group, usize> = HashMap::new();
        let mut commanded: BTreeMap<(usize, Purpose), usize> = BTreeMap::new();
        for ((place, _), flight) in &self.in_flight {
            *under_way.entry(flight.group.clone()).or_default() += 1;
            *commanded.entry((*place, flight.purpose)).or_default() += 1;
        }
        for one in candidates {
            let instance = one.session.instance;
            let overdue = one.age.saturating_sub(one.limit);
            let (places, next_free) = free.entry((one.id.0, one.purpose)).or_insert_with(|| {
                // Those that have been commanded and not begun will take a place each.
                let commanded = commanded.get(&(one.id.0, one.purpose)).copied().unwrap_or(0);
                let waiting = commanded.saturating_sub(budget.running(instance, one.purpose, now));
                let free = budget.free(instance, one.purpose, now);
                let next_free = budget.next_free(instance, one.purpose, now);
                let next_free = if free > 0 { now + LOOK } else { next_free };
                (free.saturating_sub(u32::try_from(waiting).unwrap_or(u32::MAX)), next_free)
            });
            if *places == 0 {
                pass.watch(&one.session, overdue);
                pass.wake_at(*next_free);
                pass.hold(now, &one.session, one.age, one.limit, HoldReason::OverBudget);
                continue;
            }
            let group = group_of(&one.session, one.proxy);
            let others = under_way.get(&group).copied().unwrap_or(0);
            if !self.breaker.allows(&group, others, &self.policy.breaker, now) {
                pass.hold(now, &one.session, one.age, one.limit, HoldReason::Breaker);
                continue;
            }
            pass.watch(&one.session, overdue);
            if !self.proved(now, &one.session, pass) {
                pass.hold(now, &one.session, one.age, one.limit, HoldReason::LoginUnproved);
                continue;
            }
            *places -= 1;
            *under_way.entry(group.clone()).or_default() += 1;
            let had_others = self.breaker.comes_back(&group) || has_others(&group, &one.session, ledger);
            let key = one.session.row.key;
            self.in_flight.insert(one.id, Flight { since: now, group, had_others, purpose: one.purpose });
            let via = match one.how {
                How::Quiet(_) => self.policy.close_via,
                // Only the database can tell the moment a session goes idle.
                How::Catch(_) => CloseVia::Database,
                // The database's guard closes nothing that is busy.
                How::Force => CloseVia::Proxy,
            };
            commands.push(Command::Retire(Box::new(Retire {
                id: self.next_id,
                instance: instance.clone(),
                key,
                client: one.client,
                user: one.session.row.user.clone(),
                iam_only: self.policy.scope == Scope::Iam,
                proxy: one.proxy.clone(),
                via,
                how: one.how,
                purpose: one.purpose,
                age: one.age,
                limit: one.limit,
            })));
            self.next_id += 1;
        }
    }

    /// Whether a login of lately shows that the client of this session can come back. The next
    /// one is asked for in time.
    fn proved(&self, now: Time, session: &Session<'_>, pass: &mut Pass<'_>) -> bool {
        let facts = session.server.and_then(|server| pass.facts.get(server));
        let Some(way_back) = facts.and_then(|facts| facts.way_back.as_ref()) else { return false };
        let age = now.since(way_back.login);
        let proved = age <= LOGIN_PROOF && way_back.login >= self.trusted_since;
        if !proved || age > LOGIN_RENEWAL {
            pass.probe.insert(way_back.instance.clone());
        }
        proved
    }
}

pub(super) fn group_of(session: &Session<'_>, proxy: &ProxySession) -> Group {
    Group {
        user: session.row.user.clone(),
        application: session.row.application.clone(),
        network: Network::around(proxy.source.ip()),
    }
}

/// Whether the group has another session than this one.
fn has_others(group: &Group, session: &Session<'_>, ledger: &Ledger) -> bool {
    ledger.sessions().any(|other| match other.join {
        Join::Joined(proxy) => {
            (other.row.key != session.row.key || other.instance != session.instance)
                && other.row.user == group.user
                && other.row.application == group.application
                && group.network.contains(proxy.source.ip())
        }
        Join::NotJoined | Join::Disagree => false,
    })
}
