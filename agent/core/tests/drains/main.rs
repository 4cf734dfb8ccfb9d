//! Drains: when they begin, how they end, and whose they are.
//!
//! - `operators`: those that an operator asks the agent for.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod operators;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;

use agent_core::{
    FaultKind, ProxyIndex, ServerId,
    desired::AgentHealth,
    health::{FleetConfig, Health, Routing, ServerConfig, VerdictReason},
    plan::{
        AdminFlags, AdminWord, Command, DrainPhase, DrainReason, DrainSent, HoldReason as Reason, Mode,
        Outcome, Plan, Planner, Policy, Progress, Requested, UndrainReason,
    },
    session::Activity,
};
use support::{Rig, drains, held_server, millis, policy, retires, secs, server, undrains};

const CLEAR: AdminFlags = AdminFlags { drain: false, maint: false, other: false, weightless: false };
const DRAINED: AdminFlags = AdminFlags { drain: true, maint: false, other: false, weightless: false };
const MAINT: AdminFlags = AdminFlags { drain: false, maint: true, other: false, weightless: false };
const CONFIGURED: AdminFlags = AdminFlags { drain: false, maint: false, other: true, weightless: false };

/// Retiring is left to drains alone, so that nothing but drains is commanded.
fn draining() -> Policy {
    Policy { mode: Mode::Drain, ..policy() }
}

fn b() -> ServerId {
    server("read", "b")
}

/// A rig with due sessions on reader `b`.
fn due_on_b(policy: Policy) -> Rig {
    let mut rig = Rig::new(policy);
    for _ in 0..4 {
        rig.client("read", "b", secs(700));
    }
    rig.look();
    rig
}

fn sent(rig: &mut Rig, server: &ServerId, sent: DrainSent) {
    rig.planner.outcome(rig.now, &Outcome::Drain { server: server.clone(), sent });
}

fn ended(rig: &mut Rig, server: &ServerId, taken: bool) {
    rig.planner.outcome(rig.now, &Outcome::Undrain { server: server.clone(), taken });
}

fn phase(rig: &Rig, server: &ServerId) -> DrainPhase {
    rig.planner.drains().phases().find(|(id, _)| *id == server).expect("a server").1
}

fn forgotten(plan: &Plan) -> bool {
    plan.commands.iter().any(|command| matches!(command, Command::Forget { .. }))
}

/// Time passes; the proxy shows the drain of `b` and nothing else.
fn pass_with_drain_shown(rig: &mut Rig, seconds: u64) -> Vec<Command> {
    pass_with(rig, seconds, &BTreeMap::from([(b(), DRAINED)]))
}

fn pass_with(rig: &mut Rig, seconds: u64, shown: &BTreeMap<ServerId, AdminFlags>) -> Vec<Command> {
    let mut commands = Vec::new();
    for _ in 0..seconds {
        rig.wait(secs(1)).probe();
        rig.poll();
        rig.sweep();
        for config in support::servers() {
            let flags = shown.get(&config.id).copied().unwrap_or_default();
            commands.extend(rig.set_flags(&config.id, flags));
        }
        rig.ledger.proxy_alive(ProxyIndex(0), rig.now);
        commands.extend(rig.plan().commands);
    }
    commands
}

/// A rig whose drain of `b` was commanded, sent and shown.
fn held_on_b(policy: Policy) -> Rig {
    let mut rig = due_on_b(policy);
    assert_eq!(drains(&rig.plan()), [&b()]);
    rig.wait(millis(20));
    sent(&mut rig, &b(), DrainSent::Sent);
    rig.wait(millis(20));
    assert_eq!(rig.set_flags(&b(), DRAINED), None);
    rig
}

#[test]
fn in_mode_drain_one_due_session_is_enough() {
    let mut rig = Rig::new(draining());
    rig.client("read", "b", secs(700));
    rig.client("read", "b", secs(5));
    rig.look();
    assert_eq!(drains(&rig.plan()), [&b()]);
}

#[test]
fn in_mode_retire_it_takes_half_of_the_sessions_and_more_than_one() {
    let drained = |due: usize, young: usize| {
        let mut rig = Rig::new(policy());
        for _ in 0..due {
            rig.client("read", "b", secs(700));
        }
        for _ in 0..young {
            rig.client("read", "b", secs(5));
        }
        rig.look();
        drains(&rig.plan()).len()
    };
    assert_eq!(drained(1, 0), 0);
    assert_eq!(drained(2, 3), 0);
    assert_eq!(drained(2, 2), 1);
}

