//! The decisions of the agent, and the words they are made of.
//!
//! Everything here is pure: observations go in with the time they were made,
//! verdicts and plans come out. No clock is read, nothing is awaited, no file
//! or socket is touched; `clippy.toml` beside this crate keeps it so.
//!
//! # Layout
//! - [`time`]: the one time type of decisions.
//! - [`names`]: databases, instances, servers.
//! - [`fault`]: what goes wrong between the agent and a database, and who is to blame.
//! - [`health`]: from probes and liveness queries to the verdict of each server.
//! - [`hand_offs`]: client sessions that failed, for operators.
//! - [`session`]: from the proxy's and the database's tables to one ledger.
//! - [`plan`]: from ledger, fleet and policy to commands and holds.
//! - [`peers`]: other agents of the same database, and what is shared with them.
//! - [`topology`]: what AWS reports about a database, compared with the configuration.
//! - [`desired`]: from a verdict to what each transport says.
//! - [`freshness`]: how old something may be and still count.

pub mod desired;
pub mod fault;
pub mod freshness;
pub mod hand_offs;
pub mod health;
pub mod names;
pub mod peers;
pub mod plan;
pub mod session;
pub mod time;
pub mod topology;

pub use fault::{Blame, Evidence, Fault, FaultKind, Phase};
pub use names::{DatabaseName, InstanceId, InstanceName, ProxyIndex, ServerId};
pub use time::Time;
