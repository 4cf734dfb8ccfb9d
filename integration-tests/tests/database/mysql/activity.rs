//! The process list, seen with and without the right to look, and with
//! `performance_schema` on and off.

use std::time::Duration;

use agent_core::session::{Activity, Age, BackendKey, LastStatement};
use agent_database::{Scope, Session as _, mysql::OpenTransactions};
use integration_tests::standin::Options;

use super::{
    clients::{idle, row, row_that},
    lab::Lab,
};

fn without_performance_schema() -> Options {
    Options { replicas: 0, performance_schema: false, ..Options::default() }
}

#[tokio::test]
async fn a_row_has_user_address_activity_and_duration() {
    let lab = Lab::start(0).await;
    let mut agent = lab.session("a", "lb_agent").await;
    let mut client = lab.named_client("app", "shop").await;
    let host = client.value("SELECT HOST FROM information_schema.PROCESSLIST WHERE ID = CONNECTION_ID()");
    let host = host.await.unwrap();
    let seen = row_that(&mut agent, client.id(), idle).await;
    assert_eq!(seen.key, BackendKey { pid: client.id().into(), started_us: 0 });
    let from = seen.client.unwrap();
    assert_eq!(from.ip().to_string(), "127.0.0.1");
    assert!(host.ends_with(&format!(":{}", from.port())), "{host}");
    assert_eq!((&*seen.user, &*seen.database_name, &*seen.application), ("app", "orders", "shop"));
    assert!(seen.iam_user && seen.client_backend && !seen.superuser);
    assert_eq!(seen.last_statement, LastStatement::Other);
    assert_eq!(seen.advisory_lock, Some(false));

    // The pause grows by the server's clock; it is all that is known of the age.
    let pause = |activity| match activity {
        Activity::Idle(pause) => pause,
        other => panic!("{other:?}"),
    };
    let first = pause(seen.activity);
    let grown = first + Duration::from_millis(50);
    let later = row_that(&mut agent, client.id(), |row| row.age.at_least() > grown).await;
    assert_eq!(later.age, Age::AtLeast(pause(later.activity)));
    // And begins anew with the next statement, however long that took.
    client.query("DO SLEEP(0.3)").await.unwrap();
    let anew = row_that(&mut agent, client.id(), idle).await;
    assert!(pause(anew.activity) < Duration::from_millis(300), "{anew:?}");
    lab.shutdown().await;
}

/// Where names are resolved, 127.0.0.1 shows as one; a server of IPv4 alone can mean no other.
#[tokio::test]
async fn an_address_is_the_exact_one() {
    for (performance_schema, skip_name_resolve) in [(true, "OFF"), (false, "OFF"), (false, "ON")] {
        let settings = vec![("skip_name_resolve".to_owned(), skip_name_resolve.to_owned())];
        let options = Options { replicas: 0, performance_schema, settings, ..Options::default() };
        let lab = Lab::start_with(options).await;
        let mut agent = lab.session("a", "lb_agent").await;
        let local = lab.client("app").await;
        let elsewhere = lab.client_from([127, 0, 0, 9], "app").await;
        for (client, ip) in [(&local, "127.0.0.1"), (&elsewhere, "127.0.0.9")] {
            let host = format!("SELECT HOST FROM information_schema.PROCESSLIST WHERE ID = {}", client.id());
            let host = lab.standin.value("a", &host).await.unwrap();
            let from = row(&mut agent, client.id()).await.unwrap().client.expect("an address");
            assert_eq!(from.ip().to_string(), ip, "{host}");
            assert!(host.ends_with(&format!(":{}", from.port())), "{host}");
        }
        lab.shutdown().await;
    }
}

#[tokio::test]
async fn only_idle_is_idle() {
    let lab = Lab::start(0).await;
    let mut agent = lab.session("a", "lb_agent").await;
    for begin in [
        "START TRANSACTION",
        "START TRANSACTION WITH CONSISTENT SNAPSHOT",
        "BEGIN; SELECT * FROM stock LIMIT 1",
        "SET autocommit = 0; SELECT * FROM stock LIMIT 1",
        "XA START 'one'",
        "XA START 'two'; XA END 'two'",
        "XA START 'three'; XA END 'three'; XA PREPARE 'three'",
    ] {
        let mut client = lab.client("app").await;
        client.query(begin).await.unwrap();
        row_that(&mut agent, client.id(), |row| row.activity == Activity::InTransaction).await;
        // Seen at once also by a first look of a session that has no memory.
        let mut fresh = lab.session("a", "lb_agent").await;
        let seen = row(&mut fresh, client.id()).await.unwrap();
        assert_eq!(seen.activity, Activity::InTransaction, "{begin}");
    }
    let mut client = lab.client("app").await;
    client.query("BEGIN; SELECT * FROM stock LIMIT 1; COMMIT").await.unwrap();
    row_that(&mut agent, client.id(), idle).await;

    let mut busy = lab.client("app").await;
    let id = busy.id();
    let running = tokio::spawn(async move { busy.query("DO SLEEP(60)").await });
    row_that(&mut agent, id, |row| row.activity == Activity::Running).await;
    running.abort();

    for (lock, unlock) in [
        ("LOCK TABLES stock READ", "UNLOCK TABLES"),
        ("LOCK TABLES stock WRITE", "UNLOCK TABLES"),
        ("DO GET_LOCK('a ''lock''', 1)", "DO RELEASE_ALL_LOCKS()"),
    ] {
        client.query(lock).await.unwrap();
        row_that(&mut agent, client.id(), |row| idle(row) && row.advisory_lock == Some(true)).await;
        client.query(unlock).await.unwrap();
        row_that(&mut agent, client.id(), |row| idle(row) && row.advisory_lock == Some(false)).await;
    }
    lab.shutdown().await;
}

