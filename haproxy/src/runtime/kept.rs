//! A kept connection that is renewed before it goes stale.
//!
//! A connection stays with its worker through a reload: it keeps the old worker alive,
//! shows the old worker's servers, and finds none of the new worker's sessions. Nothing
//! tells it so. It is therefore renewed often, which costs about as much as one command,
//! and which is also well before HAProxy's `stats timeout` (10 s by default).

use std::time::Duration;

use tokio::time::Instant;

use super::{Connection, Limits, RuntimeError};
use crate::Address;

/// How old a connection may be when it is used.
pub const MAX_AGE: Duration = Duration::from_secs(2);

/// The one connection to one stats socket, opened when it is needed.
#[derive(Debug)]
pub struct Kept {
    peer: Address,
    limits: Limits,
    connection: Option<(Connection, Instant)>,
}

impl Kept {
    /// Nothing is opened yet.
    pub fn new(peer: Address, limits: Limits) -> Self {
        Self { peer, limits, connection: None }
    }

    /// Where it goes.
    pub fn peer(&self) -> &Address {
        &self.peer
    }

    /// A connection to the worker of now, give or take [`MAX_AGE`].
    pub async fn connection(&mut self) -> Result<&mut Connection, RuntimeError> {
        let fresh = self
            .connection
            .take()
            .filter(|(connection, opened)| connection.is_usable() && opened.elapsed() < MAX_AGE);
        let kept = match fresh {
            Some(kept) => kept,
            None => (Connection::open(&self.peer, self.limits).await?, Instant::now()),
        };
        Ok(&mut self.connection.insert(kept).0)
    }

    /// Closes the connection: an idle one would keep an old worker alive.
    pub fn close(&mut self) {
        self.connection = None;
    }
}
