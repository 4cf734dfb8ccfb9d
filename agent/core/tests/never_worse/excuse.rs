//! Where an acting agent cannot know better: each case with its reason, and its bound in time and role.

use std::time::Duration;

use agent_core::health::Role;

use crate::{
    outcome::Columns,
    script::{Fault, Old, ProxyKind, Script, WARM_UP},
    world::Refuses,
};

/// Attempts of one role, or of both, that arrive in this time are not compared.
#[derive(Clone, Debug)]
pub struct Excuse {
    pub reason: &'static str,
    role: Option<Role>,
    from: Duration,
    to: Duration,
}

/// A client that arrives so long before a fault may still meet it.
const BEFORE: Duration = Duration::from_secs(10);
/// After a fault the agent needs a login or three missed answers to see how things are.
const AFTER: Duration = Duration::from_secs(12);

impl Excuse {
    pub fn covers(&self, role: Role, at: Duration) -> bool {
        self.role.is_none_or(|own| own == role) && (self.from..=self.to).contains(&at)
    }
}

/// What is not compared with a muted agent.
pub fn beside_mute(script: &Script) -> Vec<Excuse> {
    let mut excuses = Vec::new();
    let end = script.length;
    let mut excuse = |reason, role, from: Duration, to| {
        excuses.push(Excuse { reason, role, from: from.saturating_sub(BEFORE), to });
    };
    for (at, fault) in &script.faults {
        let over = *at + fault.lasts() + AFTER;
        if fault.blinds() && script.servers_ail(*at, over) {
            let to = script.well_after(over);
            excuse("an agent that cannot look at a server keeps its last verdict", None, *at, to);
        }
        match fault {
            Fault::PromotedAlone { .. } => {
                excuse("a promoted replica leaves the read backend", Some(Role::Reader), *at, end);
                if script.is_away(*at) {
                    let reason = "a promotion while the writer or the agent is away looks like a failover";
                    excuse(reason, Some(Role::Writer), *at, end);
                }
            }
            Fault::Logins { refuses: Refuses::Application, .. } if script.servers_ail(*at, over) => {
                let reason =
                    "a refused login ends at once, a refused connection waits: which is met first is luck";
                excuse(reason, Some(Role::Reader), *at, over);
            }
            Fault::Operator { .. } if script.servers_ail(*at, over) => {
                let reason = "with the readers closed, reads go to a writer that may hang";
                excuse(reason, Some(Role::Reader), *at, over);
            }
            Fault::AgentStopped { .. } => {
                let reason = "an agent that stops opens the read backend to the writer";
                excuse(reason, Some(Role::Reader), *at, script.well_after(over));
            }
            Fault::Failover { old: Old::Claims { .. } | Old::Thaws { .. }, .. } => {
                let reason = "an old writer that still takes writes looks like one beside a promoted replica";
                excuse(reason, Some(Role::Writer), *at, over);
            }
            Fault::ProxyRestart { .. } if script.proxy == ProxyKind::Envoy => {
                excuse("an Envoy that restarts without an agent is the plain arm", None, *at, end);
            }
            _ => {}
        }
        if matches!(fault, Fault::Failover { .. }) && script.another_ails(*at, over) {
            let reason = "a reader that becomes the writer leaves the others more of the reads";
            excuse(reason, Some(Role::Reader), *at, script.well_after(over));
        }
        if fault.strikes_a_server() && *at < WARM_UP {
            let reason = "what is out from before may spare a muted proxy the next fault";
            excuse(reason, Some(Role::Reader), Duration::ZERO, end);
        }
    }
    excuses
}

/// What is not compared with a proxy on RDS's names, beside reads: which reader a name leads to is luck.
pub fn beside_plain(script: &Script) -> Vec<Excuse> {
    let mut excuses = beside_mute(script);
    excuses.retain(|excuse| !excuse.reason.starts_with("an Envoy"));
    for (at, fault) in &script.faults {
        let over = *at + fault.lasts() + AFTER;
        if matches!(fault, Fault::Failover { .. }) && script.another_ails(*at, over) {
            let reason = "while two servers ail the names may lead to the one that is back first";
            excuses.push(Excuse { reason, role: None, from: at.saturating_sub(BEFORE), to: over });
        }
        if matches!(fault, Fault::Operator { .. }) {
            let reason = "an operator's commands reach no server of a proxy without an agent";
            excuses.push(Excuse { reason, role: None, from: at.saturating_sub(BEFORE), to: over });
        }
    }
    excuses
}

