//! The streaming parser of `show sess all`.
//!
//! The format is undocumented on purpose and may change in stable branches: it
//! is read by key at the start of a line; unknown keys and lines are skipped.
//! `age=` is not used (it is garbage on 2.8 in TCP mode): ages come from accept
//! dates, against the accept date of the connection that asked.

mod parser;

pub use parser::{Entry, Parser};

use std::{net::SocketAddr, time::Duration};

use jiff::civil::DateTime;

/// One session of one worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// HAProxy's pointer to it, as printed. Reused at once after its end.
    pub pointer: String,
    /// The `id=` field: counts sessions of the worker.
    pub id: u64,
    /// The accept date as printed, in HAProxy's local time.
    pub accepted: String,
    /// The frontend.
    pub frontend: String,
    /// The backend.
    pub backend: String,
    /// The server.
    pub server: String,
    /// Where the client came from.
    pub source: SocketAddr,
    /// HAProxy's own address and port towards the server: what the server sees.
    pub outgoing: SocketAddr,
    /// The address this connection really goes to, whatever the configuration says by now.
    pub peer: SocketAddr,
    /// How old it was when the asking connection was opened. `None` where the
    /// dump did not show that connection. A difference of local times: for sessions from before
    /// a change of daylight saving time it is an hour off, so another source has to agree.
    pub age: Option<Duration>,
}

/// Turns the entries of one whole dump into sessions with ages.
///
/// The asking connection is the youngest of HAProxy's own (`frontend=GLOBAL`):
/// it was opened for this dump, just before it.
pub fn resolve(entries: Vec<Entry>) -> Vec<Session> {
    let asked =
        entries.iter().filter(|entry| entry.frontend == "GLOBAL").filter_map(|entry| entry.date).max();
    entries.into_iter().filter_map(|entry| entry.into_session(asked)).collect()
}

impl Entry {
    fn into_session(self, asked: Option<DateTime>) -> Option<Session> {
        let age = asked.zip(self.date).map(|(asked, accepted)| {
            // Accepted after the asking connection: brand new.
            Duration::try_from(asked.duration_since(accepted)).unwrap_or(Duration::ZERO)
        });
        Some(Session {
            pointer: self.pointer,
            id: self.id?,
            accepted: self.accepted,
            frontend: self.frontend,
            backend: self.backend,
            server: self.server,
            source: self.source?,
            outgoing: self.outgoing?,
            peer: self.peer?,
            age,
        })
    }
}
