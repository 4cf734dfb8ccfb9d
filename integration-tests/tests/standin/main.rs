//! The stand-in itself, on each engine: it takes genuine tokens and nothing else, does to its
//! servers what is asked of it, and leaves nothing behind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

mod client;
mod cluster;
mod endpoint;
mod host_block;
mod leftovers;
mod login;
mod sight;

use std::time::Duration;

use integration_tests::{
    on_each_engine,
    standin::{Engine, Options, StandIn},
};

use self::client::{Client, Refused, log_in};

/// Generous: a machine that runs all tests at once is slow.
const PATIENCE: Duration = Duration::from_secs(30);

async fn started(engine: Engine, replicas: usize) -> StandIn {
    StandIn::start(Options { engine, replicas, ..Options::default() }).await.unwrap()
}

/// A session of the user `app`.
async fn session(standin: &StandIn, server: &str) -> Client {
    log_in(standin, server, "app").await.unwrap()
}
