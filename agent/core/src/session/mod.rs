//! From the proxy's and the database's tables to one ledger of sessions.

mod activity;
mod proxy;

pub use activity::{Activity, ActivityRow, BackendKey, LastStatement};
pub use proxy::{ProxySession, ProxySessionKey};
