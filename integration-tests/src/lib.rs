//! Real servers, proxies and clients for the tests, the demo and the benchmarks.
//!
//! Not part of what an operator runs beside a proxy. The IAM stand-in is also a command of
//! its own, for trying a setup without AWS.
//!
//! # Layout
//! Each part uses those above it only.
//! - [`tools`]: what all parts use: processes, a small MySQL client, verified TLS
//! - [`standin`]: PostgreSQL or MariaDB servers that take only genuine IAM tokens
//! - [`testbed`]: a stand-in, a proxy and the agent together, and clients that count what breaks
//! - [`bench`]: measurements of the parts, and under load
//! - [`demo`]: the main job, live
//! - [`regret`]: what clients suffer with the agent, less what they suffer without

pub mod bench;
pub mod demo;
pub mod regret;
pub mod standin;
pub mod testbed;
pub mod tools;

pub use testbed::{envoy, haproxy, length, load, packets, rds_api, scene};
pub use tools::{mysql, process, tls};
