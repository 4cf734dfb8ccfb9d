//! The clients that measure: they work, and what is broken on purpose is counted as broken.
//!
//! - `clients`: what clients of both engines count
//! - `postgresql`, `mariadb`: what differs by engine
//! - `retirement`: the same clients while the agent retires their sessions

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "a test")]

mod clients;
mod mariadb;
mod postgresql;
mod retirement;

use std::{future::Future, sync::Arc, time::Duration};

use integration_tests::{
    haproxy::{Backend, Haproxy, HaproxyBinary, HaproxyConfig, Server},
    load::{Load, LoadReport, Target, Think, Work},
    process::wait_for,
    standin::{Engine, Options, StandIn},
};

const PATIENCE: Duration = Duration::from_secs(60);
const BUSY: Work = Work::Transactions { think: Think::Busy, retry_begin: false };
const MIXED: Work = Work::Transactions { think: Think::Mixed, retry_begin: false };

/// A writer behind a HAProxy, and a load through it.
struct Bench {
    load: Load,
    app: Target,
    haproxy: Haproxy,
    standin: Arc<StandIn>,
}

impl Bench {
    async fn set_up(engine: Engine) -> Self {
        let options = Options { engine, replicas: 0, ..Options::default() };
        let standin = Arc::new(StandIn::start(options).await.unwrap());
        let writer = Server::new("a", standin.writer().unwrap().connect());
        let config =
            HaproxyConfig::new().frontend("in", "orders").backend(Backend::new("orders").server(writer));
        let haproxy = Haproxy::start(&HaproxyBinary::debian().unwrap(), config).await.unwrap();
        let app = Target::of(&standin, "app").unwrap().dialling(haproxy.address("in"));
        let load = Load::new(app.clone(), 42).await.unwrap();
        Self { load, app, haproxy, standin }
    }

    async fn sql(&self, sql: &str) -> String {
        self.standin.value("a", sql).await.unwrap()
    }

    /// Waits until the counts are as wanted, doing `meanwhile` each time they are not.
    async fn until<F: Future>(
        &self,
        what: &str,
        reached: impl Fn(&LoadReport) -> bool,
        meanwhile: impl Fn() -> F,
    ) {
        wait_for(what, PATIENCE, async || {
            let report = self.load.report();
            if reached(&report) {
                return Ok(());
            }
            meanwhile().await;
            Err(format!("{report:?}"))
        })
        .await
        .unwrap();
    }

    async fn tear_down(self) {
        let Self { load, haproxy, standin, app } = self;
        drop((load, haproxy, app));
        Arc::into_inner(standin).unwrap().shutdown().await.unwrap();
    }
}
