//! The connection table, seen with and without the right to look.

use std::time::Duration;

use agent_core::session::{Activity, BackendKey, LastStatement};
use agent_database::{Scope, Session as _};

use super::lab::{Lab, row, row_that};

fn idle(activity: Activity) -> bool {
    matches!(activity, Activity::Idle(_))
}

#[tokio::test]
async fn a_row_has_user_address_start_and_activity() {
    let lab = Lab::start(0).await;
    let mut agent = lab.session("a", "lb_agent").await;
    let client = lab.client("app", "shop").await;
    let own = client
        .query_one(
            "SELECT pg_backend_pid(), inet_client_addr(), inet_client_port(), \
                    (SELECT (extract(epoch FROM backend_start) * 1000000)::bigint \
                       FROM pg_stat_activity WHERE pid = pg_backend_pid())",
            &[],
        )
        .await
        .unwrap();
    let row = row_that(&mut agent, "shop", |row| idle(row.activity)).await;
    assert_eq!(row.key.pid, u64::try_from(own.get::<_, i32>(0)).unwrap());
    assert_eq!(row.key.started_us, own.get::<_, i64>(3));
    let from = row.client.unwrap();
    assert_eq!(from.ip(), own.get::<_, std::net::IpAddr>(1));
    assert_eq!(i32::from(from.port()), own.get::<_, i32>(2));
    assert_eq!((&*row.user, &*row.database_name), ("app", "orders"));
    assert!(row.iam_user && row.client_backend && !row.superuser);
    assert_eq!(row.last_statement, LastStatement::Other);
    assert_eq!(row.advisory_lock, Some(false));

    // Both grow by the database's clock; the pause is never longer than the life.
    let grown = row.age.at_least() + Duration::from_millis(50);
    let later = row_that(&mut agent, "shop", |later| later.age.at_least() > grown).await;
    let (Activity::Idle(before), Activity::Idle(after)) = (row.activity, later.activity) else {
        panic!("{later:?}");
    };
    assert!(after > before && after <= later.age.at_least());
    lab.shutdown().await;
}

#[tokio::test]
async fn only_idle_is_idle() {
    let lab = Lab::start(0).await;
    let mut agent = lab.session("a", "lb_agent").await;

    let open = lab.client("app", "open").await;
    open.batch_execute("BEGIN").await.unwrap();
    row_that(&mut agent, "open", |row| row.activity == Activity::InTransaction).await;

    let aborted = lab.client("app", "aborted").await;
    aborted.batch_execute("BEGIN").await.unwrap();
    aborted.batch_execute("SELECT 1/0").await.unwrap_err();
    row_that(&mut agent, "aborted", |row| row.activity == Activity::InTransaction).await;

    let busy = lab.client("app", "busy").await;
    let running = tokio::spawn(async move { busy.batch_execute("SELECT pg_sleep(60)").await });
    row_that(&mut agent, "busy", |row| row.activity == Activity::Running).await;
    running.abort();

    let locker = lab.client("app", "locker").await;
    locker.batch_execute("SELECT pg_advisory_lock(7)").await.unwrap();
    row_that(&mut agent, "locker", |row| idle(row.activity) && row.advisory_lock == Some(true)).await;

    let blind = lab.client("app2", "blind").await;
    lab.sql("ALTER ROLE app2 SET track_activities = off").await;
    drop(blind);
    let _blind = lab.client("app2", "blind").await;
    row_that(&mut agent, "blind", |row| row.activity == Activity::Unknown).await;
    lab.shutdown().await;
}

#[tokio::test]
async fn users_are_distinguished_by_their_authentication() {
    let lab = Lab::start(1).await;
    let mut agent = lab.session("a", "lb_agent").await;
    let _legacy = lab.password_client("legacy").await;
    assert!(!row(&mut agent, "legacy").await.unwrap().iam_user);

    // Membership counts through other roles too, as in the server's own rules.
    lab.sql("CREATE ROLE team IN ROLE rds_iam; CREATE ROLE member LOGIN IN ROLE team").await;
    let _member = lab.client("member", "member").await;
    assert!(row(&mut agent, "member").await.unwrap().iam_user);

    // A superuser is a member of everything, and of nothing that counts.
    lab.sql("ALTER ROLE member SUPERUSER").await;
    let seen = row(&mut agent, "member").await.unwrap();
    assert!(seen.superuser && !seen.iam_user);

    // The replica's own session on the writer.
    let walsender = row(&mut agent, "b").await.unwrap();
    assert!(!walsender.client_backend, "{walsender:?}");
    assert_eq!(&*walsender.user, "replicator");

    // Neither the agent's own session nor the server's workers.
    let rows = agent.activity(Scope::All).await.unwrap();
    assert!(rows.iter().all(|row| !row.user.is_empty()), "{rows:?}");
    assert!(rows.iter().all(|row| &*row.user != "lb_agent"), "{rows:?}");

    // Without the role, no user logs in by IAM.
    lab.sql("ALTER ROLE rds_iam RENAME TO something_else").await;
    assert!(agent.activity(Scope::All).await.unwrap().iter().all(|row| !row.iam_user));
    lab.shutdown().await;
}

