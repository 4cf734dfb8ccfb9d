//! Logins: how they go, and how they fail, each for its own reason.

use std::time::{Duration, Instant, SystemTime};

use agent_core::{Evidence, FaultKind, Phase};
use agent_database::{Address, Limits, Session as _, TlsTrust};
use integration_tests::standin::{Options, StopMode};

use tokio::time::timeout;

use super::lab::{Lab, PATIENCE};

#[tokio::test]
async fn a_login_is_reported_phase_by_phase() {
    let lab = Lab::start(0).await;
    let (outcome, report) = lab.try_login("a", "lb_agent").await;
    let session = outcome.unwrap();

    for phase in [report.phases.dns, report.phases.tcp, report.phases.tls, report.phases.login] {
        assert!(phase.is_some(), "{report:?}");
    }
    assert!(report.phases.total() < PATIENCE);
    let server = lab.standin.server("a").unwrap();
    assert_eq!(report.server_address, Some(server.connect()));
    assert!(report.local_address.is_some());
    assert!(report.token_asked);
    assert!(report.server_version.as_deref().is_some_and(|version| !version.is_empty()));

    let tls = report.tls.unwrap();
    assert_eq!(tls.version, "TLSv1.3");
    assert!(tls.cipher.starts_with("TLS13_"), "{tls:?}");
    assert!(tls.group.is_some(), "{tls:?}");
    let certificate = report.certificate.unwrap();
    assert!(certificate.subject.contains(server.endpoint()), "{certificate:?}");
    assert!(certificate.issuer.contains("IAM stand-in root CA"), "{certificate:?}");
    assert_eq!(certificate.matched.as_deref(), Some(server.endpoint()));
    let now = SystemTime::now();
    assert!(certificate.not_before < now && now < certificate.not_after);

    // A clean goodbye: the server sees no broken connection.
    session.close().await;
    let left =
        lab.standin.value("a", "SELECT count(*) FROM pg_stat_activity WHERE usename = 'lb_agent'").await;
    assert_eq!(left.unwrap(), "0");
    lab.shutdown().await;
}

#[tokio::test]
async fn a_server_that_does_not_prove_its_name_gets_no_token() {
    let lab = Lab::start(0).await;
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

    // No TLS at all.
    lab.sql("ALTER SYSTEM SET ssl = off").await;
    lab.sql("SELECT pg_reload_conf()").await;
    let deadline = Instant::now() + PATIENCE;
    let fault = loop {
        let (outcome, _) = lab.try_login("a", "lb_agent").await;
        match outcome {
            Err(fault) => break fault,
            Ok(_) => assert!(Instant::now() < deadline, "the server still offers TLS"),
        }
    };
    assert_eq!((fault.phase, fault.kind), (Phase::Tls, FaultKind::TlsNotOffered));
    assert_eq!(fault.evidence(), Evidence::Nothing);

    // All tokens that any server saw came with the logins that succeeded before TLS was off.
    assert!(lab.standin.journal().attempts().iter().all(|attempt| attempt.verdict.is_ok()));
    lab.shutdown().await;
}

