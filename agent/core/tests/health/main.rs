//! The rules of health, one sentence each: observations in, verdicts out.
//!
//! - `routing`: the hard cases of which server gets new sessions.
//! - `released`: what becomes of servers that are down when the agent is paused, stops or starts anew.
//! - `siblings`: for which siblings a server is taken out. `lasting`: what counts for how long.

mod lasting;
mod released;
mod routing;
mod setup;
mod siblings;

use std::time::Duration;

use agent_core::{
    Fault, FaultKind, Phase, ProxyIndex, ServerId,
    health::{HealthRules, Observation, OnAuthFailure, RoleFacts, State, VerdictReason as Reason},
};
use setup::{Setup, instance, role, setup, setup_with};

#[test]
fn nothing_is_said_of_an_instance_that_nothing_is_known_of() {
    let mut setup = setup(&["a"]);
    for backend in ["write", "read", "any"] {
        setup.expect(backend, "a", State::Unknown, Reason::NotProbedYet);
    }
}

#[test]
fn each_instance_serves_the_backend_of_its_role() {
    let mut setup = setup(&["a", "b"]);
    setup.writer("a").reader("b");
    setup.expect("write", "a", State::Up, Reason::Proved).expect(
        "write",
        "b",
        State::Down,
        Reason::NotWriter,
    );
    setup.expect("read", "b", State::Up, Reason::Proved).expect("read", "a", State::Down, Reason::NotReader);
    setup.expect("any", "a", State::Up, Reason::Proved).expect("any", "b", State::Up, Reason::Proved);
}

#[test]
fn a_primary_with_read_only_transactions_is_not_the_writer() {
    let mut setup = setup(&["a"]);
    let facts = RoleFacts { read_only: true, ..role(false, None) };
    setup.tell("a", true, Ok(facts)).expect("write", "a", State::Down, Reason::NotWriter);
}

#[test]
fn the_writer_serves_reads_when_no_reader_is_left() {
    let mut setup = setup(&["a", "b"]);
    setup.writer("a").reader("b").refuses_connections("b");
    setup.expect("read", "a", State::Up, Reason::WriterServesReads);
    setup.expect("read", "b", State::Down, Reason::Refusing);
}

#[test]
fn a_demoted_writer_is_out_at_its_first_word_of_it() {
    let mut setup = setup(&["a", "b"]);
    setup.writer("a").reader("b").alive("a", true);
    setup.expect("write", "a", State::Down, Reason::NotWriter);
}

#[test]
fn one_refusal_takes_nothing_away() {
    let mut setup = setup(&["a"]);
    setup.writer("a").login_fails("a", Phase::Tcp, FaultKind::ConnectionRefused);
    setup.expect("write", "a", State::Up, Reason::Proved);
}

#[test]
fn two_refusals_of_one_moment_are_one() {
    let mut setup = setup(&["a"]);
    setup.writer("a");
    for _ in 0..5 {
        setup.login_fails("a", Phase::Tcp, FaultKind::ConnectionRefused);
    }
    setup.expect("write", "a", State::Up, Reason::Proved);
    setup.wait(250).login_fails("a", Phase::Tcp, FaultKind::ConnectionRefused);
    setup.expect("write", "a", State::Down, Reason::Refusing);
}

#[test]
fn a_broken_connection_and_a_refused_one_after_it_prove_the_instance_down() {
    let mut setup = setup(&["a"]);
    let fault = Fault::new(Phase::Query, FaultKind::Disconnected, "for the test");
    setup.writer("a").tell("a", false, Err(fault));
    setup.login_fails("a", Phase::Login, FaultKind::StartingUp);
    setup.expect("write", "a", State::Down, Reason::Refusing);
    setup.writer("a").expect("write", "a", State::Up, Reason::Proved);
}

#[test]
fn one_that_refused_and_went_silent_is_still_down_for_a_while_and_not_for_ever() {
    let mut setup = setup(&["a"]);
    setup.writer("a").refuses_connections("a").silent("a", 30);
    setup.expect("write", "a", State::Down, Reason::Refusing);
    setup.silent("a", 40).expect("write", "a", State::Up, Reason::NothingAgainst);
}

