//! Which server gets new sessions where the proxy, the agent's own logins or two writers make it hard.

use std::{collections::BTreeMap, net::SocketAddr};

use agent_core::health::{
    AddressLogin, AddressState, Connects, ProxyView, ReaderFallback, Refusal, Role, Routing, WantedRole,
};

use super::*;

// === an empty backend ===

#[test]
fn the_only_server_stays_up_where_the_backend_has_no_fallback() {
    let mut setup = setup(&["a", "b"]);
    setup.without_fallback().writer("a").reader("b").refuses_connections("a");
    setup.expect("write", "a", State::Up, Reason::OnlyServerKept);
    setup.expect("write", "b", State::Down, Reason::NotWriter);
    setup.writer("b").expect("write", "a", State::Down, Reason::Refusing);
    setup.expect("write", "b", State::Up, Reason::Proved);
}

#[test]
fn of_several_readers_that_refuse_exactly_one_stays_up() {
    let mut setup = setup(&["b", "c"]);
    setup.without_fallback().reader("b").reader("c").refuses_connections("b").refuses_connections("c");
    for _ in 0..5 {
        let fleet = setup.wait(300).fleet();
        let kept: Vec<&str> = ["b", "c"]
            .into_iter()
            .filter(|name| fleet.servers[&ServerId::new(ProxyIndex(0), "read", name)].state == State::Up)
            .collect();
        assert_eq!(kept, ["c"]);
    }
}

#[test]
fn with_a_fallback_a_server_that_refuses_is_down_even_if_it_is_the_only_one() {
    let mut setup = setup(&["a"]);
    setup.writer("a").refuses_connections("a").expect("write", "a", State::Down, Reason::Refusing);
}

#[test]
fn a_server_that_an_operator_has_closed_is_not_the_one_that_is_kept() {
    let mut setup = setup(&["b", "c"]);
    setup.without_fallback().reader("b").reader("c").closed(&[("read", "c")]);
    setup.refuses_connections("c").refuses_connections("b");
    setup.expect("read", "b", State::Up, Reason::OnlyServerKept);
    setup.expect("read", "c", State::Down, Reason::Refusing);
}

// === refused for the agent, served for clients ===

/// A proxy with these counters of `begun` and `failed` tries, in all backends.
fn counts(setup: &mut Setup, counters: &[(&str, u64, u64)]) {
    let backends = ["write", "read", "any"];
    let connects: BTreeMap<ServerId, Connects> = counters
        .iter()
        .flat_map(|(name, begun, failed)| {
            let connects = Connects { begun: *begun, failed: *failed, aborted: 0 };
            backends.map(|backend| (ServerId::new(ProxyIndex(0), backend, name), connects))
        })
        .collect();
    let view = ProxyView { fallbacks: backends.map(Into::into).into(), connects, ..ProxyView::default() };
    setup.health.observe_proxy(ProxyIndex(0), setup.now, view);
    setup.fleet();
}

/// Clients of `a` are served while the agent's connections there are refused.
fn served_for_clients(setup: &mut Setup) {
    setup.refuses_connections("a");
    for look in 0..6 {
        counts(setup, &[("a", 10 + 2 * look, 3), ("b", 0, 0), ("c", 0, 0)]);
        setup.wait(500);
    }
}

#[test]
fn a_server_that_refuses_the_agent_alone_stays_up() {
    let mut setup = setup(&["a", "b", "c"]);
    setup.writer("a").reader("b").reader("c");
    counts(&mut setup, &[("a", 9, 3), ("b", 0, 0), ("c", 0, 0)]);
    setup.refuses_connections("a").expect("write", "a", State::Up, Reason::RefusalUnconfirmed);
    served_for_clients(&mut setup);
    setup.expect("write", "a", State::Up, Reason::ServedForClients);
    assert_eq!(setup.fleet().instances[&instance("a")].refusal, Some(Refusal::ServedForClients));
}

