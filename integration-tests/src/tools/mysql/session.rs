//! A session that is logged in.

use std::{collections::BTreeMap, fmt};

use super::{
    Error,
    packets::{Fields, Packets},
};

/// A row, each value as text; `None` is NULL.
pub type Row = Vec<Option<String>>;

/// A row by the names of its columns.
pub type Record = BTreeMap<String, Option<String>>;

/// The rows of all statements; the names of the last one's columns.
#[derive(Default)]
struct Results {
    names: Vec<String>,
    rows: Vec<Row>,
}

/// A session. Dropped, its connection just ends; [`Session::quit`] takes leave.
pub struct Session {
    packets: Packets,
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

const QUIT: u8 = 1;
const QUERY: u8 = 3;

/// SERVER_MORE_RESULTS_EXISTS
const MORE_RESULTS: u64 = 8;

impl Session {
    pub(super) fn new(packets: Packets, id: u32, version: String) -> Self {
        Self { packets, id, version, unread: false }
    }

    /// The server's own number for it, as in the process list.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The server's version, such as `5.5.5-10.11.19-MariaDB`, as it greeted.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Runs statements, separated by semicolons; gives the rows of all of them.
    ///
    /// # Errors
    /// The first statement that fails ends it; the session stays usable after an
    /// [`Error::Server`], and only then. If the future is dropped midway, it is not.
    pub async fn query(&mut self, sql: &str) -> Result<Vec<Row>, Error> {
        Ok(self.results(sql).await?.rows)
    }

    /// Runs one statement; gives its rows by the names of the columns.
    pub async fn records(&mut self, sql: &str) -> Result<Vec<Record>, Error> {
        let Results { names, rows } = self.results(sql).await?;
        Ok(rows.into_iter().map(|row| names.iter().cloned().zip(row).collect()).collect())
    }

    async fn results(&mut self, sql: &str) -> Result<Results, Error> {
        if self.unread {
            return Err(Error::Protocol("the answer before was not read to its end"));
        }
        self.unread = true;
        let outcome = self.ask(sql).await;
        self.unread = !matches!(outcome, Ok(_) | Err(Error::Server { .. }));
        outcome
    }

    async fn ask(&mut self, sql: &str) -> Result<Results, Error> {
        let mut command = vec![QUERY];
        command.extend_from_slice(sql.as_bytes());
        self.packets.restart();
        self.packets.send(&command).await?;
        let mut results = Results::default();
        while self.result(&mut results).await? {}
        Ok(results)
    }

    /// Reads one result; whether there are more.
    async fn result(&mut self, results: &mut Results) -> Result<bool, Error> {
        let first = self.packets.receive().await?;
        let mut fields = Fields(&first);
        if fields.0.first() == Some(&0x00) {
            fields.take(1)?;
            let (_changed, _last_id) = (fields.counted()?, fields.counted()?);
            return Ok(fields.number(2)? & MORE_RESULTS != 0);
        }
        let columns = fields.counted()?.ok_or(Error::Protocol("the server asks for a file"))?;
        results.names.clear();
        for _ in 0..columns {
            results.names.push(name_of_column(&self.packets.receive().await?)?);
        }
        more_after(&self.packets.receive().await?)?;
        loop {
            let packet = self.packets.receive().await?;
            if is_end(&packet) {
                return more_after(&packet);
            }
            let mut fields = Fields(&packet);
            let mut row = Row::new();
            for _ in 0..columns {
                row.push(fields.bytes()?.map(|bytes| String::from_utf8_lossy(bytes).into_owned()));
            }
            results.rows.push(row);
        }
    }

    /// The first value that statements give; empty if it is NULL or there is none.
    pub async fn value(&mut self, sql: &str) -> Result<String, Error> {
        Ok(self.query(sql).await?.into_iter().flatten().next().flatten().unwrap_or_default())
    }

    /// Waits for an unsolicited packet: that the session was killed, or its end. May be given
    /// up while nothing has come.
    pub async fn unasked(&mut self) -> Error {
        loop {
            if let Err(error) = self.packets.receive().await {
                return error;
            }
        }
    }

    /// Takes leave, and waits until the server has closed the connection.
    pub async fn quit(mut self) -> Result<(), Error> {
        self.packets.restart();
        self.packets.send(&[QUIT]).await?;
        Ok(self.packets.closed().await?)
    }
}

/// Of catalog, schema, table, its own name, and the column's name.
fn name_of_column(packet: &[u8]) -> Result<String, Error> {
    let mut fields = Fields(packet);
    for _ in 0..4 {
        fields.bytes()?;
    }
    Ok(String::from_utf8_lossy(fields.bytes()?.unwrap_or_default()).into_owned())
}

/// The packet after columns and after rows: whether there are more results.
fn more_after(packet: &[u8]) -> Result<bool, Error> {
    if !is_end(packet) {
        return Err(Error::Protocol("no end where there should be one"));
    }
    let mut fields = Fields(packet);
    let (_mark, _warnings) = (fields.number(1)?, fields.number(2)?);
    Ok(fields.number(2)? & MORE_RESULTS != 0)
}

/// A short packet that begins as a long text would.
fn is_end(packet: &[u8]) -> bool {
    packet.first() == Some(&0xfe) && packet.len() < 9
}
