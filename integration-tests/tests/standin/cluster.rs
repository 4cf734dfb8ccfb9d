//! A writer, its replicas, and what can be done to them.

use std::time::Duration;

use integration_tests::{
    process::wait_for,
    standin::{Error, Options, StandIn, StopMode},
};
use tokio_postgres::error::SqlState;

use super::{PATIENCE, connect, session};

async fn is_writer(standin: &StandIn, server: &str) -> bool {
    standin.value(server, "SELECT NOT pg_is_in_recovery()").await.unwrap() == "t"
}

/// Writes a row on `writer` and waits until `replica` shows it.
async fn a_row_gets_from(standin: &StandIn, writer: &str, replica: &str, number: i64) {
    let insert = format!("INSERT INTO orders (client, number) VALUES (1, {number})");
    session(standin, writer).await.batch_execute(&insert).await.unwrap();
    let count = format!("SELECT count(*) FROM orders WHERE number = {number}");
    let shows = || async {
        match standin.value(replica, &count).await {
            Ok(count) if count == "1" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    };
    wait_for(&format!("row {number} on {replica}"), PATIENCE, shows).await.unwrap();
}

#[tokio::test]
async fn replicas_follow_the_writer_through_promotion_and_failover() {
    let standin = StandIn::start(Options::default()).await.unwrap();
    assert_eq!(standin.writer().unwrap().name(), "a");
    a_row_gets_from(&standin, "a", "b", 1).await;
    a_row_gets_from(&standin, "a", "c", 2).await;
    let error = session(&standin, "b").await.batch_execute("DELETE FROM orders").await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::READ_ONLY_SQL_TRANSACTION));

    standin.failover("b").await.unwrap();
    assert_eq!(standin.writer().unwrap().name(), "b");
    assert!(!is_writer(&standin, "a").await && is_writer(&standin, "b").await);
    a_row_gets_from(&standin, "b", "a", 3).await;
    a_row_gets_from(&standin, "b", "c", 4).await;

    // Two writers, until the old one is rebuilt.
    standin.promote("c").await.unwrap();
    assert!(is_writer(&standin, "b").await && is_writer(&standin, "c").await);
    assert!(matches!(standin.rebuild_as_replica("c").await, Err(Error::IsTheWriter(_))));
    standin.rebuild_as_replica("b").await.unwrap();
    assert!(!is_writer(&standin, "b").await);
    a_row_gets_from(&standin, "c", "b", 5).await;
    standin.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_server_stops_and_starts_on_its_old_address() {
    let standin = StandIn::start(Options { replicas: 1, ..Options::default() }).await.unwrap();
    let kept = session(&standin, "b").await;

    standin.stop("b", StopMode::Fast).await.unwrap();
    let error = kept.batch_execute("SELECT 1").await.unwrap_err();
    assert!(error.is_closed() || error.code() == Some(&SqlState::ADMIN_SHUTDOWN), "{error:?}");
    let error = connect(&standin, &standin.login("b", "app").unwrap()).await.unwrap_err();
    assert!(format!("{error:?}").contains("ConnectionRefused"), "{error:?}");
    assert!(matches!(standin.freeze("b").await, Err(Error::NotRunning(_))));
    session(&standin, "a").await;

    standin.start_server("b").await.unwrap();
    session(&standin, "b").await;
    a_row_gets_from(&standin, "a", "b", 1).await;

    standin.stop("a", StopMode::Immediate).await.unwrap();
    standin.start_server("a").await.unwrap();
    a_row_gets_from(&standin, "a", "b", 2).await;
    standin.restart("b").await.unwrap();
    a_row_gets_from(&standin, "a", "b", 3).await;
    assert!(matches!(standin.restart("z").await, Err(Error::NoSuchServer(_))));
    standin.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_frozen_server_takes_connections_and_answers_nothing_until_it_is_thawed() {
    let standin = StandIn::start(Options { replicas: 1, ..Options::default() }).await.unwrap();
    let kept = session(&standin, "a").await;
    standin.freeze("a").await.unwrap();

    // The kernel takes connections for it.
    tokio::net::TcpStream::connect(standin.server("a").unwrap().connect()).await.unwrap();
    let mut answer = std::pin::pin!(kept.batch_execute("SELECT 1"));
    let silence = Duration::from_millis(300);
    tokio::time::timeout(silence, &mut answer).await.unwrap_err();
    let login = standin.login("a", "app").unwrap();
    assert!(tokio::time::timeout(silence, connect(&standin, &login)).await.is_err(), "it answered");
    assert!(matches!(standin.execute_sql("a", "SELECT 1").await, Err(Error::Frozen(_))));
    session(&standin, "b").await.batch_execute("SELECT 1").await.unwrap();

    standin.thaw("a").await.unwrap();
    tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
    session(&standin, "a").await;

    // A frozen one can still be stopped.
    standin.freeze("a").await.unwrap();
    standin.stop("a", StopMode::Fast).await.unwrap();
    standin.shutdown().await.unwrap();
}

#[tokio::test]
async fn options_that_make_no_sense_are_refused() {
    let wrong = [
        Options { replicas: 10, ..Options::default() },
        Options { prefix: "Orders".to_owned(), ..Options::default() },
        Options { region: String::new(), ..Options::default() },
        Options { renew_before: Some(Duration::from_hours(6)), ..Options::default() },
    ];
    for options in wrong {
        assert!(matches!(StandIn::start(options).await, Err(Error::Options(_))));
    }
    // A setting that PostgreSQL refuses shows in its own words.
    let settings = vec![("no_such_setting".to_owned(), "1".to_owned())];
    let error = StandIn::start(Options { settings, ..Options::default() }).await.unwrap_err();
    assert!(error.to_string().contains("unrecognized configuration parameter"), "{error}");
}
