//! Who calls: the connection, and the peer behind it, in the extensions of each request.
//!
//! A connection knows whether it is in use, and how many permits it has lost without giving them
//! back, so that one that does neither is closed ([`serve`](crate::serve)).

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::codegen::http;

/// The stream of a caller that does not read cannot be ended. A connection with more lost permits
/// than these, which it still holds, is closed.
const MAX_OVERDUE: usize = 4;

/// The caller of a request. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Caller {
    /// An address and port, or `unix`. For logs.
    pub address: Arc<str>,
    /// What its connections have in common: an IP address, or a process of this host.
    pub peer: Arc<str>,
    /// A number of the connection.
    pub connection: u64,
    streams: Arc<Mutex<Streams>>,
    close: CancellationToken,
}

/// The streams of one connection.
#[derive(Debug)]
struct Streams {
    open: usize,
    /// When one was last opened or closed.
    changed: Instant,
    /// Permits that were lost and are still held.
    overdue: usize,
}

/// An open stream, until it is dropped.
#[derive(Debug)]
pub struct InUse(Arc<Mutex<Streams>>);

// === impl Caller ===

impl Caller {
    pub(crate) fn new(address: &str, peer: &str, connection: u64) -> Self {
        let streams = Arc::new(Mutex::new(Streams { open: 0, changed: Instant::now(), overdue: 0 }));
        let close = CancellationToken::new();
        Self { address: address.into(), peer: peer.into(), connection, streams, close }
    }

    pub(crate) fn of(extensions: &http::Extensions) -> Self {
        extensions.get().cloned().unwrap_or_else(|| Self::new("unknown", "unknown", 0))
    }

    /// Counts one more stream of its connection.
    pub(crate) fn in_use(&self) -> InUse {
        change(&self.streams, |streams| streams.open += 1);
        InUse(self.streams.clone())
    }

    /// One of its permits was revoked for another caller.
    pub(crate) fn revoked(&self) {
        let mut streams = lock(&self.streams);
        streams.overdue += 1;
        if streams.overdue > MAX_OVERDUE {
            self.close.cancel();
        }
    }

    /// It gave a revoked permit back.
    pub(crate) fn gave_back(&self) {
        let mut streams = lock(&self.streams);
        streams.overdue = streams.overdue.saturating_sub(1);
    }

    /// Ready when its connection is to be closed.
    pub(crate) fn closed(&self) -> WaitForCancellationFutureOwned {
        self.close.clone().cancelled_owned()
    }

    /// How long its connection has had no stream; `None` while it has one.
    pub(crate) fn idle_for(&self) -> Option<Duration> {
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
