//! How agents share the login budget of an instance: by numbered permits, each of which is a lock.
//!
//! Who holds a permit may close one session, or log in for it, in any one second. So all agents together stay
//! within the budget in every second, however many there are, and what one does not need another can have.
//! A permit is kept over several closes, since each turn begins with a login that proves the way back.

use std::time::Duration;

use super::Look;
use crate::Time;

/// How long an agent keeps permits while others wait: one login and about six closes with each.
const TURN: Duration = Duration::from_secs(8);

/// After a turn the others try first, for half of the time that their turns take, within these bounds.
const REST: Duration = Duration::from_secs(1);
const REST_MOST: Duration = Duration::from_secs(60);

/// More are never numbered: an instance takes about 200 IAM logins a second.
const MOST: u32 = 1_000;

/// The number of shared permits of an instance. What the probes of all agents take in nearly every second is left
/// out, and at least one permit, so that health is never starved.
pub fn shared_permits(login_budget: u32, agents: u32, probe_interval: Duration) -> u32 {
    let mean = f64::from(agents) / probe_interval.as_secs_f64().max(1e-3);
    // Probes come at random: two standard deviations above their mean.
    let most = mean + 2.0 * mean.sqrt();
    let probes = (1..login_budget).find(|probes| f64::from(*probes) >= most);
    // Probes alone may exceed the budget; retirement goes on as slowly as it can.
    let closes = probes.map_or(u32::from(login_budget >= 2), |probes| login_budget - probes);
    closes.min(MOST)
}

/// One agent's turns on one instance.
#[derive(Debug, Default)]
pub struct Turn {
    /// Since when it holds permits.
    since: Option<Time>,
    rests_until: Option<Time>,
}

impl Turn {
    /// How many permits to hold from now on, if `wanted` closes could begin now. `of` is the number of permits.
    pub fn permits(&mut self, now: Time, wanted: u32, look: &Look, of: u32) -> u32 {
        let Look { permits: held, waiting, peers, .. } = *look;
        if held == 0 {
            self.since = None;
        }
        let since = (held > 0).then(|| *self.since.get_or_insert(now));
        let wanted = wanted.min(of);
        if peers == 0 {
            return of;
        }
        if waiting == 0 {
            // Idle permits are kept while each agent can have one: the next close need not wait for it.
            return if peers < of { wanted.max(held.min(of)) } else { wanted };
        }
        if self.rests_until.is_some_and(|until| now < until) {
            return 0;
        }
        if since.is_some_and(|since| now.since(since) >= TURN) {
            let others = TURN * waiting / (2 * of.max(1));
            self.rests_until = Some(now + others.clamp(REST, REST_MOST));
            return 0;
        }
        let fair = if held > 0 { held.div_ceil(2) } else { of / (waiting + 1) };
        wanted.min(fair.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::since_start(Duration::from_secs(seconds))
    }

    #[test]
    fn a_lone_agent_holds_all_permits() {
        let mut turn = Turn::default();
        let mut look = Look::default();
        assert_eq!(turn.permits(at(0), 0, &look, 4), 4, "as if there were no permits");
        look.permits = 4;
        for second in 1..100 {
            assert_eq!(turn.permits(at(second), 0, &look, 4), 4);
        }
    }

    #[test]
    fn permits_go_to_those_who_wait() {
        let mut turn = Turn::default();
        let mut look = Look { permits: 4, peers: 1, waiting: 1, ..Look::default() };
        assert_eq!(turn.permits(at(0), 4, &look, 4), 2, "half of them while it has work itself");
        assert_eq!(turn.permits(at(1), 0, &look, 4), 0, "all of them while it has none");
        look.permits = 1;
        assert_eq!(turn.permits(at(2), 4, &look, 4), 1);
        assert_eq!(turn.permits(at(8), 4, &look, 4), 0, "its turn is over");
        look.permits = 0;
        assert_eq!(turn.permits(at(8), 4, &look, 4), 0, "the others go first");
        assert_eq!(turn.permits(at(9), 4, &look, 4), 2);
    }

    #[test]
    fn probes_of_all_agents_leave_less_for_closes() {
        let interval = Duration::from_secs(30);
        assert_eq!(shared_permits(5, 1, interval), 4);
        assert_eq!(shared_permits(5, 5, interval), 4);
        assert_eq!(shared_permits(5, 20, interval), 2);
        assert_eq!(shared_permits(25, 100, interval), 18);
        assert_eq!(shared_permits(5, 1_000, interval), 1, "retirement never stops");
        assert_eq!(shared_permits(1, 1, interval), 0, "a budget of one is for logins");
    }
}
