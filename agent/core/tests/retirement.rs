//! Which session is closed, when, and why the others are held.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::time::Duration;

use agent_core::{
    FaultKind, ProxyIndex,
    health::{Observation, RoleFacts, ServerConfig},
    plan::{
        BreakerPolicy, Busy, Close, CloseVia, Exempt, HoldReason as Reason, Mode, Planner, Policy, Purpose,
        Retired, Scope,
    },
    session::{Activity, BackendKey, LastStatement},
};
use support::{Listed, Rig, held, instance, millis, policy, retires, secs};

/// Max age 14 minutes: the window opens at 10, its second half begins at 12.
const YOUNG: Duration = secs_const(599);
const DUE: Duration = secs_const(601);
const SECOND_HALF: Duration = secs_const(721);
const PAST: Duration = secs_const(841);

const fn secs_const(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A rig with one session of this age on the writer, changed by `change`.
fn one(policy: Policy, age: Duration, change: impl FnOnce(&mut Rig)) -> Rig {
    let mut rig = Rig::new(policy);
    rig.client("write", "a", age);
    change(&mut rig);
    rig.look();
    rig
}

#[track_caller]
fn goes(rig: &mut Rig, how: Close) {
    let plan = rig.plan();
    let closes = retires(&plan);
    assert_eq!(closes.iter().map(|retire| retire.how).collect::<Vec<_>>(), [how], "{:?}", plan.holds);
}

#[track_caller]
fn stays(rig: &mut Rig, reason: Option<Reason>) {
    let plan = rig.plan();
    assert_eq!(retires(&plan).len(), 0);
    assert_eq!(held(&plan, &rig.clients[0]), reason);
}

#[test]
fn a_quiet_session_goes_once_it_is_due_and_not_before() {
    stays(&mut one(policy(), YOUNG, |_| {}), None);
    goes(&mut one(policy(), DUE, |_| {}), Close::Quiet(secs(1)));
}

#[test]
fn the_plan_wakes_when_a_session_is_due() {
    let mut rig = one(policy(), YOUNG + millis(500), |_| {});
    let plan = rig.plan();
    assert!(plan.next_wake <= rig.now + millis(500), "{:?}", rig.now.until(plan.next_wake));
    rig.wait(millis(600)).look();
    goes(&mut rig, Close::Quiet(secs(1)));
}

#[test]
fn half_the_window_asks_for_a_second_of_quiet_and_the_rest_for_less() {
    let idle =
        |millis_ago: u64| move |rig: &mut Rig| rig.clients[0].idle_since = rig.now - millis(millis_ago);
    stays(&mut one(policy(), DUE, idle(900)), Some(Reason::WaitingForQuiet));
    goes(&mut one(policy(), SECOND_HALF, idle(900)), Close::Quiet(millis(200)));
    stays(&mut one(policy(), SECOND_HALF, idle(100)), Some(Reason::WaitingForQuiet));
}

#[test]
fn quiet_is_counted_on_from_the_last_look() {
    let mut rig = one(policy(), SECOND_HALF, |rig| rig.clients[0].idle_since = rig.now - millis(150));
    let plan = rig.plan();
    assert_eq!(retires(&plan).len(), 0);
    assert!(plan.next_wake <= rig.now + millis(50));
    rig.wait(millis(50));
    goes(&mut rig, Close::Quiet(millis(200)));
}

#[test]
fn an_old_look_is_not_acted_on() {
    let mut rig = one(policy(), PAST, |_| {});
    rig.wait(millis(600));
    stays(&mut rig, Some(Reason::WaitingForQuiet));
    rig.poll();
    goes(&mut rig, Close::Quiet(millis(200)));
}

#[test]
fn the_most_overdue_goes_first() {
    let mut rig = Rig::new(Policy { login_budget: 3, ..policy() });
    for age in [650, 900, 700, 860, 620] {
        rig.client("write", "a", secs(age));
    }
    // A group that is known to come back is not held to a few at a time.
    rig.look();
    let plan = rig.plan();
    let ages: Vec<u64> = retires(&plan).iter().map(|retire| retire.age.as_secs()).collect();
    assert_eq!(ages, [900, 860]);
    assert_eq!(held(&plan, &rig.clients[2]), Some(Reason::OverBudget));
}

/// Closes that hang do not make the planner command others in their place, or look again and
/// again for a place.
#[test]
fn closes_under_way_take_their_places() {
    // The breaker allows all, so that the budget alone holds them.
    let mut rig = Rig::new(Policy {
        breaker: BreakerPolicy { misses: 100, ..policy().breaker },
        login_budget: 5,
        ..policy()
    });
    for _ in 0..20 {
        rig.client("write", "a", PAST);
    }
    rig.look();
    assert_eq!(retires(&rig.plan()).len(), 4);
    // One has begun and hangs, the others wait behind it.
    let hanging = rig.budget.try_begin(&instance("a"), Purpose::Close, rig.now).expect("a place");
    for _ in 0..20 {
        rig.wait(millis(100)).look();
        let plan = rig.plan();
        assert_eq!(retires(&plan).len(), 0);
        assert!(rig.now.until(plan.next_wake) >= millis(50), "{:?}", rig.now.until(plan.next_wake));
    }
    rig.budget.finish(hanging, rig.now);
}

#[test]
fn a_session_in_a_transaction_stays_however_old_it_is() {
    for age in [DUE, SECOND_HALF, PAST, PAST * 10] {
        stays(
            &mut one(policy(), age, |rig| rig.does(0, Activity::InTransaction)),
            Some(Reason::InTransaction),
        );
        stays(&mut one(policy(), age, |rig| rig.does(0, Activity::Running)), Some(Reason::Running));
    }
}

#[test]
fn a_long_transaction_goes_soon_after_its_commit() {
    let mut rig = one(policy(), PAST, |rig| rig.does(0, Activity::InTransaction));
    rig.pass(secs(20));
    stays(&mut rig, Some(Reason::InTransaction));
    rig.does(0, Activity::Idle(millis(0)));
    rig.wait(millis(100)).look();
    stays(&mut rig, Some(Reason::WaitingForQuiet));
    rig.wait(millis(100)).look();
    goes(&mut rig, Close::Quiet(millis(200)));
}

/// Seen in a transaction and idle in turns, never idle for long.
fn restless(rig: &mut Rig, rounds: u32) {
    for _ in 0..rounds {
        rig.does(0, Activity::Idle(millis(0)));
        rig.wait(millis(50)).look();
        assert_eq!(retires(&rig.plan()).len(), 0);
        rig.does(0, Activity::InTransaction);
        rig.wait(millis(50)).look();
        if !retires(&rig.plan()).is_empty() {
            return;
        }
    }
}

/// A proxy closes without looking: a client that ends its pause after the look would lose
/// a transaction.
#[test]
fn the_proxy_closes_only_what_was_just_seen_quiet() {
    let by_proxy = || Policy { close_via: CloseVia::Proxy, ..policy() };
    let idle_for_150_ms = |rig: &mut Rig| rig.clients[0].idle_since = rig.now - millis(150);
    let mut rig = one(by_proxy(), SECOND_HALF, idle_for_150_ms);
    rig.wait(millis(60));
    stays(&mut rig, Some(Reason::WaitingForQuiet));
    rig.look();
    rig.wait(millis(40));
    stays(&mut rig, Some(Reason::WaitingForQuiet));
    rig.look();
    goes(&mut rig, Close::QuietByProxy(millis(200)));
}

#[test]
fn one_that_never_pauses_is_held_as_never_quiet() {
    let mut rig = one(policy(), PAST, |_| {});
    restless(&mut rig, 40);
    stays(&mut rig, Some(Reason::NeverQuiet));
}

#[test]
fn a_fresh_catch_is_for_those_that_were_seen_to_be_never_quiet() {
    let catching = Policy { busy: Busy::Catch, close_via: CloseVia::Proxy, ..policy() };
    let mut rig = one(catching.clone(), PAST, |rig| rig.does(0, Activity::InTransaction));
    stays(&mut rig, Some(Reason::InTransaction));
    rig.does(0, Activity::Idle(millis(0)));
    rig.wait(millis(10)).look();
    stays(&mut rig, Some(Reason::WaitingForQuiet));

    let mut rig = one(catching, PAST, |rig| rig.does(0, Activity::InTransaction));
    let mut caught = None;
    for _ in 0..60 {
        rig.does(0, Activity::Idle(millis(0)));
        rig.wait(millis(50)).look();
        caught = caught.or(retires(&rig.plan()).first().map(|retire| retire.how));
        rig.does(0, Activity::InTransaction);
        rig.wait(millis(50)).look();
        caught = caught.or(retires(&rig.plan()).first().map(|retire| retire.how));
    }
    let how = caught.expect("a catch");
    assert_eq!((how, how.via()), (Close::Catch, CloseVia::Database), "only the database can see the moment");
}

#[test]
fn who_is_out_of_scope_stays_with_the_reason() {
    let with = |change: fn(&mut support::Client)| one(policy(), PAST, |rig| change(&mut rig.clients[0]));
    stays(&mut with(|client| client.row.iam_user = false), Some(Reason::NotIamUser));
    stays(&mut with(|client| client.row.superuser = true), Some(Reason::Superuser));
    stays(&mut with(|client| client.row.client_backend = false), Some(Reason::NotClientBackend));
    stays(&mut with(|client| client.row.last_statement = LastStatement::Listening), Some(Reason::Listening));
    stays(&mut with(|client| client.row.advisory_lock = Some(true)), Some(Reason::AdvisoryLock));
    for change in [
        (|client| client.row.activity = Activity::Unknown) as fn(&mut support::Client),
        |client| client.row.last_statement = LastStatement::Unknown,
        |client| client.row.advisory_lock = None,
    ] {
        stays(&mut with(change), Some(Reason::ActivityUnknown));
    }
}

#[test]
fn who_is_exempt_stays() {
    let exempt = [
        Exempt { users: vec!["app".into()], ..Exempt::default() },
        Exempt { databases: vec!["orders".into()], ..Exempt::default() },
        Exempt { applications: vec!["sh*".into()], ..Exempt::default() },
        Exempt { networks: vec!["192.0.2.0/24".parse().expect("a network")], ..Exempt::default() },
    ];
    for exempt in exempt {
        stays(&mut one(Policy { exempt, ..policy() }, PAST, |_| {}), Some(Reason::Exempt));
    }
}

#[test]
fn the_operator_may_name_the_users() {
    let scope = |user: &str| Policy { scope: Scope::Users(vec![user.into()]), ..policy() };
    stays(&mut one(scope("someone"), PAST, |_| {}), Some(Reason::NotIamUser));
    let mut rig = one(scope("app"), PAST, |rig| rig.clients[0].row.iam_user = false);
    let plan = rig.plan();
    assert!(!retires(&plan)[0].iam_only);
}

#[test]
fn what_the_sources_do_not_agree_on_stays() {
    let listed = |listed| move |rig: &mut Rig| rig.clients[0].listed = listed;
    stays(&mut one(policy(), PAST, listed(Listed::Never)), Some(Reason::NotJoined));
    stays(&mut one(policy(), PAST, listed(Listed::Twice)), Some(Reason::SourcesDisagree));
    stays(&mut one(policy(), PAST, listed(Listed::Off(secs(6)))), Some(Reason::SourcesDisagree));
    goes(&mut one(policy(), PAST, listed(Listed::Off(secs(4)))), Close::Quiet(millis(200)));
}

#[test]
fn a_due_session_that_no_listing_has_shown_is_looked_for() {
    let mut rig = Rig::new(policy());
    rig.client("write", "a", secs(0));
    rig.wait(DUE).probe();
    rig.poll();
    rig.admin();
    let plan = rig.plan();
    assert_eq!(held(&plan, &rig.clients[0]), Some(Reason::NotJoined));
    assert!(plan.sweep.contains(&ProxyIndex(0)));
    rig.sweep();
    assert!(!rig.plan().sweep.contains(&ProxyIndex(0)));
    goes(&mut one(policy(), DUE, |_| {}), Close::Quiet(secs(1)));
}

#[test]
fn a_lost_source_holds_everything() {
    let mut rig = one(policy(), PAST, |_| {});
    for _ in 0..6 {
        rig.wait(secs(1)).poll();
        rig.probe();
        let plan = rig.plan();
        for retire in retires(&plan) {
            rig.retired(retire, Retired::Busy);
        }
    }
    rig.wait(millis(10)).poll();
    stays(&mut rig, Some(Reason::SourceStale));
    rig.admin();
    rig.wait(millis(10)).poll();
    goes(&mut rig, Close::Quiet(millis(200)));
}

#[test]
fn an_agent_that_was_frozen_looks_again_before_it_acts() {
    let mut rig = one(policy(), YOUNG, |_| {});
    rig.plan();
    // Frozen for a minute, with answers still in its queue.
    rig.wait(secs(60));
    stays(&mut rig, Some(Reason::SourceStale));
    rig.wait(millis(100)).look();
    stays(&mut rig, Some(Reason::InstanceUnusable));
    rig.probe();
    goes(&mut rig, Close::Quiet(secs(1)));
}

#[test]
fn nothing_goes_while_its_client_could_not_log_in_again() {
    let unusable = Some(Reason::InstanceUnusable);
    for kind in
        [FaultKind::LoginRefused, FaultKind::NoToken, FaultKind::TimedOut, FaultKind::TooManyConnections]
    {
        stays(&mut one(policy(), PAST, |rig| rig.tell("a", Err(kind))), unusable);
    }
    stays(&mut one(policy(), PAST, |rig| rig.planner.observe_credentials(false)), unusable);
}

/// The kept connection answers, which proves nothing of logins.
fn alive(rig: &mut Rig) {
    for (name, in_recovery) in [("a", false), ("b", true), ("c", true)] {
        let facts = RoleFacts {
            in_recovery,
            read_only: false,
            follows_source: false,
            timeline: None,
            lag: None,
            agents: 1,
        };
        let observation =
            Observation { instance: instance(name), at: rig.now, login: false, result: Ok(facts) };
        rig.health.observe(&observation);
    }
    rig.look();
}

#[test]
fn nothing_goes_on_a_login_of_long_ago_and_the_next_is_asked_for() {
    let mut rig = one(policy(), secs(589), |_| {});
    for _ in 0..105 {
        rig.wait(millis(100));
        alive(&mut rig);
        assert!(rig.plan().probe.is_empty(), "only while something would be closed");
    }
    rig.wait(secs(2));
    alive(&mut rig);
    let plan = rig.plan();
    assert_eq!(plan.probe.iter().collect::<Vec<_>>(), [&instance("a")]);
    stays(&mut rig, Some(Reason::LoginUnproved));
    // The login is refused: the agent alone, or everybody.
    rig.tell("a", Err(FaultKind::LoginRefused));
    stays(&mut rig, Some(Reason::InstanceUnusable));
    rig.tell("a", Ok(false));
    goes(&mut rig, Close::Quiet(secs(1)));
}

#[test]
fn while_sessions_are_closed_logins_are_renewed_before_any_close_waits_for_them() {
    let mut rig = Rig::new(policy());
    let mut logins = 0;
    for _ in 0..600 {
        rig.clients.clear();
        rig.client("write", "a", PAST);
        rig.wait(millis(100));
        alive(&mut rig);
        let plan = rig.plan();
        let retire = retires(&plan).first().map(|retire| (**retire).clone());
        rig.retired(&retire.expect("a close at every look"), Retired::Gone);
        if plan.probe.contains(&instance("a")) {
            logins += 1;
            rig.tell("a", Ok(false));
        }
    }
    assert!((5..=11).contains(&logins), "{logins} in a minute");
}

#[test]
fn a_close_on_an_instance_that_takes_no_sessions_waits_for_a_login_beside_it() {
    let mut rig = Rig::new(policy());
    rig.client("write", "b", PAST);
    rig.wait(secs(11));
    alive(&mut rig);
    let plan = rig.plan();
    assert_eq!(held(&plan, &rig.clients[0]), Some(Reason::LoginUnproved));
    assert_eq!(plan.probe.iter().collect::<Vec<_>>(), [&instance("a")], "the writer they come back to");
}

#[test]
fn a_reader_is_not_closed_while_a_sibling_refuses_logins() {
    let mut rig = Rig::new(policy());
    rig.client("read", "b", PAST);
    rig.tell("c", Err(FaultKind::LoginRefused));
    rig.look();
    stays(&mut rig, Some(Reason::InstanceUnusable));
    rig.tell("c", Ok(true));
    goes(&mut rig, Close::Quiet(millis(200)));
}

#[test]
fn what_stays_for_what_it_is_is_held_and_nothing_is_about_to_be_closed() {
    let for_ever: [fn(&mut support::Client); 7] = [
        |client| client.row.client_backend = false,
        |client| client.row.superuser = true,
        |client| client.row.iam_user = false,
        |client| client.row.last_statement = LastStatement::Listening,
        |client| client.row.advisory_lock = Some(true),
        |client| client.row.activity = Activity::Unknown,
        |client| client.listed = Listed::Never,
    ];
    for change in for_ever {
        let mut rig = one(policy(), PAST, |rig| change(&mut rig.clients[0]));
        // However long ago the last look was: looking more often changes nothing.
        for _ in 0..3 {
            let plan = rig.plan();
            assert_eq!((plan.holds.len(), plan.closing), (1, false), "{:?}", plan.holds);
            rig.wait(secs(2)).admin();
        }
    }
    let mut paused = one(policy(), PAST, |rig| rig.planner.pause());
    assert!(!paused.plan().closing, "an operator's pause is over when they say so");
}

#[test]
fn what_may_go_soon_is_about_to_be_closed() {
    assert!(!one(policy(), YOUNG, |_| {}).plan().closing, "none is due");
    let may_go: [fn(&mut Rig); 5] = [
        |_| {},
        |rig| rig.does(0, Activity::InTransaction),
        |rig| rig.does(0, Activity::Running),
        |rig| rig.does(0, Activity::Idle(Duration::ZERO)),
        |rig| rig.tell("a", Err(FaultKind::LoginRefused)),
    ];
    for change in may_go {
        let mut rig = one(policy(), PAST, change);
        let plan = rig.plan();
        assert!(plan.closing, "{:?}", plan.holds);
        rig.wait(millis(50));
        assert!(rig.plan().closing, "while it is being closed");
    }
}

#[test]
fn one_command_at_a_time_for_a_session() {
    let mut rig = one(policy(), PAST, |_| {});
    let plan = rig.plan();
    let retire = retires(&plan)[0].clone();
    for _ in 0..20 {
        rig.wait(millis(100)).look();
        assert_eq!(retires(&rig.plan()).len(), 0);
    }
    rig.retired(&retire, Retired::Busy);
    assert_eq!(retires(&rig.plan()).len(), 0, "not on what was seen before the try");
    rig.wait(millis(100)).look();
    goes(&mut rig, Close::Quiet(millis(200)));
}

#[test]
fn each_mode_says_what_it_would_do() {
    let mode = |mode| Policy { mode, ..policy() };
    stays(&mut one(mode(Mode::Observe), PAST, |_| {}), Some(Reason::Observing));
    stays(&mut one(mode(Mode::Drain), PAST, |_| {}), Some(Reason::DrainingOnly));
    let mut paused = one(policy(), PAST, |rig| rig.planner.pause());
    stays(&mut paused, Some(Reason::Paused));
    paused.planner.resume();
    goes(&mut paused, Close::Quiet(millis(200)));
}

#[test]
fn behind_a_proxy_that_takes_no_commands_force_changes_nothing() {
    let forced = Policy { force_after: Some(secs(60)), ..policy() };
    let servers = support::servers().into_iter().map(|server| ServerConfig { commandable: false, ..server });
    let servers: Vec<ServerConfig> = servers.collect();
    let with = |activity| {
        let mut rig = one(forced.clone(), PAST + secs(60), |rig| rig.does(0, activity));
        rig.planner = Planner::new(forced.clone(), &servers);
        rig.look();
        rig
    };
    stays(&mut with(Activity::InTransaction), Some(Reason::InTransaction));
    let mut quiet = with(Activity::Idle(Duration::ZERO));
    quiet.wait(secs(2));
    quiet.look();
    assert!(matches!(retires(&quiet.plan())[0].how, Close::Quiet(_)));
}

#[test]
fn force_is_the_operators_own_word() {
    let forced = Policy { force_after: Some(secs(60)), ..policy() };
    let busy = |rig: &mut Rig| rig.does(0, Activity::InTransaction);
    stays(&mut one(forced.clone(), PAST, busy), Some(Reason::InTransaction));
    goes(&mut one(forced.clone(), PAST + secs(60), busy), Close::Force);
    stays(
        &mut one(forced, PAST + secs(60), |rig| rig.clients[0].row.iam_user = false),
        Some(Reason::NotIamUser),
    );
}

#[test]
fn a_demoted_writers_sessions_follow_when_the_operator_says_so() {
    let demotion = Policy { demotion_grace: Some(secs(5)), ..policy() };
    let demote = |rig: &mut Rig| {
        for _ in 0..10 {
            rig.wait(millis(100));
            rig.tell("a", Ok(true));
            rig.tell("b", Ok(false));
            rig.tell("c", Ok(true));
            rig.look();
            let plan = rig.plan();
            if let Some(retire) = retires(&plan).first() {
                return Some((retire.how, retire.purpose));
            }
        }
        None
    };
    let mut quiet = one(demotion.clone(), secs(30), |_| {});
    assert_eq!(demote(&mut quiet), Some((Close::Quiet(millis(200)), Purpose::Failover)));
    let mut off = one(policy(), secs(30), |_| {});
    assert_eq!(demote(&mut off), None);
    let mut busy = one(demotion, secs(30), |rig| rig.does(0, Activity::InTransaction));
    assert_eq!(demote(&mut busy), None);
    let forced = (0..10).find_map(|_| demote(&mut busy));
    assert_eq!(forced, Some((Close::Force, Purpose::Failover)));
}

#[test]
fn every_session_keeps_its_own_limit_within_the_jitter() {
    let policy = Policy { jitter: 0.1, ..policy() };
    let limit =
        |pid| agent_core::plan::limit_of(&policy, &BackendKey { pid, started_us: 1_700_000_000_000_000 });
    let limits: Vec<Duration> = (0..2_000).map(limit).collect();
    assert!(limits.iter().all(|limit| *limit >= secs(756) && *limit <= secs(924)));
    let early = limits.iter().filter(|limit| **limit < secs(840)).count();
    assert!((900..1_100).contains(&early), "{early} of 2000 below the middle");
    assert_eq!(limits, (0..2_000).map(limit).collect::<Vec<_>>());
}

#[test]
fn a_hold_tells_since_when() {
    let mut rig = one(policy(), PAST, |rig| rig.does(0, Activity::InTransaction));
    let began = rig.plan().holds[0].since;
    assert_eq!(began, rig.now);
    assert_eq!(rig.pass(secs(2)).holds[0].since, began);
}

#[test]
fn each_proxy_is_listed_again_once_soon_after_the_start() {
    let mut rig = Rig::new(policy());
    rig.client("write", "a", secs(0));
    rig.probe();
    rig.look();
    assert!(!rig.plan().sweep.contains(&ProxyIndex(0)));
    rig.wait(secs(1)).poll();
    assert!(
        rig.plan().sweep.contains(&ProxyIndex(0)),
        "the first listing does not speak of sessions that are found now"
    );
    rig.sweep();
    rig.wait(secs(5)).poll();
    assert!(!rig.plan().sweep.contains(&ProxyIndex(0)), "a young session needs no more");
}

#[test]
fn sessions_that_are_never_retired_are_held_and_not_due() {
    let mut rig = one(policy(), PAST, |rig: &mut Rig| rig.clients[0].row.client_backend = false);
    let plan = rig.plan();
    assert_eq!((plan.due, plan.holds.len()), (0, 1));
}
