//! The guarded close: it closes what it should, and every guard is seen to refuse.

use std::{net::SocketAddr, time::Duration};

use agent_core::{
    FaultKind,
    session::{Activity, BackendKey},
};
use agent_database::{Method, RetireOutcome, RetireTarget, Session as _};

use super::{
    clients::row_that,
    retirement::{ALL, QUIET, Retirement, lives},
};

#[tokio::test]
async fn a_quiet_session_is_closed() {
    closes_a_quiet_session(Retirement::start().await).await;
}

#[tokio::test]
async fn a_quiet_session_is_closed_as_on_mysql() {
    closes_a_quiet_session(Retirement::start_as_to_mysql().await).await;
}

async fn closes_a_quiet_session(mut retirement: Retirement) {
    for method in ALL {
        let mut client = retirement.lab.client("app").await;
        let target = retirement.target(&client).await;
        let refused = retirement.agent(method).retire(&target, method, Duration::from_hours(1)).await;
        assert!(matches!(refused, RetireOutcome::NotQuiet(_)), "{refused:?}");
        assert_eq!(retirement.retire_when_quiet(method, &target).await, RetireOutcome::Closed, "{method:?}");
        assert!(client.unasked().await.is_closed());
        retirement.gone(client.id()).await;
        assert_eq!(retirement.retire_when_quiet(method, &target).await, RetireOutcome::Gone);
        assert_eq!(retirement.agent(method).fault(), None);
    }
    retirement.lab.shutdown().await;
}

#[tokio::test]
async fn work_is_never_cut() {
    cuts_no_work(Retirement::start().await).await;
}

#[tokio::test]
async fn work_is_never_cut_as_on_mysql() {
    cuts_no_work(Retirement::start_as_to_mysql().await).await;
}

async fn cuts_no_work(mut retirement: Retirement) {
    let mut client = retirement.lab.client("app").await;
    let target = retirement.target(&client).await;
    for (begin, end) in [
        ("START TRANSACTION", "COMMIT"),
        ("START TRANSACTION WITH CONSISTENT SNAPSHOT", "COMMIT"),
        ("START TRANSACTION READ ONLY", "ROLLBACK"),
        ("BEGIN; UPDATE stock SET amount = amount WHERE item = 1", "ROLLBACK"),
        ("SET autocommit = 0; SELECT * FROM stock LIMIT 1", "COMMIT; SET autocommit = 1"),
        ("XA START 'x'", "XA END 'x'; XA ROLLBACK 'x'"),
        ("XA START 'x'; XA END 'x'", "XA ROLLBACK 'x'"),
        ("XA START 'x'; XA END 'x'; XA PREPARE 'x'", "XA ROLLBACK 'x'"),
    ] {
        retirement.run(&mut client, begin).await;
        tokio::time::sleep(QUIET).await;
        retirement.held_by_all(&target, begin).await;
        retirement.run(&mut client, end).await;
    }
    for (lock, unlock) in [
        ("LOCK TABLES stock READ", "UNLOCK TABLES"),
        ("LOCK TABLES stock WRITE", "UNLOCK TABLES"),
        ("DO GET_LOCK('mine', 1)", "DO RELEASE_LOCK('mine')"),
    ] {
        retirement.run(&mut client, lock).await;
        retirement.refused_by_all(&target, &RetireOutcome::AdvisoryLock, lock).await;
        retirement.run(&mut client, unlock).await;
    }
    let mut busy = retirement.lab.client("app").await;
    let busy_target = retirement.target(&busy).await;
    let running = tokio::spawn(async move { busy.query("DO SLEEP(60)").await });
    let id = u32::try_from(busy_target.key.pid).unwrap();
    row_that(&mut retirement.signal, id, |row| row.activity == Activity::Running).await;
    retirement.held_by_all(&busy_target, "running").await;
    running.abort();

    assert!(lives(&mut client).await);
    assert_eq!(retirement.retire_when_quiet(Method::Signal, &target).await, RetireOutcome::Closed);
    retirement.lab.shutdown().await;
}

#[tokio::test]
async fn a_session_is_closed_by_its_whole_identity_or_not_at_all() {
    closes_by_identity(Retirement::start().await).await;
}

#[tokio::test]
async fn a_session_is_closed_by_its_whole_identity_as_on_mysql() {
    closes_by_identity(Retirement::start_as_to_mysql().await).await;
}

