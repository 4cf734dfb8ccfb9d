//! Drained servers, by operators and by the agent: what health makes of
//! them, and that verdicts and drains do not chase one another.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use agent_core::{
    FaultKind, ServerId,
    health::{State, VerdictReason as Reason},
    plan::{AdminFlags, Command, DrainReason, DrainSent, Outcome, Plan, Requested, UndrainReason},
};
use support::{Rig, millis, policy, secs, server, undrains};

const DRAINED: AdminFlags = AdminFlags { drain: true, maint: false, other: false, weightless: false };

fn b() -> ServerId {
    server("read", "b")
}

/// A writer `a` and a reader `b`; `c` is gone.
fn writer_and_reader() -> Rig {
    let mut rig = Rig::new(policy());
    rig.tell("c", Err(FaultKind::ConnectionRefused));
    rig.wait(millis(300));
    rig.tell("c", Err(FaultKind::ConnectionRefused));
    rig.admin();
    rig
}

#[track_caller]
fn expect(rig: &mut Rig, name: &str, state: State, reason: Reason) {
    let verdict = rig.fleet().servers[&server("read", name)];
    assert_eq!((verdict.state, verdict.reason), (state, reason), "read/{name}");
}

fn shows(rig: &mut Rig, flags: AdminFlags) -> Option<Command> {
    rig.wait(millis(100));
    rig.planner.observe_admin(&b(), rig.now, flags)
}

/// The drain of `b` was sent, and the proxy shows it.
fn drained(rig: &mut Rig, plan: &Plan, reason: DrainReason) {
    assert_eq!(plan.commands, [Command::Drain { server: b(), reason }]);
    rig.planner.outcome(rig.now, &Outcome::Drain { server: b(), sent: DrainSent::Sent });
    shows(rig, DRAINED);
}

#[test]
fn an_operators_drain_is_seen_in_the_proxys_flags() {
    let mut rig = writer_and_reader();
    expect(&mut rig, "a", State::Down, Reason::NotReader);
    for flags in [DRAINED, AdminFlags { maint: true, ..AdminFlags::default() }] {
        shows(&mut rig, flags);
        expect(&mut rig, "a", State::Up, Reason::WriterServesReads);
        shows(&mut rig, AdminFlags::default());
        expect(&mut rig, "a", State::Down, Reason::NotReader);
    }
}

#[test]
fn a_sibling_is_not_taken_out_before_the_drain_for_refused_logins_is_over() {
    let mut rig = writer_and_reader();
    rig.tell("b", Err(FaultKind::LoginRefused));
    rig.wait(secs(3));
    rig.tell("b", Err(FaultKind::LoginRefused));
    rig.tell("a", Ok(false));
    rig.fleet();
    rig.wait(secs(1));
    rig.tell("b", Err(FaultKind::LoginRefused));
    rig.admin();
    expect(&mut rig, "a", State::Up, Reason::WriterServesReads);
    let plan = rig.plan();
    drained(&mut rig, &plan, DrainReason::AuthRefused);
    assert_eq!(rig.plan().commands, [], "it lasts");
    rig.tell("b", Ok(true));
    rig.tell("b", Ok(true));
    expect(&mut rig, "b", State::Up, Reason::Proved);
    expect(&mut rig, "a", State::Up, Reason::WriterServesReads);
    assert_eq!(undrains(&rig.plan()), [&b()]);
    expect(&mut rig, "a", State::Up, Reason::WriterServesReads);
    assert_eq!(shows(&mut rig, AdminFlags::default()), Some(Command::Forget { server: b() }));
    expect(&mut rig, "a", State::Down, Reason::NotReader);
    assert_eq!(rig.plan().commands, []);
}

#[test]
fn a_drain_of_the_agents_own_ends_rather_than_that_the_writer_takes_the_reads() {
    let mut rig = Rig::new(policy());
    let fleet = rig.fleet();
    rig.planner.request_drain(&b(), Requested::default(), &fleet, rig.now).expect("it may be drained");
    let plan = rig.plan();
    drained(&mut rig, &plan, DrainReason::Operator);
    for _ in 0..2 {
        rig.wait(millis(300));
        rig.tell("c", Err(FaultKind::ConnectionRefused));
    }
    expect(&mut rig, "a", State::Down, Reason::NotReader);
    let undrain = Command::Undrain { server: b(), reason: UndrainReason::CapacityFloor };
    assert_eq!(rig.plan().commands, [undrain]);
    // Until the proxy shows that it is over, another server has to take them.
    expect(&mut rig, "a", State::Up, Reason::WriterServesReads);
    shows(&mut rig, AdminFlags::default());
    expect(&mut rig, "a", State::Down, Reason::NotReader);
}