/// How many more attempts may fare worse, whenever they arrive, beside [mute, plain].
pub fn allowances(script: &Script) -> [Columns; 2] {
    let count = |is: fn(&Fault) -> bool| script.faults.iter().filter(|(_, fault)| is(fault)).count();
    let plays = script.servers - 1;
    let times = |columns: [usize; 5], times: usize| columns.map(|each| each * times * plays);
    let sum = |one: [usize; 5], other: [usize; 5]| {
        let sums = one.into_iter().zip(other).map(|(one, other)| one + other);
        let mut columns = Columns::default();
        columns.iter_mut().zip(sums).for_each(|(column, sum)| *column = i64::try_from(sum).unwrap_or(0));
        columns
    };
    // A server that is back is up one login of the agent later, and a client that waits tries again after a
    // second. Clients that are served may meet the next fault.
    let mute = times([3, 2, 1, 1, 0], count(Fault::strikes_a_server));
    // An old writer that says nothing loses its role with the third missed answer, which may be two seconds
    // after the names have moved. Without a waiting room a client gives up after four tries, all at one server,
    // which may be back as a reader meanwhile.
    let late = match script.proxy {
        ProxyKind::Haproxy { room: false } => [24, 24, 8, 0, 0],
        _ => [12, 8, 0, 0, 0],
    };
    let stuck = if script.proxy == (ProxyKind::Haproxy { room: false }) { [0, 0, 8, 0, 0] } else { [0; 5] };
    let failovers = count(|fault| matches!(fault, Fault::Failover { .. }));
    [sum(mute, times(stuck, failovers)), sum(mute, times(late, failovers))]
}

impl Fault {
    /// Whether the agent cannot log in somewhere, or does not run, while it lasts.
    fn blinds(&self) -> bool {
        match self {
            Self::Logins { refuses, .. } => *refuses != Refuses::Application,
            Self::AgentPath { .. }
            | Self::NoToken { .. }
            | Self::ClockStep { .. }
            | Self::AgentKilled { .. }
            | Self::AgentStopped { .. }
            | Self::AgentFrozen { .. } => true,
            _ => false,
        }
    }

    fn strikes_a_server(&self) -> bool {
        matches!(
            self,
            Self::Restart { .. }
                | Self::Freeze { .. }
                | Self::Lost { .. }
                | Self::LoginsHang { .. }
                | Self::Full { .. }
                | Self::Failover { .. }
        )
    }
}

impl Script {
    /// Whether a server ails, by another fault than the one that begins at `from`, at some time between these.
    fn servers_ail(&self, from: Duration, to: Duration) -> bool {
        self.faults.iter().filter(|(at, _)| *at != from || from.is_zero()).any(|(at, fault)| {
            let refused = matches!(fault, Fault::Logins { refuses: Refuses::All | Refuses::Application, .. });
            let changed = matches!(fault, Fault::PromotedAlone { .. } | Fault::Operator { .. });
            (fault.strikes_a_server() || refused || changed)
                && *at <= to
                // Servers may stay away for good.
                && (*at + fault.lasts() + AFTER >= from || matches!(fault, Fault::Failover { .. }))
        })
    }

    /// Whether anything ails but the failover that begins at `failover`, between then and `to`.
    fn another_ails(&self, failover: Duration, to: Duration) -> bool {
        self.faults.iter().any(|(at, fault)| {
            let ails =
                fault.strikes_a_server() || matches!(fault, Fault::Logins { .. } | Fault::Operator { .. });
            ails && *at != failover && *at <= to && *at + fault.lasts() + AFTER >= failover
        })
    }

    /// When the last fault of a server is over that has begun by this time, or is not over yet.
    fn well_after(&self, over: Duration) -> Duration {
        let struck = self.faults.iter().filter(|(at, fault)| {
            (fault.strikes_a_server() || matches!(fault, Fault::Logins { .. })) && *at <= over
        });
        let ends = struck.map(|(at, fault)| match fault {
            // The old writer stays away for good.
            Fault::Failover { old: Old::Dead | Old::Gone | Old::Frozen, .. } => self.length,
            _ => *at + fault.lasts() + AFTER,
        });
        ends.chain([over]).max().unwrap_or(over)
    }

    /// Whether the writer or the agent may be away at this time, or so soon after it that the agent has not yet
    /// seen the two as writers beside each other.
    fn is_away(&self, at: Duration) -> bool {
        let soon = at + Duration::from_secs(6);
        self.faults.iter().any(|(begins, fault)| {
            let away = fault.strikes_a_server() || fault.blinds() || matches!(fault, Fault::Operator { .. });
            away && *begins <= soon && *begins + fault.lasts() + AFTER >= at
        })
    }
}
