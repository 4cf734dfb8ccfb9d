//! Real servers, proxies and clients for the tests, the demo and the benchmarks.
//!
//! Not part of what an operator runs beside a proxy. The IAM stand-in is also a command of
//! its own, for trying a setup without AWS.
//!
//! # Layout
//! - [`process`]: free ports, starting and stopping real programs, waiting with a deadline
//! - [`standin`]: PostgreSQL servers that take only genuine IAM tokens
//! - [`tls`]: verified TLS for `tokio-postgres` clients

pub mod process;
pub mod standin;
pub mod tls;
