//! One database instance: logins, liveness, its connection table.
//!
//! - [`door`]: the one way to log in: budget, token, login, report.
//! - [`unfinished`]: logins that a server counts, and how rare they have to be.
//! - [`probe`]: a full login now and then.
//! - [`liveness`]: a quick question on a kept connection.
//! - [`host_block`]: how near a server is to blocking the proxy's address.
//! - [`sessions`]: the connection table, and closing by the database.
//! - [`credentials`]: whether a client could get credentials now.

pub mod credentials;
pub mod door;
pub mod host_block;
pub mod liveness;
pub mod probe;
pub mod sessions;
pub mod unfinished;
