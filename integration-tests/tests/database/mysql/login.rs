//! Logins: how they go, and how they fail, each for its own reason.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant, SystemTime},
};

use agent_core::{Evidence, FaultKind, Phase};
use agent_database::{Address, Limits, Session as _, TlsTrust, mysql};
use integration_tests::{
    process::wait_for,
    standin::{Options, StopMode},
};
use tokio::time::timeout;

use super::lab::{Lab, PATIENCE};

#[tokio::test]
async fn a_login_is_reported_phase_by_phase() {
    let lab = Lab::start(0).await;
    let aborted = || async { lab.sql("SHOW GLOBAL STATUS LIKE 'Aborted\\_c%'").await };
    let before = aborted().await;
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

    let version = lab.standin.value("a", "SELECT version()").await.unwrap();
    let comment = lab.standin.value("a", "SELECT @@version_comment").await.unwrap();
    assert_eq!(report.server_version, Some(format!("{version} ({comment})")));
    let known = session.server();
    assert_eq!((&known.version, known.mariadb, &known.aurora), (&version, true, &None));
    assert!(known.number >= 100_000, "{known:?}");

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

    // What it calls itself, where performance_schema shows it.
    let name = "SELECT attr_value FROM performance_schema.session_connect_attrs \
                WHERE attr_name = 'program_name'";
    assert_eq!(lab.standin.value("a", name).await.unwrap(), "rds-lb-agent");

    // A clean goodbye, whether it is closed or just dropped: no broken connection.
    session.close().await;
    drop(lab.session("a", "lb_agent").await);
    let what = "the sessions to be gone";
    wait_for(what, PATIENCE, || async {
        let count = "SELECT count(*) FROM information_schema.processlist WHERE user = 'lb_agent'";
        match lab.standin.value("a", count).await {
            Ok(none) if none == "0" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap();
    assert_eq!(aborted().await, before);
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

    // No server saw a token.
    assert!(lab.standin.journal().attempts().is_empty());
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
    assert_eq!(fault.code.as_deref(), Some("1045"));
    assert_eq!(fault.evidence(), Evidence::AuthIll);
    assert!(report.token_asked && report.tls.is_some());
    lab.standin.accept_tokens();

    // A user that does not log in by IAM, and one that does not exist.
    let sent = lab.standin.journal().attempts().len();
    for user in ["legacy", "nobody"] {
        let (fault, report) = lab.refusal(&lab.target("a", user), &lab.trust, &token).await;
        assert_eq!((fault.phase, fault.kind), (Phase::Login, FaultKind::LoginRefused));
        assert!(fault.message.contains("AWSAuthenticationPlugin"), "{fault}");
        assert!(!report.token_asked);
    }
    assert_eq!(lab.standin.journal().attempts().len(), sent);

    // A locked account: MariaDB says so before it asks.
    lab.sql("ALTER USER app2 ACCOUNT LOCK").await;
    let (fault, _) = lab.try_login("a", "app2").await;
    let fault = fault.err().expect("the login succeeded");
    assert_eq!((fault.kind, fault.code.as_deref()), (FaultKind::LoginRefused, Some("4151")));

    // A database that the user may not use, as far as it can be told whether there is one.
    let mut nowhere = target.clone();
    nowhere.database_name = "nowhere".into();
    let (fault, _) = lab.refusal(&nowhere, &lab.trust, &token).await;
    assert_eq!((fault.kind, fault.code.as_deref()), (FaultKind::PermissionDenied, Some("1044")));
    assert_eq!(fault.evidence(), Evidence::Alive);

    // A limit of the user's own.
    lab.sql("GRANT USAGE ON *.* TO app WITH MAX_USER_CONNECTIONS 1").await;
    let only = lab.session("a", "app").await;
    let (fault, _) = lab.try_login("a", "app").await;
    let fault = fault.err().expect("the login succeeded");
    assert_eq!((fault.kind, fault.code.as_deref()), (FaultKind::PermissionDenied, Some("1226")));
    only.close().await;

    // Every slot taken.
    let mut clients = Vec::new();
    let fault = loop {
        match lab.try_login("a", "lb_agent").await.0 {
            Ok(session) => clients.push(session),
            Err(fault) => break fault,
        }
        assert!(clients.len() <= 14, "no end of slots");
    };
    assert_eq!((fault.kind, fault.code.as_deref()), (FaultKind::TooManyConnections, Some("1040")));
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

/// From an address that the server counts: 127.0.0.1 it does not.
const COUNTED: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 99));

#[tokio::test]
async fn refused_logins_never_block_the_address_and_refused_certificates_do() {
    let lab = Lab::start_with(Options { replicas: 0, max_connect_errors: 5, ..Options::default() }).await;
    lab.sql("INSTALL SONAME 'auth_ed25519'").await;
    lab.sql("CREATE USER ed IDENTIFIED VIA ed25519 USING PASSWORD('secret')").await;
    let token = lab.standin.token("a", "lb_agent").unwrap();
    let errors = || async {
        let count =
            "SELECT sum(sum_connect_errors) FROM performance_schema.host_cache WHERE ip = '127.0.0.99'";
        lab.standin.value("a", count).await.unwrap()
    };

    for user in ["legacy", "nobody", "ed"] {
        for _ in 0..8 {
            let target = lab.target("a", user).dialled_from(COUNTED);
            let (fault, _) = lab.refusal(&target, &lab.trust, &token).await;
            assert_eq!(fault.kind, FaultKind::LoginRefused, "{user}: {fault}");
        }
        assert_eq!(errors().await, "0", "{user}");
    }
    // A dialog is not answered; nor does it count.
    lab.sql("UNINSTALL SONAME 'auth_pam_v1'").await;
    for _ in 0..8 {
        let target = lab.target("a", "lb_agent").dialled_from(COUNTED);
        let (fault, _) = lab.refusal(&target, &lab.trust, &token).await;
        assert_eq!(fault.kind, FaultKind::LoginRefused, "{fault}");
        assert!(fault.code.as_deref() == Some("1524") && fault.message.contains("not loaded"), "{fault}");
    }
    assert_eq!(errors().await, "0");
    lab.sql("INSTALL SONAME 'auth_pam_v1'").await;

    // A certificate that is refused cannot but count, and a full login takes the count back.
    let target = lab.target("a", "lb_agent").dialled_from(COUNTED);
    let untrusted = TlsTrust::built_in().unwrap();
    for expected in 1..=3 {
        lab.refusal(&target, &untrusted, &token).await;
        wait_for("the server to count", PATIENCE, || async {
            let errors = errors().await;
            if errors == expected.to_string() { Ok(()) } else { Err(errors) }
        })
        .await
        .unwrap();
    }
    mysql::login(&target, &lab.trust, &token, &lab.limits).await.0.unwrap().close().await;
    assert_eq!(errors().await, "0");

    // At the limit the address is blocked, and the reason says how it is let in again.
    let fault = loop {
        let (fault, _) = lab.refusal(&target, &untrusted, &token).await;
        if fault.kind != FaultKind::CertificateInvalid {
            break fault;
        }
    };
    assert_eq!((fault.kind, fault.code.as_deref()), (FaultKind::HostBlocked, Some("1129")));
    assert_eq!(fault.evidence(), Evidence::Alive);
    assert!(fault.message.contains("host_cache"), "{fault}");
    lab.sql("TRUNCATE TABLE performance_schema.host_cache").await;
    mysql::login(&target, &lab.trust, &token, &lab.limits).await.0.unwrap().close().await;
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
    lab.sql("KILL USER lb_agent").await;
    let fault = kept.role().await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Disconnected, "{fault}");
    assert_eq!(fault.evidence(), Evidence::Silent);
    assert_eq!(kept.fault(), Some(&fault));

    // A server that stops says no more to its sessions; the next login proves it.
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
async fn a_question_that_is_given_up_ends_the_session() {
    let lab = Lab::start(0).await;
    let mut kept = lab.session("a", "lb_agent").await;
    kept.role().await.unwrap();
    lab.standin.freeze("a").await.unwrap();
    // The caller has given up: its answer would be taken for the next one's.
    assert!(timeout(Duration::from_millis(100), kept.role()).await.is_err());
    lab.standin.thaw("a").await.unwrap();
    assert!(kept.fault().is_some_and(|fault| fault.message.contains("closed")));
    assert_eq!(kept.role().await.unwrap_err().kind, FaultKind::Disconnected);
    lab.shutdown().await;
}

#[tokio::test]
async fn a_slow_statement_is_given_up_by_the_server_and_the_session_goes_on() {
    let mut lab = Lab::start(0).await;
    lab.limits.query = Duration::from_millis(800);
    let mut kept = lab.session("a", "lb_agent").await;
    kept.role().await.unwrap();

    // The accounts that the rights query reads, locked by another session.
    lab.sql("GRANT SELECT, LOCK TABLES ON mysql.* TO app").await;
    let mut blocker = lab.standin.mysql_login("a", "app").unwrap().connect().await.unwrap();
    blocker.query("LOCK TABLES mysql.global_priv WRITE").await.unwrap();
    let fault = kept.rights().await.unwrap_err();
    assert_eq!((fault.kind, fault.code.as_deref()), (FaultKind::TimedOut, Some("1969")), "{fault}");
    assert_eq!(kept.fault(), None);
    blocker.query("UNLOCK TABLES").await.unwrap();
    kept.rights().await.unwrap();
    kept.role().await.unwrap();
    lab.shutdown().await;
}
