//! One connection. It ends when it is silent or has no stream for too long, when its permit is
//! revoked, or when the listener ends.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    time::{Instant, Sleep},
};
use tokio_util::{either::Either, sync::WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

use crate::{caller::Caller, permits::Permit};

/// A timer that is this late means that the process was suspended.
const SUSPENDED: Duration = Duration::from_secs(1);

/// A time limit that begins anew when this process was suspended.
#[derive(Debug)]
pub(super) struct Patience {
    time: Duration,
    deadline: Pin<Box<Sleep>>,
}

impl Patience {
    pub(super) fn new(time: Duration) -> Self {
        Self { time, deadline: Box::pin(tokio::time::sleep(time)) }
    }

    pub(super) fn renew(&mut self) {
        let deadline = Instant::now() + self.time;
        self.deadline.as_mut().reset(deadline);
    }

    /// Whether the time is over. If not, the task is woken when it is.
    pub(super) fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        while self.deadline.as_mut().poll(cx).is_ready() {
            if self.deadline.deadline().elapsed() < SUSPENDED {
                return true;
            }
            // This process was suspended, and the peer may have sent something meanwhile.
            self.renew();
        }
        false
    }
}

pub(super) struct Connection {
    io: Either<TcpStream, UnixStream>,
    caller: Caller,
    listener_ended: Pin<Box<WaitForCancellationFutureOwned>>,
    revoked: Pin<Box<WaitForCancellationFutureOwned>>,
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
    silence: Patience,
    /// The time limit without a stream.
    idle: Duration,
    _permit: Permit,
}

impl Connection {
    pub(super) fn new(
        io: Either<TcpStream, UnixStream>,
        caller: Caller,
        permit: Permit,
        listener_ended: WaitForCancellationFutureOwned,
        limits: super::Limits,
    ) -> Self {
        Self {
            io,
            closed: Box::pin(caller.closed()),
            caller,
            listener_ended: Box::pin(listener_ended),
            revoked: Box::pin(permit.revoked()),
            silence: Patience::new(limits.silence),
            idle: limits.idle,
            _permit: permit,
        }
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
        let this = &mut *self;
        let ends = [&mut this.listener_ended, &mut this.revoked, &mut this.closed];
        if ends.into_iter().any(|end| end.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let poll = Pin::new(&mut self.io).poll_read(cx, buffer);
        if poll.is_ready() {
            self.silence.renew();
            return poll;
        }
        // Pings make sure that this is polled again and again.
        if self.silence.is_over(cx) || self.caller.idle_for().is_some_and(|idle| idle >= self.idle) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
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
    use tokio::{io::AsyncReadExt, net::TcpListener};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{permits::Permits, serve::Limits};

    #[tokio::test(start_paused = true)]
    async fn silence_ends_a_connection_unless_the_process_was_suspended() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (io, address) = listener.accept().await.unwrap();
        let caller = Caller::new(&address.to_string(), "peer", 1);
        let _stream = caller.in_use();
        let permit = Permits::new(1).take(&caller, 1).unwrap();
        let (never, limits) = (CancellationToken::new().cancelled_owned(), Limits::default());
        let mut connection = Connection::new(Either::Left(io), caller, permit, never, limits);
        let began = Instant::now();
        // A jump of the clock: this process could not have read meanwhile.
        tokio::time::advance(Duration::from_secs(120)).await;
        let error = connection.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let lasted = began.elapsed();
        assert!(lasted >= Duration::from_secs(150) && lasted < Duration::from_secs(152), "{lasted:?}");
    }
}
