//! A writer, its replicas, and what can be done to them.

use std::time::Duration;

use integration_tests::{
    process::wait_for,
    standin::{Engine, Error, Options, StandIn, StopMode},
};

use super::{PATIENCE, log_in, on_each_engine, session, started};

on_each_engine!(
    replicas_follow_the_writer_through_promotion_and_failover,
    a_failover_loses_nothing_that_was_committed,
    a_frozen_writer_is_replaced,
    after_a_crash_the_old_writer_forgets_what_no_replica_had,
    a_server_stops_and_starts_on_its_old_address,
    a_frozen_server_takes_connections_and_answers_nothing_until_it_is_thawed,
    options_that_make_no_sense_are_refused,
);

async fn is_writer(standin: &StandIn, server: &str) -> bool {
    match standin.engine() {
        Engine::Postgresql => standin.value(server, "SELECT NOT pg_is_in_recovery()").await.unwrap() == "t",
        Engine::Mariadb => standin.value(server, "SELECT @@read_only").await.unwrap() == "0",
    }
}

/// What a client reads that writes on a replica.
fn read_only(engine: Engine) -> &'static str {
    match engine {
        Engine::Postgresql => "25006",
        Engine::Mariadb => "1290",
    }
}

/// Writes a row on `writer` and waits until `replica` shows it.
async fn a_row_gets_from(standin: &StandIn, writer: &str, replica: &str, number: i64) {
    let insert = format!("INSERT INTO orders (client, number) VALUES (1, {number})");
    session(standin, writer).await.value(&insert).await.unwrap();
    let count = format!("SELECT count(*) FROM orders WHERE number = {number}");
    let shows = || async {
        match standin.value(replica, &count).await {
            Ok(count) if count == "1" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    };
    wait_for(&format!("row {number} on {replica}"), PATIENCE, shows).await.unwrap();
}

async fn replicas_follow_the_writer_through_promotion_and_failover(engine: Engine) {
    let standin = started(engine, 2).await;
    assert_eq!(standin.writer().unwrap().name(), "a");
    a_row_gets_from(&standin, "a", "b", 1).await;
    a_row_gets_from(&standin, "a", "c", 2).await;
    let refused = session(&standin, "b").await.value("DELETE FROM orders").await.unwrap_err();
    assert_eq!(refused.code.as_deref(), Some(read_only(engine)), "{refused:?}");

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
    let rows = "SELECT count(*) FROM orders";
    assert_eq!(standin.value("b", rows).await.unwrap(), "5", "what it wrote itself before is there too");
    standin.shutdown().await.unwrap();
}

/// Rows are written until the moment the writer stops.
async fn a_failover_loses_nothing_that_was_committed(engine: Engine) {
    let standin = started(engine, 1).await;
    let mut client = session(&standin, "a").await;
    let writing = tokio::spawn(async move {
        let mut written = 0;
        loop {
            let insert = format!("INSERT INTO orders (client, number) VALUES (7, {})", written + 1);
            match client.value(&insert).await {
                Ok(_) => written += 1,
                Err(_) => return written,
            }
        }
    });
    let some = || async {
        let count = standin.value("b", "SELECT count(*) FROM orders WHERE client = 7").await;
        count
            .map_err(|error| error.to_string())?
            .parse::<u32>()
            .ok()
            .filter(|rows| *rows > 50)
            .ok_or(String::new())
    };
    wait_for("rows to flow", PATIENCE, some).await.unwrap();
    standin.failover("b").await.unwrap();
    let written = writing.await.unwrap();
    for server in ["a", "b"] {
        let count = standin.value(server, "SELECT count(*) FROM orders WHERE client = 7").await.unwrap();
        let count: u32 = count.parse().unwrap();
        // The last one may have been committed though no acknowledgement reached the client.
        assert!(count == written || count == written + 1, "{server}: {count} rows, {written} acknowledged");
    }
    standin.shutdown().await.unwrap();
}

async fn a_frozen_writer_is_replaced(engine: Engine) {
    let standin = started(engine, 1).await;
    a_row_gets_from(&standin, "a", "b", 1).await;
    standin.freeze("a").await.unwrap();
    standin.failover("b").await.unwrap();
    assert!(!is_writer(&standin, "a").await && is_writer(&standin, "b").await);
    a_row_gets_from(&standin, "b", "a", 2).await;
    standin.shutdown().await.unwrap();
}

async fn after_a_crash_the_old_writer_forgets_what_no_replica_had(engine: Engine) {
    let standin = started(engine, 1).await;
    a_row_gets_from(&standin, "a", "b", 1).await;
    standin.stop("b", StopMode::Fast).await.unwrap();
    session(&standin, "a").await.value("INSERT INTO orders (client, number) VALUES (1, 2)").await.unwrap();
    standin.stop("a", StopMode::Immediate).await.unwrap();
    standin.start_server("b").await.unwrap();

    standin.failover("b").await.unwrap();
    a_row_gets_from(&standin, "b", "a", 3).await;
    for server in ["a", "b"] {
        let count = standin.value(server, "SELECT count(*) FROM orders").await.unwrap();
        assert_eq!(count, "2", "{server}");
    }
    standin.shutdown().await.unwrap();
}

async fn a_server_stops_and_starts_on_its_old_address(engine: Engine) {
    let standin = started(engine, 1).await;
    let mut kept = session(&standin, "b").await;

    standin.stop("b", StopMode::Fast).await.unwrap();
    let refused = kept.value("SELECT 1").await.unwrap_err();
    // The farewells: 57P01, and ER_CONNECTION_KILLED.
    let farewell = matches!(refused.code.as_deref(), None | Some("57P01" | "1927" | "1053"));
    assert!(farewell, "{refused:?}");
    let refused = log_in(&standin, "b", "app").await.map(drop).unwrap_err();
    assert!(refused.message.contains("ConnectionRefused"), "{refused:?}");
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

async fn a_frozen_server_takes_connections_and_answers_nothing_until_it_is_thawed(engine: Engine) {
    let standin = started(engine, 1).await;
    let mut kept = session(&standin, "a").await;
    standin.freeze("a").await.unwrap();

    // The kernel takes connections for it.
    tokio::net::TcpStream::connect(standin.server("a").unwrap().connect()).await.unwrap();
    let mut answer = std::pin::pin!(kept.value("SELECT 1"));
    let silence = Duration::from_millis(300);
    tokio::time::timeout(silence, &mut answer).await.map(drop).unwrap_err();
    let login = log_in(&standin, "a", "app");
    assert!(tokio::time::timeout(silence, login).await.is_err(), "it answered");
    assert!(matches!(standin.execute_sql("a", "SELECT 1").await, Err(Error::Frozen(_))));
    session(&standin, "b").await.value("SELECT 1").await.unwrap();

    standin.thaw("a").await.unwrap();
    tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
    session(&standin, "a").await;

    // A frozen one can still be stopped.
    standin.freeze("a").await.unwrap();
    standin.stop("a", StopMode::Fast).await.unwrap();
    standin.shutdown().await.unwrap();
}

async fn options_that_make_no_sense_are_refused(engine: Engine) {
    let options = Options { engine, ..Options::default() };
    let wrong = [
        Options { replicas: 10, ..options.clone() },
        Options { prefix: "Orders".to_owned(), ..options.clone() },
        Options { region: String::new(), ..options.clone() },
        Options { renew_before: Some(Duration::from_hours(6)), ..options.clone() },
    ];
    for options in wrong {
        assert!(matches!(StandIn::start(options).await, Err(Error::Options(_))));
    }
    // A setting that the server refuses shows in its own words.
    let settings = vec![("no_such_setting".to_owned(), "1".to_owned())];
    let error = StandIn::start(Options { settings, ..options }).await.unwrap_err();
    let words = match engine {
        Engine::Postgresql => "unrecognized configuration parameter",
        Engine::Mariadb => "unknown variable 'no_such_setting=1'",
    };
    assert!(error.to_string().contains(words), "{error}");
}
