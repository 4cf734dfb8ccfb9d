//! Real servers, proxies and clients for the tests, the demo and the benchmarks.
//!
//! Not part of what an operator runs beside a proxy. The IAM stand-in is also a command of
//! its own, for trying a setup without AWS.
//!
//! # Layout
//! - [`bench`]: measurements of the parts, and under load
//! - [`demo`]: the main job, live
//! - [`envoy`]: a real Envoy, with the configuration that users get
//! - [`haproxy`]: a real HAProxy, 2.6 or 2.8
//! - [`load`]: real clients, and an honest count of what broke
//! - [`mysql`]: a small MySQL client
//! - [`process`]: free ports, starting and stopping real programs, waiting with a deadline
//! - [`regret`]: what clients suffer with the agent, less what they suffer without
//! - [`scene`]: the stand-in, a proxy and the agent, set up together
//! - [`standin`]: PostgreSQL or MariaDB servers that take only genuine IAM tokens
//! - [`tls`]: verified TLS for `tokio-postgres` clients

pub mod bench;
pub mod demo;
pub mod envoy;
pub mod haproxy;
pub mod load;
pub mod mysql;
pub mod process;
pub mod regret;
pub mod scene;
pub mod standin;
pub mod tls;
