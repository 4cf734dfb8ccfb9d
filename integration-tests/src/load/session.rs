//! One login, driven by its client alone.
//!
//! The connection is polled only while its client waits for an answer, as in drivers that
//! read from the socket themselves (libpq, JDBC). So what came in during a pause is still
//! in the socket's buffer when the client looks ([`Session::is_closed`]), and nothing else
//! can have read it: the count of what a look finds, and of what it is too late for, is the
//! kernel's truth and not that of a scheduler.

use std::{
    fmt,
    future::{Future, pending, poll_fn},
    io::ErrorKind,
    net,
    pin::pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::{net::TcpStream, time::timeout};
use tokio_postgres::{Client, Config, Connection, SimpleQueryMessage, config::SslMode, tls::MakeTlsConnect};

use super::Target;
use crate::tls::Stream;

/// A login that takes longer has failed.
const LOGIN_PATIENCE: Duration = Duration::from_secs(15);

/// What is in the socket's buffer may be nothing that the driver tells of: look again.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// How a session ended that its client did not end, or a statement failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Ending {
    /// The server said why: an SQLSTATE, `57P01` when it was retired.
    Told(String),
    /// Closed or reset without a word.
    Closed,
}

impl Ending {
    /// What a pool may try again when it happens at BEGIN: nothing has run yet.
    pub(super) fn is_retirement(&self) -> bool {
        match self {
            Ending::Told(code) => code == "57P01",
            Ending::Closed => true,
        }
    }

    fn of(error: &tokio_postgres::Error) -> Self {
        error.code().map_or(Ending::Closed, |code| Ending::Told(code.code().to_owned()))
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
    client: Client,
    wire: Wire,
    /// The same socket, to look at it past the driver.
    socket: net::TcpStream,
    backend: i32,
    opened: Instant,
}

/// The connection, until it has ended.
enum Wire {
    Open(Box<Connection<TcpStream, Stream<TcpStream>>>),
    Ended(Ending),
}

impl Session {
    /// Dials, verifies, logs in.
    ///
    /// # Errors
    /// Why not, for people; an SQLSTATE where the server gave one.
    pub(super) async fn open(target: &Target, application: &str) -> Result<Self, String> {
        match timeout(LOGIN_PATIENCE, Self::log_in(target, application)).await {
            Ok(opened) => opened,
            Err(_) => Err(format!("no login within {LOGIN_PATIENCE:?}")),
        }
    }

    async fn log_in(target: &Target, application: &str) -> Result<Self, String> {
        let said = |error: tokio_postgres::Error| match error.code() {
            Some(code) => code.code().to_owned(),
            None => error.to_string(),
        };
        let token = target.token.token().await?;
        let began = Instant::now();
        let (stream, socket) = dial(target).await.map_err(|error| format!("dial: {error}"))?;
        let mut tls = target.tls.clone();
        let handshake = MakeTlsConnect::<TcpStream>::make_tls_connect(&mut tls, &target.endpoint);
        let handshake = handshake.map_err(|error| format!("name of the endpoint: {error}"))?;
        let (client, connection) = Config::new()
            .user(&target.user)
            .password(token)
            .dbname(&target.database)
            .application_name(application)
            .ssl_mode(SslMode::Require)
            .connect_raw(stream, handshake)
            .await
            .map_err(said)?;
        let wire = Wire::Open(Box::new(connection));
        let mut session = Self { client, wire, socket, backend: 0, opened: began };
        let backend = session.value("SELECT pg_backend_pid()").await.map_err(|ending| ending.to_string())?;
        session.backend = backend.and_then(|pid| pid.parse().ok()).unwrap_or_default();
        Ok(session)
    }

    /// The server's process for it.
    pub(super) fn backend(&self) -> i32 {
        self.backend
    }

    /// When it was dialled.
    pub(super) fn opened(&self) -> Instant {
        self.opened
    }

