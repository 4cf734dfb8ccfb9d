//! What counts for how long, and what outlives a reload or a restart.

use agent_core::{
    InstanceId, ProxyIndex, Time,
    health::{
        FleetConfig, Health, Observation, ProxyView, Remembered, Role, Routing, ServerConfig, Status,
        WantedRole,
    },
};

use super::*;

fn remembered(name: &str, role: Role) -> Remembered {
    Remembered {
        database: "orders".into(),
        instance: name.into(),
        role,
        timeline: None,
        last_writer: false,
        another_database: false,
    }
}

#[test]
fn an_answer_that_arrives_late_does_not_undo_a_newer_one() {
    let mut setup = setup(&["a", "b"]);
    let asked = setup.now;
    setup.writer("a").reader("b").alive("a", true);
    let late = Observation { instance: instance("a"), at: asked, login: true, result: Ok(role(false, None)) };
    setup.health.observe(&late);
    setup.expect("write", "a", State::Down, Reason::NotWriter);
}

#[test]
fn a_login_that_began_before_a_query_and_ended_after_it_is_a_login_still() {
    let mut setup = setup(&["a"]);
    let began = setup.now;
    setup.wait(100).alive("a", false);
    let tell = |setup: &mut Setup, result| {
        let late = Observation { instance: instance("a"), at: began, login: true, result };
        setup.health.observe(&late);
        setup.fleet().instances[&instance("a")].clone()
    };
    let refused = Fault::new(Phase::Login, FaultKind::LoginRefused, "for the test");
    assert_eq!(tell(&mut setup, Err(refused)).auth_refused_since, Some(began));
    let view = tell(&mut setup, Ok(role(true, None)));
    assert_eq!((view.last_login, view.auth_refused_since), (Some(began), None));
    assert_eq!(view.role, Some(Role::Writer), "it has said so since");
}

#[test]
fn a_refusal_does_not_outlast_the_agents_means_to_look() {
    let mut setup = setup(&["a", "b"]);
    setup.writer("a").reader("b").refuses_connections("a");
    setup.has_no_token("a").expect("write", "a", State::Down, Reason::Refusing);
    // A server that restarts is back soon, and clients would wait for the agent's next token.
    setup.wait(6_000).has_no_token("a").expect("write", "a", State::Up, Reason::AuthIllKept);
    for _ in 0..7 {
        setup.wait(10_000).has_no_token("a").alive("b", true);
    }
    setup.expect("write", "a", State::Unknown, Reason::RoleUnproved);
    setup.refuses_connections("a").expect("write", "a", State::Down, Reason::Refusing);
}

#[test]
fn silence_does_not_outlast_the_agents_means_to_look() {
    let mut setup = setup(&["b", "c"]);
    setup.reader("b").reader("c").silent("b", 3).expect("read", "b", State::Down, Reason::Silent);
    for _ in 0..7 {
        setup.wait(10_000).login_fails("b", Phase::Dns, FaultKind::NameNotResolved).alive("c", true);
    }
    setup.expect("read", "b", State::Up, Reason::NothingAgainst);
}

#[test]
fn trouble_lasts_until_the_next_probe_where_nothing_else_looks() {
    let rules = HealthRules { probe_interval: Duration::from_secs(300), ..HealthRules::default() };
    let mut setup = setup_with(&["b", "c"], &rules, &[]);
    setup.reader("b").reader("c");
    for _ in 0..3 {
        setup.wait(300_000).login_fails("b", Phase::Tcp, FaultKind::TimedOut).reader("c");
        setup.fleet();
    }
    setup.expect("read", "b", State::Down, Reason::Silent);
}

#[test]
fn who_answers_is_not_silent_even_if_the_agent_cannot_go_on() {
    let mut setup = setup(&["b", "c"]);
    setup.reader("b").reader("c").silent("b", 3).expect("read", "b", State::Down, Reason::Silent);
    setup.login_fails("b", Phase::Tls, FaultKind::CertificateInvalid);
    setup.expect("read", "b", State::Up, Reason::NothingAgainst);
}

#[test]
fn refused_logins_do_not_outlast_the_agents_means_to_log_in() {
    let rules = HealthRules { on_auth_failure: OnAuthFailure::Down, ..HealthRules::default() };
    let mut setup = setup_with(&["a", "b"], &rules, &[]);
    setup.reader("a").reader("b").refuses_logins("a").expect("read", "a", State::Down, Reason::AuthRefused);
    for _ in 0..7 {
        setup.wait(10_000).has_no_token("a");
    }
    setup.expect("read", "a", State::Up, Reason::NothingAgainst);
}

#[test]
fn a_writer_that_another_has_superseded_stays_down_when_it_cannot_be_looked_at() {
    let mut setup = setup(&["a", "b"]);
    setup.writer("a").reader("b").silent("a", 3).writer("b");
    for _ in 0..7 {
        setup.wait(10_000).has_no_token("a").alive("b", false);
    }
    setup.expect("write", "a", State::Down, Reason::Superseded);
}

