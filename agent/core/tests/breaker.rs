//! Clients that were closed, and whether they come back.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::time::Duration;

use agent_core::plan::{HoldReason as Reason, Planner, Retired};
use support::{Rig, held, instance, millis, policy, retires, secs};

const PAST: Duration = Duration::from_secs(841);

/// Ten due sessions of one group.
fn ten() -> Rig {
    let mut rig = Rig::new(policy());
    for _ in 0..10 {
        rig.client("write", "a", PAST);
    }
    rig.look();
    rig
}

fn close_all(rig: &mut Rig) -> usize {
    let plan = rig.plan();
    let closes = retires(&plan);
    for retire in &closes {
        rig.clients.retain(|client| client.row.key != retire.key);
        rig.retired(retire, Retired::Closed);
    }
    closes.len()
}

#[test]
fn a_group_is_closed_by_threes_until_it_is_seen_to_come_back() {
    let mut rig = ten();
    assert_eq!(close_all(&mut rig), 3);
    rig.wait(millis(100)).look();
    let plan = rig.plan();
    assert_eq!(retires(&plan).len(), 0);
    assert_eq!(held(&plan, &rig.clients[0]), Some(Reason::Breaker));
    // One returns: the group is known to come back.
    rig.client("write", "a", millis(50));
    rig.wait(millis(100)).look();
    assert_eq!(close_all(&mut rig), 7);
}

#[test]
fn a_client_that_is_back_before_the_close_is_reported_has_come_back() {
    let mut rig = ten();
    let plan = rig.plan();
    let closes: Vec<_> = retires(&plan).into_iter().cloned().collect();
    rig.wait(millis(20));
    for _ in &closes {
        rig.client("write", "a", millis(5));
    }
    rig.wait(millis(20));
    for retire in &closes {
        rig.clients.retain(|client| client.row.key != retire.key);
        rig.retired(retire, Retired::Closed);
    }
    rig.pass(secs(30));
    assert_eq!(rig.planner.take_paused_groups(), []);
}

/// Ten due sessions of a group that returned at once after each of three closes.
fn ten_of_prompt_clients() -> Rig {
    let mut rig = ten();
    assert_eq!(close_all(&mut rig), 3);
    for _ in 0..3 {
        rig.client("write", "a", millis(50));
    }
    rig.wait(millis(100)).look();
    rig.plan();
    rig.clients.clear();
    for _ in 0..10 {
        rig.client("write", "a", PAST);
    }
    rig.wait(millis(100)).look();
    rig
}

#[test]
fn a_pool_that_reconnects_at_its_next_use_is_no_evidence() {
    let mut rig = Rig::new(policy());
    for _ in 0..20 {
        rig.client("write", "a", PAST);
    }
    rig.look();
    let mut closed = close_all(&mut rig);
    assert_eq!(closed, 3, "a trial");
    for _ in 0..30 {
        rig.wait(secs(1)).probe();
        rig.look();
        closed += close_all(&mut rig);
    }
    assert_eq!(closed, 20);
    assert_eq!(rig.planner.take_paused_groups(), []);
}

#[test]
fn a_paused_group_stays_paused_under_the_next_planner() {
    let mut rig = ten_of_prompt_clients();
    assert!(close_all(&mut rig) >= 3);
    rig.client("write", "a", PAST);
    rig.pass(secs(11));
    assert_eq!(rig.planner.take_paused_groups().len(), 1);
    let earlier = std::mem::replace(&mut rig.planner, Planner::new(policy(), &support::servers()));
    rig.planner.inherit(earlier);
    let plan = rig.pass(secs(1));
    assert_eq!(retires(&plan).len(), 0);
    assert_eq!(rig.planner.breaker().open().count(), 1);
    rig.planner.resume();
    rig.probe();
    rig.look();
    assert!(!retires(&rig.plan()).is_empty());
}

#[test]
fn clients_that_returned_at_once_and_no_longer_do_are_paused_loudly_and_get_a_trial_later() {
    let mut rig = ten_of_prompt_clients();
    assert!(close_all(&mut rig) >= 3);
    for _ in 0..5 {
        rig.client("write", "a", PAST);
    }
    rig.pass(secs(11));
    let paused = rig.planner.take_paused_groups();
    assert_eq!(paused.len(), 1);
    assert_eq!(&*paused[0].user, "app");
    for _ in 0..280 {
        let plan = rig.pass(secs(1));
        assert_eq!(retires(&plan).len(), 0);
    }
    let mut trials = 0;
    for _ in 0..30 {
        rig.wait(secs(1));
        rig.probe();
        rig.look();
        trials += close_all(&mut rig);
    }
    assert_eq!(trials, 1);
    // It comes back this time: the pause is over.
    rig.client("write", "a", millis(10));
    rig.wait(secs(1)).look();
    rig.plan();
    assert_eq!(rig.planner.breaker().open().count(), 0);
}

#[test]
fn one_session_alone_need_not_come_back() {
    let mut rig = Rig::new(policy());
    rig.client("write", "a", PAST);
    rig.look();
    assert_eq!(close_all(&mut rig), 1);
    rig.pass(secs(30));
    assert_eq!(rig.planner.breaker().open().count(), 0);
    assert_eq!(rig.planner.take_paused_groups(), []);
}

#[test]
fn nobody_is_missed_while_nobody_can_be_seen() {
    let mut rig = ten();
    assert_eq!(close_all(&mut rig), 3);
    // The table cannot be read: a return would not be seen.
    for _ in 0..60 {
        rig.wait(secs(1)).probe();
        rig.admin();
        let plan = rig.plan();
        assert!(plan.poll.contains(&instance("a")), "asked for");
    }
    assert_eq!(rig.planner.take_paused_groups(), []);
}

/// A replica that is alive and cannot be listed: who came back to it is not seen.
#[test]
fn a_group_that_came_back_once_is_not_closed_without_end_while_returns_cannot_be_seen() {
    let mut rig = ten();
    assert_eq!(close_all(&mut rig), 3);
    for _ in 0..3 {
        rig.client("write", "a", millis(50));
    }
    rig.wait(millis(100)).look();
    rig.plan();
    rig.clients.clear();
    let mut closed = 0;
    for _ in 0..100 {
        rig.client("write", "a", PAST);
        rig.wait(secs(1)).probe();
        rig.poll_all_but("c");
        rig.sweep();
        rig.admin();
        closed += close_all(&mut rig);
    }
    assert!((3..=15).contains(&closed), "{closed}");
}
