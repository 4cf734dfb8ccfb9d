//! The stand-in itself: it takes genuine tokens and nothing else, and leaves nothing behind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test")]

use integration_tests::standin::{Options, StandIn};

#[tokio::test]
async fn smoke() {
    let began = std::time::Instant::now();
    let standin = StandIn::start(Options::default()).await.unwrap();
    eprintln!("up after {:?}", began.elapsed());
    let (client, connection) =
        standin.login("a", "app").unwrap().connect(standin.tls().unwrap()).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("INSERT INTO orders (client, number) VALUES (1, 1)").await.unwrap();
    eprintln!("{:?}", standin.journal().attempts());
    let began = std::time::Instant::now();
    standin.shutdown().await.unwrap();
    eprintln!("down after {:?}", began.elapsed());
}
