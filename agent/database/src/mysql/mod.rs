//! MySQL and MariaDB: RDS, Aurora, and any server with the same login.
//!
//! # Layout
//! - `wire`: the protocol, as far as the agent speaks it.
//! - `login`: from a target and a token to a session, phase by phase.
//! - `gate`: the token goes out as a clear password inside TLS, or not at all.
//! - `session`: the open connection and its time limits.
//! - `host_block`: what the server counts of failed connections.
//! - `classify`: error numbers and lost connections to faults.
//! - `version`: MySQL or MariaDB, which version, Aurora or not.

mod classify;
mod gate;
mod host_block;
mod login;
mod session;
mod version;
mod wire;

use agent_core::Fault;

pub use session::MySqlSession;
pub use version::ServerVersion;

use crate::{
    report::LoginReport,
    target::{Limits, Target},
    trust::TlsTrust,
};

/// One full login to MySQL or MariaDB: name, connection, verified TLS, token.
///
/// The report is filled as far as the login got, also when it failed.
pub async fn login(
    target: &Target,
    trust: &TlsTrust,
    token: &str,
    limits: &Limits,
) -> (Result<MySqlSession, Fault>, LoginReport) {
    let mut report = LoginReport::default();
    // Boxed: a TLS handshake is a lot to carry in every caller's future.
    let outcome = Box::pin(login::login(target, trust, token, limits, &mut report)).await;
    (outcome, report)
}