#[test]
fn a_server_that_refuses_the_agent_alone_is_down_once_clients_are_refused_too() {
    let mut setup = setup(&["a", "b", "c"]);
    setup.writer("a").reader("b").reader("c");
    served_for_clients(&mut setup);
    for look in 0..6 {
        counts(&mut setup, &[("a", 22 + 2 * look, 3 + 2 * look), ("b", 0, 0), ("c", 0, 0)]);
        setup.wait(500);
    }
    setup.expect("write", "a", State::Down, Reason::Refusing);
}

#[test]
fn a_refusal_that_clients_share_takes_the_server_down_at_once() {
    let mut setup = setup(&["a", "b"]);
    setup.writer("a").reader("b");
    setup.refuses_connections("a");
    counts(&mut setup, &[("a", 9, 3)]);
    setup.wait(500);
    counts(&mut setup, &[("a", 10, 4)]);
    setup.expect("write", "a", State::Down, Reason::Refusing);
}

#[test]
fn a_server_that_says_itself_that_it_stops_is_down_at_once() {
    let mut setup = setup(&["a", "b"]);
    setup.writer("a").reader("b");
    counts(&mut setup, &[("a", 9, 3)]);
    let fault = Fault::new(Phase::Query, FaultKind::Disconnected, "for the test").with_code("57P01");
    setup.tell("a", false, Err(fault)).login_fails("a", Phase::Tcp, FaultKind::ConnectionRefused);
    setup.expect("write", "a", State::Down, Reason::Refusing);
}

#[test]
fn without_clients_a_refusal_counts_after_a_while_if_another_instance_answers() {
    let mut setup = setup(&["a", "b"]);
    setup.writer("a").reader("b").refuses_connections("a");
    for _ in 0..7 {
        counts(&mut setup, &[("a", 9, 3)]);
        setup.wait(500).alive("b", true);
    }
    setup.expect("write", "a", State::Down, Reason::Refusing);
}

#[test]
fn while_every_instance_refuses_the_agent_one_server_of_each_backend_stays_up() {
    let mut setup = setup(&["a", "b", "c"]);
    setup.writer("a").reader("b").reader("c");
    for name in ["a", "b", "c"] {
        setup.refuses_connections(name);
    }
    for _ in 0..20 {
        counts(&mut setup, &[("a", 9, 3), ("b", 0, 0), ("c", 0, 0)]);
        setup.wait(500);
    }
    setup.expect("write", "a", State::Up, Reason::RefusalUnconfirmed);
    setup.expect("read", "b", State::Down, Reason::Refusing);
    setup.expect("read", "c", State::Up, Reason::RefusalUnconfirmed);
    // The clients of one prove that the agent's path is at fault.
    served_for_clients(&mut setup);
    setup.expect("read", "b", State::Up, Reason::RefusalUnconfirmed);
}

// === logins and sessions are two facts ===

#[test]
fn a_server_whose_logins_hang_is_drained_though_its_open_sessions_work() {
    let mut setup = setup(&["a", "b", "c"]);
    setup.writer("a").reader("b").reader("c");
    setup.login_fails("b", Phase::Login, FaultKind::TimedOut).alive("b", true).reader("c").wait(4_000);
    setup.login_fails("b", Phase::Login, FaultKind::TimedOut).alive("b", true);
    setup.expect("read", "b", State::Drain, Reason::LoginsFail);
    setup.reader("b").expect("read", "b", State::Drain, Reason::LoginsFail);
    setup.reader("b").expect("read", "b", State::Up, Reason::Proved);
}

#[test]
fn a_reader_that_has_restarted_is_up_at_its_first_good_login() {
    let mut setup = setup(&["a", "b", "c"]);
    setup.writer("a").reader("b").reader("c").refuses_connections("b").wait(4_000).reader("c");
    setup.refuses_connections("b").expect("read", "b", State::Down, Reason::Refusing);
    setup.reader("b").expect("read", "b", State::Up, Reason::Proved);
}

