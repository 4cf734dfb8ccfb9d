//! The streaming parser of `show sess all`.
//!
//! The format is undocumented on purpose and may change in stable branches. Fields are found by their key
//! at the start of a line; unknown keys and lines are skipped. `age=` is not used (2.8 prints garbage in
//! TCP mode): an age is the difference to the accept date of the CLI connection that asked.

mod parser;

pub use parser::{Entry, Parser};

use std::{net::SocketAddr, time::Duration};

use jiff::civil::DateTime;

/// One session of one worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// As printed. HAProxy reuses it at once after the end of the session.
    pub pointer: String,
    /// The `id=` field: a counter of the worker.
    pub id: u64,
    /// The accept date as printed, in HAProxy's local time.
    pub accepted: String,
    pub frontend: String,
    pub backend: String,
    pub server: String,
    /// The client's address; `None` for a client on a Unix socket.
    pub source: Option<SocketAddr>,
    /// HAProxy's own address and port towards the server, which the database shows.
    pub outgoing: SocketAddr,
    /// The server address of this connection, which `set server addr` does not change.
    pub peer: SocketAddr,
    /// At the moment when the asking connection was opened; `None` if the dump did not show that
    /// connection. A difference of local times: one hour off across a change of daylight saving time, so
    /// another source has to agree.
    pub age: Option<Duration>,
}

/// Turns the entries of a complete dump into sessions with ages.
///
/// The asking connection is the youngest of HAProxy's own (`frontend=GLOBAL`): it was opened for this
/// dump.
pub fn resolve(entries: Vec<Entry>) -> Vec<Session> {
    let asked =
        entries.iter().filter(|entry| entry.frontend == "GLOBAL").filter_map(|entry| entry.date).max();
    entries.into_iter().filter_map(|entry| entry.into_session(asked)).collect()
}

impl Entry {
    fn into_session(self, asked: Option<DateTime>) -> Option<Session> {
        let age = asked.zip(self.date).map(|(asked, accepted)| {
            // Negative: accepted after the asking connection.
            Duration::try_from(asked.duration_since(accepted)).unwrap_or(Duration::ZERO)
        });
        Some(Session {
            pointer: self.pointer,
            id: self.id?,
            accepted: self.accepted,
            frontend: self.frontend,
            backend: self.backend,
            server: self.server,
            source: self.source,
            outgoing: self.outgoing?,
            peer: self.peer?,
            age,
        })
    }
}
