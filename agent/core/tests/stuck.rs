//! Sessions that cannot be closed, and a login budget that is too small for all of them.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use agent_core::plan::{HoldReason as Reason, Mode, Policy, Retired};
use support::{Rig, held, millis, policy, retires, secs};

/// In seconds: past a limit of 14 minutes.
const PAST: u64 = 841;

/// Three sessions past their limit; the first is the oldest.
fn three() -> Rig {
    let mut rig = Rig::new(policy());
    for older in [3, 2, 1] {
        rig.client("write", "a", secs(PAST + 60 * older));
    }
    rig.look();
    rig
}

#[test]
fn a_missing_right_stops_closing_on_that_instance_for_a_while() {
    let mut rig = three();
    let plan = rig.plan();
    let closes = retires(&plan);
    assert_eq!(closes.len(), 3);
    for retire in closes {
        rig.retired(retire, Retired::Denied);
    }
    rig.client("write", "a", secs(PAST));
    rig.pass(secs(2));
    let plan = rig.plan();
    assert_eq!(retires(&plan).len(), 0);
    assert_eq!(held(&plan, &rig.clients[0]), Some(Reason::Denied));
    assert_eq!(held(&rig.plan(), &rig.clients[3]), Some(Reason::Denied), "whatever the session");
    let plan = rig.pass(secs(60));
    assert!(!retires(&plan).is_empty() || held(&rig.plan(), &rig.clients[3]).is_none(), "tried again");
}

#[test]
fn a_session_that_cannot_be_closed_does_not_keep_others_from_their_turn() {
    for failure in [Retired::Denied, Retired::Failed] {
        let mut rig = three();
        let stuck = rig.clients[0].row.key;
        let (mut tries, mut closed) = (0, 0);
        for _ in 0..100 {
            let plan = rig.plan();
            for retire in retires(&plan) {
                if retire.key == stuck {
                    tries += 1;
                    rig.retired(retire, failure);
                } else {
                    closed += 1;
                    rig.clients.retain(|client| client.row.key != retire.key);
                    rig.retired(retire, Retired::Closed);
                }
            }
            rig.wait(millis(500)).probe();
            rig.look();
        }
        assert_eq!(closed, 2, "{failure:?}");
        assert!((4..=7).contains(&tries), "{failure:?}: {tries} tries in 50 s");
        let reason = if failure == Retired::Denied { Reason::Denied } else { Reason::CloseFailed };
        assert_eq!(held(&rig.plan(), &rig.clients[0]), Some(reason));
    }
}

#[test]
fn a_session_that_is_still_there_after_its_close_pauses_no_client() {
    let mut rig = three();
    let (mut tries, mut held_as_failed) = (0, false);
    for _ in 0..100 {
        let plan = rig.plan();
        held_as_failed |= held(&plan, &rig.clients[0]) == Some(Reason::CloseFailed);
        for retire in retires(&plan) {
            // The database accepts the order, and the session stays.
            tries += 1;
            rig.retired(retire, Retired::Closed);
        }
        rig.wait(secs(1)).probe();
        rig.look();
    }
    assert_eq!(rig.planner.take_paused_groups(), []);
    assert!(held_as_failed && (3..=24).contains(&tries), "{tries} tries of three sessions in 100 s");
}

#[test]
fn a_budget_that_is_too_small_for_max_age_is_reported_with_one_that_is_enough() {
    let mut rig = Rig::new(Policy { login_budget: 2, max_age: secs(100), ..policy() });
    for _ in 0..100 {
        rig.client("write", "a", secs(1));
    }
    rig.look();
    assert_eq!(rig.plan().shortages, [], "one close per second for 100 sessions in 100 s");
    for _ in 0..50 {
        rig.client("write", "a", secs(1));
    }
    rig.look();
    let shortages = rig.plan().shortages;
    assert_eq!(shortages.len(), 1);
    assert_eq!((shortages[0].sessions, shortages[0].login_budget), (150, 3));
    assert!((shortages[0].needed_per_s - 1.5).abs() < 1e-9 && shortages[0].allowed_per_s < 1.1);
    let mut observing =
        Rig::new(Policy { mode: Mode::Observe, login_budget: 2, max_age: secs(10), ..policy() });
    observing.client("write", "a", secs(1));
    observing.look();
    assert_eq!(observing.plan().shortages, []);
}