#[tokio::test]
async fn without_performance_schema_the_configured_source_is_used() {
    let lab = Lab::start_with(without_performance_schema()).await;
    let mut untouched = lab.client("app").await;
    untouched.query("START TRANSACTION").await.unwrap();
    let mut touched = lab.client("app").await;
    touched.query("START TRANSACTION; SELECT * FROM stock LIMIT 1").await.unwrap();
    let mut snapshot = lab.client("app").await;
    snapshot.query("START TRANSACTION WITH CONSISTENT SNAPSHOT").await.unwrap();
    let quiet = lab.client("app").await;

    // Everything is held, unless the operator has chosen.
    for mode in [OpenTransactions::PerformanceSchema, OpenTransactions::Strict] {
        let mut agent = lab.session("a", "lb_agent").await.relying_on(mode);
        for client in [&untouched, &quiet] {
            let seen = row_that(&mut agent, client.id(), |row| row.activity != Activity::Running).await;
            assert_eq!(seen.activity, Activity::Unknown, "{mode:?}");
            assert_eq!(seen.advisory_lock, Some(false), "what cannot be seen holds nothing");
        }
        row_that(&mut agent, touched.id(), |row| row.activity == Activity::InTransaction).await;
    }
    let mut agent = lab.session("a", "lb_agent").await.relying_on(OpenTransactions::InnodbTrx);
    row_that(&mut agent, quiet.id(), idle).await;
    for client in [&touched, &snapshot] {
        row_that(&mut agent, client.id(), |row| row.activity == Activity::InTransaction).await;
    }
    // What the README says cannot be seen there.
    row_that(&mut agent, untouched.id(), idle).await;
    lab.shutdown().await;
}

#[tokio::test]
async fn instruments_disabled_later_make_the_state_unknown() {
    let lab = Lab::start(0).await;
    let client = lab.client("app").await;
    for (off, on) in [
        (
            "UPDATE performance_schema.setup_instruments SET ENABLED = 'NO' WHERE NAME = 'transaction'",
            "UPDATE performance_schema.setup_instruments SET ENABLED = 'YES' WHERE NAME = 'transaction'",
        ),
        (
            "UPDATE performance_schema.setup_consumers SET ENABLED = 'NO' WHERE NAME LIKE 'thread_inst%'",
            "UPDATE performance_schema.setup_consumers SET ENABLED = 'YES' WHERE NAME LIKE 'thread_inst%'",
        ),
        (
            "UPDATE performance_schema.threads SET INSTRUMENTED = 'NO'",
            "UPDATE performance_schema.threads SET INSTRUMENTED = 'YES'",
        ),
    ] {
        let mut agent = lab.session("a", "lb_agent").await;
        row_that(&mut agent, client.id(), idle).await;
        lab.sql(off).await;
        row_that(&mut agent, client.id(), |row| row.activity == Activity::Unknown).await;
        lab.sql(on).await;
        row_that(&mut agent, client.id(), idle).await;
    }
    lab.shutdown().await;
}

#[tokio::test]
async fn users_are_distinguished_by_their_authentication() {
    let lab = Lab::start(1).await;
    let mut agent = lab.session("a", "lb_agent").await;
    let legacy = lab.password_client().await;
    assert!(!row(&mut agent, legacy.id()).await.unwrap().iam_user);
    let member = lab.client("app2").await;
    assert!(row(&mut agent, member.id()).await.unwrap().iam_user);

    // The replica's own session on the writer, and none of the server's.
    let rows = agent.activity(Scope::All).await.unwrap();
    let replica = rows.iter().find(|row| &*row.user == "replicator").expect("a replica's session");
    assert!(!replica.client_backend, "{replica:?}");
    assert!(rows.iter().all(|row| !row.user.is_empty() && &*row.user != "system user"), "{rows:?}");
    assert!(rows.iter().all(|row| row.key.pid != 0), "{rows:?}");

    // An account of the same name with a password, wherever it may come from.
    lab.sql("CREATE USER app2@'10.%' IDENTIFIED BY 'something'").await;
    row_that(&mut agent, member.id(), |row| !row.iam_user).await;
    lab.sql("DROP USER app2@'10.%'").await;
    row_that(&mut agent, member.id(), |row| row.iam_user).await;
    lab.sql("GRANT SUPER ON *.* TO app2").await;
    row_that(&mut agent, member.id(), |row| row.superuser && !row.iam_user).await;
    lab.shutdown().await;
}

