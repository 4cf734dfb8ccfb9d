//! One login, driven by its client alone.
//!
//! The connection is polled only while its client waits for an answer, as in drivers that
//! read from the socket themselves (libpq, Connector/C, JDBC). So what came in during a
//! pause is still in the socket's buffer when the client looks ([`Session::is_closed`]), and
//! nothing else can have read it: the count of what a look finds, and of what it is too late
//! for, is the kernel's truth and not that of a scheduler.
//!
//! - `postgresql`: over `tokio-postgres`
//! - `mysql`: MySQL and MariaDB, over the tests' own client

mod mysql;
mod postgresql;

use std::{
    fmt,
    io::ErrorKind,
    net,
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::{net::TcpStream, time::timeout};

use super::Target;
use crate::standin::Engine;

/// A login that takes longer has failed.
const LOGIN_PATIENCE: Duration = Duration::from_secs(15);

/// What is in the socket's buffer may be nothing that the driver reports: look again.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// How a session ended that its client did not end, or a statement failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Ending {
    /// The server said why: PostgreSQL an SQLSTATE, `57P01` when it was retired; MySQL and
    /// MariaDB a number, `1927` (MariaDB) when it was killed.
    Told(String),
    /// Closed or reset without a word.
    Closed,
}

impl Ending {
    /// What a pool may try again when it happens at BEGIN: nothing has run yet.
    pub(super) fn is_retirement(&self) -> bool {
        match self {
            Ending::Told(code) => code == "57P01" || code == mysql::KILLED,
            Ending::Closed => true,
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Told(code) => f.write_str(code),
            Ending::Closed => f.write_str("closed"),
        }
    }
}

/// A session that is logged in.
pub(super) struct Session {
    connection: Connection,
    /// The same socket, to look at it past the driver.
    socket: net::TcpStream,
    engine: Engine,
    backend: u64,
    opened: Instant,
}

enum Connection {
    Postgresql(postgresql::Connection),
    Mysql(mysql::Connection),
}

impl Session {
    /// Dials, verifies, logs in.
    ///
    /// # Errors
    /// Why not, for people; an SQLSTATE or a number where the server gave one.
    pub(super) async fn open(target: &Target, application: &str) -> Result<Self, String> {
        match timeout(LOGIN_PATIENCE, Self::log_in(target, application)).await {
            Ok(opened) => opened,
            Err(_) => Err(format!("no login within {LOGIN_PATIENCE:?}")),
        }
    }

    async fn log_in(target: &Target, application: &str) -> Result<Self, String> {
        let token = target.token.token().await?;
        let opened = Instant::now();
        let (stream, socket) = dial(target).await.map_err(|error| format!("dial: {error}"))?;
        let engine = target.engine;
        let (connection, backend) = match engine {
            Engine::Postgresql => {
                let login = postgresql::Connection::log_in(target, application, &token, stream);
                let (connection, backend) = login.await?;
                (Connection::Postgresql(connection), backend)
            }
            Engine::Mariadb => {
                let (connection, backend) =
                    mysql::Connection::log_in(target, application, token, stream).await?;
                (Connection::Mysql(connection), backend)
            }
        };
        Ok(Self { connection, socket, engine, backend, opened })
    }

    /// What kind of database it is.
    pub(super) fn engine(&self) -> Engine {
        self.engine
    }

    /// The server's process or connection number for it.
    pub(super) fn backend(&self) -> u64 {
        self.backend
    }

    /// When it was dialled.
    pub(super) fn opened(&self) -> Instant {
        self.opened
    }

    /// Sends a statement and waits for its end. Several may be given, with `;` between.
    pub(super) async fn execute(&mut self, sql: &str) -> Result<(), Ending> {
        self.value(sql).await.map(drop)
    }

    /// The first column of the first row; `None` without rows, or for NULL.
    pub(super) async fn value(&mut self, sql: &str) -> Result<Option<String>, Ending> {
        match &mut self.connection {
            Connection::Postgresql(connection) => connection.ask(sql).await,
            Connection::Mysql(connection) => connection.ask(sql).await,
        }
    }

    /// The look at the socket before it is used: how the session ended, if it has.
    ///
    /// Reads what the kernel has for it, and waits for nothing else.
    pub(super) async fn is_closed(&mut self) -> Option<Ending> {
        loop {
            if let Some(ending) = self.connection.ended() {
                return Some(ending.clone());
            }
            match self.socket.peek(&mut [0]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => self.connection.end(Ending::Closed),
                // There is something: the end, or a notice.
                Ok(_) => {
                    let _ = timeout(LOOK_AGAIN, self.connection.message()).await;
                }
            }
        }
    }

    /// Waits for the server or the proxy to end it.
    pub(super) async fn closed(&mut self) -> Ending {
        loop {
            match self.connection.ended() {
                Some(ending) => return ending.clone(),
                None => self.connection.message().await,
            }
        }
    }

    pub(super) async fn close(self) {
        // A server that is gone or frozen does not matter any more.
        let _ = timeout(GOODBYE, async {
            match self.connection {
                Connection::Postgresql(connection) => connection.close().await,
                Connection::Mysql(connection) => connection.close().await,
            }
        })
        .await;
    }
}

impl Connection {
    /// How it ended, if that is known.
    fn ended(&self) -> Option<&Ending> {
        match self {
            Connection::Postgresql(connection) => connection.ended(),
            Connection::Mysql(connection) => connection.ended(),
        }
    }

    fn end(&mut self, ending: Ending) {
        match self {
            Connection::Postgresql(connection) => connection.end(ending),
            Connection::Mysql(connection) => connection.end(ending),
        }
    }

    /// Waits for one thing that was not asked for. Never, once ended.
    async fn message(&mut self) {
        match self {
            Connection::Postgresql(connection) => connection.message().await,
            Connection::Mysql(connection) => connection.message().await,
        }
    }
}

async fn dial(target: &Target) -> std::io::Result<(TcpStream, net::TcpStream)> {
    let stream = TcpStream::connect(target.dial).await?;
    stream.set_nodelay(true)?;
    let stream = stream.into_std()?;
    let socket = stream.try_clone()?;
    Ok((TcpStream::from_std(stream)?, socket))
}
