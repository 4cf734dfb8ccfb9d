//! The ledger: which proxy session is which row, and which rows are still there.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::{net::SocketAddr, time::Duration};

use agent_core::{
    ProxyIndex, ServerId, Time,
    health::{ServerConfig, WantedRole},
    session::{Activity, ActivityRow, Age, BackendKey, Join, Ledger, ProxySession, Seen},
};
use support::{Rig, instance, millis, policy, secs, server};

/// A row and a proxy session of the same connection, this old.
fn pair(age: Duration) -> (ActivityRow, ProxySession) {
    let mut rig = Rig::new(policy());
    let client = rig.client("write", "a", age);
    (rig.clients[client].row.clone(), rig.clients[client].proxy.clone())
}

fn ledger() -> Ledger {
    Ledger::new(&support::servers())
}

fn now() -> Time {
    Time::AGENT_START + secs(10_000)
}

fn poll(ledger: &mut Ledger, at: Time, rows: &[&ActivityRow]) {
    let rows = rows.iter().map(|row| (*row).clone()).collect();
    ledger.observe_activity(&instance("a"), at, Seen::All, rows);
}

/// How the only session is joined.
fn joined(ledger: &Ledger) -> &'static str {
    let mut sessions = ledger.sessions();
    let session = sessions.next().expect("a session");
    assert!(sessions.next().is_none());
    match session.join {
        Join::Joined(_) => "joined",
        Join::NotJoined => "not joined",
        Join::Disagree => "disagree",
    }
}

#[test]
fn a_row_and_a_proxy_session_with_the_same_address_and_port_are_one() {
    let (row, session) = pair(secs(60));
    let mut ledger = ledger();
    poll(&mut ledger, now(), &[&row]);
    assert_eq!(joined(&ledger), "not joined");
    ledger.observe_proxy(ProxyIndex(0), now(), vec![session]);
    assert_eq!(joined(&ledger), "joined");
    let at = ledger.sessions().next().and_then(|session| session.server).expect("its server");
    assert_eq!(at.of(ledger.servers()), Some(&server("write", "a")));
}

#[test]
fn the_order_in_which_the_sources_speak_does_not_matter() {
    let (row, session) = pair(secs(60));
    let mut ledger = ledger();
    ledger.observe_proxy(ProxyIndex(0), now(), vec![session]);
    poll(&mut ledger, now(), &[&row]);
    assert_eq!(joined(&ledger), "joined");
}

#[test]
fn some_sessions_are_joined_before_all_are_known_and_take_nothing_from_a_whole_listing() {
    let (row, session) = pair(secs(60));
    let mut ledger = ledger();
    poll(&mut ledger, now(), &[&row]);
    ledger.observe_some(ProxyIndex(0), now(), vec![session.clone()]);
    assert_eq!(joined(&ledger), "joined");
    assert_eq!(
        (ledger.proxy_swept(ProxyIndex(0)), ledger.proxy_seen(ProxyIndex(0))),
        (None, Some(now())),
        "it is no listing"
    );
    ledger.observe_some(ProxyIndex(0), now() + secs(1), vec![]);
    assert_eq!(joined(&ledger), "not joined", "each says all that is known");

    ledger.observe_proxy(ProxyIndex(0), now() + secs(2), vec![session]);
    ledger.observe_some(ProxyIndex(0), now() + secs(3), vec![]);
    assert_eq!(joined(&ledger), "joined");
    ledger.observe_proxy(ProxyIndex(0), now() + secs(4), vec![]);
    assert_eq!(joined(&ledger), "not joined");
}

#[test]
fn an_address_in_ipv6_clothes_is_the_same_address() {
    let (mut row, session) = pair(secs(60));
    row.client = Some(format!("[::ffff:10.0.0.9]:{}", session.outgoing.port()).parse().expect("an address"));
    let mut ledger = ledger();
    poll(&mut ledger, now(), &[&row]);
    ledger.observe_proxy(ProxyIndex(0), now(), vec![session]);
    assert_eq!(joined(&ledger), "joined");
}

#[test]
fn another_port_or_host_is_another_session() {
    for address in ["10.0.0.9:9", "10.0.0.8:10001"] {
        let (row, mut session) = pair(secs(60));
        session.outgoing = address.parse::<SocketAddr>().expect("an address");
        let mut ledger = ledger();
        poll(&mut ledger, now(), &[&row]);
        ledger.observe_proxy(ProxyIndex(0), now(), vec![session]);
        assert_eq!(joined(&ledger), "not joined");
    }
}

#[test]
fn the_same_port_through_a_server_of_another_instance_is_another_session() {
    let (row, mut session) = pair(secs(60));
    session.server = server("read", "b");
    let mut ledger = ledger();
    poll(&mut ledger, now(), &[&row]);
    ledger.observe_proxy(ProxyIndex(0), now(), vec![session]);
    assert_eq!(joined(&ledger), "not joined");
}

