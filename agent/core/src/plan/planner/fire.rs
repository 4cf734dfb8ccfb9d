//! From those who may go to commands: most overdue first, as far as budget and breaker allow.

use std::collections::{BTreeMap, HashMap};

use super::{Flight, Planner, survey::Pass};
use crate::{
    Time,
    plan::{Budget, CloseVia, Command, Group, HoldReason, How, Network, Purpose, Retire, Scope},
    session::{Join, Ledger, ProxySession, Session},
};

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
        for flight in self.in_flight.values() {
            *under_way.entry(flight.group.clone()).or_default() += 1;
        }
        for one in candidates {
            let instance = one.session.instance;
            let overdue = one.age.saturating_sub(one.limit);
            let (places, next_free) = free.entry((one.id.0, one.purpose)).or_insert_with(|| {
                (budget.free(instance, one.purpose, now), budget.next_free(instance, one.purpose, now))
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
            *places -= 1;
            *under_way.entry(group.clone()).or_default() += 1;
            let had_others = self.breaker.comes_back(&group) || has_others(&group, &one.session, ledger);
            let key = one.session.row.key;
            self.in_flight.insert(one.id, Flight { since: now, group, had_others });
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