    /// Sends a statement and waits for its end. Several may be given, with `;` between.
    pub(super) async fn execute(&mut self, sql: &str) -> Result<(), Ending> {
        self.ask(sql).await.map(drop)
    }

    /// The first column of the first row; `None` without rows, or for NULL.
    pub(super) async fn value(&mut self, sql: &str) -> Result<Option<String>, Ending> {
        let messages = self.ask(sql).await?;
        Ok(messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        }))
    }

    async fn ask(&mut self, sql: &str) -> Result<Vec<SimpleQueryMessage>, Ending> {
        let Self { client, wire, .. } = self;
        wire.drive(async { client.simple_query(sql).await.map_err(|error| Ending::of(&error)) }).await
    }

    /// The look at the socket before it is used: how the session ended, if it has.
    ///
    /// Reads what the kernel has for it, and waits for nothing else.
    pub(super) async fn is_closed(&mut self) -> Option<Ending> {
        loop {
            if let Wire::Ended(ending) = &self.wire {
                return Some(ending.clone());
            }
            match self.socket.peek(&mut [0]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => self.wire = Wire::Ended(Ending::Closed),
                // There is something: the end, or a notice.
                Ok(_) => {
                    let _ = timeout(LOOK_AGAIN, self.wire.message()).await;
                }
            }
        }
    }

    /// Waits for the server or the proxy to end it.
    pub(super) async fn closed(&mut self) -> Ending {
        loop {
            match &self.wire {
                Wire::Ended(ending) => return ending.clone(),
                Wire::Open(_) => self.wire.message().await,
            }
        }
    }

    /// Says goodbye.
    pub(super) async fn close(self) {
        let Self { client, mut wire, .. } = self;
        drop(client);
        // A server that is gone or frozen does not matter any more.
        let _ = timeout(GOODBYE, async {
            while matches!(wire, Wire::Open(_)) {
                wire.message().await;
            }
        })
        .await;
    }
}

impl Wire {
    /// Reads and writes until `request` is answered.
    async fn drive<T>(&mut self, request: impl Future<Output = Result<T, Ending>>) -> Result<T, Ending> {
        let mut request = pin!(request);
        poll_fn(|context| {
            // First, so that the request is there to be sent.
            if let Poll::Ready(answer) = request.as_mut().poll(context) {
                return Poll::Ready(answer);
            }
            while self.poll(context).is_ready() {}
            match (request.as_mut().poll(context), &*self) {
                (Poll::Ready(Err(Ending::Closed)), Wire::Ended(ending)) => Poll::Ready(Err(ending.clone())),
                (Poll::Ready(answer), _) => Poll::Ready(answer),
                (Poll::Pending, Wire::Ended(ending)) => Poll::Ready(Err(ending.clone())),
                (Poll::Pending, Wire::Open(_)) => Poll::Pending,
            }
        })
        .await
    }

    /// Waits for one thing that was not asked for: a notice, or the end. Never, once ended.
    async fn message(&mut self) {
        match self {
            Wire::Open(_) => poll_fn(|context| self.poll(context)).await,
            Wire::Ended(_) => pending().await,
        }
    }

    /// Reads and writes; ready when something came that was not asked for.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Wire::Open(connection) = self else { return Poll::Pending };
        match connection.poll_message(context) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Some(Ok(_))) => {}
            Poll::Ready(Some(Err(error))) => *self = Wire::Ended(Ending::of(&error)),
            Poll::Ready(None) => *self = Wire::Ended(Ending::Closed),
        }
        Poll::Ready(())
    }
}

async fn dial(target: &Target) -> std::io::Result<(TcpStream, net::TcpStream)> {
    let stream = TcpStream::connect(target.dial).await?;
    stream.set_nodelay(true)?;
    let stream = stream.into_std()?;
    let socket = stream.try_clone()?;
    Ok((TcpStream::from_std(stream)?, socket))
}
