//! The classifier on real lines of HAProxy, and the journal around it.

use ::haproxy::log::{Line, parse};
use agent_core::{
    ProxyIndex, ServerId,
    health::{FleetConfig, HealthRules},
    plan::{Close, Purpose},
    session::{BackendKey, ProxySession, ProxySessionKey},
};

use super::{
    haproxy::{Judgement, Server, failure, judge},
    *,
};

const LOG: &str = include_str!("../../../haproxy/tests/data/2.6-log.txt");

fn judged(what: &str, greets: bool, configured: bool) -> Judgement {
    let lines: Vec<&str> = LOG.lines().collect();
    let mut ended = lines.chunks(2).filter(|pair| pair[0] == format!("# {what}")).filter_map(|pair| {
        match parse(pair[1].as_bytes()) {
            Ok(Line::Ended(ended)) => Some(ended),
            _ => None,
        }
    });
    judge(&ended.next().unwrap_or_else(|| panic!("{what}")), greets, configured)
}

fn of(line: &str, greets: bool) -> Judgement {
    let text = format!("rds-lb-agent/1 pid=1 lc=1 rt=1 ci=10.0.0.1 cp=4000 f=write b=w s=a {line}");
    let Ok(Line::Ended(ended)) = parse(text.as_bytes()) else { panic!("{text}") };
    judge(&ended, greets, true)
}

#[test]
fn each_real_line_has_its_phase() {
    let certain = |phase| Judgement::Failed(phase, Certainty::Certain);
    for (what, expected) in [
        ("nosrv", certain(Phase::NoServer)),
        ("tcplog: unix client", certain(Phase::NoServer)),
        ("refused", certain(Phase::ConnectRefused)),
        ("tcplog: refused", certain(Phase::ConnectRefused)),
        ("silent", certain(Phase::ConnectTimedOut)),
        ("queue timeout", certain(Phase::QueueTimedOut)),
        ("reject content", certain(Phase::ProxyRefused)),
        ("client timeout", certain(Phase::IdleTimedOut)),
        ("server timeout", certain(Phase::IdleTimedOut)),
        ("shutdown session", certain(Phase::CutByProxy)),
        ("tcplog: shutdown sessions server", certain(Phase::CutByProxy)),
        ("marked down", certain(Phase::CutByProxy)),
        // A client that leaves while HAProxy connects, and one that only checks the port.
        ("refused, client left", Judgement::Fine),
        ("waiting room, left", Judgement::Fine),
        ("client nothing sent", Judgement::Fine),
        // A few bytes in both directions: as a refused login.
        ("server fin first", Judgement::Failed(Phase::LoginRefused, Certainty::Suspected)),
        ("client fin first", Judgement::Failed(Phase::LoginRefused, Certainty::Suspected)),
        ("server rst, no bytes", certain(Phase::NoAnswer)),
        ("client rst", Judgement::Fine),
    ] {
        assert_eq!(judged(what, false, true), expected, "{what}");
    }
    // Nothing listens in the waiting room: no other server was up.
    assert_eq!(judged("waiting room", false, false), certain(Phase::NoServer));
    assert_eq!(judged("unix room", false, false), certain(Phase::NoServer));
}

#[test]
fn real_sessions_of_postgresql_are_judged_by_their_shape() {
    let suspected = Judgement::Failed(Phase::LoginRefused, Certainty::Suspected);
    // psql with one statement, a refused password, a certificate that the client refused; recorded behind 2.6.
    for line in [
        "ts=SD Tw=1 Tc=0 Tt=46 rc=0 U=1180 B=2226",
        "ts=CD Tw=1 Tc=0 Tt=24 rc=0 U=1117 B=1774",
        "ts=-- Tw=1 Tc=0 Tt=90 rc=0 U=640 B=1448",
    ] {
        assert_eq!(of(line, false), suspected, "{line}");
    }
    // Terminated by another session, and stopped with its server: as a client that is done.
    assert_eq!(of("ts=SD Tw=1 Tc=1 Tt=522000 rc=0 U=1164 B=2311", false), Judgement::Ended);
    assert_eq!(of("ts=-- Tw=1 Tc=0 Tt=389000 rc=0 U=1164 B=2287", false), Judgement::Ended);
    assert_eq!(
        of("ts=SC Tw=1 Tc=-1 Tt=701 rc=1 U=8 B=0", false),
        Judgement::Failed(Phase::ConnectRefused, Certainty::Certain)
    );
    assert_eq!(
        of("ts=CC Tw=1 Tc=-1 Tt=2000 rc=1 U=8 B=0", false),
        Judgement::Failed(Phase::GaveUp, Certainty::Certain)
    );
}

