//! A server is taken out only for a sibling that answers, is open at the proxy, and accepts logins.

use super::*;

#[test]
fn the_writer_takes_reads_while_persons_have_set_the_readers_aside() {
    let mut setup = setup(&["a", "b"]);
    setup.writer("a").reader("b").expect("read", "a", State::Down, Reason::NotReader);
    setup.closed(&[("read", "b")]).expect("read", "a", State::Up, Reason::WriterServesReads);
    setup.expect("read", "b", State::Up, Reason::Proved);
    setup.closed(&[]).expect("read", "a", State::Down, Reason::NotReader);
}

#[test]
fn a_reader_set_aside_in_another_backend_is_a_reader_still() {
    let mut setup = setup(&["a", "b"]);
    setup.writer("a").reader("b").closed(&[("any", "b"), ("write", "b")]);
    setup.expect("read", "a", State::Down, Reason::NotReader);
}

#[test]
fn a_silent_reader_is_kept_while_persons_have_set_its_siblings_aside() {
    let mut setup = setup(&["b", "c"]);
    setup.reader("b").reader("c").silent("b", 3).reader("c").expect("read", "b", State::Down, Reason::Silent);
    setup.closed(&[("read", "c")]).expect("read", "b", State::Up, Reason::SilentKept);
}

#[test]
fn a_replica_too_far_behind_serves_while_persons_have_set_its_siblings_aside() {
    let rules = HealthRules { max_lag: Some(Duration::from_secs(10)), ..HealthRules::default() };
    let mut setup = setup_with(&["b", "c"], &rules, &[]);
    setup.lagging("b", 60).reader("c").expect("read", "b", State::Down, Reason::Lagging);
    setup.closed(&[("read", "c")]).expect("read", "b", State::Up, Reason::Proved);
}

#[test]
fn of_two_writers_the_last_known_one_is_not_held_while_it_is_set_aside() {
    let mut setup = setup(&["a", "b"]);
    setup.writer("a").expect("write", "a", State::Up, Reason::Proved);
    setup.writer("b").expect("write", "b", State::Down, Reason::Conflict);
    // Nothing changes: sending some sessions to each would split the data.
    setup.closed(&[("write", "a")]).expect("write", "b", State::Unknown, Reason::Undecided);
}

#[test]
fn the_writer_takes_reads_while_the_readers_refuse_logins() {
    let mut setup = setup(&["a", "b"]);
    setup.writer("a").reader("b").refuses_login("b").writer("a");
    setup.expect("read", "a", State::Up, Reason::WriterServesReads);
    setup.wait(5_000).refuses_login("b").writer("a");
    setup.expect("read", "b", State::Drain, Reason::AuthRefused);
    setup.expect("read", "a", State::Up, Reason::WriterServesReads);
    setup.reader("b").reader("b").expect("read", "a", State::Down, Reason::NotReader);
}

#[test]
fn an_old_writer_that_hangs_takes_no_reads_beside_the_new_one() {
    let mut setup = setup(&["a", "b"]);
    setup.writer("a").reader("b").silent("a", 4).writer("b");
    setup.expect("read", "b", State::Up, Reason::WriterServesReads);
    setup.expect("read", "a", State::Down, Reason::Silent);
}

#[test]
fn a_writer_that_hangs_takes_no_reads_beside_readers_that_refuse_the_agents_logins() {
    let mut setup = setup(&["a", "b"]);
    setup.writer("a").reader("b").silent("a", 4).refuses_logins("b");
    setup.expect("read", "b", State::Up, Reason::AuthIllKept);
    setup.expect("read", "a", State::Down, Reason::Silent);
}

#[test]
fn the_writer_takes_no_reads_while_the_readers_refuse_only_the_agents_logins() {
    let mut setup = setup(&["a", "b"]);
    setup.writer("a").reader("b").refuses_logins("b");
    setup.expect("read", "a", State::Up, Reason::WriterServesReads);
    let now = setup.wait(100).now;
    setup.health.observe_client_login(&instance("b"), now);
    setup.expect("read", "a", State::Down, Reason::NotReader);
    setup.expect("read", "b", State::Up, Reason::AuthIllKept);
}

#[test]
fn the_writer_takes_reads_while_the_readers_block_the_address() {
    let mut setup = setup(&["a", "b"]);
    setup.writer("a").reader("b").login_fails("b", Phase::Login, FaultKind::HostBlocked);
    setup.expect("read", "a", State::Up, Reason::WriterServesReads);
}

#[test]
fn logins_that_are_refused_everywhere_change_no_roles() {
    let mut setup = setup(&["a", "b"]);
    setup.writer("a").reader("b").refuses_logins("b").refuses_logins("a");
    setup.expect("read", "a", State::Down, Reason::NotReader);
    setup.expect("read", "b", State::Up, Reason::AuthIllKept);
}

#[test]
fn where_refused_logins_take_a_server_down_nobody_steps_aside_for_one_that_refuses() {
    let rules = HealthRules { on_auth_failure: OnAuthFailure::Down, ..HealthRules::default() };
    let mut setup = setup_with(&["a", "b"], &rules, &[]);
    setup.writer("a").reader("b").refuses_logins("b").refuses_login("a");
    setup.expect("read", "b", State::Down, Reason::AuthRefused);
    setup.expect("read", "a", State::Up, Reason::AuthIllKept);
}

#[test]
fn a_token_the_agent_cannot_make_changes_no_roles() {
    let mut setup = setup(&["a", "b"]);
    setup.writer("a").reader("b").has_no_token("b");
    setup.expect("read", "a", State::Down, Reason::NotReader);
    setup.expect("read", "b", State::Up, Reason::AuthIllKept);
}

#[test]
fn refused_logins_drain_a_server_once_a_sibling_has_accepted_one_since() {
    let mut setup = setup(&["a", "b", "c"]);
    setup.writer("a").reader("b").reader("c").refuses_logins("b");
    setup.expect("read", "b", State::Up, Reason::AuthIllKept);
    setup.reader("c").expect("read", "b", State::Up, Reason::AuthIllKept);
    setup.refuses_login("b").expect("read", "b", State::Drain, Reason::AuthRefused);
    setup.alive("b", true).expect("read", "b", State::Drain, Reason::AuthRefused);
    setup.reader("b").expect("read", "b", State::Drain, Reason::AuthRefused);
    setup.reader("b").expect("read", "b", State::Up, Reason::Proved);
}

#[test]
fn one_refused_login_drains_nothing() {
    let mut setup = setup(&["a", "b", "c"]);
    setup.writer("a").reader("b").reader("c").refuses_login("b").refuses_login("b").reader("c");
    setup.expect("read", "b", State::Up, Reason::AuthIllKept);
    assert!(setup.fleet().instances[&instance("b")].auth_refused_since.is_some(), "nothing is closed there");
    setup.reader("b").wait(5_000).refuses_login("b").reader("c");
    setup.expect("read", "b", State::Up, Reason::AuthIllKept);
}
