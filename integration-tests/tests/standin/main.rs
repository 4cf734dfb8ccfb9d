//! The stand-in itself: it takes genuine tokens and nothing else, does to its servers what it
//! is told, and leaves nothing behind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

mod cluster;
mod endpoint;
mod leftovers;
mod login;

use std::time::Duration;

use integration_tests::standin::{Options, StandIn};
use tokio_postgres::{Client, Config, Error};

/// Generous: a machine that runs all tests at once is slow.
const PATIENCE: Duration = Duration::from_secs(30);

async fn single_server() -> StandIn {
    StandIn::start(Options { replicas: 0, ..Options::default() }).await.unwrap()
}

async fn connect(standin: &StandIn, login: &Config) -> Result<Client, Error> {
    let (client, connection) = login.connect(standin.tls().unwrap()).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// A session of the user `app`.
async fn session(standin: &StandIn, server: &str) -> Client {
    connect(standin, &standin.login(server, "app").unwrap()).await.unwrap()
}