#[test]
fn an_accepted_connection_ends_a_refusal_even_if_the_agent_cannot_go_on() {
    let mut setup = setup(&["a"]);
    setup.writer("a").refuses_connections("a");
    setup.login_fails("a", Phase::Tls, FaultKind::CertificateInvalid);
    setup.expect("write", "a", State::Up, Reason::NothingAgainst);
}

#[test]
fn an_instance_that_comes_back_and_refuses_the_agent_only_is_not_down() {
    let mut setup = setup(&["a"]);
    setup.refuses_connections("a").expect("write", "a", State::Down, Reason::Refusing);
    setup.refuses_login("a").expect("write", "a", State::Up, Reason::NothingAgainst);
}

#[test]
fn a_silent_writer_alone_is_kept() {
    let mut setup = setup(&["a", "b"]);
    setup.writer("a").reader("b").silent("a", 50).reader("b");
    setup.expect("write", "a", State::Up, Reason::SilentKept);
    setup.silent("a", 1_000).reader("b").expect("write", "a", State::Unknown, Reason::RoleUnproved);
}

#[test]
fn a_silent_writer_is_down_once_another_has_proved_itself_since() {
    let mut setup = setup(&["a", "b"]);
    setup.writer("a").reader("b").silent("a", 2).writer("b");
    setup.expect("write", "a", State::Up, Reason::ConflictKept);
    setup.expect("write", "b", State::Down, Reason::Conflict);
    setup.silent("a", 1).expect("write", "a", State::Down, Reason::Superseded);
    setup.expect("write", "b", State::Up, Reason::Proved);
}

#[test]
fn an_old_writer_that_comes_back_does_not_supersede_a_new_one_that_stalls() {
    let mut setup = setup(&["a", "b"]);
    setup.writer_on("b", 5).silent("b", 5).writer_on("a", 4);
    setup.expect("write", "b", State::Up, Reason::SilentKept);
    setup.expect("write", "a", State::Down, Reason::StaleWriter);
}

#[test]
fn a_silent_reader_is_down_after_three_misses_while_a_sibling_is_usable() {
    let mut setup = setup(&["a", "b", "c"]);
    setup.writer("a").reader("b").reader("c").silent("b", 2);
    setup.expect("read", "b", State::Up, Reason::SilentKept);
    setup.silent("b", 1).expect("read", "b", State::Down, Reason::Silent);
}

#[test]
fn silence_of_everything_takes_nothing_away() {
    let mut setup = setup(&["a", "b", "c"]);
    setup.writer("a").reader("b").reader("c");
    setup.silent("a", 9).silent("b", 9).silent("c", 9);
    setup.expect("write", "a", State::Up, Reason::SilentKept);
    setup.expect("read", "b", State::Up, Reason::SilentKept);
    setup.expect("read", "c", State::Up, Reason::SilentKept);
}

#[test]
fn refused_logins_everywhere_are_the_agents_own_trouble() {
    let mut setup = setup(&["a", "b"]);
    setup.writer("a").reader("b").refuses_logins("a").refuses_logins("b");
    setup.expect("write", "a", State::Up, Reason::AuthIllKept);
    setup.expect("read", "b", State::Up, Reason::AuthIllKept);
}

#[test]
fn a_blocked_address_drains_a_server_only_while_a_sibling_takes_logins_from_it() {
    for on_auth_failure in [OnAuthFailure::Auto, OnAuthFailure::Down] {
        let rules = HealthRules { on_auth_failure, ..HealthRules::default() };
        let mut setup = setup_with(&["a", "b", "c"], &rules, &[]);
        setup.writer("a").reader("b").reader("c").login_fails("b", Phase::Login, FaultKind::HostBlocked);
        setup.expect("read", "b", State::Up, Reason::HostBlockedKept);
        setup.reader("c").expect("read", "b", State::Drain, Reason::HostBlocked);
        // A kept connection outlives the block, and says nothing of new ones.
        setup.alive("b", true).expect("read", "b", State::Drain, Reason::HostBlocked);
        setup.reader("b").expect("read", "b", State::Up, Reason::Proved);
    }
}