#[test]
fn one_server_of_a_backend_at_a_time() {
    let mut rig = due_on_b(draining());
    rig.client("read", "c", secs(700));
    rig.look();
    let plan = rig.plan();
    assert_eq!(drains(&plan), [&b()]);
    assert_eq!(held_server(&plan, &server("read", "c")), Some(Reason::CapacityFloor));
}

#[test]
fn where_a_drain_would_outlive_the_agent_only_an_operator_begins_one() {
    let mut rig = due_on_b(draining());
    let servers: Vec<ServerConfig> =
        support::servers().into_iter().map(|server| ServerConfig { commandable: false, ..server }).collect();
    rig.planner = Planner::new(draining(), &servers);
    rig.look();
    assert!(drains(&rig.plan()).is_empty());
    rig.planner
        .request_drain(&b(), Requested::default(), &rig.health.fleet(rig.now), rig.now)
        .expect("an operator may");
    assert_eq!(drains(&rig.plan()), [&b()]);
}

#[test]
fn the_only_usable_server_is_never_drained() {
    let mut rig = Rig::new(draining());
    rig.client("write", "a", secs(700));
    rig.look();
    let plan = rig.plan();
    assert_eq!(drains(&plan).len(), 0);
    assert_eq!(held_server(&plan, &server("write", "a")), Some(Reason::CapacityFloor));

    let mut rig = due_on_b(draining());
    for _ in 0..2 {
        rig.wait(millis(300));
        rig.tell("c", Err(FaultKind::ConnectionRefused));
    }
    rig.look();
    assert_eq!(held_server(&rig.plan(), &b()), Some(Reason::CapacityFloor));
}

#[test]
fn a_server_that_a_person_has_touched_does_not_count_and_is_not_touched() {
    for flags in [DRAINED, MAINT, CONFIGURED] {
        let mut rig = due_on_b(draining());
        rig.set_flags(&b(), flags);
        assert_eq!(held_server(&rig.plan(), &b()), Some(Reason::AdminState));
        let mut rig = due_on_b(draining());
        rig.set_flags(&server("read", "c"), flags);
        assert_eq!(held_server(&rig.plan(), &b()), Some(Reason::CapacityFloor));
    }
}

#[test]
fn nothing_begins_on_admin_flags_of_long_ago() {
    let mut rig = Rig::new(draining());
    rig.client("read", "b", secs(593));
    rig.look();
    for _ in 0..7 {
        rig.wait(secs(1)).probe();
        rig.poll();
        rig.sweep();
        assert_eq!(drains(&rig.plan()).len(), 0);
    }
    assert_eq!(held_server(&rig.plan(), &b()), Some(Reason::SourceStale));
    rig.admin();
    assert_eq!(drains(&rig.plan()), [&b()]);
}

#[test]
fn a_lost_activity_source_gives_no_reason_to_drain() {
    let mut rig = due_on_b(draining());
    rig.wait(secs(6)).admin();
    rig.probe();
    assert_eq!(drains(&rig.plan()).len(), 0);
}

#[test]
fn a_server_that_takes_no_new_sessions_anyway_is_not_drained() {
    let mut rig = Rig::new(draining());
    rig.client("write", "b", secs(700));
    rig.look();
    let plan = rig.plan();
    assert_eq!(drains(&plan).len(), 0);
    assert_eq!(held_server(&plan, &server("write", "b")), None);
}

#[test]
fn it_ends_when_its_due_sessions_are_gone() {
    let mut rig = held_on_b(draining());
    assert_eq!(pass_with_drain_shown(&mut rig, 3), []);
    rig.clients.clear();
    let commands = pass_with_drain_shown(&mut rig, 1);
    assert_eq!(commands, [Command::Undrain { server: b(), reason: UndrainReason::Done }]);
}

#[test]
fn it_ends_at_its_deadline_and_comes_again_only_after_max_age() {
    let mut rig = held_on_b(draining());
    assert_eq!(pass_with_drain_shown(&mut rig, 59), []);
    let commands = pass_with_drain_shown(&mut rig, 1);
    assert_eq!(commands, [Command::Undrain { server: b(), reason: UndrainReason::Deadline }]);
    ended(&mut rig, &b(), true);
    let after = pass_with(&mut rig, 770, &BTreeMap::new());
    assert_eq!(after, [Command::Forget { server: b() }]);
    assert_eq!(held_server(&rig.plan(), &b()), Some(Reason::DrainedLately));
    let again = pass_with(&mut rig, 20, &BTreeMap::new());
    assert!(matches!(&again[0], Command::Drain { server, .. } if *server == b()), "{again:?}");
}

