//! What to do about one session: nothing yet, close it, wait, or hold.
//!
//! Pure: one session, its context, a stance. Budgets and groups, which look
//! across sessions, are the planner's.

use std::time::Duration;

use super::{Busy, Close, CloseVia, HoldReason, Mode, Policy};
use crate::{
    Time, freshness,
    session::{Activity, BackendKey, Join, LastStatement, Session},
};

/// A session seen idle within this time is busy rather than stuck in one piece of work.
const LATELY: Duration = Duration::from_secs(5);

/// One that is watched this long past its limit, seen idle again and again and never
/// for long enough, is never quiet.
const NEVER: Duration = Duration::from_secs(2);

/// What the planner knows besides the session itself.
pub(super) struct Context<'a> {
    pub(super) now: Time,
    pub(super) policy: &'a Policy,
    pub(super) paused: bool,
    /// Nothing seen before this counts: the agent was frozen until then.
    pub(super) trusted_since: Time,
    /// When the session's proxy last answered.
    pub(super) proxy_seen: Option<Time>,
    /// Whether the client could log in again.
    pub(super) can_come_back: bool,
    /// How long the session's instance has said that it is not the writer its server wants.
    pub(super) demoted_for: Option<Duration>,
    /// Whether an operator wants the server's sessions retired whatever their age.
    pub(super) emptying: bool,
    /// Whether its proxy closes sessions at a command, which a forced close needs.
    pub(super) commandable: bool,
    /// Nothing observed up to this moment counts: a close was tried then.
    pub(super) tried: Option<Time>,
}

impl Context<'_> {
    /// Whether the operator wants sessions to leave a demoted writer, and this one is on it.
    pub(super) fn demoted(&self) -> bool {
        self.policy.demotion_grace.is_some() && self.demoted_for.is_some()
    }
}

/// What to do about a session.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Stance {
    /// It is not due before this.
    NotDue(Time),
    Fire(Close),
    /// Leave it alone; look at it closely if `watch`, and again at `until` at the latest.
    Hold {
        reason: HoldReason,
        watch: bool,
        until: Option<Time>,
    },
}

/// The age at which a session has to go: `max_age` with its own fixed jitter.
pub fn limit_of(policy: &Policy, key: &BackendKey) -> Duration {
    // splitmix64 over the identity: evenly spread, the same for the session's whole life.
    let mut x = key.pid ^ key.started_us.cast_unsigned().rotate_left(32);
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^= x >> 31;
    let unit = (x >> 11) as f64 / (1_u64 << 53) as f64;
    policy.max_age.mul_f64(1.0 + policy.jitter.clamp(0.0, 1.0) * (2.0 * unit - 1.0))
}

/// When a session is due.
fn due_at(session: &Session<'_>, policy: &Policy) -> (Time, Duration) {
    let limit = limit_of(policy, &session.row.key);
    (session.begin + limit.saturating_sub(policy.window()), limit)
}

/// The stance on one session.
pub(super) fn consider(session: &Session<'_>, context: &Context<'_>) -> Stance {
    let (due, limit) = due_at(session, context.policy);
    if context.now < due && !context.demoted() && !context.emptying {
        return Stance::NotDue(due);
    }
    if let Some(reason) = out_of_reach(session, context) {
        return Stance::Hold { reason, watch: false, until: None };
    }
    if let Some(reason) = not_now(session, context) {
        return Stance::Hold { reason, watch: true, until: None };
    }
    match by_activity(session, context, limit) {
        // What would go, in the modes in which nothing goes.
        Stance::Fire(_) if context.policy.mode == Mode::Observe => held(HoldReason::Observing),
        Stance::Fire(_) if context.policy.mode == Mode::Drain => held(HoldReason::DrainingOnly),
        stance => stance,
    }
}

fn held(reason: HoldReason) -> Stance {
    Stance::Hold { reason, watch: false, until: None }
}