#[test]
fn a_client_that_logged_in_since_disproves_failed_logins() {
    let mut setup = setup(&["a", "b", "c"]);
    setup.writer("a").reader("b").reader("c").refuses_login("b").reader("c").wait(4_000).refuses_login("b");
    setup.expect("read", "b", State::Drain, Reason::AuthRefused);
    setup.wait(10);
    setup.health.observe_client_login(&instance("b"), setup.now);
    setup.expect("read", "b", State::Up, Reason::AuthIllKept);
}

#[test]
fn a_server_to_which_the_agent_never_logged_in_is_not_drained_for_refusing_it() {
    let mut setup = setup(&["a", "b", "c"]);
    setup
        .writer("a")
        .alive("b", true)
        .reader("c")
        .refuses_login("b")
        .reader("c")
        .wait(4_000)
        .refuses_login("b");
    setup.expect("read", "b", State::Up, Reason::AuthIllKept);
}

#[test]
fn the_only_writer_is_never_drained_for_its_logins() {
    let mut setup = setup(&["a", "b"]);
    setup.writer("a").reader("b").refuses_login("a").reader("b").wait(4_000).refuses_login("a");
    setup.alive("a", false).expect("write", "a", State::Up, Reason::AuthIllKept);
}

#[test]
fn when_an_outage_of_iam_heals_no_server_is_drained_for_older_refusals() {
    let mut setup = setup(&["a", "b", "c"]);
    setup.writer("a").reader("b").reader("c");
    for _ in 0..3 {
        setup.wait(5_000).refuses_login("a").refuses_login("b").refuses_login("c");
    }
    setup.reader("c");
    setup.expect("read", "b", State::Up, Reason::AuthIllKept).expect(
        "write",
        "a",
        State::Up,
        Reason::AuthIllKept,
    );
}

// === readers and the writer among them ===

#[test]
fn one_missed_answer_of_the_only_reader_moves_no_reads() {
    let mut setup = setup(&["a", "b"]);
    setup.writer("a").reader("b").silent("b", 1);
    setup.expect("read", "a", State::Down, Reason::NotReader);
    setup.silent("b", 2).expect("read", "a", State::Up, Reason::WriterServesReads);
}

#[test]
fn a_reader_that_returns_takes_over_after_as_many_answers_as_it_had_missed() {
    let mut setup = setup(&["a", "b"]);
    setup.writer("a").reader("b").silent("b", 3).alive("b", true).alive("b", true);
    setup.expect("read", "a", State::Up, Reason::WriterServesReads);
    setup.alive("b", true).expect("read", "a", State::Down, Reason::NotReader);
}

#[test]
fn the_writer_serves_no_reads_where_the_operator_forbids_it() {
    let rules = HealthRules { reader_fallback: ReaderFallback::None, ..HealthRules::default() };
    let mut setup = setup_with(&["a", "b"], &rules, &[]);
    setup.writer("a").reader("b").refuses_connections("b").expect(
        "read",
        "a",
        State::Down,
        Reason::NotReader,
    );
}

#[test]
fn where_the_proxys_state_cannot_be_read_the_writer_neither_joins_nor_leaves_the_readers() {
    let mut setup = setup(&["a", "b"]);
    setup.unseen().writer("a").reader("b").expect("read", "a", State::Unknown, Reason::ReadersUnseen);
}

// === which instance is the writer ===

#[test]
fn an_old_writer_that_returns_does_not_replace_a_new_one_that_stalls() {
    let mut setup = setup(&["a", "b"]);
    setup.writer("a").reader("b").refuses_connections("a").writer("b").silent("b", 4).writer("a");
    setup.expect("write", "a", State::Down, Reason::StaleWriter);
    setup.expect("write", "b", State::Up, Reason::SilentKept);
}

