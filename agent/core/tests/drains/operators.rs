//! Drains that an operator asks the agent for.

use super::*;

#[test]
fn an_operators_drain_outlives_the_agent_and_its_siblings_first_moments() {
    let mut rig = Rig::new(policy());
    rig.health = Health::new(
        FleetConfig { instances: Vec::new(), servers: support::servers(), routing: Routing::default() },
        &[],
    );
    rig.planner.adopt_operators(&b(), Requested::default(), rig.now);
    // Nothing is known of the other servers yet.
    assert_eq!(pass_with_drain_shown(&mut rig, 20), []);
    assert_eq!(rig.planner.drains().progress(&b()), Progress::Drained);
    assert_eq!(rig.planner.release_drains(None, rig.now), [], "it is not the agent's own");
    assert_eq!(rig.planner.release_drains(Some(&b()), rig.now).len(), 1);
}

#[test]
fn an_operators_drain_that_haproxy_does_not_show_after_a_restart_was_ended_meanwhile() {
    let mut rig = Rig::new(policy());
    rig.planner.adopt_operators(&b(), Requested::default(), rig.now);
    rig.wait(secs(1));
    let command = rig.planner.observe_admin(&b(), rig.now, AdminFlags::default());
    assert_eq!(command, Some(Command::Forget { server: b() }));
    assert_eq!(rig.planner.drains().progress(&b()), Progress::NotDrained);
}

#[test]
fn an_operators_drain_survives_a_restart_of_the_proxy() {
    let mut rig = Rig::new(policy());
    let fleet = rig.fleet();
    rig.planner.request_drain(&b(), Requested::default(), &fleet, rig.now).expect("it may be drained");
    assert_eq!(drains(&rig.plan()), [&b()]);
    sent(&mut rig, &b(), DrainSent::Sent);
    assert_eq!(pass_with_drain_shown(&mut rig, 10), []);
    rig.wait(secs(1));
    rig.planner.proxy_restarted(b().proxy, rig.now);
    assert_eq!(rig.planner.observe_admin(&b(), rig.now, AdminFlags::default()), None);
    let fleet = rig.fleet();
    assert_eq!(rig.agent_check(&b(), &fleet).admin, Some(AdminWord::Drain));
    assert_eq!(rig.planner.drains().progress(&b()), Progress::Underway);
    assert_eq!(pass_with_drain_shown(&mut rig, 60), []);
    assert_eq!(rig.planner.drains().progress(&b()), Progress::Drained);
    // From here on an operator may end it in HAProxy again.
    rig.wait(secs(1));
    let command = rig.planner.observe_admin(&b(), rig.now, AdminFlags::default());
    assert_eq!(command, Some(Command::Forget { server: b() }));
}

#[test]
fn an_operators_drain_is_sent_again_where_a_restarted_proxy_does_not_take_it_by_its_checks() {
    let mut rig = Rig::new(policy());
    let fleet = rig.fleet();
    rig.planner.request_drain(&b(), Requested::default(), &fleet, rig.now).expect("it may be drained");
    assert_eq!(drains(&rig.plan()), [&b()]);
    sent(&mut rig, &b(), DrainSent::Sent);
    rig.planner.proxy_restarted(b().proxy, rig.now);
    let mut again = 0;
    for _ in 0..40 {
        rig.wait(secs(1));
        rig.planner.observe_admin(&b(), rig.now, AdminFlags::default());
        rig.look();
        again += drains(&rig.plan()).len();
    }
    assert!(again >= 1);
}

#[test]
fn an_operators_drain_ends_when_its_time_is_up() {
    let mut rig = Rig::new(policy());
    let fleet = rig.fleet();
    let requested = Requested { until: Some(rig.now + secs(30)), ..Requested::default() };
    rig.planner.request_drain(&b(), requested, &fleet, rig.now).expect("it may be drained");
    assert_eq!(drains(&rig.plan()), [&b()]);
    sent(&mut rig, &b(), DrainSent::Sent);
    assert_eq!(pass_with_drain_shown(&mut rig, 28), []);
    let ended = pass_with_drain_shown(&mut rig, 3);
    assert!(ended.contains(&Command::Undrain { server: b(), reason: UndrainReason::Deadline }), "{ended:?}");
    assert_eq!(rig.planner.drains().requested(&b()).and_then(|requested| requested.until), None);
}

#[test]
fn an_operators_drain_lasts_until_it_is_taken_back() {
    let mut rig = Rig::new(policy());
    let fleet = rig.fleet();
    rig.planner.request_drain(&b(), Requested::default(), &fleet, rig.now).expect("it may be drained");
    assert_eq!(drains(&rig.plan()), [&b()]);
    sent(&mut rig, &b(), DrainSent::Sent);
    assert_eq!(pass_with_drain_shown(&mut rig, 1_000), []);
    assert_eq!(rig.planner.release_drains(Some(&b()), rig.now).len(), 1);
}

#[test]
fn an_operators_drain_below_the_floor_is_refused_with_the_reason() {
    let mut rig = Rig::new(policy());
    let fleet = rig.fleet();
    let refused = rig.planner.request_drain(&server("write", "a"), Requested::default(), &fleet, rig.now);
    assert_eq!(refused, Err(Reason::CapacityFloor));
}

#[test]
fn an_operator_can_force_a_drain_below_the_capacity_floor() {
    let mut rig = Rig::new(Policy { capacity_floor: 1.0, ..policy() });
    let fleet = rig.fleet();
    let refused = rig.planner.request_drain(&b(), Requested::default(), &fleet, rig.now);
    assert_eq!(refused, Err(Reason::CapacityFloor));
    let forced = Requested { force: true, ..Requested::default() };
    rig.planner.request_drain(&b(), forced, &fleet, rig.now).expect("it is forced");
    assert_eq!(drains(&rig.plan()), [&b()]);
    sent(&mut rig, &b(), DrainSent::Sent);
    assert_eq!(pass_with_drain_shown(&mut rig, 100), [], "the floor does not end it");
}