async fn closes_by_identity(mut retirement: Retirement) {
    let mut client = retirement.lab.client("app").await;
    let other = retirement.lab.client_from([127, 0, 0, 9], "app").await;
    let target = retirement.target(&client).await;
    let port = target.client.port();
    for (wrong, why) in [
        (SocketAddr::new(target.client.ip(), port ^ 1), "another port"),
        (SocketAddr::new("127.0.0.9".parse().unwrap(), port), "another balancer with the same port"),
        (SocketAddr::new("::1".parse().unwrap(), port), "another family"),
    ] {
        let wrong = RetireTarget { client: wrong, ..target.clone() };
        retirement.refused_by_all(&wrong, &RetireOutcome::Changed, why).await;
    }
    for user in ["app2", "App", "app ", "", "' OR 1 OR '"] {
        let wrong = RetireTarget { user: user.into(), ..target.clone() };
        retirement.refused_by_all(&wrong, &RetireOutcome::Changed, user).await;
    }
    let reused = BackendKey { pid: other.id().into(), started_us: 0 };
    let wrong = RetireTarget { key: reused, ..target.clone() };
    retirement.refused_by_all(&wrong, &RetireOutcome::Changed, "another id").await;
    let wrong = RetireTarget { key: BackendKey { pid: u64::MAX, started_us: 0 }, ..target.clone() };
    retirement.refused_by_all(&wrong, &RetireOutcome::Gone, "no such id").await;
    assert!(lives(&mut client).await);
    retirement.lab.shutdown().await;
}

#[tokio::test]
async fn users_without_iam_and_superusers_are_never_closed() {
    let mut retirement = Retirement::start().await;
    let mut client = retirement.lab.password_client().await;
    let target = retirement.target(&client).await;
    retirement.refused_by_all(&target, &RetireOutcome::NotAllowed, "a password").await;
    let any = RetireTarget { any_user: true, ..target.clone() };
    // The procedure never.
    let refused = retirement.retire_when_quiet(Method::Function, &any).await;
    assert_eq!(refused, RetireOutcome::NotAllowed);
    // A superuser never either.
    retirement.lab.sql("GRANT SUPER ON *.* TO legacy").await;
    retirement.refused_by_all(&any, &RetireOutcome::NotAllowed, "a superuser").await;
    retirement.lab.sql("REVOKE SUPER ON *.* FROM legacy").await;
    assert!(lives(&mut client).await);
    assert_eq!(retirement.retire_when_quiet(Method::Signal, &any).await, RetireOutcome::Closed);

    // An IAM user who has a second account with a password.
    let mut client = retirement.lab.client("app").await;
    let target = retirement.target(&client).await;
    retirement.lab.sql("CREATE USER app@'10.%' IDENTIFIED BY 'something'").await;
    retirement.refused_by_all(&target, &RetireOutcome::NotAllowed, "an account with a password").await;
    assert!(lives(&mut client).await);
    retirement.lab.shutdown().await;
}

#[tokio::test]
async fn a_missing_privilege_is_reported_and_the_session_stays_usable() {
    let mut retirement = Retirement::start().await;
    let mut client = retirement.lab.client("app2").await;
    let target = retirement.target(&client).await;
    let denied = |outcome: RetireOutcome| match outcome {
        RetireOutcome::Failed(fault) => fault.kind == FaultKind::PermissionDenied,
        other => panic!("{other:?}"),
    };
    row_that(&mut retirement.signal, client.id(), |row| row.age.at_least() > QUIET).await;
    assert!(denied(retirement.function.retire(&target, Method::Signal, QUIET).await));
    for method in [Method::Function, Method::Platform] {
        assert!(denied(retirement.signal.retire(&target, method, QUIET).await), "{method:?}");
    }
    assert!(denied(retirement.signal.catch(&target, Method::Function).await));
    // Blind: it may not even see what there is.
    let mut onlooker = retirement.lab.session("a", "app").await;
    assert!(denied(onlooker.retire(&target, Method::Signal, QUIET).await));
    retirement.lab.sql("REVOKE PROCESS ON *.* FROM lb_agent").await;
    let mut unseeing = retirement.lab.session("a", "lb_agent").await;
    assert!(denied(unseeing.retire(&target, Method::Signal, QUIET).await));

    for agent in [&mut retirement.function, &mut retirement.signal, &mut onlooker, &mut unseeing] {
        assert_eq!(agent.fault(), None);
        agent.role().await.unwrap();
    }
    assert!(lives(&mut client).await);

    // One word stops the agents, one gives the right back, under open sessions.
    retirement.lab.sql("REVOKE EXECUTE ON PROCEDURE rds_lb_agent.retire FROM lb_agent_plain").await;
    assert!(denied(retirement.retire_when_quiet(Method::Function, &target).await));
    retirement.lab.sql("GRANT EXECUTE ON PROCEDURE rds_lb_agent.retire TO lb_agent_plain").await;
    assert_eq!(retirement.retire_when_quiet(Method::Function, &target).await, RetireOutcome::Closed);
    retirement.lab.shutdown().await;
}
