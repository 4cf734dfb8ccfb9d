//! The tasks of a database instance, each with a connection of its own.
//!
//! - [`door`]: how all tasks log in: login budget, token, login, report.
//! - [`unfinished`]: spaces logins that a MySQL server counts as connect errors.
//! - [`addresses`]: logins at the addresses that proxies dial.
//! - [`probe`]: a full login per interval.
//! - [`liveness`]: a quick query on a kept connection.
//! - [`host_block`]: the connect errors that a MySQL server counts for the addresses of the proxy.
//! - [`sessions`]: the connection table, and sessions closed by the database.
//! - [`credentials`]: whether clients can get AWS credentials.

pub mod addresses;
pub mod credentials;
pub mod door;
pub mod host_block;
pub mod liveness;
pub mod probe;
pub mod sessions;
pub mod unfinished;