/// The process list hides them; they do not vanish for that.
#[tokio::test]
async fn what_the_agent_may_not_see_is_unknown() {
    let lab = Lab::start(0).await;
    let mut seeing = lab.session("a", "lb_agent").await;
    let client = lab.named_client("app2", "hidden").await;
    let seen = row_that(&mut seeing, client.id(), idle).await;
    let neighbour = lab.client("app").await;

    lab.sql("REVOKE PROCESS ON *.* FROM lb_agent").await;
    let mut onlooker = lab.session("a", "lb_agent").await;
    let hidden = row(&mut onlooker, client.id()).await.expect("a session that is there");
    assert_eq!(hidden.activity, Activity::Unknown);
    assert_eq!((hidden.key, hidden.client, &hidden.user), (seen.key, seen.client, &seen.user));
    assert_eq!((&hidden.application, hidden.iam_user), (&seen.application, true));
    let some = onlooker.activity(Scope::Only(&[seen.key])).await.unwrap();
    assert_eq!(some.len(), 1, "{some:?}");
    assert_eq!(some[0].activity, Activity::Unknown);
    assert!(row(&mut onlooker, neighbour.id()).await.is_some());

    // And it is said, with what to grant.
    let rights = onlooker.rights().await.unwrap();
    assert!(!rights.sees_all_activity);
    assert!(rights.advice(false).any(|advice| advice.contains("GRANT PROCESS")), "{rights:?}");
    lab.sql("GRANT PROCESS ON *.* TO lb_agent").await;
    let mut again = lab.session("a", "lb_agent").await;
    row_that(&mut again, client.id(), idle).await;
    lab.shutdown().await;
}

/// The server refuses to count below 0, and a neighbour's statement may end after the look began.
#[tokio::test]
async fn busy_sessions_do_not_hide_quiet_ones() {
    let lab = Lab::start(0).await;
    let quiet = lab.client("app").await;
    let mut busy = Vec::new();
    for _ in 0..8 {
        let mut client = lab.client("app").await;
        busy.push(tokio::spawn(async move { while client.query("DO 1").await.is_ok() {} }));
    }
    let mut agent = lab.session("a", "lb_agent").await.as_to_mysql();
    for _ in 0..300 {
        let rows = agent.activity(Scope::All).await.unwrap();
        assert!(rows.iter().any(|row| row.key.pid == u64::from(quiet.id())));
    }
    row_that(&mut agent, quiet.id(), |row| idle(row) && row.age.at_least() > Duration::from_millis(50)).await;
    busy.iter().for_each(tokio::task::JoinHandle::abort);
    lab.shutdown().await;
}

#[tokio::test]
async fn some_sessions_are_asked_for_by_their_id() {
    let lab = Lab::start(0).await;
    let mut agent = lab.session("a", "lb_agent").await;
    let one = lab.named_client("app", "one").await;
    let two = lab.client("app").await;
    let whole = row_that(&mut agent, one.id(), idle).await;
    let gone = row_that(&mut agent, two.id(), idle).await.key;
    drop(two);
    let nobody = BackendKey { pid: u64::MAX, started_us: 0 };
    super::clients::eventually("the session of two to end", || {
        let lab = &lab;
        async move {
            let count =
                format!("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE ID = {}", gone.pid);
            let count = lab.standin.value("a", &count).await.unwrap();
            if count == "0" { Ok(()) } else { Err(count) }
        }
    })
    .await;
    // Also by a session that has not looked at all of them before.
    let mut fresh = lab.session("a", "lb_agent").await;
    for agent in [&mut agent, &mut fresh] {
        for (keys, expected) in [(&[whole.key, gone, nobody][..], vec![whole.key]), (&[][..], vec![])] {
            let found = agent.activity(Scope::Only(keys)).await.unwrap();
            assert_eq!(found.iter().map(|row| row.key).collect::<Vec<_>>(), expected);
        }
        let found = agent.activity(Scope::Only(&[whole.key])).await.unwrap();
        assert_eq!((found[0].client, &found[0].user), (whole.client, &whole.user));
        assert_eq!((&*found[0].application, found[0].iam_user), ("one", true));
    }
    lab.shutdown().await;
}
