//! The gRPC listener that Envoys call: endpoint discovery, access logs and health on
//! one port or Unix socket, for the agent is one cluster in Envoy's configuration.
//!
//! What a caller may cost is bounded here: connections, streams of each, headers, what its
//! messages take, and how long it may say nothing or have nothing to say. A caller that does
//! not answer pings, or never finishes its greeting or a message, is hung up on; one that does
//! not read holds one unsent message of each of its streams and no more. What one message may
//! weigh is for each service to say.
//!
//! - [`connection`]: one connection, and when it ends.
//! - [`messages`]: what comes on its streams.

mod connection;
mod messages;

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    time::Instant,
};
use tokio_util::{either::Either, sync::CancellationToken};
pub use tonic::service::{Routes, RoutesBuilder};
use tonic::{codegen::http, transport::Server};

use self::{connection::Connection, messages::Watched};
use crate::places::Places;

/// What callers may cost.
#[derive(Copy, Clone, Debug)]
pub struct Limits {
    /// Connections at once. Each worker thread of an Envoy has its own for access logs, and its
    /// main thread one for endpoint discovery.
    pub connections: usize,
    /// Streams of one connection at once; Envoy opens another connection for more.
    pub streams: u32,
    /// How often a connection is pinged.
    pub ping: Duration,
    /// A connection from which nothing came for so long, not even the answer to a ping, is closed.
    pub silence: Duration,
    /// And one that had no stream for so long. Its Envoy opens another when it needs one.
    pub idle: Duration,
    /// How long a message may take from its first byte to its last.
    pub message: Duration,
    /// What the largest messages of all streams may weigh together, in bytes. The first of each
    /// of an Envoy's streams has some 60 kB.
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

/// The length of all headers of one request together, in bytes. Envoy's are a few hundred.
const HEADERS: u32 = 16 << 10;

/// What a connection may send that nobody has read yet, in bytes: the least that HTTP/2 has.
const WINDOW: u32 = 65_535;

/// Of a caller that does not read, a stream cannot be ended. One that owes more places than these,
/// which others have by now, is hung up on.
const OWED: usize = 4;

/// After a failed accept: the process is out of file descriptors, or alike.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where Envoys call.
#[derive(Debug)]
pub enum Listener {
    /// A port.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

/// Who calls, in the extensions of each request. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Caller {
    /// An address and port, or `unix`: for people.
    pub address: Arc<str>,
    /// Who is behind it, and behind its other connections: a host, or a process of this one.
    pub peer: Arc<str>,
    /// The connection.
    pub connection: u64,
    streams: Arc<Mutex<Streams>>,
    /// To hang up on it.
    hang_up: CancellationToken,
}

/// The streams of one connection.
#[derive(Debug)]
struct Streams {
    open: usize,
    /// When one was last opened or closed.
    changed: Instant,
    /// Places that are lost, and not left yet.
    owed: usize,
}

/// A stream that is open, until it is dropped.
#[derive(Debug)]
pub struct InUse(Arc<Mutex<Streams>>);

/// Serves until cancelled (dropped); then its connections end as well. Never fails: an
/// accept that fails is tried again.
pub async fn serve(listener: impl Into<Listener> + Send, routes: Routes, limits: Limits) {
    let listener = listener.into();
    let over = CancellationToken::new();
    let _ends_connections = over.clone().drop_guard();
    let places = Places::new(limits.connections);
    let incoming = futures_util::stream::unfold((listener, 0), |(listener, number)| {
        let (over, places) = (over.clone(), places.clone());
        async move {
            let (io, caller) = accept(&listener, number).await;
            let place = places.take(&caller, 1)?;
            let connection = Connection::new(io, caller, place, over.cancelled_owned(), limits);
            Some((Ok::<_, Infallible>(connection), (listener, number + 1)))
        }
    });
    let services =
        Watched { services: routes.prepare(), bytes: Places::new(limits.messages), message: limits.message };
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
                // A push is one small write that should not wait for another.
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

// === impl Caller ===

impl Caller {
    pub(crate) fn new(address: &str, peer: &str, connection: u64) -> Self {
        let streams = Arc::new(Mutex::new(Streams { open: 0, changed: Instant::now(), owed: 0 }));
        let hang_up = CancellationToken::new();
        Self { address: address.into(), peer: peer.into(), connection, streams, hang_up }
    }

    /// Whose request it is.
    pub(crate) fn of(extensions: &http::Extensions) -> Self {
        extensions.get().cloned().unwrap_or_else(|| Self::new("unknown", "unknown", 0))
    }

    /// One more stream of its connection.
    pub(crate) fn in_use(&self) -> InUse {
        change(&self.streams, |streams| streams.open += 1);
        InUse(self.streams.clone())
    }

    /// Another has a place of its.
    pub(crate) fn owes(&self) {
        let mut streams = lock(&self.streams);
        streams.owed += 1;
        if streams.owed > OWED {
            self.hang_up.cancel();
        }
    }

    /// And it has left it.
    pub(crate) fn has_left(&self) {
        let mut streams = lock(&self.streams);
        streams.owed = streams.owed.saturating_sub(1);
    }

    /// How long its connection has had no stream; `None` while it has one.
    fn idle_for(&self) -> Option<Duration> {
        let streams = lock(&self.streams);
        (streams.open == 0).then(|| streams.changed.elapsed())
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        change(&self.0, |streams| streams.open -= 1);
    }
}

fn change(streams: &Mutex<Streams>, change: impl FnOnce(&mut Streams)) {
    let mut streams = lock(streams);
    change(&mut streams);
    streams.changed = Instant::now();
}

fn lock(streams: &Mutex<Streams>) -> MutexGuard<'_, Streams> {
    streams.lock().unwrap_or_else(PoisonError::into_inner)
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
