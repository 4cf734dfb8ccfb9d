//! The probe: a full login now and then. Slow and gentle, since each one is an
//! IAM login on the instance.

use std::{sync::Arc, time::Duration};

use agent_core::FaultKind;

use super::door::Door;
use crate::shared::jittered;

/// A probe that was asked for comes no sooner than this after the last one.
const GAP: Duration = Duration::from_secs(1);

/// After the first refused login: one refusal makes no verdict, the next may, and it has to be
/// some seconds later.
const AGAIN: Duration = Duration::from_secs(5);

/// Probes one instance for ever.
pub async fn run(door: Arc<Door>, interval: Duration) {
    let mut snapshot = door.shared.snapshot.clone();
    let mut refused = false;
    loop {
        let before = refused;
        refused = match door.login().await {
            Ok(session) => {
                // A clean quit: a dropped connection leaves a line in the database's log.
                session.close().await;
                false
            }
            Err(fault) => fault.kind == FaultKind::LoginRefused,
        };
        let wait = if refused && !before { AGAIN.min(interval) } else { interval };
        tokio::time::sleep(GAP).await;
        tokio::select! {
            () = tokio::time::sleep(jittered(wait).saturating_sub(GAP)) => {}
            () = door.shared.probe_now.notified() => {}
            // It only fails while everything stops.
            Ok(_) = snapshot.wait_for(|now| now.watch.probe.contains(door.instance())) => {}
        }
    }
}
