//! A small MySQL client for tests, load and the stand-in: text statements, verified TLS, tokens and
//! passwords.
//!
//! Packets and results are those of the agent's own client; the login is not, because the agent
//! never logs in with a password or without TLS.
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
//! - [`Session`]: an open session
//! - [`Error`]: the server's error, or why there is none

mod login;
mod session;

use std::io;

use agent_database::mysql::wire::{ERROR, Malformed, Packets, ServerError, WireError};
use tokio::io::{AsyncRead, AsyncWrite};

pub use self::{
    login::{Dial, Login, Secret, Tls},
    session::{Record, Row, Session},
};

/// Why a login or a statement failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server's error packet.
    #[error("{code} ({state}): {message}")]
    Server {
        /// Such as 1045.
        code: u16,
        /// The SQLSTATE; `HY000` if the server sent none.
        state: String,
        message: String,
    },
    /// The connection was refused or closed, or TLS could not be verified.
    #[error("connection: {0}")]
    Connection(#[from] io::Error),
    /// The server violated the protocol.
    #[error("protocol: {0}")]
    Protocol(&'static str),
}

impl Error {
    /// The number of the server's error, if it sent one.
    pub fn code(&self) -> Option<u16> {
        match self {
            Error::Server { code, .. } => Some(*code),
            Error::Connection(_) | Error::Protocol(_) => None,
        }
    }

    /// Whether the connection ended without an error from the server.
    pub fn is_closed(&self) -> bool {
        matches!(self, Error::Connection(_))
    }
}

impl From<ServerError> for Error {
    fn from(error: ServerError) -> Self {
        let state = error.sqlstate.unwrap_or_else(|| "HY000".to_owned());
        Error::Server { code: error.number, state, message: error.message }
    }
}

impl From<Malformed> for Error {
    fn from(malformed: Malformed) -> Self {
        Error::Protocol(malformed.0)
    }
}

impl From<WireError> for Error {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Lost(error) => Error::Connection(error),
            WireError::Malformed(malformed) => malformed.into(),
        }
    }
}

/// A TCP or Unix connection, or TLS over one.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send + Sync {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Stream for S {}

/// The next packet; an error packet is an [`Error::Server`].
async fn receive<S: Stream>(packets: &mut Packets<S>) -> Result<Vec<u8>, Error> {
    const LARGEST: usize = 64 << 20;
    let packet = packets.read(LARGEST).await?;
    if packet.first() == Some(&ERROR) { Err(ServerError::parse(&packet)?.into()) } else { Ok(packet) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_error_packet_carries_the_servers_message() {
        let (one, other) = tokio::io::duplex(1 << 16);
        let (mut one, mut other) = (Packets::new(one), Packets::new(other));
        one.write(b"\xff\x15\x04#28000Access denied").await.unwrap();
        let error = receive(&mut other).await.unwrap_err();
        assert_eq!(error.to_string(), "1045 (28000): Access denied");
        // Before the greeting there is no SQLSTATE.
        one.write(b"\xffi\x04Host is blocked").await.unwrap();
        assert_eq!(receive(&mut other).await.unwrap_err().to_string(), "1129 (HY000): Host is blocked");
        drop(one);
        assert!(receive(&mut other).await.unwrap_err().is_closed());
    }
}
