//! A small MySQL client for tests, load and the stand-in itself: text statements, verified TLS.
//!
//! It shares no code with the agent's own, so that a mistake in one shows against the other.
//! Not for untrusted servers or large results: all rows are read at once, as text.
//!
//! ```no_run
//! # async fn example(login: integration_tests::mysql::Login) -> Result<(), Box<dyn std::error::Error>> {
//! let mut session = login.connect().await?;
//! for row in session.query("SELECT item, amount FROM stock").await? {
//!     println!("{row:?}");
//! }
//! session.quit().await?;
//! # Ok(()) }
//! ```
//!
//! # Layout
//! - [`Login`]: the server, the local address and the user; [`Secret`]: the password or token
//! - [`Session`]: one that is logged in
//! - [`Error`]: the server's words, or why there are none

mod login;
mod packets;
mod session;

use std::io;

pub use self::{
    login::{Dial, Login, Secret, Tls},
    session::{Record, Row, Session},
};

/// Why a login or a statement failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server's own words.
    #[error("{code} ({state}): {message}")]
    Server {
        /// Its number, such as 1045.
        code: u16,
        /// The SQLSTATE; `HY000` where the server said none.
        state: String,
        message: String,
    },
    /// The connection: refused, ended, or TLS that could not be verified.
    #[error("connection: {0}")]
    Connection(#[from] io::Error),
    /// The server said what it should not have.
    #[error("protocol: {0}")]
    Protocol(&'static str),
}

impl Error {
    /// The server's number, where it said one.
    pub fn code(&self) -> Option<u16> {
        match self {
            Error::Server { code, .. } => Some(*code),
            Error::Connection(_) | Error::Protocol(_) => None,
        }
    }

    /// Whether the connection is gone, without a word from the server.
    pub fn is_closed(&self) -> bool {
        matches!(self, Error::Connection(_))
    }
}
