//! The streaming parser of `show sess all`.
//!
//! The format is undocumented on purpose and may change in stable branches. Fields are found by their key
//! at the start of a line; unknown keys and lines are skipped. `age=` is not used (2.8 prints garbage in
//! TCP mode): an age is the difference to the accept date of the CLI connection that asked.

mod clock;
mod parser;

pub use clock::HostClock;
pub use parser::{Entry, Parser};

use std::{net::SocketAddr, time::Duration};

use jiff::{SignedDuration, civil::DateTime};

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
    /// connection. A difference of local times, as they are on the host's clock: [`HostClock`] takes out
    /// its steps.
    pub apparent_age: Option<SignedDuration>,
}

/// The date on the clock of HAProxy's host when the dump was asked for.
pub fn asked(entries: &[Entry]) -> Option<DateTime> {
    entries.iter().filter(|entry| entry.frontend == "GLOBAL").filter_map(|entry| entry.date).max()
}

/// Turns the entries of a complete dump into sessions with ages.
///
/// The asking connection is the youngest of HAProxy's own (`frontend=GLOBAL`): it was opened for this
/// dump.
pub fn resolve(entries: Vec<Entry>) -> Vec<Session> {
    let asked = asked(&entries);
    entries.into_iter().filter_map(|entry| entry.into_session(asked)).collect()
}

impl Session {
    /// The age, if the clock of HAProxy's host has not stepped since it was accepted.
    pub fn age(&self) -> Option<Duration> {
        // Negative: accepted after the asking connection.
        self.apparent_age.map(|age| Duration::try_from(age).unwrap_or_default())
    }
}

impl Entry {
    fn into_session(self, asked: Option<DateTime>) -> Option<Session> {
        let apparent_age = asked.zip(self.date).map(|(asked, accepted)| asked.duration_since(accepted));
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
            apparent_age,
        })
    }
}