#[tokio::test]
async fn each_refusal_has_its_own_kind() {
    let lab = Lab::start_with(Options { replicas: 0, max_connections: 12, ..Options::default() }).await;
    let target = lab.target("a", "lb_agent");

    // IAM says no.
    lab.standin.refuse_tokens(None, None).unwrap();
    let token = lab.standin.token("a", "lb_agent").unwrap();
    let (fault, report) = lab.refusal(&target, &lab.trust, &token).await;
    assert_eq!((fault.phase, fault.kind), (Phase::Login, FaultKind::LoginRefused));
    assert_eq!(fault.code.as_deref(), Some("28000"));
    assert_eq!(fault.evidence(), Evidence::AuthIll);
    assert!(report.token_asked && report.tls.is_some());
    lab.standin.accept_tokens();

    // A user that does not log in by IAM: the server would take a SCRAM proof.
    let sent = lab.standin.journal().attempts().len();
    let (fault, report) = lab.refusal(&lab.target("a", "legacy"), &lab.trust, &token).await;
    assert_eq!((fault.phase, fault.kind), (Phase::Login, FaultKind::LoginRefused));
    assert!(fault.message.contains("SCRAM") && fault.message.contains("rds_iam"), "{fault}");
    assert!(!report.token_asked);
    assert_eq!(lab.standin.journal().attempts().len(), sent);

    // No such database.
    let mut nowhere = target.clone();
    nowhere.database_name = "nowhere".into();
    let (fault, _) = lab.refusal(&nowhere, &lab.trust, &token).await;
    assert_eq!((fault.kind, fault.code.as_deref()), (FaultKind::DatabaseError, Some("3D000")));
    assert_eq!(fault.evidence(), Evidence::Alive);

    // Every slot taken.
    let mut clients = Vec::new();
    let fault = loop {
        match lab.try_login("a", "lb_agent").await.0 {
            Ok(session) => clients.push(session),
            Err(fault) => break fault,
        }
        assert!(clients.len() <= 12, "no end of slots");
    };
    assert_eq!((fault.kind, fault.code.as_deref()), (FaultKind::TooManyConnections, Some("53300")));
    assert_eq!(fault.evidence(), Evidence::Alive);
    drop(clients);

    // Nothing listens.
    lab.standin.stop("a", StopMode::Fast).await.unwrap();
    let (fault, report) = lab.refusal(&target, &lab.trust, &token).await;
    assert_eq!((fault.phase, fault.kind), (Phase::Tcp, FaultKind::ConnectionRefused));
    assert_eq!(fault.evidence(), Evidence::Down);
    assert!(report.phases.tcp.is_some() && report.server_address.is_none());
    lab.shutdown().await;
}

#[tokio::test]
async fn a_frozen_server_is_silent_within_the_limits() {
    let mut lab = Lab::start(0).await;
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

#[tokio::test]
async fn a_kept_session_says_why_it_ended() {
    let lab = Lab::start(0).await;

    // One administrator's word ends one session: no proof against the server.
    let mut kept = lab.session("a", "lb_agent").await;
    kept.role().await.unwrap();
    lab.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'lb_agent'").await;
    let fault = kept.role().await.unwrap_err();
    assert_eq!((fault.kind, fault.code.as_deref()), (FaultKind::Disconnected, Some("57P01")));
    assert_eq!(fault.evidence(), Evidence::Silent);
    assert_eq!(kept.fault(), Some(&fault));

    // A server that stops says the same to its sessions; the next login proves it.
    let mut kept = lab.session("a", "lb_agent").await;
    kept.role().await.unwrap();
    let quiet = timeout(Duration::from_millis(300), kept.interrupted()).await;
    assert!(quiet.is_err(), "nothing has happened yet");
    lab.standin.stop("a", StopMode::Fast).await.unwrap();
    timeout(PATIENCE, kept.interrupted()).await.expect("it ends without a query");
    assert_eq!(kept.role().await.unwrap_err().kind, FaultKind::Disconnected);
    assert_eq!(lab.try_login("a", "lb_agent").await.0.err().unwrap().evidence(), Evidence::Down);

    // A crash says nothing.
    lab.standin.start_server("a").await.unwrap();
    let mut kept = lab.session("a", "lb_agent").await;
    lab.standin.stop("a", StopMode::Immediate).await.unwrap();
    assert_eq!(kept.role().await.unwrap_err().kind, FaultKind::Disconnected);
    lab.shutdown().await;
}

#[tokio::test]
async fn a_slow_statement_is_given_up_by_the_server_and_the_session_goes_on() {
    let mut lab = Lab::start(0).await;
    lab.limits.query = Duration::from_millis(400);
    let mut kept = lab.session("a", "lb_agent").await;
    kept.role().await.unwrap();

    // The catalogue that the rights query reads, locked by another session.
    let blocker = lab.client("app", "blocker").await;
    lab.sql("ALTER ROLE app SUPERUSER").await;
    blocker.batch_execute("BEGIN; LOCK TABLE pg_catalog.pg_proc IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let fault = kept.rights().await.unwrap_err();
    assert_eq!((fault.kind, fault.code.as_deref()), (FaultKind::TimedOut, Some("57014")));
    assert_eq!(kept.fault(), None);
    blocker.batch_execute("ROLLBACK").await.unwrap();
    kept.rights().await.unwrap();
    kept.role().await.unwrap();
    lab.shutdown().await;
}
