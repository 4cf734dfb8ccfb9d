//! Logins: the same tests for both engines.

use std::time::{Duration, Instant, SystemTime};

use agent_core::{Evidence, FaultKind, Phase};
use agent_database::{Address, Limits, LoginReport, TlsTrust};
use integration_tests::{
    on_each_engine,
    standin::{Engine, Options, StopMode},
};

use tokio::time::timeout;

use crate::lab::{Lab, PATIENCE};

on_each_engine!(
    a_server_that_does_not_prove_its_name_gets_no_token,
    a_frozen_server_is_silent_within_the_limits,
    a_kept_session_reports_why_it_ended,
);

/// Asserts that the report of a successful login to `a` has all phases, addresses, TLS and the certificate.
pub fn is_complete<E>(lab: &Lab<E>, report: &LoginReport) {
    for phase in [report.phases.dns, report.phases.tcp, report.phases.tls, report.phases.login] {
        assert!(phase.is_some(), "{report:?}");
    }
    assert!(report.phases.total() < PATIENCE);
    let server = lab.standin.server("a").unwrap();
    assert_eq!(report.server_address, Some(server.connect()));
    assert!(report.local_address.is_some());
    assert!(report.token_asked);

    let tls = report.tls.as_ref().unwrap();
    assert_eq!(tls.version, "TLSv1.3");
    assert!(tls.cipher.starts_with("TLS13_"), "{tls:?}");
    assert!(tls.group.is_some(), "{tls:?}");
    let certificate = report.certificate.as_ref().unwrap();
    assert!(certificate.subject.contains(server.endpoint()), "{certificate:?}");
    assert!(certificate.issuer.contains("IAM stand-in root CA"), "{certificate:?}");
    assert_eq!(certificate.matched.as_deref(), Some(server.endpoint()));
    let now = SystemTime::now();
    assert!(certificate.not_before < now && now < certificate.not_after);
}

async fn a_server_that_does_not_prove_its_name_gets_no_token(engine: Engine) {
    let lab = Lab::on(engine, Options { replicas: 0, ..Options::default() }).await;
    let target = lab.target("a", "lb_agent");
    let token = lab.standin.token("a", "lb_agent").unwrap();

    // Another authority.
    let (fault, report) = lab.refusal(&target, &TlsTrust::built_in().unwrap(), &token).await;
    assert_eq!((fault.phase, fault.kind), (Phase::Tls, FaultKind::CertificateInvalid));
    assert_eq!(fault.evidence(), Evidence::Nothing);
    for word in ["IAM stand-in root CA", &target.endpoint.host, "built into the agent"] {
        assert!(fault.message.contains(word), "{word:?} is missing in: {fault}");
    }
    assert!(report.tls.is_none() && report.phases.login.is_none());
    assert!(report.certificate.is_some_and(|certificate| certificate.issuer.contains("stand-in")));

    // Another name.
    let mut elsewhere = target.clone();
    elsewhere.endpoint =
        Address::new("orders-z.c1a2b3d4e5f6.eu-west-1.rds.amazonaws.com", target.endpoint.port);
    let (fault, report) = lab.refusal(&elsewhere, &lab.trust, &token).await;
    assert_eq!((fault.phase, fault.kind), (Phase::Tls, FaultKind::CertificateInvalid));
    for word in [&*elsewhere.endpoint.host, &*target.endpoint.host] {
        assert!(fault.message.contains(word), "{word:?} is missing in: {fault}");
    }
    assert_eq!(report.certificate.unwrap().matched, None);

    // The address that is dialled is no name of the certificate either.
    let mut by_address = target.clone();
    by_address.endpoint = target.connect.clone();
    let (fault, _) = lab.refusal(&by_address, &lab.trust, &token).await;
    assert_eq!(fault.kind, FaultKind::CertificateInvalid);

    // No server saw a token.
    assert!(lab.standin.journal().attempts().is_empty());
    lab.shutdown().await;
}

async fn a_frozen_server_is_silent_within_the_limits(engine: Engine) {
    let mut lab = Lab::on(engine, Options { replicas: 0, ..Options::default() }).await;
    lab.limits =
        Limits { tls: Duration::from_millis(400), query: Duration::from_millis(400), ..Limits::default() };
    let mut kept = lab.session("a", "lb_agent").await;
    kept.role().await.unwrap();
    lab.standin.freeze("a").await.unwrap();

    let started = Instant::now();
    let fault = lab.try_login("a", "lb_agent").await.0.err().unwrap();
    assert_eq!((fault.phase, fault.kind), (Phase::Tls, FaultKind::TimedOut));
    assert_eq!(fault.evidence(), Evidence::Silent);

    let fault = kept.role().await.unwrap_err();
    assert_eq!((fault.phase, fault.kind), (Phase::Query, FaultKind::TimedOut));
    assert_eq!(kept.fault(), Some(&fault));
    // It says so at once from now on, also when the server is well again.
    lab.standin.thaw("a").await.unwrap();
    let again = kept.role().await.unwrap_err();
    assert_eq!(again.kind, FaultKind::Disconnected);
    assert!(again.message.contains("unusable"), "{again}");
    kept.close().await;
    assert!(started.elapsed() < PATIENCE);
    lab.session("a", "lb_agent").await.close().await;
    lab.shutdown().await;
}

async fn a_kept_session_reports_why_it_ended(engine: Engine) {
    let lab = Lab::on(engine, Options { replicas: 0, ..Options::default() }).await;

    // One administrator's word ends one session: no proof against the server.
    let mut kept = lab.session("a", "lb_agent").await;
    kept.role().await.unwrap();
    lab.sql(match engine {
        Engine::Postgresql => {
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'lb_agent'"
        }
        Engine::Mariadb => "KILL USER lb_agent",
    })
    .await;
    let fault = kept.role().await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Disconnected, "{fault}");
    if engine == Engine::Postgresql {
        assert_eq!(fault.code.as_deref(), Some("57P01"));
    }
    assert_eq!(fault.evidence(), Evidence::Silent);
    assert_eq!(kept.fault(), Some(&fault));

    // A server that stops closes its sessions the same way; the next login proves that it is down.
    let mut kept = lab.session("a", "lb_agent").await;
    kept.role().await.unwrap();
    let quiet = timeout(Duration::from_millis(300), kept.interrupted()).await;
    assert!(quiet.is_err(), "nothing has happened yet");
    lab.standin.stop("a", StopMode::Fast).await.unwrap();
    timeout(PATIENCE, kept.interrupted()).await.expect("it ends without a query");
    assert_eq!(kept.role().await.unwrap_err().kind, FaultKind::Disconnected);
    assert_eq!(lab.try_login("a", "lb_agent").await.0.err().unwrap().evidence(), Evidence::Down);

    // A crash.
    lab.standin.start_server("a").await.unwrap();
    let mut kept = lab.session("a", "lb_agent").await;
    lab.standin.stop("a", StopMode::Immediate).await.unwrap();
    assert_eq!(kept.role().await.unwrap_err().kind, FaultKind::Disconnected);
    lab.shutdown().await;
}
