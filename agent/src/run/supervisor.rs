//! Notifications to systemd, or whoever else sets `NOTIFY_SOCKET`: that the agent is ready, decides, and stops.
//!
//! The watchdog restarts an agent that has stopped deciding without having ended. Without `NOTIFY_SOCKET` nothing
//! is sent, and an error changes nothing.

use std::{sync::Arc, time::Duration};

use sd_notify::NotifyState;
use tokio::{sync::watch, time::sleep};

use crate::{clock::Clock, snapshot::Snapshot};

/// The socket of a supervisor that hangs may be full.
async fn send(states: Vec<NotifyState<'static>>) {
    let sent = tokio::task::spawn_blocking(move || sd_notify::notify(&states)).await;
    if let Ok(Err(error)) = sent {
        tracing::debug!(%error, "the supervisor was not notified");
    }
}

/// The agent answers, and signals have their meaning.
pub(super) fn ready() {
    tokio::spawn(send(vec![NotifyState::Ready]));
}

pub(super) fn stopping() {
    tokio::spawn(send(vec![NotifyState::Stopping]));
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
