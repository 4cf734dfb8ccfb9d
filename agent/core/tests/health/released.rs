//! What becomes of servers that are down when the agent is paused, stops or starts anew.

use agent_core::health::{HealthRules, ReaderFallback, Remembered, Role};

use super::*;

fn server(backend: &str, name: &str) -> ServerId {
    ServerId::new(ProxyIndex(0), backend, name)
}

/// The servers that are down, and whether for their role.
fn downs(setup: &mut Setup) -> Vec<(String, bool)> {
    setup.fleet();
    let name = |id: &ServerId| format!("{}/{}", id.backend, id.server);
    let mut downs: Vec<_> =
        setup.health.downs().iter().map(|down| (name(&down.server), down.by_role)).collect();
    downs.sort();
    downs
}

#[test]
fn a_released_reader_comes_up_and_goes_down_again_afterwards() {
    let mut setup = setup(&["a", "b", "c"]);
    setup.writer("a").reader("b").reader("c").refuses_connections("b");
    setup.expect("read", "b", State::Down, Reason::Refusing);
    setup.wait(5_000);
    setup.health.release(true);
    setup.expect("read", "b", State::Up, Reason::Released);
    let verdict = setup.fleet().servers[&server("read", "b")];
    assert_eq!(verdict.since, setup.now, "up since now, not since it went down");
    setup.expect("any", "b", State::Up, Reason::Released);
    setup.expect("read", "a", State::Up, Reason::Released);
    setup.expect("write", "b", State::Down, Reason::Refusing);
    setup.expect("write", "c", State::Down, Reason::NotWriter);
    setup.health.release(false);
    setup.expect("read", "b", State::Down, Reason::Refusing);
    setup.expect("read", "a", State::Down, Reason::NotReader);
}

#[test]
fn a_writer_that_never_serves_reads_is_not_released_among_the_readers() {
    let rules = HealthRules { reader_fallback: ReaderFallback::None, ..HealthRules::default() };
    let mut setup = setup_with(&["a", "b"], &rules, &[]);
    setup.writer("a").reader("b").refuses_connections("b");
    setup.expect("read", "a", State::Down, Reason::NotReader);
    assert!(downs(&mut setup).contains(&("read/a".to_owned(), true)), "it is for the role");
    setup.health.release(true);
    setup.expect("read", "a", State::Down, Reason::NotReader);
    setup.expect("read", "b", State::Up, Reason::Released);
}

#[test]
fn of_a_writer_backend_only_the_last_writer_is_released() {
    let mut setup = setup(&["a", "b"]);
    setup.writer("a").reader("b").refuses_connections("a").expect(
        "write",
        "a",
        State::Down,
        Reason::Refusing,
    );
    setup.health.release(true);
    setup.expect("write", "a", State::Up, Reason::Released);
    setup.expect("write", "b", State::Down, Reason::NotWriter);
    // After the failover, the place is the new writer's.
    setup.writer("b").expect("write", "a", State::Down, Reason::Refusing);
    setup.expect("write", "b", State::Up, Reason::Proved);
}

#[test]
fn the_record_of_downs_says_which_are_for_the_role() {
    let mut setup = setup(&["a", "b"]);
    setup.writer("a").reader("b").refuses_connections("b");
    let down = |name: &str, by_role| (name.to_owned(), by_role);
    assert_eq!(downs(&mut setup), [down("any/b", false), down("read/b", false), down("write/b", true)]);
}

#[test]
fn a_server_left_down_comes_up_a_minute_later_if_it_cannot_be_asked() {
    let memory = Remembered {
        database: "orders".into(),
        instance: "b".into(),
        role: Role::Reader,
        timeline: None,
        last_writer: false,
        another_database: false,
    };
    let mut setup = setup_with(&["a", "b"], &HealthRules::default(), &[memory]);
    let left = [server("read", "b"), server("write", "b"), server("any", "a")];
    setup.health.observe_left_down(left, setup.now);
    setup.expect("read", "b", State::Up, Reason::LastKnown).expect(
        "any",
        "a",
        State::Unknown,
        Reason::NotProbedYet,
    );
    assert_eq!(downs(&mut setup).len(), 3, "nothing has been sent for them yet");
    for _ in 0..7 {
        for name in ["a", "b"] {
            setup.wait(5_000).login_fails(name, Phase::Dns, FaultKind::NameNotResolved);
        }
    }
    for _ in 0..2 {
        setup.expect("read", "b", State::Up, Reason::NothingAgainst);
        setup.expect("any", "a", State::Up, Reason::NothingAgainst);
    }
    setup.expect("write", "b", State::Unknown, Reason::NotProbedYet);
}

#[test]
fn a_server_left_down_is_judged_by_what_is_observed_of_it() {
    let mut setup = setup(&["a", "b"]);
    setup.health.observe_left_down([server("read", "b")], setup.now);
    setup.writer("a").refuses_connections("b").expect("read", "b", State::Down, Reason::Refusing);
    setup.reader("b").expect("read", "b", State::Up, Reason::Proved);
    setup.wait(120_000).writer("a").reader("b").expect("read", "b", State::Up, Reason::Proved);
}