#[tokio::test]
async fn what_the_agent_may_not_see_is_unknown() {
    let lab = Lab::start(0).await;
    let mut onlooker = lab.session("a", "app").await;
    let _client = lab.client("app2", "hidden").await;
    let row = row(&mut onlooker, "hidden").await.unwrap();
    assert_eq!(row.activity, Activity::Unknown);
    assert_eq!(row.last_statement, LastStatement::Unknown);
    assert_eq!((row.client, row.client_backend), (None, false));
    lab.shutdown().await;
}

#[tokio::test]
async fn some_sessions_are_asked_for_by_their_whole_identity() {
    let lab = Lab::start(0).await;
    let mut agent = lab.session("a", "lb_agent").await;
    let _one = lab.client("app", "one").await;
    let two = lab.client("app", "two").await;
    let _three = lab.client("app", "three").await;
    let one = row_that(&mut agent, "one", |row| idle(row.activity)).await;
    let gone = row(&mut agent, "two").await.unwrap();
    drop(two);
    let deadline = std::time::Instant::now() + super::lab::PATIENCE;
    while row(&mut agent, "two").await.is_some() {
        assert!(std::time::Instant::now() < deadline, "the session of two does not end");
    }

    let reused = BackendKey { started_us: one.key.started_us - 1, ..one.key };
    let nobody = BackendKey { pid: u64::MAX, started_us: 0 };
    for (keys, expected) in
        [(&[one.key, gone.key, nobody][..], vec![one.key]), (&[reused][..], vec![]), (&[][..], vec![])]
    {
        let found = agent.activity(Scope::Only(keys)).await.unwrap();
        assert_eq!(found.iter().map(|row| row.key).collect::<Vec<_>>(), expected);
    }
    let found = agent.activity(Scope::Only(&[one.key])).await.unwrap();
    assert_eq!((found[0].client, &found[0].user), (one.client, &one.user));
    lab.shutdown().await;
}

#[tokio::test]
async fn listening_is_seen_behind_blanks_and_comments_and_nothing_else_is() {
    let lab = Lab::start(0).await;
    let mut agent = lab.session("a", "lb_agent").await;
    let client = lab.client("app", "listener").await;
    let key = row_that(&mut agent, "listener", |row| idle(row.activity)).await.key;

    let blanks = [
        "",
        " ",
        "\t\n ",
        "-- a comment\n",
        "/* a comment */",
        "/* a /* nested */ one */ ",
        "-- x\n/* y */\n-- z\n",
    ];
    let listening = [
        "LISTEN news",
        "listen \"News\"",
        "LiSteN/**/news",
        "SELECT 1; listen news",
        "BEGIN;\n/* x */ LISTEN news; COMMIT",
    ];
    let others = [
        "UNLISTEN *",
        "UNLISTEN news",
        "NOTIFY news, 'listen'",
        "SELECT 'listen'",
        "SELECT 1 AS listen",
        "SELECT 1 AS listening",
        "SET application_name = 'listener'",
        "BEGIN; COMMIT",
    ];
    let cases = listening.iter().map(|text| (text, LastStatement::Listening));
    let cases = cases.chain(others.iter().map(|text| (text, LastStatement::Other)));
    let mut seen = 0;
    for (statement, expected) in cases {
        for blank in blanks {
            let text = format!("{blank}{statement}");
            client.batch_execute(&text).await.unwrap();
            // The state follows a moment after the answer.
            let deadline = std::time::Instant::now() + super::lab::PATIENCE;
            loop {
                let rows = agent.activity(Scope::Only(&[key])).await.unwrap();
                if idle(rows[0].activity) && rows[0].last_statement == expected {
                    break;
                }
                assert!(std::time::Instant::now() < deadline, "{text:?} is {:?}", rows[0].last_statement);
            }
            seen += 1;
        }
    }
    assert_eq!(seen, 13 * 7);
    lab.shutdown().await;
}
