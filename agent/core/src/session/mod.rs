//! From the proxy's and the database's tables to one ledger of sessions.
//!
//! - [`activity`](ActivityRow): the database's side of a session.
//! - [`proxy`](ProxySession): the proxy's side.
//! - [`ledger`](Ledger): both, joined by the exact address and port between them.

mod activity;
mod ledger;
mod proxy;

pub use activity::{Activity, ActivityRow, Age, BackendKey, LastStatement};
pub use ledger::{Join, Ledger, Seen, ServerIndex, Session};
pub use proxy::{HaproxySessionKey, ProxySession, ProxySessionKey};