#[test]
fn a_server_that_greets_may_refuse_before_the_client_speaks() {
    let suspected = Judgement::Failed(Phase::LoginRefused, Certainty::Suspected);
    assert_eq!(
        of("ts=SD Tw=1 Tc=0 Tt=2 rc=0 U=0 B=71", true),
        suspected,
        "host blocked, too many connections"
    );
    assert_eq!(of("ts=CD Tw=1 Tc=0 Tt=2 rc=0 U=0 B=95", true), Judgement::Ended, "a check of the port");
    let unanswered = Judgement::Failed(Phase::NoAnswer, Certainty::Certain);
    assert_eq!(of("ts=CD Tw=1 Tc=0 Tt=5000 rc=0 U=0 B=0", true), unanswered, "it hangs");
    assert_eq!(of("ts=CD Tw=1 Tc=0 Tt=5000 rc=0 U=0 B=0", false), Judgement::Fine);
}

fn server() -> Server {
    Server {
        backend: "w".into(),
        server: "a".into(),
        instance: InstanceId::new("orders", "a"),
        greets: false,
    }
}

/// A failure of a session from this port.
fn failed(port: u16, (phase, certainty): (Phase, Certainty)) -> Failure {
    let text = format!(
        "rds-lb-agent/1 ci=10.0.0.1 cp={port} f=f b=w s=a bi=10.0.0.9 bp={port} ts=SD Tc=0 Tt=50 U=9 B=9"
    );
    let Ok(Line::Ended(ended)) = parse(text.as_bytes()) else { panic!("{text}") };
    failure(&"proxy".into(), &"w".into(), Some("orders".into()), Some(&server()), &ended, (phase, certainty))
}

fn command(port: u16) -> Retire {
    Retire {
        instance: InstanceId::new("orders", "a"),
        key: BackendKey { pid: 7, started_us: 1 },
        client: ([10, 0, 0, 9], port).into(),
        user: "app".into(),
        iam_only: true,
        proxy: ProxySession {
            key: ProxySessionKey::Envoy("x".into()),
            server: ServerId::new(ProxyIndex(0), "w", "a"),
            source: Some(([10, 0, 0, 1], port).into()),
            outgoing: ([10, 0, 0, 9], port).into(),
            peer: ([10, 0, 0, 3], 5432).into(),
            age: Duration::ZERO,
            old_worker: false,
        },
        how: Close::Quiet(Duration::ZERO),
        purpose: Purpose::Close,
        age: Duration::ZERO,
        limit: Duration::ZERO,
    }
}

#[test]
fn a_session_that_the_agent_closes_is_its_own_before_the_outcome_is_known() {
    let (hand_offs, now) = (HandOffs::default(), Time::AGENT_START);
    let cut = |port| failed(port, (Phase::CutByProxy, Certainty::Certain));
    assert!(!hand_offs.is_own(now, &cut(1)));
    hand_offs.close_begins(now, &command(1));
    assert!(hand_offs.is_own(now, &cut(1)) && !hand_offs.is_own(now, &cut(2)));
    hand_offs.close_ended(now, &command(1), Retired::Busy);
    assert!(!hand_offs.is_own(now, &cut(1)), "it was left open");
}

