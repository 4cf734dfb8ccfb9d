//! A listener that never has more than so many callers, and waits for none of
//! them for ever.
//!
//! A caller has a fixed time from one answer to the next: for a whole request, its
//! answer, and taking it. Who sends a header byte by byte, keeps an idle connection,
//! or does not read, is hung up on.

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

/// Callers at once. More wait in the kernel's queue.
const MOST: usize = 128;

/// From one answer to the next. Longer than the usual interval of those who collect
/// metrics, so that they keep their connection.
const PATIENCE: Duration = Duration::from_secs(75);

/// A listener with bounds.
#[derive(Debug)]
pub struct Bounded<L> {
    listener: L,
    places: Arc<Semaphore>,
    patience: Duration,
}

/// A connection with a place among the callers, and a time limit.
#[derive(Debug)]
pub struct Caller<C> {
    connection: C,
    patience: Duration,
    deadline: Pin<Box<Sleep>>,
    /// Given back when the connection is dropped.
    _place: Option<OwnedSemaphorePermit>,
}

// === impl Bounded ===

impl<L> Bounded<L> {
    /// The usual bounds.
    pub fn new(listener: L) -> Self {
        Self::with(listener, MOST, PATIENCE)
    }

    /// At most this many callers, and this much time for each from one answer to the next.
    pub fn with(listener: L, most: usize, patience: Duration) -> Self {
        Self { listener, places: Arc::new(Semaphore::new(most)), patience }
    }
}

impl<L: Listener> Listener for Bounded<L> {
    type Io = Caller<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // It is never closed, so there is always a place in the end.
        let place = self.places.clone().acquire_owned().await.ok();
        let (connection, address) = self.listener.accept().await;
        let deadline = Box::pin(tokio::time::sleep(self.patience));
        (Caller { connection, patience: self.patience, deadline, _place: place }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

// === impl Caller ===

impl<C> Caller<C> {
    /// What is still pending has failed once the time is over.
    fn in_time<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_pending() && self.deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        poll
    }

    /// Only what is written to a caller buys it time.
    fn wrote(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(poll, Poll::Ready(Ok(1..))) {
            self.deadline.as_mut().reset(Instant::now() + self.patience);
        }
        self.in_time(cx, poll)
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Caller<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.connection).poll_read(cx, buffer);
        self.in_time(cx, poll)
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Caller<C> {
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