#[test]
fn an_address_that_is_blocked_everywhere_takes_no_server_away() {
    let mut setup = setup(&["a", "b"]);
    setup.writer("a").reader("b");
    for name in ["a", "b"] {
        setup.login_fails(name, Phase::Login, FaultKind::HostBlocked);
    }
    setup.expect("write", "a", State::Up, Reason::HostBlockedKept);
    setup.expect("read", "b", State::Up, Reason::HostBlockedKept);
}

#[test]
fn a_login_that_is_refused_came_past_the_block() {
    let mut setup = setup(&["a", "b"]);
    setup.reader("a").reader("b").login_fails("b", Phase::Login, FaultKind::HostBlocked).refuses_login("b");
    setup.expect("read", "b", State::Up, Reason::AuthIllKept);
    assert_eq!(setup.fleet().instances[&instance("b")].host_blocked_since, None);
}

#[test]
fn a_token_the_agent_cannot_make_says_nothing_of_the_database() {
    for on_auth_failure in [OnAuthFailure::Auto, OnAuthFailure::Down] {
        let rules = HealthRules { on_auth_failure, ..HealthRules::default() };
        let mut setup = setup_with(&["a", "b", "c"], &rules, &[]);
        setup.writer("a").reader("b").reader("c");
        setup.login_fails("b", Phase::Login, FaultKind::NoToken).reader("c");
        setup.expect("read", "b", State::Up, Reason::AuthIllKept);
    }
}

#[test]
fn the_operator_may_choose_to_keep_or_to_take_down_what_refuses_logins() {
    let rules = |on_auth_failure| HealthRules { on_auth_failure, ..HealthRules::default() };
    let mut kept = setup_with(&["a", "b"], &rules(OnAuthFailure::Keep), &[]);
    kept.reader("a").reader("b").refuses_logins("a").reader("b");
    kept.expect("read", "a", State::Up, Reason::AuthIllKept);
    let mut down = setup_with(&["a", "b"], &rules(OnAuthFailure::Down), &[]);
    down.reader("a").reader("b").refuses_login("a");
    down.expect("read", "a", State::Up, Reason::AuthIllKept);
    down.refuses_logins("a").expect("read", "a", State::Down, Reason::AuthRefused);
}

#[test]
fn the_last_writer_keeps_its_role_beside_a_promoted_replica_on_a_higher_timeline() {
    let mut setup = setup(&["a", "b"]);
    setup.writer_on("a", 3).writer_on("b", 4);
    setup.expect("write", "a", State::Up, Reason::ConflictKept);
    setup.expect("write", "b", State::Down, Reason::Conflict);
    assert!(setup.fleet().instances[&instance("a")].conflict);
}

#[test]
fn the_higher_timeline_decides_once_the_last_writer_is_gone() {
    let mut setup = setup(&["a", "b", "c"]);
    setup.writer_on("a", 3).reader("b").reader("c").refuses_connections("a");
    setup.writer_on("b", 4).writer_on("c", 5);
    setup.expect("write", "b", State::Up, Reason::ConflictKept);
    setup.silent("b", 3).expect("write", "c", State::Up, Reason::Proved);
}

#[test]
fn a_promoted_replica_takes_no_writes_while_the_last_writer_is_away() {
    let mut setup = setup(&["a", "b"]);
    setup.writer_on("a", 3).writer_on("b", 4);
    for _ in 0..4 {
        setup.wait(1_000).writer_on("a", 3).writer_on("b", 4);
    }
    setup.refuses_connections("a").writer_on("b", 4);
    setup.expect("write", "a", State::Down, Reason::Refusing);
    setup.expect("write", "b", State::Down, Reason::Conflict);
    setup.writer_on("a", 3).expect("write", "a", State::Up, Reason::ConflictKept);
    // It says itself that it is no writer any more, or an operator says so.
    setup.tell("a", true, Ok(role(true, Some(4)))).expect("write", "b", State::Up, Reason::Proved);
}

