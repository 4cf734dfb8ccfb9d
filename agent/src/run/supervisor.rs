//! Notifications to systemd, or whoever else sets `NOTIFY_SOCKET`: that the agent is ready, decides, and stops.
//!
//! The watchdog restarts an agent that has stopped deciding without having ended. Without `NOTIFY_SOCKET` nothing
//! is sent, and an error changes nothing.

use std::{sync::Arc, time::Duration};

use sd_notify::NotifyState;
use tokio::{
    sync::{oneshot, watch},
    time::{sleep, timeout},
};

use crate::{clock::Clock, snapshot::Snapshot};

/// The longest wait of a stop for its supervisor.
const PATIENCE: Duration = Duration::from_secs(1);

/// In a thread: the socket of a supervisor that hangs may be full. Tokio's own threads would be waited for at the end.
async fn send(states: Vec<NotifyState<'static>>) {
    let (done, sent) = oneshot::channel();
    std::thread::spawn(move || done.send(sd_notify::notify(&states)));
    if let Ok(Err(error)) = sent.await {
        tracing::debug!(%error, "the supervisor was not notified");
    }
}

/// The agent answers, and signals have their meaning.
pub(super) fn ready() {
    tokio::spawn(send(vec![NotifyState::Ready]));
}

/// Sent before anything is stopped, with a bound.
pub(super) async fn stopping() {
    let _ = timeout(PATIENCE, send(vec![NotifyState::Stopping])).await;
}

/// Tells the supervisor's watchdog that the agent decides, for as long as it does.
pub(super) async fn watchdog(clock: Clock, snapshot: watch::Receiver<Arc<Snapshot>>) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    loop {
        if !snapshot.borrow().is_stuck(clock.now()) {
            send(vec![NotifyState::Watchdog]).await;
        }
        sleep((limit / 3).max(Duration::from_millis(1))).await;
    }
}