#[test]
fn an_unknown_server_that_was_down_is_up_again_but_not_for_writes_unless_it_was_the_writer() {
    let mut setup = setup(&["a", "b"]);
    setup.writer("b").refuses_connections("a").expect("write", "a", State::Down, Reason::Refusing);
    for _ in 0..7 {
        setup.wait(10_000).has_no_token("a").alive("b", false);
    }
    setup.expect("write", "a", State::Unknown, Reason::NotProbedYet);
    setup.expect("any", "a", State::Up, Reason::NothingAgainst);
    setup.refuses_connections("b").expect("write", "a", State::Unknown, Reason::NotProbedYet);
}

#[test]
fn a_newer_writer_that_is_gone_for_good_does_not_keep_an_older_timeline_out() {
    let mut setup = setup(&["a", "b"]);
    setup.writer_on("b", 5).silent("b", 5).writer_on("a", 4);
    setup.expect("write", "a", State::Down, Reason::StaleWriter);
    for _ in 0..32 {
        setup.silent("b", 10).writer_on("a", 4);
    }
    setup.expect("write", "a", State::Up, Reason::Proved);
}

// === a restart ===

#[test]
fn what_was_remembered_may_say_up_and_never_down() {
    let memory = [remembered("a", Role::Writer), remembered("b", Role::Reader)];
    let mut setup = setup_with(&["a", "b"], &HealthRules::default(), &memory);
    setup.expect("write", "a", State::Up, Reason::LastKnown);
    setup.expect("write", "b", State::Unknown, Reason::NotProbedYet);
    setup.expect("read", "b", State::Up, Reason::LastKnown);
    setup.has_no_token("a").has_no_token("b").expect("write", "b", State::Unknown, Reason::NotProbedYet);
    setup.reader("b").expect("write", "b", State::Down, Reason::NotWriter);
    setup.expect("read", "a", State::Unknown, Reason::NotProbedYet);
    setup.reader("a").writer("b");
    setup.expect("write", "a", State::Down, Reason::NotWriter);
    setup.expect("write", "b", State::Up, Reason::Proved);
}

#[test]
fn a_remembered_writer_does_not_keep_out_one_that_has_proved_itself() {
    let memory = [remembered("a", Role::Writer), remembered("b", Role::Reader)];
    let mut setup = setup_with(&["a", "b"], &HealthRules::default(), &memory);
    setup.writer("b").refuses_logins("a").expect("write", "b", State::Up, Reason::Proved);
    setup.expect("write", "a", State::Unknown, Reason::NotProbedYet);
}

#[test]
fn a_remembered_timeline_keeps_out_nobody() {
    let newer = Remembered { timeline: Some(9), ..remembered("b", Role::Writer) };
    let mut setup = setup_with(&["a", "b"], &HealthRules::default(), &[newer]);
    setup.silent("b", 5).writer_on("a", 1).expect("write", "a", State::Up, Reason::Proved);
}

#[test]
fn memory_survives_being_written_and_read() {
    let mut setup = setup(&["a", "b"]);
    setup.writer_on("a", 7).reader("b");
    let memory = setup.health.remember();
    let again = setup_with(&["a", "b"], &HealthRules::default(), &memory).fleet();
    assert_eq!(again.instances[&instance("a")].role, Some(Role::Writer));
    assert_eq!(again.instances[&instance("a")].timeline, Some(7));
    assert_eq!(again.instances[&instance("b")].role, Some(Role::Reader));
    assert_eq!(again.instances[&instance("b")].status, Status::Unknown);
}

#[test]
fn of_two_writers_the_last_known_one_is_held_after_a_restart_too() {
    for first in ["a", "b"] {
        let other = if first == "a" { "b" } else { "a" };
        let mut before = setup(&["a", "b"]);
        before.writer(first).expect("write", first, State::Up, Reason::Proved);
        before.writer(other).expect("write", first, State::Up, Reason::ConflictKept);
        let mut after = setup_with(&["a", "b"], &HealthRules::default(), &before.health.remember());
        after.writer(other).writer(first).expect("write", first, State::Up, Reason::ConflictKept);
    }
}

#[test]
fn a_promoted_replica_is_no_successor_after_a_restart_of_the_agent_either() {
    let mut before = setup_with(&["a", "b"], &HealthRules::default(), &[]);
    before.writer("a").writer("b").wait(5_000).writer("a").writer("b").fleet();
    let mut setup = setup_with(&["a", "b"], &HealthRules::default(), &before.health.remember());
    setup.refuses_connections("a").writer("b");
    setup.expect("write", "b", State::Down, Reason::Conflict);
    // It followed, or joined, another database since.
    setup.reader("b").writer("b").expect("write", "b", State::Up, Reason::Proved);
}

