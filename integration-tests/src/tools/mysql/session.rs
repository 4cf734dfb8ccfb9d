//! An open session.

use std::{collections::BTreeMap, fmt, io};

use agent_database::mysql::wire::{COM_QUIT, ResultSet, Wire};

use super::{Error, Stream, receive};

/// A row, each value as text; `None` is NULL.
pub type Row = Vec<Option<String>>;

/// A row by the names of its columns.
pub type Record = BTreeMap<String, Option<String>>;

/// A session. Dropped, it closes the connection without a logout; [`Session::quit`] logs out.
pub struct Session {
    wire: Wire<Box<dyn Stream>>,
    id: u32,
    version: String,
    /// A statement was sent whose answer was not read to its end.
    unread: bool,
}

impl fmt::Debug for Session {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Session").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Session {
    pub(super) fn new(wire: Wire<Box<dyn Stream>>, id: u32, version: String) -> Self {
        Self { wire, id, version, unread: false }
    }

    /// The connection id, as in the process list.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The version in the server's greeting, such as `5.5.5-10.11.19-MariaDB`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Runs statements, separated by semicolons, and returns the rows of all of them.
    ///
    /// # Errors
    /// The first statement that fails ends the query. The session stays usable after an
    /// [`Error::Server`], and only then; it is unusable if the future is dropped midway.
    pub async fn query(&mut self, sql: &str) -> Result<Vec<Row>, Error> {
        Ok(self.results(sql).await?.into_iter().flat_map(|result| result.rows).collect())
    }

    /// Runs one statement, and returns its rows by the names of the columns.
    pub async fn records(&mut self, sql: &str) -> Result<Vec<Record>, Error> {
        let result = self.results(sql).await?.pop().unwrap_or_default();
        let named = |row: Row| result.columns.iter().cloned().zip(row).collect();
        Ok(result.rows.into_iter().map(named).collect())
    }

    async fn results(&mut self, sql: &str) -> Result<Vec<ResultSet>, Error> {
        if self.unread {
            return Err(Error::Protocol("the previous answer was not read to its end"));
        }
        self.unread = true;
        let answered = self.wire.query(sql).await?;
        self.unread = false;
        match answered.refused {
            None => Ok(answered.results),
            Some(error) => Err(error.into()),
        }
    }

    /// The first value of all rows; empty if it is NULL or there is none.
    pub async fn value(&mut self, sql: &str) -> Result<String, Error> {
        Ok(self.query(sql).await?.into_iter().flatten().next().flatten().unwrap_or_default())
    }

    /// Waits for an error packet that answers no statement, or for the end of the connection. May
    /// be cancelled while nothing has arrived.
    pub async fn unasked(&mut self) -> Error {
        self.wire.packets.begin();
        loop {
            if let Err(error) = receive(&mut self.wire.packets).await {
                return error;
            }
        }
    }

    /// Logs out, and waits until the server has closed the connection.
    pub async fn quit(mut self) -> Result<(), Error> {
        self.wire.packets.begin();
        self.wire.packets.write(&[COM_QUIT]).await?;
        match self.unasked().await {
            // Servers close without TLS's close_notify.
            Error::Connection(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
            error => Err(error),
        }
    }
}
