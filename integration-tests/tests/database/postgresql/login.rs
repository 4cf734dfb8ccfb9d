//! Logins: how they go, and how they fail, each for its own reason.

use std::time::{Duration, Instant};

use agent_core::{Evidence, FaultKind, Phase};
use agent_database::Session as _;
use integration_tests::standin::{Options, StopMode};

use super::lab::{Lab, PATIENCE};
use crate::logins::is_complete;

#[tokio::test]
async fn a_login_is_reported_phase_by_phase() {
    let lab = Lab::start(0).await;
    let (outcome, report) = lab.try_login("a", "lb_agent").await;
    let session = outcome.unwrap();

    is_complete(&lab, &report);
    assert!(report.server_version.is_some_and(|version| !version.is_empty()));

    // A clean goodbye: the server sees no broken connection.
    session.close().await;
    let left =
        lab.standin.value("a", "SELECT count(*) FROM pg_stat_activity WHERE usename = 'lb_agent'").await;
    assert_eq!(left.unwrap(), "0");
    lab.shutdown().await;
}

#[tokio::test]
async fn a_server_without_tls_gets_no_token() {
    let lab = Lab::start(0).await;
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
async fn a_slow_statement_is_cancelled_by_the_server_and_the_session_stays_usable() {
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
