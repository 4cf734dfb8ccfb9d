//! What a line says: a session that has ended, or another message of HAProxy.

use std::{net::SocketAddr, time::Duration};

use super::State;

#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "almost all lines are of sessions, and none is kept")]
pub enum Line<'a> {
    /// A session has ended.
    Ended(Ended<'a>),
    /// HAProxy reports a server, a check or a proxy.
    Notice,
}

/// A session that has ended. `tcplog` has fewer fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended<'a> {
    /// The process id of the worker.
    pub worker: Option<u32>,
    /// The number of the line among those of its frontend and worker.
    pub sequence: Option<u64>,
    /// The number of the session in its worker, as in `show sess` (`id=`).
    pub id: Option<u64>,
    /// `None` for a client on a Unix socket.
    pub source: Option<SocketAddr>,
    pub frontend: &'a str,
    pub backend: &'a str,
    /// `None` if none was chosen.
    pub server: Option<&'a str>,
    /// The address that was dialled last.
    pub peer: Option<SocketAddr>,
    /// HAProxy's address and port towards the server, which the database shows.
    pub outgoing: Option<SocketAddr>,
    pub state: State,
    /// The time until a server was chosen for the last try, earlier tries included.
    pub waited: Option<Duration>,
    /// The time that the last try to connect took; `None` if the session was never connected.
    pub connected: Option<Duration>,
    /// From accept to end.
    pub lasted: Duration,
    pub retries: u32,
    pub from_client: Option<u64>,
    pub to_client: u64,
    /// The name of the error of the connection to the server, where the format has it.
    pub error: Option<&'a str>,
}

/// Why a datagram is not a line of a session.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Unread {
    TooLong,
    /// Not UTF-8.
    NotText,
    /// Neither of the two formats: another program, or another `log-format`.
    Foreign,
    /// One of the formats, with a field that is missing or not as it should be.
    Field(&'static str),
}
