//! A listener with a limit of connections and of time.
//!
//! A client has a fixed time until its first response, and another one from one response to the next.
//! Clients that send a header byte by byte, keep an idle connection, or do not read are disconnected.
//!
//! A new connection is always accepted. If there are too many, one of the peer with the most
//! connections is closed: the one that has been without a response for the longest.

use std::{
    collections::{BTreeMap, HashMap},
    fmt, io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::serve::Listener;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::unix,
    time::{Instant, Sleep},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::{
    events::{ConnectionsClosed, Event},
    metrics::Metrics,
};

/// The pause between two log lines about closed connections.
const QUIET: Duration = Duration::from_secs(60);

#[derive(Copy, Clone, Debug)]
pub struct Limits {
    pub connections: usize,
    /// From the connection to the first response. Longer than a check by Envoy may be left unanswered.
    pub first: Duration,
    /// From one response to the next. Longer than the usual scrape interval, so that a monitoring system
    /// keeps its connection.
    pub next: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 128, first: Duration::from_secs(15), next: Duration::from_secs(75) }
    }
}

#[derive(Debug)]
pub struct Bounded<L> {
    listener: L,
    limits: Limits,
    metrics: Arc<Metrics>,
    connections: Connections,
    /// When closed connections were last logged, and how many were closed since.
    logged: Option<Instant>,
    closed: u64,
}

/// What the connections of one client have in common.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    Address(IpAddr),
    /// Any client of a Unix socket.
    Unix,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

pub trait Peer {
    fn peer(&self) -> Host;
}

impl Peer for SocketAddr {
    fn peer(&self) -> Host {
        Host::Address(self.ip().to_canonical())
    }
}

impl Peer for unix::SocketAddr {
    fn peer(&self) -> Host {
        Host::Unix
    }
}

/// The open connections, by number.
#[derive(Clone, Debug, Default)]
struct Connections(Arc<Mutex<BTreeMap<u64, Open>>>);

#[derive(Debug)]
struct Open {
    peer: Host,
    /// The last response, or the connection itself.
    active: Instant,
    closed: CancellationToken,
}

/// A connection that counts as open until it is dropped, and has a deadline.
pub struct Client<C> {
    connection: C,
    next: Duration,
    deadline: Pin<Box<Sleep>>,
    /// Ready when it is closed for another one.
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
    number: u64,
    connections: Connections,
}

// === impl Bounded ===

impl<L> Bounded<L> {
    pub fn new(listener: L, limits: Limits, metrics: Arc<Metrics>) -> Self {
        Self { listener, limits, metrics, connections: Connections::default(), logged: None, closed: 0 }
    }

    fn log_closed(&mut self, peer: Host) {
        self.metrics.http_connections_closed.inc();
        self.closed += 1;
        if self.logged.is_none_or(|at| at.elapsed() >= QUIET) {
            let (limit, closed) = (self.limits.connections, self.closed);
            ConnectionsClosed { peer: &peer.to_string(), limit, closed }.emit(&self.metrics);
            (self.logged, self.closed) = (Some(Instant::now()), 0);
        }
    }
}

impl<L: Listener> Listener for Bounded<L>
where
    L::Addr: Peer,
{
    type Io = Client<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (connection, address) = self.listener.accept().await;
        while let Some(peer) = self.connections.make_room(self.limits.connections) {
            self.log_closed(peer);
        }
        let (number, closed) = self.connections.add(address.peer());
        let client = Client {
            connection,
            next: self.limits.next,
            deadline: Box::pin(tokio::time::sleep(self.limits.first)),
            closed: Box::pin(closed.cancelled_owned()),
            number,
            connections: self.connections.clone(),
        };
        (client, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

impl<L> Drop for Bounded<L> {
    /// A listener that is closed closes its connections: its address may no longer be allowed.
    fn drop(&mut self) {
        for open in self.connections.lock().values() {
            open.closed.cancel();
        }
    }
}

// === impl Connections ===

impl Connections {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Open>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes a connection if there are `most`. Returns its peer.
    fn make_room(&self, most: usize) -> Option<Host> {
        let mut open = self.lock();
        if open.len() < most {
            return None;
        }
        let mut held: HashMap<Host, usize> = HashMap::new();
        for one in open.values() {
            *held.entry(one.peer).or_default() += 1;
        }
        let peer = held.into_iter().max_by_key(|(_, held)| *held).map(|(peer, _)| peer)?;
        let of_peer = open.iter().filter(|(_, one)| one.peer == peer);
        let number = of_peer.min_by_key(|(_, one)| one.active).map(|(number, _)| *number)?;
        open.remove(&number)?.closed.cancel();
        Some(peer)
    }

    fn add(&self, peer: Host) -> (u64, CancellationToken) {
        let mut open = self.lock();
        let number = open.last_key_value().map_or(0, |(last, _)| last + 1);
        let closed = CancellationToken::new();
        open.insert(number, Open { peer, active: Instant::now(), closed: closed.clone() });
        (number, closed)
    }
}

// === impl Client ===

impl<C> Client<C> {
    pub fn get_ref(&self) -> &C {
        &self.connection
    }

    /// After the deadline, or once it is closed for another one, a pending operation fails.
    fn in_time<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let over = |client: &mut Self, cx: &mut Context<'_>| {
            client.deadline.as_mut().poll(cx).is_ready() || client.closed.as_mut().poll(cx).is_ready()
        };
        if poll.is_pending() && over(self, cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        poll
    }

    /// A successful write moves the deadline; a read does not.
    fn wrote(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(poll, Poll::Ready(Ok(1..))) {
            let now = Instant::now();
            self.deadline.as_mut().reset(now + self.next);
            if let Some(own) = self.connections.lock().get_mut(&self.number) {
                own.active = now;
            }
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

impl<C> Drop for Client<C> {
    fn drop(&mut self) {
        self.connections.lock().remove(&self.number);
    }
}

impl<C> fmt::Debug for Client<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("number", &self.number).finish_non_exhaustive()
    }
}