#[test]
fn a_former_writer_may_be_promoted_again_once_it_has_been_a_reader() {
    let mut setup = setup(&["a", "b"]);
    setup.writer("a").reader("b").refuses_connections("a").writer("b").reader("a").silent("b", 4).writer("a");
    setup.expect("write", "a", State::Up, Reason::Proved);
    setup.expect("write", "b", State::Down, Reason::Superseded);
}

#[test]
fn an_instance_that_follows_a_source_is_no_writer_beside_one_that_follows_none() {
    let mut setup = setup(&["a", "b"]);
    let follower = RoleFacts { follows_source: true, ..role(false, None) };
    setup.writer("b").tell("a", true, Ok(follower));
    setup.expect("write", "b", State::Up, Reason::Proved);
    setup.expect("write", "a", State::Down, Reason::Superseded);
}

#[test]
fn after_a_restart_the_last_writer_is_asked_before_another_takes_its_role() {
    let memory = ["a", "b"].map(|name| agent_core::health::Remembered {
        database: "orders".into(),
        instance: name.into(),
        role: if name == "a" { Role::Writer } else { Role::Reader },
        timeline: None,
        last_writer: name == "a",
        another_database: false,
    });
    let mut setup = setup_with(&["a", "b"], &HealthRules::default(), &memory);
    setup.writer("b").expect("write", "b", State::Unknown, Reason::Undecided);
    setup.writer("a").expect("write", "a", State::Up, Reason::ConflictKept);
}

#[test]
fn without_memory_the_proxys_own_state_says_which_of_two_was_the_writer() {
    let mut setup = setup(&["a", "b"]);
    let up = [ServerId::new(ProxyIndex(0), "write", "b"), ServerId::new(ProxyIndex(0), "read", "a")].into();
    setup.health.observe_proxy(ProxyIndex(0), setup.now, ProxyView { up, ..ProxyView::default() });
    setup.wait(1);
    for name in ["a", "b"] {
        let result = Ok(role(false, None));
        setup.health.observe(&Observation { instance: instance(name), at: setup.now, login: true, result });
    }
    setup.expect("write", "b", State::Up, Reason::ConflictKept).expect(
        "write",
        "a",
        State::Down,
        Reason::Conflict,
    );
}

// === routing: observe ===

#[test]
fn where_routing_is_observed_proxies_get_nothing_and_the_verdicts_are_shown() {
    let mut setup = setup::setup_routing(Routing::Observe, &["a", "b"], &HealthRules::default(), &[]);
    setup.writer("a").reader("b");
    for (backend, name) in [("write", "a"), ("write", "b"), ("read", "a"), ("read", "b")] {
        setup.expect(backend, name, State::Unknown, Reason::RoutingObserved);
    }
    let fleet = setup.fleet();
    let observed = |backend, name| fleet.observed[&ServerId::new(ProxyIndex(0), backend, name)].reason;
    assert_eq!(observed("write", "a"), Reason::Proved);
    assert_eq!(observed("write", "b"), Reason::NotWriter);
    assert_eq!(fleet.by_role[&(instance("b"), WantedRole::Writer)].reason, Reason::NotWriter);
}

// === the address that the proxy dials ===

fn address(name: &str) -> SocketAddr {
    let last = name.bytes().next().unwrap_or_default();
    SocketAddr::from(([10, 0, 0, last], 5432))
}

/// The agent logs in to each instance at its own address.
fn with_addresses() -> Setup {
    let mut setup = setup(&["a", "b", "c"]);
    for name in ["a", "b", "c"] {
        login_at(&mut setup, name, address(name), true, Ok(()));
    }
    setup.writer("a").reader("b").reader("c");
    setup
}

fn login_at(setup: &mut Setup, name: &str, address: SocketAddr, own: bool, result: Result<(), Fault>) {
    setup.wait(1);
    let login = AddressLogin { instance: instance(name), address, at: setup.now, own, result };
    setup.health.observe_address(login);
}