#[test]
fn a_suspected_refusal_is_likely_while_the_agents_own_logins_are_refused() {
    let (hand_offs, metrics, now) = (HandOffs::default(), Metrics::default(), Time::AGENT_START);
    let suspected = failed(1, (Phase::LoginRefused, Certainty::Suspected));
    let login = |refused, at| OwnLogin {
        at,
        refused,
        signed: SystemTime::now() - Duration::from_secs(120),
        tls_version: Some("TLSv1.3".into()),
        tls_cipher: None,
    };
    let id = InstanceId::new("orders", "a");
    hand_offs.failed(now, now, suspected.clone(), &metrics);
    hand_offs.logged_in(&id, login(false, now));
    hand_offs.failed(now, now, suspected.clone(), &metrics);
    hand_offs.logged_in(&id, login(true, now));
    hand_offs.failed(now, now, suspected.clone(), &metrics);
    hand_offs.failed(now + LOGIN_COUNTS * 2, now, suspected, &metrics);
    let view = hand_offs.view(now, Duration::from_secs(600), 10);
    let certainty: Vec<&str> = view.last.iter().map(|row| &*row.certainty).collect();
    assert_eq!(certainty, ["likely", "suspected", "suspected", "suspected"]);
    assert_eq!((view.failed, view.suspected), (1, 3));
    assert_eq!((&*view.databases[0].name, view.databases[0].count), ("orders", 1));
    assert_eq!(view.suspected_networks[0].name, "10.0.0.0/24");
}

#[test]
fn sessions_that_end_with_their_server_fail_once_it_is_known_to_be_gone() {
    let (hand_offs, metrics, now) = (HandOffs::default(), Metrics::default(), Time::AGENT_START);
    let ended = failed(1, (Phase::ServerGone, Certainty::Likely));
    hand_offs.ended(now, ended.clone());
    let count = || hand_offs.view(now, Duration::from_secs(600), 10).failed;
    let mut health = agent_core::health::Health::new(
        FleetConfig {
            instances: vec![(InstanceId::new("orders", "a"), HealthRules::default())],
            ..FleetConfig::default()
        },
        &[],
    );
    hand_offs.round(now, &health.fleet(now), &metrics);
    assert_eq!(count(), 0, "nothing is known against the server");
    let facts = agent_core::health::RoleFacts {
        in_recovery: false,
        read_only: false,
        follows_source: false,
        timeline: None,
        lag: None,
        agents: 1,
    };
    let instance = InstanceId::new("orders", "a");
    health.observe(&agent_core::health::Observation { instance, at: now, login: true, result: Ok(facts) });
    let fault =
        agent_core::Fault::new(agent_core::Phase::Tcp, agent_core::FaultKind::ConnectionRefused, "refused");
    for seconds in 1..10 {
        let at = now + Duration::from_secs(seconds);
        let observation = agent_core::health::Observation {
            instance: InstanceId::new("orders", "a"),
            at,
            login: false,
            result: Err(fault.clone()),
        };
        health.observe(&observation);
    }
    hand_offs.round(now + Duration::from_secs(1), &health.fleet(now + Duration::from_secs(10)), &metrics);
    assert_eq!(count(), 1);
}

#[test]
fn many_failures_are_one_report_and_series_stay_bounded() {
    let (hand_offs, metrics, now) = (HandOffs::default(), Metrics::default(), Time::AGENT_START);
    for number in 0..10_000_u32 {
        let mut failure = failed(1, (Phase::ConnectRefused, Certainty::Certain));
        let [_, a, b, c] = number.to_be_bytes();
        failure.source = Some(([10, a, b, c], 1).into());
        if number >= 5_000 {
            failure.backend = format!("made-up-{number}").as_str().into();
            failure.configured = false;
        }
        hand_offs.failed(now, now, failure, &metrics);
    }
    let text = metrics.text(crate::metrics::Format::OpenMetrics);
    let series: Vec<&str> =
        text.lines().filter(|line| line.starts_with("rdslb_session_failures_total{")).collect();
    assert_eq!(series.len(), 2, "{series:?}");
    assert!(!text.contains("10.0."), "no client is a label");
    let view = hand_offs.view(now, Duration::from_secs(3_600), usize::MAX);
    assert_eq!((view.failed, view.last.len(), view.networks.len()), (10_000, 1_000, 10));
    let due = hand_offs.kept().journal.round(now + Duration::from_secs(10));
    let counts: Vec<(u64, usize)> = due.iter().map(|many| (many.count, many.clients)).collect();
    assert_eq!(counts, [(4_995, 1_000), (4_995, 1_000)]);
}
