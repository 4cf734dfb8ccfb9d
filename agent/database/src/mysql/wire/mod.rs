//! MySQL's protocol as far as the agent speaks it: packets, the greeting and the
//! login, statements as text and their results.
//!
//! Written here, small and strict, rather than taken from a crate: `mysql_common`
//! takes an impossible length for zero and a text without an end for a text, brings
//! `unsafe` reads, compression, regular expressions and large numbers along, and does
//! not build without its compression; whole drivers keep TLS and the course of the
//! login to themselves. A token is too precious for any of that.
//!
//! Not here: TLS (`crate::tls`), when the token may go out (`super::gate`), and what
//! an error means (`super::classify`).
//!
//! No part of it knows the time: callers set limits around it. A [`Wire`] whose
//! question was given up in the middle is out of step and must be dropped.
//!
//! # Layout
//! - `cursor`: the pieces packets are made of.
//! - `packets`: packets on a stream.
//! - `greeting`, `request`: who the server is, what the agent says.
//! - `answer`: done, refused, another plugin.
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

/// All results of one round trip together may take this much memory.
const LARGEST_ANSWER: usize = 64 << 20;

const COM_QUIT: u8 = 1;
const COM_QUERY: u8 = 3;

/// An open connection whose login is done.
pub(super) struct Wire<S> {
    packets: Packets<S>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Takes over after the login.
    pub(super) fn new(packets: Packets<S>) -> Self {
        Self { packets }
    }

    /// One round trip: one statement or several, separated by `;`.
    pub(super) async fn query(&mut self, sql: &str) -> Result<Answered, WireError> {
        self.packets.begin();
        self.packets.write(&[&[COM_QUERY], sql.as_bytes()].concat()).await?;
        result::read_all(&mut self.packets, LARGEST_ANSWER).await
    }

    /// Says goodbye and ends the stream. The server answers by closing its side.
    pub(super) async fn quit(mut self) {
        self.packets.begin();
        // The stream is ended also if nobody hears it.
        let _ = self.packets.write(&[COM_QUIT]).await;
        self.packets.shut_down().await;
    }
}

/// What a server answered to one round trip.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answered {
    /// The results of the statements up to the refused one, in their order.
    pub(super) results: Vec<ResultSet>,
    /// Why the server went no further. The connection itself can be used on.
    pub(super) refused: Option<ServerError>,
}

/// The result of one statement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ResultSet {
    /// The columns' names. None for a statement that gives no rows.
    pub(super) columns: Vec<String>,
    /// As many cells each as there are columns; `None` is NULL. Bytes that are no
    /// text are replaced.
    pub(super) rows: Vec<Vec<Option<String>>>,
    /// How many rows a statement without rows of its own has changed.
    pub(super) affected: u64,
}

impl ResultSet {
    /// The cell of a row by its column's position; `None` also where there is none.
    pub(super) fn cell(&self, row: usize, column: usize) -> Option<&str> {
        self.rows.get(row)?.get(column)?.as_deref()
    }
}

/// Why a round trip ended without an answer. The connection is of no use any more.
#[derive(Debug)]
pub(super) enum WireError {
    /// The stream failed or ended.
    Lost(io::Error),
    /// The server said what the protocol does not have.
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
