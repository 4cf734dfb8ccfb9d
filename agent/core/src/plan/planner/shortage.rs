//! Whether the login budget is enough to close every session once within `max_age`.

use std::time::Duration;

use super::Planner;
use crate::{
    InstanceId,
    plan::{Mode, Shortage},
    session::{Ledger, Session},
};

/// A shortage ends when no more than this share of the budget is needed, so that it does not come and go.
const ENOUGH: f64 = 0.8;

/// The budget for this many sessions, with one permit for logins.
fn enough(sessions: usize, max_age: Duration) -> u32 {
    // 1,250 ms per second: only four fifths of it are used.
    let closes = (sessions as u128 * 1_250).div_ceil(max_age.as_millis().max(1));
    u32::try_from(closes).unwrap_or(u32::MAX).saturating_add(1)
}

impl Planner {
    /// The instances whose budget is too small.
    pub(super) fn shortages(&mut self, ledger: &Ledger) -> Vec<Shortage> {
        if self.policy.mode != Mode::Retire || self.policy.max_age.is_zero() {
            self.short.clear();
            return Vec::new();
        }
        // One permit is left to the agent's own logins.
        let allowed = f64::from(self.policy.login_budget.saturating_sub(1));
        let counts = |session: &Session<'_>| {
            let row = session.row;
            row.client_backend && !row.superuser && row.client.is_some() && self.policy.scope.covers(row)
        };
        let instances = ledger.instances().filter(|instance| self.instances.contains_key(*instance));
        let shortages: Vec<Shortage> = instances
            .filter_map(|instance: &InstanceId| {
                let sessions = ledger.sessions_of(instance).filter(counts).count();
                let needed = sessions as f64 / self.policy.max_age.as_secs_f64();
                let limit = if self.short.contains(instance) { allowed * ENOUGH } else { allowed };
                (needed > limit).then(|| Shortage {
                    instance: instance.clone(),
                    sessions,
                    needed_per_s: needed,
                    allowed_per_s: allowed,
                    login_budget: enough(sessions, self.policy.max_age),
                })
            })
            .collect();
        self.short = shortages.iter().map(|shortage| shortage.instance.clone()).collect();
        shortages
    }
}
