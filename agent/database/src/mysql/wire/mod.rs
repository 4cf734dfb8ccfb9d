//! The part of MySQL's protocol that the agent uses: packets, greeting and login, text queries
//! and their results.
//!
//! Not a crate, because the token's safety depends on it: `mysql_common` reads an impossible
//! length as zero and accepts unterminated strings, needs `unsafe`, regular expressions and
//! big-number crates, and does not build without compression; complete drivers do not let the
//! caller control TLS and the steps of the login.
//!
//! Not here: TLS (`crate::tls`), when the token may be sent (`super::gate`), and what an error
//! means (`super::classify`).
//!
//! Nothing here has a time limit; callers set them. A [`Wire`] whose query was abandoned is out
//! of sync and has to be dropped.
//!
//! # Layout
//! - `cursor`: the fields of packets.
//! - `packets`: packets on a stream.
//! - `greeting`, `request`: the server's and the client's first packets.
//! - `answer`: OK, ERR, switch of plugins, EOF.
//! - `result`: columns and rows.

mod answer;
mod cursor;
pub(super) mod greeting;
mod packets;
pub(super) mod request;
mod result;
#[cfg(test)]
pub(super) mod testing;

use std::{fmt, io};

use tokio::io::{AsyncRead, AsyncWrite};

pub(super) use self::{
    answer::{LoginAnswer, ServerError},
    cursor::Malformed,
    packets::Packets,
};

/// The memory limit for all results of one round trip. 64 MiB is a process list of some 100,000
/// sessions; a server that sends more is broken or hostile.
const LARGEST_ANSWER: usize = 64 << 20;

const COM_QUIT: u8 = 1;
const COM_QUERY: u8 = 3;

/// A connection after the login.
pub(super) struct Wire<S> {
    packets: Packets<S>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(super) fn new(packets: Packets<S>) -> Self {
        Self { packets }
    }

    pub(super) fn stream(&self) -> &S {
        self.packets.stream()
    }

    /// One round trip: one or several statements, separated by `;`.
    pub(super) async fn query(&mut self, sql: &str) -> Result<Answered, WireError> {
        self.packets.begin();
        self.packets.write(&[&[COM_QUERY], sql.as_bytes()].concat()).await?;
        result::read_all(&mut self.packets, LARGEST_ANSWER).await
    }

    /// Sends `COM_QUIT` and closes the stream.
    pub(super) async fn quit(mut self) {
        self.packets.begin();
        // The stream is closed even if this fails.
        let _ = self.packets.write(&[COM_QUIT]).await;
        self.packets.shut_down().await;
    }
}

/// The results of one round trip.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answered {
    /// In order, up to the failed statement.
    pub(super) results: Vec<ResultSet>,
    /// The error of the failed statement. The connection stays usable.
    pub(super) refused: Option<ServerError>,
}

/// The result of one statement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ResultSet {
    /// Empty for a statement without a result set.
    pub(super) columns: Vec<String>,
    /// One cell per column; `None` is NULL. Invalid UTF-8 is replaced.
    pub(super) rows: Vec<Vec<Option<String>>>,
    /// The number of changed rows of a statement without a result set.
    pub(super) affected: u64,
}

impl ResultSet {
    /// The cell at a row and column; `None` for NULL and for no such cell.
    pub(super) fn cell(&self, row: usize, column: usize) -> Option<&str> {
        self.rows.get(row)?.get(column)?.as_deref()
    }
}

/// Why a round trip failed. The connection is unusable after it.
#[derive(Debug)]
pub(super) enum WireError {
    /// The stream failed or ended.
    Lost(io::Error),
    /// The server violated the protocol.
    Malformed(Malformed),
}

impl From<Malformed> for WireError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(error) => write!(f, "the connection broke: {error}"),
            Self::Malformed(malformed) => malformed.fmt(f),
        }
    }
}

impl std::error::Error for WireError {}