fn unconnected() -> Result<(), Fault> {
    Err(Fault::new(Phase::Tcp, FaultKind::ConnectionRefused, "for the test"))
}

/// The proxy dials these for the servers of these instances; `failed` tries of clients failed at `c`.
fn dials(setup: &mut Setup, addresses: &[(&str, SocketAddr)], failed: u64) {
    let backends = ["write", "read", "any"];
    let ids = |name: &str| backends.map(|backend| ServerId::new(ProxyIndex(0), backend, name));
    let dials = addresses.iter().flat_map(|(name, address)| ids(name).map(|id| (id, *address))).collect();
    let connects = Connects { begun: failed + 5, failed, aborted: 0 };
    let view = ProxyView {
        fallbacks: backends.map(Into::into).into(),
        connects: ids("c").map(|id| (id, connects)).into(),
        dials,
        ..ProxyView::default()
    };
    setup.health.observe_proxy(ProxyIndex(0), setup.now, view);
    setup.fleet();
}

#[test]
fn servers_whose_addresses_are_swapped_are_judged_by_the_instances_behind_them() {
    let mut setup = with_addresses();
    dials(&mut setup, &[("a", address("b")), ("b", address("a")), ("c", address("c"))], 0);
    setup.expect("write", "a", State::Down, Reason::NotWriter);
    setup.expect("write", "b", State::Up, Reason::Proved);
    setup.expect("read", "a", State::Up, Reason::Proved);
    setup.expect("read", "b", State::Down, Reason::NotReader);
    let fleet = setup.fleet();
    assert_eq!(
        fleet.addresses[&ServerId::new(ProxyIndex(0), "write", "a")].state,
        AddressState::OtherInstance
    );
    assert!(!fleet.addresses.contains_key(&ServerId::new(ProxyIndex(0), "write", "c")));
}

#[test]
fn no_server_is_up_at_an_address_that_is_not_proved() {
    let mut setup = with_addresses();
    let elsewhere = SocketAddr::from(([10, 9, 9, 9], 5432));
    dials(&mut setup, &[("a", elsewhere)], 0);
    setup.expect("write", "a", State::Unknown, Reason::AddressUnproved);
    let other = Fault::new(Phase::Tls, FaultKind::CertificateInvalid, "for the test");
    login_at(&mut setup, "a", elsewhere, false, Err(other));
    setup.expect("write", "a", State::Unknown, Reason::AddressUnproved);
    login_at(&mut setup, "a", elsewhere, false, Ok(()));
    setup.expect("write", "a", State::Up, Reason::Proved);
}

#[test]
fn a_reader_at_an_address_that_refuses_clients_too_is_down_and_replaces_no_other() {
    let mut setup = with_addresses();
    let dead = SocketAddr::from(([10, 9, 9, 9], 5432));
    for look in 0..6 {
        dials(&mut setup, &[("c", dead)], look);
        login_at(&mut setup, "c", dead, false, unconnected());
        setup.wait(500);
    }
    setup.expect("read", "c", State::Down, Reason::AddressDead);
    setup.expect("read", "a", State::Down, Reason::NotReader);
    setup.refuses_connections("b");
    setup.wait(4_000).alive("a", false);
    setup.expect("read", "a", State::Up, Reason::WriterServesReads);
    login_at(&mut setup, "c", dead, false, Ok(()));
    setup.expect("read", "c", State::Up, Reason::Proved);
}

#[test]
fn a_reader_at_an_address_that_refuses_the_agent_alone_keeps_its_state() {
    let mut setup = with_addresses();
    let elsewhere = SocketAddr::from(([10, 9, 9, 9], 5432));
    for _ in 0..6 {
        dials(&mut setup, &[("c", elsewhere)], 0);
        login_at(&mut setup, "c", elsewhere, false, unconnected());
        setup.wait(500);
    }
    setup.expect("read", "c", State::Unknown, Reason::AddressUnproved);
}
