//! A listener with a limit of connections and a timeout.
//!
//! A client has a fixed time from one response to the next, for sending a request and reading the
//! response. Clients that send a header byte by byte, keep an idle connection, or do not read are
//! disconnected.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::serve::Listener;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep},
};

/// Connections at once. More wait in the kernel's queue.
const CONNECTIONS: usize = 128;

/// From one response to the next. Longer than the usual scrape interval, so that a monitoring system
/// keeps its connection.
const TIMEOUT: Duration = Duration::from_secs(75);

#[derive(Debug)]
pub struct Bounded<L> {
    listener: L,
    permits: Arc<Semaphore>,
    timeout: Duration,
}

/// A connection that holds a permit of the listener and has a deadline.
#[derive(Debug)]
pub struct Client<C> {
    connection: C,
    timeout: Duration,
    deadline: Pin<Box<Sleep>>,
    _permit: Option<OwnedSemaphorePermit>,
}

// === impl Bounded ===

impl<L> Bounded<L> {
    pub fn new(listener: L) -> Self {
        Self::with(listener, CONNECTIONS, TIMEOUT)
    }

    /// `timeout` is the time from one response to the next.
    pub fn with(listener: L, connections: usize, timeout: Duration) -> Self {
        Self { listener, permits: Arc::new(Semaphore::new(connections)), timeout }
    }
}

impl<L: Listener> Listener for Bounded<L> {
    type Io = Client<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // Acquiring fails only if the semaphore is closed, which it never is.
        let permit = self.permits.clone().acquire_owned().await.ok();
        let (connection, address) = self.listener.accept().await;
        let deadline = Box::pin(tokio::time::sleep(self.timeout));
        (Client { connection, timeout: self.timeout, deadline, _permit: permit }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

// === impl Client ===

impl<C> Client<C> {
    /// After the deadline, a pending operation fails.
    fn in_time<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_pending() && self.deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        poll
    }

    /// A successful write moves the deadline; a read does not.
    fn wrote(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(poll, Poll::Ready(Ok(1..))) {
            self.deadline.as_mut().reset(Instant::now() + self.timeout);
        }
        self.in_time(cx, poll)
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Client<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.connection).poll_read(cx, buffer);
        self.in_time(cx, poll)
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Client<C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.connection).poll_write(cx, bytes);
        self.wrote(cx, poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.connection).poll_write_vectored(cx, slices);
        self.wrote(cx, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.connection).poll_flush(cx);
        self.in_time(cx, poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.connection).poll_shutdown(cx);
        self.in_time(cx, poll)
    }
}