#[test]
fn a_listing_from_before_the_session_speaks_of_an_earlier_one_on_its_port() {
    let (_, earlier) = pair(secs(2));
    let (mut row, _) = pair(secs(60));
    row.age = Age::Exactly(Duration::ZERO);
    let mut ledger = ledger();
    ledger.observe_proxy(ProxyIndex(0), now(), vec![earlier.clone()]);
    poll(&mut ledger, now() + millis(300), &[&row]);
    assert_eq!(joined(&ledger), "not joined");
    // Nor is one made at about the time it began.
    ledger.observe_proxy(ProxyIndex(0), now() + millis(900), vec![earlier]);
    assert_eq!(joined(&ledger), "not joined");
}

#[test]
fn a_join_lasts_while_the_listings_show_it_and_no_longer() {
    let (row, session) = pair(secs(60));
    let mut ledger = ledger();
    poll(&mut ledger, now(), &[&row]);
    ledger.observe_proxy(ProxyIndex(0), now(), vec![session]);
    poll(&mut ledger, now() + secs(600), &[&row]);
    assert_eq!(joined(&ledger), "joined", "however old the listing is");
    ledger.observe_proxy(ProxyIndex(0), now() + secs(601), Vec::new());
    assert_eq!(joined(&ledger), "not joined");
}

#[test]
fn a_listing_that_was_overtaken_changes_nothing() {
    let (row, session) = pair(secs(60));
    let mut ledger = ledger();
    poll(&mut ledger, now(), &[&row]);
    ledger.observe_proxy(ProxyIndex(0), now(), vec![session]);
    ledger.observe_proxy(ProxyIndex(0), now() - secs(1), Vec::new());
    assert_eq!(joined(&ledger), "joined");
}

#[test]
fn ages_that_are_too_far_apart_are_a_disagreement() {
    for (apart, expected) in [(4, "joined"), (6, "disagree")] {
        let (row, mut session) = pair(secs(60));
        session.age += secs(apart);
        let mut ledger = ledger();
        poll(&mut ledger, now(), &[&row]);
        ledger.observe_proxy(ProxyIndex(0), now(), vec![session]);
        assert_eq!(joined(&ledger), expected);
    }
}

#[test]
fn two_proxies_that_claim_one_session_disagree_whichever_spoke_last() {
    let (row, session) = pair(secs(60));
    let other = ServerId::new(ProxyIndex(1), "write", "a");
    let mut servers = support::servers();
    servers.push(ServerConfig {
        id: other.clone(),
        instance: instance("a"),
        wanted: WantedRole::Writer,
        commandable: true,
    });
    let mut ledger = Ledger::new(&servers);
    let of_other = ProxySession { server: other, ..session.clone() };
    poll(&mut ledger, now(), &[&row]);
    ledger.observe_proxy(ProxyIndex(0), now(), vec![session.clone()]);
    assert_eq!(joined(&ledger), "joined");
    ledger.observe_proxy(ProxyIndex(1), now(), vec![of_other]);
    assert_eq!(joined(&ledger), "disagree");
    ledger.observe_proxy(ProxyIndex(0), now() + secs(1), vec![session]);
    assert_eq!(joined(&ledger), "disagree");
    ledger.observe_proxy(ProxyIndex(1), now() + secs(2), Vec::new());
    assert_eq!(joined(&ledger), "joined");
}

#[test]
fn what_a_full_poll_does_not_show_has_ended() {
    let (row, _) = pair(secs(60));
    let mut ledger = ledger();
    poll(&mut ledger, now(), &[&row]);
    assert_eq!(ledger.len(), 1);
    poll(&mut ledger, now() + secs(1), &[]);
    assert!(ledger.is_empty());
    // An answer from before is too late to bring it back.
    poll(&mut ledger, now(), &[&row]);
    assert!(ledger.is_empty());
}

#[test]
fn a_poll_of_a_few_ends_only_those() {
    let (one, _) = pair(secs(60));
    let other = ActivityRow { key: BackendKey { pid: 77, started_us: 1 }, ..one.clone() };
    let mut ledger = ledger();
    poll(&mut ledger, now(), &[&one, &other]);
    ledger.observe_activity(&instance("a"), now() + secs(1), Seen::Only(&[one.key]), Vec::new());
    let left: Vec<u64> = ledger.sessions().map(|session| session.row.key.pid).collect();
    assert_eq!(left, [77]);
}

#[test]
fn the_begin_of_a_session_does_not_move() {
    let (row, _) = pair(secs(60));
    let mut ledger = ledger();
    poll(&mut ledger, now(), &[&row]);
    // A slow answer, whose age is of a later moment.
    let late = ActivityRow { age: Age::Exactly(secs(64)), ..row };
    poll(&mut ledger, now() + secs(1), &[&late]);
    assert_eq!(ledger.sessions().next().expect("a session").begin, now() - secs(60));
}

#[test]
fn a_process_id_that_comes_again_is_another_session() {
    let (row, _) = pair(secs(60));
    let again = ActivityRow {
        key: BackendKey { started_us: 9, ..row.key },
        age: Age::Exactly(secs(1)),
        ..row.clone()
    };
    let mut ledger = ledger();
    poll(&mut ledger, now(), &[&row]);
    poll(&mut ledger, now() + secs(5), &[&again]);
    let session = ledger.sessions().next().expect("a session");
    assert_eq!((ledger.len(), session.begin), (1, now() + secs(4)));
}