#[test]
fn a_last_writer_that_only_refuses_the_agents_logins_is_not_followed_after_a_restart() {
    let memory = |name: &str, last_writer| Remembered {
        database: "orders".into(),
        instance: name.into(),
        role: Role::Writer,
        timeline: None,
        last_writer,
        another_database: false,
    };
    let memory = [memory("a", true), memory("b", false)];
    let mut setup = setup_with(&["a", "b"], &HealthRules::default(), &memory);
    setup.now = Time::AGENT_START;
    setup.refuses_login("a").writer("b").expect("write", "b", State::Unknown, Reason::Undecided);
    setup.writer("a").expect("write", "a", State::Up, Reason::ConflictKept);
    setup.expect("write", "b", State::Down, Reason::Conflict);
}

#[test]
fn after_a_restart_the_writer_serves_reads_only_once_the_readers_were_asked() {
    let mut before = setup(&["a", "b"]);
    before.writer("a").reader("b");
    let mut setup = setup_with(&["a", "b"], &HealthRules::default(), &before.health.remember());
    setup.now = Time::AGENT_START;
    setup.closed(&[]);
    setup.refuses_login("b").writer("a").expect("read", "a", State::Unknown, Reason::ReadersUnseen);
    setup.reader("b").expect("read", "a", State::Down, Reason::NotReader);
    let mut setup = setup_with(&["a", "b"], &HealthRules::default(), &before.health.remember());
    setup.now = Time::AGENT_START;
    setup.closed(&[]);
    setup.refuses_connections("b").writer("a").expect("read", "a", State::Up, Reason::WriterServesReads);
}

// === a reload ===

/// The same servers, and one that is new; of `b` it is said that it is another instance now.
fn reloaded(mut before: Setup) -> Setup {
    let mut setup = setup(&["a", "b", "c"]);
    setup.now = before.now;
    before.fleet();
    setup.health.inherit(before.health, |id| *id != instance("b"));
    setup
}

#[test]
fn what_is_known_of_an_instance_outlives_a_reload() {
    let mut before = setup(&["a", "b"]);
    before.writer("a").reader("b").refuses_connections("a").expect("any", "a", State::Down, Reason::Refusing);
    let mut after = reloaded(before);
    after.expect("write", "a", State::Down, Reason::Refusing);
    after.expect("read", "c", State::Unknown, Reason::NotProbedYet);
    after.writer("a").expect("write", "a", State::Up, Reason::Proved);
}

#[test]
fn a_reload_flips_no_writer() {
    for first in ["a", "c"] {
        let other = if first == "a" { "c" } else { "a" };
        let mut before = setup(&["a", "b", "c"]);
        before.writer(first).expect("write", first, State::Up, Reason::Proved);
        before.writer(other).expect("write", first, State::Up, Reason::ConflictKept);
        let mut after = reloaded(before);
        after.expect("write", first, State::Up, Reason::ConflictKept);
        after.expect("write", other, State::Down, Reason::Conflict);
    }
}

#[test]
fn another_instance_of_the_same_name_is_not_what_the_one_before_was() {
    let mut before = setup(&["a", "b"]);
    before.writer("a").reader("b").expect("write", "b", State::Down, Reason::NotWriter);
    let mut after = reloaded(before);
    assert_eq!(after.fleet().instances[&instance("b")].status, Status::Unknown);
    after.expect("write", "b", State::Unknown, Reason::NotProbedYet);
}

#[test]
fn a_server_of_another_instance_is_not_what_the_one_before_was() {
    let server = |name: &str| ServerConfig {
        id: ServerId::new(ProxyIndex(0), "any", "one"),
        instance: instance(name),
        wanted: WantedRole::Any,
        commandable: true,
    };
    let rules = || ["a", "b"].map(|name| (instance(name), HealthRules::default())).to_vec();
    let health = |name| {
        let mut health = Health::new(
            FleetConfig { instances: rules(), servers: vec![server(name)], routing: Routing::Act },
            &[],
        );
        let view = ProxyView { fallbacks: ["any".into()].into(), ..ProxyView::default() };
        health.observe_proxy(ProxyIndex(0), Time::AGENT_START, view);
        health
    };
    let mut before = health("a");
    let refused = |millis| Observation {
        instance: instance("a"),
        at: Time::AGENT_START + Duration::from_millis(millis),
        login: true,
        result: Err(Fault::new(Phase::Tcp, FaultKind::ConnectionRefused, "for the test")),
    };
    before.observe(&refused(1));
    before.observe(&refused(500));
    let now = Time::AGENT_START + Duration::from_secs(1);
    assert_eq!(before.fleet(now).servers[&server("a").id].state, State::Down);
    let mut after = health("b");
    after.inherit(before, |_: &InstanceId| true);
    assert_eq!(after.fleet(now).servers[&server("b").id].state, State::Unknown);
}