#[test]
fn an_operator_may_choose_the_promoted_replica_while_the_last_writer_is_away() {
    let mut setup = setup(&["a", "b"]);
    setup.writer("a").writer("b").wait(5_000).writer("a").writer("b").refuses_connections("a");
    setup.expect("write", "b", State::Down, Reason::Conflict);
    assert!(setup.health.choose_writer(&instance("b")));
    setup.writer("b").expect("write", "b", State::Up, Reason::Proved);
}

#[test]
fn a_promoted_replica_that_misses_an_answer_does_not_outrank_the_last_writer() {
    let mut setup = setup(&["a", "b"]);
    setup.writer_on("a", 3).writer_on("b", 4).silent("b", 1);
    setup.expect("write", "a", State::Up, Reason::ConflictKept);
    setup.expect("write", "b", State::Down, Reason::Conflict);
}

#[test]
fn a_writer_that_only_has_not_lost_its_claim_yet_deposes_no_newer_one() {
    let mut setup = setup(&["a", "b", "c"]);
    setup.writer("a").reader("b").reader("c").silent("a", 1).writer("b");
    setup.expect("write", "b", State::Down, Reason::Conflict);
    // The new writer restarts while the old one may still be the writer for all that is known.
    setup.refuses_connections("b").silent("a", 3);
    setup.writer("b").expect("write", "b", State::Up, Reason::Proved);
}

#[test]
fn a_former_writer_stays_out_while_the_new_one_restarts() {
    let mut setup = setup(&["a", "b"]);
    setup.writer("a").reader("b").silent("a", 4).writer("b").expect("write", "b", State::Up, Reason::Proved);
    setup.refuses_connections("b");
    setup.expect("write", "b", State::Down, Reason::Refusing);
    setup.expect("write", "a", State::Down, Reason::Superseded);
}

#[test]
fn of_two_writers_that_cannot_be_told_apart_the_last_known_one_is_held_loudly() {
    let mut setup = setup(&["a", "b"]);
    setup.writer("a").reader("b").expect("write", "a", State::Up, Reason::Proved);
    setup.writer("b");
    setup.expect("write", "a", State::Up, Reason::ConflictKept);
    setup.expect("write", "b", State::Down, Reason::Conflict);
    assert!(setup.fleet().instances[&instance("a")].conflict);
    assert!(setup.fleet().instances[&instance("b")].conflict);
}

#[test]
fn a_timeline_that_only_one_of_two_tells_decides_nothing() {
    let mut setup = setup(&["a", "b"]);
    setup.writer("a").expect("write", "a", State::Up, Reason::Proved);
    setup.writer_on("b", 9).expect("write", "a", State::Up, Reason::ConflictKept);
}

#[test]
fn where_nothing_tells_which_of_two_new_writers_is_right_nothing_changes() {
    let mut setup = setup(&["a", "b", "c"]);
    setup.writer("a").reader("b").reader("c").silent("a", 5);
    let both = [("b", false), ("c", false)];
    setup.wait(1);
    for (name, in_recovery) in both {
        let result = Ok(role(in_recovery, None));
        setup.health.observe(&Observation { instance: instance(name), at: setup.now, login: true, result });
    }
    for name in ["b", "c"] {
        setup.expect("write", name, State::Unknown, Reason::Undecided);
    }
    assert!(setup.health.choose_writer(&instance("c")));
    setup.expect("write", "c", State::Up, Reason::ConflictKept);
    setup.expect("write", "b", State::Down, Reason::Conflict);
}