/// The same pair where the database shows only that the session has been idle for so long.
fn undated(idle: Duration) -> (ActivityRow, ProxySession) {
    let (row, session) = pair(secs(60));
    let key = BackendKey { started_us: 0, ..row.key };
    (ActivityRow { key, age: Age::AtLeast(idle), activity: Activity::Idle(idle), ..row }, session)
}

#[test]
fn where_the_database_does_not_say_the_proxy_dates_a_session() {
    let (row, session) = undated(secs(5));
    let mut ledger = ledger();
    poll(&mut ledger, now(), &[&row]);
    let only = |ledger: &Ledger| ledger.sessions().next().map(|one| (one.begin, one.dated)).expect("one");
    assert_eq!(only(&ledger), (now() - secs(5), false), "as young as it can be");
    // A listing of the same moment may still show an earlier session on its port.
    ledger.observe_proxy(ProxyIndex(0), now(), vec![session.clone()]);
    assert_eq!((joined(&ledger), only(&ledger)), ("not joined", (now() - secs(5), false)));
    ledger.observe_proxy(ProxyIndex(0), now() + secs(1), vec![ProxySession { age: secs(61), ..session }]);
    assert_eq!((joined(&ledger), only(&ledger)), ("joined", (now() - secs(60), true)));
    ledger.observe_proxy(ProxyIndex(0), now() + secs(2), Vec::new());
    assert_eq!((joined(&ledger), only(&ledger)), ("not joined", (now() - secs(5), false)));
}

#[test]
fn a_proxy_session_younger_than_the_row_is_another() {
    let (row, session) = undated(secs(50));
    for (age, expected) in [(46, "joined"), (44, "disagree")] {
        let mut ledger = ledger();
        poll(&mut ledger, now(), &[&row]);
        let session = ProxySession { age: secs(age + 2), ..session.clone() };
        ledger.observe_proxy(ProxyIndex(0), now() + secs(2), vec![session]);
        assert_eq!(joined(&ledger), expected, "{age} s");
    }
    // The longer it is seen idle, the more is known of its age.
    let mut ledger = ledger();
    poll(&mut ledger, now(), &[&ActivityRow { age: Age::AtLeast(Duration::ZERO), ..row.clone() }]);
    let older = ActivityRow { age: Age::AtLeast(secs(50)), ..row };
    poll(&mut ledger, now() + secs(2), &[&older]);
    ledger.observe_proxy(ProxyIndex(0), now() + secs(2), vec![ProxySession { age: secs(3), ..session }]);
    assert_eq!(joined(&ledger), "disagree");
}

#[test]
fn an_id_that_a_restarted_server_gives_again_is_another_session() {
    let (row, session) = undated(secs(5));
    let mut ledger = ledger();
    poll(&mut ledger, now(), &[&row]);
    ledger.observe_proxy(ProxyIndex(0), now() + secs(1), vec![session]);
    assert_eq!(joined(&ledger), "joined");
    let other = ActivityRow { client: Some("10.0.0.9:9".parse().expect("an address")), ..row };
    poll(&mut ledger, now() + secs(100), &[&other]);
    assert_eq!((ledger.len(), joined(&ledger)), (1, "not joined"));
    assert_eq!(ledger.sessions().next().expect("a session").begin, now() + secs(95));
}

#[test]
fn a_session_is_restless_while_it_is_seen_idle_again_and_again() {
    let (row, _) = pair(secs(60));
    let mut ledger = ledger();
    let busy = ActivityRow { activity: Activity::InTransaction, ..row.clone() };
    let since = |ledger: &Ledger| ledger.sessions().next().expect("a session").restless_since;
    poll(&mut ledger, now(), &[&busy]);
    assert_eq!(since(&ledger), None);
    let mut at = now();
    for _ in 0..10 {
        at = at + secs(2);
        poll(&mut ledger, at, &[&row]);
        at = at + secs(2);
        poll(&mut ledger, at, &[&busy]);
    }
    assert_eq!(since(&ledger), Some(now() + secs(2)));
    at = at + secs(10);
    poll(&mut ledger, at, &[&row]);
    assert_eq!(since(&ledger), Some(at), "it was stuck in one piece of work");
}

#[test]
fn rows_without_a_place_are_counted_and_not_for_ever() {
    let (row, _) = pair(secs(60));
    let rows: Vec<ActivityRow> = (0..100_010)
        .map(|pid| ActivityRow { key: BackendKey { pid, started_us: 1 }, ..row.clone() })
        .collect();
    let mut ledger = ledger();
    ledger.observe_activity(&instance("a"), now(), Seen::All, rows);
    assert_eq!((ledger.len(), ledger.dropped()), (100_000, 10));
    poll(&mut ledger, now() + secs(1), &[&row]);
    assert_eq!((ledger.len(), ledger.dropped()), (1, 0));
}