/// Reasons that looking again soon does not change.
fn out_of_reach(session: &Session<'_>, context: &Context<'_>) -> Option<HoldReason> {
    let row = session.row;
    let proxy = match session.join {
        Join::Joined(proxy) => Some(proxy),
        Join::NotJoined | Join::Disagree => None,
    };
    if !row.client_backend {
        // What is hidden from the agent hides its kind as well.
        let hidden = row.activity == Activity::Unknown;
        return Some(if hidden { HoldReason::ActivityUnknown } else { HoldReason::NotClientBackend });
    }
    if row.superuser {
        return Some(HoldReason::Superuser);
    }
    if context.policy.exempt.covers(row, proxy) {
        return Some(HoldReason::Exempt);
    }
    if !context.policy.scope.covers(row) {
        return Some(HoldReason::NotIamUser);
    }
    match session.join {
        Join::Joined(_) => {}
        Join::NotJoined => return Some(HoldReason::NotJoined),
        Join::Disagree => return Some(HoldReason::SourcesDisagree),
    }
    if row.last_statement == LastStatement::Listening {
        return Some(HoldReason::Listening);
    }
    if row.advisory_lock == Some(true) {
        return Some(HoldReason::AdvisoryLock);
    }
    if row.activity == Activity::Unknown
        || row.last_statement == LastStatement::Unknown
        || row.advisory_lock.is_none()
    {
        return Some(HoldReason::ActivityUnknown);
    }
    None
}

/// Reasons that may be over at the next look.
fn not_now(session: &Session<'_>, context: &Context<'_>) -> Option<HoldReason> {
    if context.paused {
        return Some(HoldReason::Paused);
    }
    let recent =
        |seen: Time| seen >= context.trusted_since && context.now.since(seen) <= freshness::SOURCE_LOST;
    if !recent(session.seen) || !context.proxy_seen.is_some_and(recent) {
        return Some(HoldReason::SourceStale);
    }
    (!context.can_come_back).then_some(HoldReason::InstanceUnusable)
}

fn by_activity(session: &Session<'_>, context: &Context<'_>, limit: Duration) -> Stance {
    let policy = context.policy;
    let age = context.now.since(session.begin);
    let past = age >= limit;
    let forced = policy.force_after.is_some_and(|after| age >= limit + after)
        || matches!((policy.demotion_grace, context.demoted_for), (Some(grace), Some(since)) if since >= grace);
    // Nothing is decided on what was seen before the last try, or too long ago.
    let fresh = match policy.close_via {
        CloseVia::Database => freshness::ROW_FOR_DATABASE,
        CloseVia::Proxy => freshness::ROW_FOR_PROXY,
    };
    let usable =
        context.tried.is_none_or(|tried| session.seen > tried) && context.now.since(session.seen) <= fresh;
    let wait = |reason| Stance::Hold { reason, watch: true, until: None };
    if forced && context.commandable && usable {
        return Stance::Fire(Close::Force);
    }
    let lately = session.last_idle.is_some_and(|idle| context.now.since(idle) <= LATELY);
    let restless = session.restless_since.map(|since| since.max(session.begin + limit));
    let never_quiet = past && lately && restless.is_some_and(|since| context.now.since(since) >= NEVER);
    let busy = |reason| match policy.busy {
        Busy::Catch if never_quiet && usable => Stance::Fire(Close::Catch),
        _ if never_quiet => wait(HoldReason::NeverQuiet),
        _ => wait(reason),
    };
    match session.row.activity {
        Activity::InTransaction => busy(HoldReason::InTransaction),
        Activity::Running => busy(HoldReason::Running),
        Activity::Unknown => wait(HoldReason::ActivityUnknown),
        Activity::Idle(idle) => {
            let asked = quiet_asked(policy, age, limit, context.demoted());
            let quiet_at = session.seen + asked.saturating_sub(idle);
            // Before the proxy closes, nothing checks the quiet time again: the database has to have seen it.
            let usable = usable && (policy.close_via == CloseVia::Database || idle >= asked);
            if quiet_at <= context.now && usable {
                return Stance::Fire(match policy.close_via {
                    CloseVia::Database => Close::Quiet(asked),
                    CloseVia::Proxy => Close::QuietByProxy(asked),
                });
            }
            match busy(HoldReason::WaitingForQuiet) {
                Stance::Hold { reason, watch, .. } => {
                    Stance::Hold { reason, watch, until: (quiet_at > context.now).then_some(quiet_at) }
                }
                stance => stance,
            }
        }
    }
}

/// The quiet time asked for at this age.
fn quiet_asked(policy: &Policy, age: Duration, limit: Duration, demoted: bool) -> Duration {
    let second_half = limit.saturating_sub(policy.window() / 2);
    if age < second_half && !demoted { policy.quiet.max(policy.quiet_min) } else { policy.quiet_min }
}