#[test]
fn a_replica_too_far_behind_waits_while_another_can_serve() {
    let rules = HealthRules { max_lag: Some(Duration::from_secs(10)), ..HealthRules::default() };
    let mut setup = setup_with(&["a", "b"], &rules, &[]);
    setup.writer("a").lagging("b", 11);
    setup.expect("read", "b", State::Down, Reason::Lagging);
    setup.expect("read", "a", State::Up, Reason::WriterServesReads);
    setup.lagging("b", 9).expect("read", "b", State::Down, Reason::Lagging);
    setup.lagging("b", 7).expect("read", "b", State::Up, Reason::Proved);
    setup.lagging("b", 9).expect("read", "b", State::Up, Reason::Proved);
}

#[test]
fn a_replica_too_far_behind_is_better_than_none() {
    let rules = HealthRules { max_lag: Some(Duration::from_secs(10)), ..HealthRules::default() };
    let mut setup = setup_with(&["b"], &rules, &[]);
    setup.lagging("b", 60).expect("read", "b", State::Up, Reason::Proved);
}

#[test]
fn an_old_answer_proves_no_role() {
    let mut setup = setup(&["a", "b"]);
    setup.writer("a").reader("b").expect("write", "b", State::Down, Reason::NotWriter);
    for _ in 0..7 {
        setup.wait(10_000).has_no_token("a").has_no_token("b");
    }
    for (backend, name) in [("write", "a"), ("write", "b"), ("read", "b")] {
        setup.expect(backend, name, State::Unknown, Reason::RoleUnproved);
    }
}

#[test]
fn an_old_answer_does_not_keep_the_old_writer_beside_a_new_one() {
    let mut setup = setup(&["a", "b"]);
    setup.writer("a").reader("b");
    for _ in 0..7 {
        setup.wait(10_000).has_no_token("a").alive("b", true);
    }
    setup.expect("write", "a", State::Unknown, Reason::RoleUnproved);
    setup.alive("b", false).expect("write", "a", State::Down, Reason::Superseded);
    setup.expect("write", "b", State::Up, Reason::Proved);
}

#[test]
fn a_verdict_tells_since_when_its_state_lasts() {
    let mut setup = setup(&["a"]);
    let began = setup.writer("a").now;
    let since = |setup: &mut Setup| setup.fleet().servers[&ServerId::new(ProxyIndex(0), "write", "a")].since;
    assert_eq!(since(&mut setup), began);
    setup.silent("a", 5);
    assert_eq!(since(&mut setup), began, "still up, for another reason");
    let ended = setup.alive("a", true).now;
    assert_eq!(since(&mut setup), ended);
}

#[test]
fn clients_can_come_back_only_where_the_agents_own_login_lately_worked() {
    let accepts = |setup: &mut Setup| {
        let fleet = setup.fleet();
        fleet.instances[&instance("a")].accepts_logins(setup.now)
    };
    let mut setup = setup(&["a"]);
    setup.alive("a", false);
    assert!(!accepts(&mut setup), "a query proves no login");
    setup.writer("a");
    assert!(accepts(&mut setup));
    setup.login_fails("a", Phase::Login, FaultKind::TimedOut).alive("a", false);
    assert!(!accepts(&mut setup), "logins time out, whatever the kept connection says");
    setup.writer("a");
    assert!(accepts(&mut setup));
    setup.login_fails("a", Phase::Login, FaultKind::OverBudget);
    assert!(accepts(&mut setup), "a login that was not tried has not failed");
    setup.wait(91_000).alive("a", false);
    assert!(!accepts(&mut setup), "the proof is old");
}

#[test]
fn all_agents_together_ask_about_fifty_times_a_second() {
    let mut setup = setup(&["a", "b"]);
    setup.writer("a").reader("b");
    assert_eq!(setup.health.cadence(&instance("a")), Duration::from_millis(250));
    assert_eq!(setup.health.cadence(&instance("b")), Duration::from_secs(1));
    setup.tell("a", false, Ok(RoleFacts { agents: 100, ..role(false, None) }));
    assert_eq!(setup.health.cadence(&instance("a")), Duration::from_secs(2));
}
