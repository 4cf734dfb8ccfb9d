//! From those who may go to commands: most overdue first, as far as budget and breaker allow.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use super::{Flight, InstanceIndex, Planner, survey::Pass};
use crate::{
    Time,
    freshness::{LOGIN_PROOF, LOGIN_RENEWAL},
    plan::{Budget, Command, Group, HoldReason, Purpose, Retire, Scope},
    session::{Join, Ledger, Session},
};

/// When closes under way use up the budget: plan again after this. The end of one of them is
/// reported at once.
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
            // One that could not be closed does not go before the others.
            (self.tries.failures(one.id), std::cmp::Reverse((overdue, one.age)), one.session.row.key)
        });
        let mut free: BTreeMap<(InstanceIndex, Purpose), (u32, Time)> = BTreeMap::new();
        let mut under_way: HashMap<Group, usize> = HashMap::new();
        let mut commanded: BTreeMap<(InstanceIndex, Purpose), usize> = BTreeMap::new();
        for ((index, _), flight) in &self.in_flight {
            *under_way.entry(flight.group.clone()).or_default() += 1;
            *commanded.entry((*index, flight.purpose)).or_default() += 1;
        }
        for (instance, index) in &self.instances {
            if let Some(closes) = commanded.get(&(*index, Purpose::Close)) {
                pass.permits.insert(instance.clone(), u32::try_from(*closes).unwrap_or(u32::MAX));
            }
        }
        for one in candidates {
            let instance = one.session.instance;
            let overdue = one.age.saturating_sub(one.limit);
            let (permits, next_free) = free.entry((one.id.0, one.purpose)).or_insert_with(|| {
                // Closes that were commanded and have not begun will take a permit each.
                let commanded = commanded.get(&(one.id.0, one.purpose)).copied().unwrap_or(0);
                let waiting = commanded.saturating_sub(budget.running(instance, one.purpose, now));
                let free = budget.free(instance, one.purpose, now);
                let next_free = budget.next_free(instance, one.purpose, now);
                let next_free = if free > 0 { now + LOOK } else { next_free };
                (free.saturating_sub(u32::try_from(waiting).unwrap_or(u32::MAX)), next_free)
            });
            let wants = one.purpose == Purpose::Close;
            if *permits == 0 {
                pass.wants_permit(instance, wants);
                pass.watch(&one.session, overdue);
                pass.wake_at(*next_free);
                pass.hold(now, &one.session, one.age, one.limit, HoldReason::OverBudget);
                continue;
            }
            let group = Group::of(&one.session, one.proxy);
            let others = under_way.get(&group).copied().unwrap_or(0);
            if !self.breaker.allows(&group, others, &self.policy.breaker, now) {
                pass.hold(now, &one.session, one.age, one.limit, HoldReason::Breaker);
                continue;
            }
            pass.wants_permit(instance, wants);
            pass.watch(&one.session, overdue);
            let asked = pass.probe.len();
            let proved = self.proved(now, &one.session, pass);
            if pass.probe.len() > asked {
                // The login takes the permit: closes and logins share them.
                *permits -= 1;
                pass.wants_permit(instance, wants);
            }
            if !proved || *permits == 0 {
                pass.hold(now, &one.session, one.age, one.limit, HoldReason::LoginUnproved);
                continue;
            }
            *permits -= 1;
            *under_way.entry(group.clone()).or_default() += 1;
            let had_others = self.breaker.comes_back(&group) || has_others(&group, &one.session, ledger);
            let key = one.session.row.key;
            self.in_flight.insert(one.id, Flight { since: now, group, had_others, purpose: one.purpose });
            commands.push(Command::Retire(Box::new(Retire {
                instance: instance.clone(),
                key,
                client: one.client,
                user: one.session.row.user.clone(),
                iam_only: self.policy.scope == Scope::Iam,
                proxy: one.proxy.clone(),
                how: one.how,
                purpose: one.purpose,
                age: one.age,
                limit: one.limit,
            })));
        }
    }

    /// Whether a login of lately shows that the client of this session can come back. The next
    /// one is asked for in time.
    fn proved(&self, now: Time, session: &Session<'_>, pass: &mut Pass<'_>) -> bool {
        let facts = session.server.and_then(|server| server.of(&pass.facts));
        let Some(way_back) = facts.and_then(|facts| facts.way_back.as_ref()) else { return false };
        let age = now.since(way_back.login);
        let proved = age <= LOGIN_PROOF && way_back.login >= self.trusted_since;
        if !proved || age > LOGIN_RENEWAL {
            pass.probe.insert(way_back.instance.clone());
        }
        proved
    }
}

/// Whether the group has another session than this one.
fn has_others(group: &Group, session: &Session<'_>, ledger: &Ledger) -> bool {
    ledger.sessions().any(|other| match other.join {
        Join::Joined(proxy) => {
            (other.row.key != session.row.key || other.instance != session.instance)
                && other.row.user == group.user
                && other.row.application == group.application
                && group.network.contains(proxy.client_host())
        }
        Join::NotJoined | Join::Disagree => false,
    })
}