#[test]
fn it_ends_at_once_when_the_others_fail() {
    let mut rig = held_on_b(draining());
    for _ in 0..2 {
        rig.wait(millis(300));
        rig.tell("c", Err(FaultKind::ConnectionRefused));
    }
    let plan = rig.plan();
    assert_eq!(undrains(&plan), [&b()]);
    assert!(matches!(plan.commands[0], Command::Undrain { reason: UndrainReason::CapacityFloor, .. }));
}

#[test]
fn it_ends_when_the_agent_is_paused() {
    let mut rig = held_on_b(draining());
    rig.planner.pause();
    assert_eq!(undrains(&rig.plan()), [&b()]);
}

#[test]
fn its_end_is_sent_again_until_the_proxy_has_taken_it() {
    let mut rig = held_on_b(draining());
    rig.clients.clear();
    assert_eq!(pass_with_drain_shown(&mut rig, 1).len(), 1);
    ended(&mut rig, &b(), false);
    let tries = pass_with_drain_shown(&mut rig, 5);
    assert_eq!(tries.len(), 5);
    assert!(tries.iter().all(|command| matches!(command, Command::Undrain { .. })));
    let end = pass_with(&mut rig, 1, &BTreeMap::new());
    assert_eq!(end, [Command::Forget { server: b() }]);
    assert_eq!(phase(&rig, &b()), DrainPhase::Idle);
}

#[test]
fn a_drain_that_shows_up_after_the_end_was_taken_is_a_persons() {
    let mut rig = held_on_b(draining());
    rig.clients.clear();
    assert_eq!(pass_with_drain_shown(&mut rig, 1).len(), 1);
    rig.wait(millis(10));
    ended(&mut rig, &b(), true);
    assert_eq!(pass_with_drain_shown(&mut rig, 1), [Command::Forget { server: b() }]);
    assert_eq!(pass_with_drain_shown(&mut rig, 100), []);
    let fleet = rig.fleet();
    assert_eq!(rig.agent_check(&b(), &fleet).admin, None);
}

#[test]
fn maint_during_a_drain_is_a_persons_and_the_agent_lets_go() {
    let mut rig = held_on_b(draining());
    rig.wait(millis(100));
    assert_eq!(rig.set_flags(&b(), MAINT), Some(Command::Forget { server: b() }));
    let commands = pass_with(&mut rig, 900, &BTreeMap::from([(b(), MAINT)]));
    assert_eq!(commands, []);
    let fleet = rig.fleet();
    assert_eq!(rig.agent_check(&b(), &fleet).admin, None);
}

#[test]
fn ready_during_a_drain_is_a_persons_and_is_respected_for_max_age() {
    let mut rig = held_on_b(draining());
    rig.wait(millis(100));
    assert_eq!(rig.set_flags(&b(), CLEAR), Some(Command::Forget { server: b() }));
    assert_eq!(pass_with(&mut rig, 830, &BTreeMap::new()), []);
}

#[test]
fn a_drain_that_was_not_sent_leaves_nothing_behind() {
    let mut rig = due_on_b(draining());
    rig.plan();
    sent(&mut rig, &b(), DrainSent::NotSent);
    assert_eq!(phase(&rig, &b()), DrainPhase::Idle);
    rig.wait(secs(1)).look();
    assert_eq!(held_server(&rig.plan(), &b()), Some(Reason::SourceStale));
    let again = pass_with(&mut rig, 10, &BTreeMap::new());
    assert_eq!(again.len(), 1, "tried again, and not at every look: {again:?}");
}

#[test]
fn a_drain_of_which_nothing_is_heard_is_taken_back_and_not_forgotten_too_early() {
    let mut rig = due_on_b(draining());
    assert_eq!(drains(&rig.plan()), [&b()]);
    let commands = pass_with(&mut rig, 11, &BTreeMap::new());
    assert!(matches!(commands[0], Command::Undrain { reason: UndrainReason::NotTaken, .. }));
    let commands = pass_with(&mut rig, 5, &BTreeMap::new());
    assert!(!commands.contains(&Command::Forget { server: b() }), "it may still be sent");
    // It was sent after all.
    sent(&mut rig, &b(), DrainSent::Sent);
    let commands = pass_with_drain_shown(&mut rig, 2);
    assert!(commands.iter().all(|command| matches!(command, Command::Undrain { .. })), "{commands:?}");
    let commands = pass_with(&mut rig, 1, &BTreeMap::new());
    assert_eq!(commands, [Command::Forget { server: b() }]);
}

