//! What a MariaDB server lets be seen of its sessions, with and without performance_schema.

use integration_tests::standin::{Engine, Options, StandIn};

use super::{Client, session};

const OPEN: &str = "SELECT count(*) FROM performance_schema.events_transactions_current AS open \
    JOIN performance_schema.threads USING (thread_id) WHERE open.state = 'ACTIVE' AND processlist_user = 'app'";

async fn server(performance_schema: bool) -> (StandIn, Client) {
    let options = Options { engine: Engine::Mariadb, replicas: 0, performance_schema, ..Options::default() };
    let standin = StandIn::start(options).await.unwrap();
    let app = session(&standin, "a").await;
    (standin, app)
}

#[tokio::test]
async fn a_transaction_that_has_touched_nothing_and_a_lock_on_a_table_are_seen() {
    let (standin, mut app) = server(true).await;
    assert_eq!(standin.value("a", OPEN).await.unwrap(), "0");
    app.value("START TRANSACTION").await.unwrap();
    assert_eq!(standin.value("a", OPEN).await.unwrap(), "1");
    app.value("COMMIT").await.unwrap();
    assert_eq!(standin.value("a", OPEN).await.unwrap(), "0");

    let locked = "SELECT count(*) FROM performance_schema.metadata_locks WHERE object_name = 'stock'";
    assert_eq!(standin.value("a", locked).await.unwrap(), "0");
    app.value("LOCK TABLES stock WRITE").await.unwrap();
    assert_eq!(standin.value("a", locked).await.unwrap(), "1");
}

#[tokio::test]
async fn without_performance_schema_none_of_it_is() {
    let (standin, mut app) = server(false).await;
    assert_eq!(standin.value("a", "SELECT @@performance_schema").await.unwrap(), "0");
    app.value("START TRANSACTION").await.unwrap();
    assert_eq!(standin.value("a", OPEN).await.unwrap(), "0");
    assert_eq!(standin.value("a", "SELECT count(*) FROM information_schema.innodb_trx").await.unwrap(), "0");
}
