//! The gRPC listener that Envoys connect to: endpoint discovery, access logs and health checks on
//! one port or Unix socket, since the agent is one cluster in Envoy's configuration.
//!
//! What a caller may cost is bounded here: connections, streams of each, headers, the memory of
//! messages, and how long it may be silent or without a stream. A caller that does not answer
//! pings, or never finishes its handshake or a message, is disconnected. One that does not read
//! costs one unsent message for each of its streams. Each service limits the length of a message.
//!
//! - [`connection`]: one connection, and when it ends.
//! - [`messages`]: what arrives on its streams.

mod connection;
mod messages;

use std::{convert::Infallible, time::Duration};

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_util::{either::Either, sync::CancellationToken};
pub use tonic::service::{Routes, RoutesBuilder};
use tonic::transport::Server;

use self::{connection::Connection, messages::Watched};
use crate::{caller::Caller, permits::Permits};

/// What callers may cost.
#[derive(Copy, Clone, Debug)]
pub struct Limits {
    /// Open connections. Each worker thread of an Envoy has its own for access logs, and its
    /// main thread one for endpoint discovery.
    pub connections: usize,
    /// Open streams of one connection; Envoy opens another connection for more.
    pub streams: u32,
    /// The interval of HTTP/2 pings.
    pub ping: Duration,
    /// A connection is closed after this long without any byte received, answers to pings included.
    pub silence: Duration,
    /// A connection is closed after this long without a stream. Envoy opens another when it needs one.
    pub idle: Duration,
    /// How long a message may take from its first byte to its last.
    pub message: Duration,
    /// The memory of all streams for messages, in bytes: each counts with its largest message. The
    /// first message of each stream of an Envoy has about 60 kB.
    pub messages: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 512,
            streams: 64,
            ping: Duration::from_secs(10),
            silence: Duration::from_secs(30),
            idle: Duration::from_secs(30),
            message: Duration::from_secs(10),
            messages: 32 << 20,
        }
    }
}

/// The total length of the headers of one request, in bytes. Envoy's have a few hundred.
const HEADERS: u32 = 16 << 10;

/// Unread bytes of a connection: the minimum of HTTP/2.
const WINDOW: u32 = 65_535;

/// The pause after a failed accept: the process may be out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Serves until cancelled (dropped), which also closes its connections. Never fails: a failed accept
/// is retried.
pub async fn serve(listener: impl Into<Listener> + Send, routes: Routes, limits: Limits) {
    let listener = listener.into();
    let ended = CancellationToken::new();
    let _ends_connections = ended.clone().drop_guard();
    let permits = Permits::new(limits.connections);
    let incoming = futures_util::stream::unfold((listener, 0), |(listener, number)| {
        let (ended, permits) = (ended.clone(), permits.clone());
        async move {
            let (io, caller) = accept(&listener, number).await;
            let permit = permits.take(&caller, 1)?;
            let connection = Connection::new(io, caller, permit, ended.cancelled_owned(), limits);
            Some((Ok::<_, Infallible>(connection), (listener, number + 1)))
        }
    });
    let services =
        Watched { services: routes.prepare(), bytes: Permits::new(limits.messages), message: limits.message };
    let server = Server::builder()
        .max_concurrent_streams(limits.streams)
        .http2_keepalive_interval(Some(limits.ping))
        .http2_keepalive_timeout(Some(limits.silence))
        .http2_max_header_list_size(HEADERS)
        .initial_connection_window_size(WINDOW)
        .initial_stream_window_size(WINDOW)
        .serve_with_incoming(services, incoming);
    if let Err(error) = server.await {
        tracing::debug!(%error, "gRPC listener ended");
    }
}

async fn accept(listener: &Listener, number: u64) -> (Either<TcpStream, UnixStream>, Caller) {
    loop {
        let accepted = match listener {
            Listener::Tcp(listener) => listener.accept().await.map(|(stream, address)| {
                // An update is one small write, which Nagle's algorithm would delay.
                let _ = stream.set_nodelay(true);
                let caller = Caller::new(&address.to_string(), &address.ip().to_string(), number);
                (Either::Left(stream), caller)
            }),
            Listener::Unix(listener) => listener.accept().await.map(|(stream, _)| {
                let process = stream.peer_cred().ok().and_then(|peer| peer.pid());
                let peer = process.map_or_else(|| "unix".into(), |process| format!("unix:{process}"));
                (Either::Right(stream), Caller::new("unix", &peer, number))
            }),
        };
        match accepted {
            Ok(accepted) => return accepted,
            Err(error) => {
                tracing::debug!(%error, "gRPC accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

// === impl Listener ===

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Self {
        Self::Unix(listener)
    }
}
