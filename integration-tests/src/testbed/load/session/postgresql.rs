//! A PostgreSQL connection, driven by its client alone.

use std::{
    future::{Future, pending, poll_fn},
    pin::pin,
    task::{Context, Poll},
};

use tokio::net::TcpStream;
use tokio_postgres::{Client, Config, SimpleQueryMessage, config::SslMode, tls::MakeTlsConnect};

use super::Ending;
use crate::{load::Target, tls::Stream};

/// A connection that is logged in.
pub(super) struct Connection {
    client: Client,
    wire: Wire,
}

/// The wire, until it has ended.
enum Wire {
    Open(Box<tokio_postgres::Connection<TcpStream, Stream<TcpStream>>>),
    Ended(Ending),
}

impl Ending {
    fn of(error: &tokio_postgres::Error) -> Self {
        error.code().map_or(Ending::Closed, |code| Ending::Told(code.code().to_owned()))
    }
}

impl Connection {
    /// Verifies and logs in on what was dialled: the connection, and the server's process for it.
    pub(super) async fn log_in(
        target: &Target,
        application: &str,
        token: &str,
        stream: TcpStream,
    ) -> Result<(Self, u64), String> {
        let said = |error: tokio_postgres::Error| match error.code() {
            Some(code) => code.code().to_owned(),
            None => error.to_string(),
        };
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
        let mut connection = Self { client, wire: Wire::Open(Box::new(connection)) };
        let pid = connection.ask("SELECT pg_backend_pid()").await.map_err(|ending| ending.to_string())?;
        let pid = pid.and_then(|pid| pid.parse().ok()).unwrap_or_default();
        Ok((connection, pid))
    }

    pub(super) async fn ask(&mut self, sql: &str) -> Result<Option<String>, Ending> {
        let Self { client, wire } = self;
        let asked = async { client.simple_query(sql).await.map_err(|error| Ending::of(&error)) };
        let messages = wire.drive(asked).await?;
        Ok(messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        }))
    }

    pub(super) fn ended(&self) -> Option<&Ending> {
        match &self.wire {
            Wire::Open(_) => None,
            Wire::Ended(ending) => Some(ending),
        }
    }

    pub(super) fn end(&mut self, ending: Ending) {
        self.wire = Wire::Ended(ending);
    }

    /// Waits for one thing that was not asked for: a notice, or the end. Never, once ended.
    pub(super) async fn message(&mut self) {
        self.wire.message().await;
    }

    pub(super) async fn close(self) {
        let Self { client, mut wire } = self;
        drop(client);
        while matches!(wire, Wire::Open(_)) {
            wire.message().await;
        }
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