#[test]
fn a_drain_taken_back_while_it_is_being_sent_does_not_stay() {
    let mut rig = due_on_b(draining());
    rig.plan();
    assert_eq!(rig.planner.release_drains(None, rig.now).len(), 1);
    rig.planner.pause();
    // The table from before the drain arrived says nothing.
    assert!(!pass_with(&mut rig, 2, &BTreeMap::new()).contains(&Command::Forget { server: b() }));
    sent(&mut rig, &b(), DrainSent::Sent);
    assert!(!pass_with_drain_shown(&mut rig, 2).is_empty());
    assert_eq!(pass_with(&mut rig, 1, &BTreeMap::new()), [Command::Forget { server: b() }]);
}

// === by agent-check ===

#[test]
fn the_steady_answer_has_no_admin_word() {
    let mut rig = held_on_b(draining());
    let fleet = rig.fleet();
    let desired = rig.agent_check(&b(), &fleet);
    assert_eq!(
        (desired.health, desired.admin),
        (Some(AgentHealth::Up), None),
        "while drained by the runtime API"
    );
    let down = rig.agent_check(&server("write", "b"), &fleet);
    assert_eq!((down.health, down.admin), (Some(AgentHealth::Down(VerdictReason::NotWriter)), None));
    let unknown = rig.agent_check(&server("nobody", "x"), &fleet);
    assert_eq!((unknown.health, unknown.admin), (None, None));
}

#[test]
fn a_drain_that_only_answers_can_carry_is_answered_until_it_shows() {
    let mut rig = due_on_b(draining());
    rig.plan();
    sent(&mut rig, &b(), DrainSent::Unclear);
    let fleet = rig.fleet();
    assert_eq!(rig.agent_check(&b(), &fleet).admin, Some(AdminWord::Drain));
    rig.wait(millis(500));
    rig.set_flags(&b(), DRAINED);
    assert_eq!(rig.agent_check(&b(), &fleet).admin, None, "an operator's maint has to stay");
}

#[test]
fn a_drain_that_the_runtime_api_cannot_end_is_ended_by_answers() {
    let mut rig = held_on_b(draining());
    rig.clients.clear();
    pass_with_drain_shown(&mut rig, 4);
    let fleet = rig.fleet();
    assert_eq!(rig.agent_check(&b(), &fleet).admin, Some(AdminWord::Ready));
    pass_with(&mut rig, 1, &BTreeMap::new());
    assert_eq!(rig.agent_check(&b(), &fleet).admin, None);
}

#[test]
fn no_word_is_answered_once_the_runtime_api_has_ended_it() {
    let mut rig = held_on_b(draining());
    rig.clients.clear();
    pass_with_drain_shown(&mut rig, 4);
    ended(&mut rig, &b(), true);
    let fleet = rig.fleet();
    assert_eq!(rig.agent_check(&b(), &fleet).admin, None, "before the next plan, too");
}

#[test]
fn without_sight_of_the_proxy_ready_is_answered_a_few_times_and_the_record_is_kept() {
    let mut rig = held_on_b(draining());
    rig.clients.clear();
    let mut words = 0;
    for _ in 0..60 {
        rig.wait(secs(1)).probe();
        rig.poll();
        assert!(!forgotten(&rig.plan()));
        let fleet = rig.fleet();
        if let Some(word) = rig.agent_check(&b(), &fleet).admin {
            assert_eq!(word, AdminWord::Ready);
            rig.planner.delivered(&b(), word);
            words += 1;
        }
    }
    assert_eq!(words, 3);
    assert!(matches!(phase(&rig, &b()), DrainPhase::Undoing { .. }));
    assert_eq!(pass_with(&mut rig, 1, &BTreeMap::new()), [Command::Forget { server: b() }]);
}

// === after a restart ===

