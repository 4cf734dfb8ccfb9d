//! The gRPC listener that Envoys call: endpoint discovery, access logs and health on
//! one port or Unix socket, for the agent is one cluster in Envoy's configuration.
//!
//! What a caller may cost is bounded here: connections, streams of each, headers, and how
//! long it may say nothing. A caller that does not answer pings, or never finishes its
//! greeting, is hung up on; one that does not read holds one unsent message of each of
//! its streams and no more. What a message may weigh is for each service to say.

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep},
};
use tokio_util::{
    either::Either,
    sync::{CancellationToken, WaitForCancellationFutureOwned},
};
pub use tonic::service::{Routes, RoutesBuilder};
use tonic::transport::{Server, server::Connected};

/// What callers may cost.
#[derive(Copy, Clone, Debug)]
pub struct Limits {
    /// Connections at once; more wait in the kernel's queue. Each worker thread of an Envoy
    /// has its own for access logs, and its main thread one for endpoint discovery.
    pub connections: usize,
    /// Streams of one connection at once; Envoy opens another connection for more.
    pub streams: u32,
    /// How often a connection is pinged.
    pub ping: Duration,
    /// A connection from which nothing came for so long, not even the answer to a ping, is closed.
    pub silence: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 512,
            streams: 64,
            ping: Duration::from_secs(10),
            silence: Duration::from_secs(30),
        }
    }
}

/// The length of all headers of one request together, in bytes. Envoy's are a few hundred.
const HEADERS: u32 = 16 << 10;

/// After a failed accept: the process is out of file descriptors, or alike.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A timer that is so late means that the process stood still.
const STOOD_STILL: Duration = Duration::from_secs(1);

/// Where Envoys call.
#[derive(Debug)]
pub enum Listener {
    /// A port.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

/// Who calls, in the extensions of each request: an address, or `unix`.
#[derive(Clone, Debug)]
pub struct Caller(pub Arc<str>);

/// Serves until cancelled (dropped); then its connections end as well. Never fails: an
/// accept that fails is tried again.
pub async fn serve(listener: impl Into<Listener> + Send, routes: Routes, limits: Limits) {
    let listener = listener.into();
    let over = CancellationToken::new();
    let _ends_connections = over.clone().drop_guard();
    let places = Arc::new(Semaphore::new(limits.connections));
    let incoming = futures_util::stream::unfold((listener, places), |(listener, places)| {
        let over = over.clone();
        async move {
            let place = places.clone().acquire_owned().await.ok()?;
            let (io, caller) = accept(&listener).await;
            let connection = Connection {
                io,
                caller,
                over: Box::pin(over.cancelled_owned()),
                silence: limits.silence,
                deadline: Box::pin(tokio::time::sleep(limits.silence)),
                _place: place,
            };
            Some((Ok::<_, Infallible>(connection), (listener, places)))
        }
    });
    let server = Server::builder()
        .max_concurrent_streams(limits.streams)
        .http2_keepalive_interval(Some(limits.ping))
        .http2_keepalive_timeout(Some(limits.silence))
        .http2_max_header_list_size(HEADERS)
        .serve_with_incoming(routes.prepare(), incoming);
    if let Err(error) = server.await {
        tracing::debug!(%error, "gRPC listener ended");
    }
}

async fn accept(listener: &Listener) -> (Either<TcpStream, UnixStream>, Caller) {
    loop {
        let accepted = match listener {
            Listener::Tcp(listener) => listener.accept().await.map(|(stream, address)| {
                // A push is one small write that should not wait for another.
                let _ = stream.set_nodelay(true);
                (Either::Left(stream), Caller(address.to_string().into()))
            }),
            Listener::Unix(listener) => {
                listener.accept().await.map(|(stream, _)| (Either::Right(stream), Caller("unix".into())))
            }
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

// === impl Connection ===

/// A connection with a place among the callers, which ends when it is silent for too
/// long or the listener is gone.
struct Connection {
    io: Either<TcpStream, UnixStream>,
    caller: Caller,
    over: Pin<Box<WaitForCancellationFutureOwned>>,
    silence: Duration,
    deadline: Pin<Box<Sleep>>,
    /// Given back when the connection is dropped.
    _place: OwnedSemaphorePermit,
}

impl Connection {
    fn heard(&mut self) {
        let deadline = Instant::now() + self.silence;
        self.deadline.as_mut().reset(deadline);
    }
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.over.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let poll = Pin::new(&mut self.io).poll_read(cx, buffer);
        if poll.is_ready() {
            self.heard();
        }
        while poll.is_pending() && self.deadline.as_mut().poll(cx).is_ready() {
            // So late, it was this process that stood still, and the peer may have spoken.
            if self.deadline.deadline().elapsed() < STOOD_STILL {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.heard();
        }
        poll
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silence_ends_a_connection_unless_the_process_stood_still() {
        let listener = Listener::from(TcpListener::bind("127.0.0.1:0").await.unwrap());
        let Listener::Tcp(tcp) = &listener else { unreachable!() };
        let _peer = TcpStream::connect(tcp.local_addr().unwrap()).await.unwrap();
        let (io, caller) = accept(&listener).await;
        let silence = Duration::from_secs(30);
        let mut connection = Connection {
            io,
            caller,
            over: Box::pin(CancellationToken::new().cancelled_owned()),
            silence,
            deadline: Box::pin(tokio::time::sleep(silence)),
            _place: Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap(),
        };
        let began = Instant::now();
        // A jump of the clock: nobody could have read meanwhile.
        tokio::time::advance(Duration::from_secs(120)).await;
        let error = connection.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let lasted = began.elapsed();
        assert!(lasted >= Duration::from_secs(150) && lasted < Duration::from_secs(152), "{lasted:?}");
    }
}
