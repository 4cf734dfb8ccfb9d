//! The proxy's side of a session: one entry of its session table.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use serde::Serialize;

use crate::ServerId;

/// The identity of a session at its proxy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProxySessionKey {
    Haproxy(HaproxySessionKey),
    /// Envoy's stream id, which is unique over all Envoys.
    Envoy(Arc<str>),
}

/// The identity of a session at HAProxy. Pointers are reused at once, so it takes all of these
/// together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct HaproxySessionKey {
    /// The process id of the worker that has it.
    pub worker: u32,
    /// The address of the session in the process, as HAProxy prints it.
    pub pointer: Arc<str>,
    pub id: u64,
    /// The accept date as printed, in the proxy's local time.
    pub accepted: Arc<str>,
}

/// One session as the proxy shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProxySession {
    pub key: ProxySessionKey,
    /// The server it was sent to.
    pub server: ServerId,
    /// Where the client came from; `None` for a client on a Unix socket.
    pub source: Option<SocketAddr>,
    /// The proxy's outgoing address and port: what the database sees.
    pub outgoing: SocketAddr,
    /// The address of the database server this connection really goes to.
    pub peer: SocketAddr,
    /// How long ago it was accepted, by the proxy's own clock.
    pub age: Duration,
    /// Whether it lives in a worker from before a reload.
    pub old_worker: bool,
}

impl ProxySession {
    /// The host of the client. One on a Unix socket is on the host of the proxy.
    pub fn client_host(&self) -> IpAddr {
        self.source.map_or(Ipv4Addr::LOCALHOST.into(), |source| source.ip())
    }

    /// The client's address, for logs and operators.
    pub fn client_name(&self) -> String {
        self.source.map_or_else(|| "unix".to_owned(), |source| source.to_string())
    }
}