#[test]
fn a_recorded_drain_is_compared_with_the_proxy_before_any_word() {
    let mut rig = Rig::new(draining());
    rig.planner.adopt(&b(), rig.now);
    for _ in 0..30 {
        rig.wait(secs(1)).probe();
        rig.plan();
        let fleet = rig.fleet();
        assert_eq!(rig.agent_check(&b(), &fleet).admin, None);
    }
    let tries = pass_with_drain_shown(&mut rig, 3);
    assert!(tries.iter().all(|command| matches!(command, Command::Undrain { .. })) && !tries.is_empty());
    assert_eq!(pass_with(&mut rig, 1, &BTreeMap::new()), [Command::Forget { server: b() }]);
}

#[test]
fn a_recorded_drain_that_is_gone_or_in_maintenance_is_only_forgotten() {
    for flags in [CLEAR, MAINT, AdminFlags::ABSENT] {
        let mut rig = Rig::new(draining());
        rig.planner.adopt(&b(), rig.now);
        rig.wait(millis(500));
        assert_eq!(rig.set_flags(&b(), flags), Some(Command::Forget { server: b() }));
        let commands = pass_with(&mut rig, 10, &BTreeMap::from([(b(), flags)]));
        assert_eq!(commands, []);
    }
}

/// Renamed or removed in the proxy's configuration, in the middle of a drain.
#[test]
fn the_drain_of_a_server_that_the_proxy_no_longer_has_is_over() {
    let mut rig = held_on_b(draining());
    let absent = BTreeMap::from([(b(), AdminFlags::ABSENT)]);
    assert_eq!(pass_with(&mut rig, 1, &absent), [Command::Forget { server: b() }]);
    assert_eq!(pass_with(&mut rig, 900, &absent), [], "nor is another begun");
    // One that is being taken back meanwhile is over as well.
    let mut rig = held_on_b(draining());
    rig.planner.release_drains(None, rig.now);
    ended(&mut rig, &b(), false);
    assert_eq!(pass_with(&mut rig, 1, &absent), [Command::Forget { server: b() }]);
}

/// Nor do sessions go to one that is not there.
#[test]
fn a_server_that_the_proxy_does_not_have_is_no_place_for_new_sessions() {
    let mut rig = due_on_b(draining());
    rig.set_flags(&server("read", "c"), AdminFlags::ABSENT);
    assert_eq!(held_server(&rig.plan(), &b()), Some(Reason::CapacityFloor));
}

// === logins refused ===

#[test]
fn a_server_that_refuses_logins_is_drained_while_siblings_accept() {
    let mut rig = Rig::new(policy());
    rig.tell("b", Err(FaultKind::LoginRefused));
    rig.wait(secs(3));
    rig.tell("b", Err(FaultKind::LoginRefused));
    rig.tell("c", Ok(true));
    rig.fleet();
    rig.wait(secs(1));
    rig.tell("b", Err(FaultKind::LoginRefused));
    rig.admin();
    let plan = rig.plan();
    assert_eq!(plan.commands, [Command::Drain { server: b(), reason: DrainReason::AuthRefused }]);
    sent(&mut rig, &b(), DrainSent::Sent);
    rig.wait(secs(1));
    rig.set_flags(&b(), DRAINED);
    assert_eq!(rig.plan().commands, []);
    rig.tell("b", Ok(true));
    assert_eq!(rig.plan().commands, [], "one good login may be chance");
    rig.tell("b", Ok(true));
    assert_eq!(undrains(&rig.plan()), [&b()]);
}

#[test]
fn a_writer_that_refuses_logins_is_kept_for_there_is_no_other() {
    let mut rig = Rig::new(policy());
    rig.tell("a", Err(FaultKind::LoginRefused));
    rig.wait(secs(3));
    rig.tell("a", Err(FaultKind::LoginRefused));
    rig.tell("c", Ok(true));
    rig.admin();
    let plan = rig.plan();
    assert_eq!(drains(&plan).len(), 0);
    let fleet = rig.fleet();
    assert_eq!(rig.agent_check(&server("write", "a"), &fleet).health, Some(AgentHealth::Up));
}

#[test]
fn draining_helps_the_sessions_that_retiring_waits_for() {
    let mut rig = Rig::new(policy());
    for _ in 0..4 {
        let client = rig.client("read", "b", secs(700));
        rig.does(client, Activity::InTransaction);
    }
    rig.look();
    let plan = rig.plan();
    assert_eq!(retires(&plan).len(), 0);
    assert_eq!(drains(&plan), [&b()]);
}
