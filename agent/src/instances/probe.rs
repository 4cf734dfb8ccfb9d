//! The probe: a full login per interval. The interval is long, because each probe is an IAM login on the
//! instance.

use std::{sync::Arc, time::Duration};

use agent_core::FaultKind;

use super::door::Door;
use crate::shared::jittered;

/// The minimum time between a probe and one on demand.
const GAP: Duration = Duration::from_secs(1);

/// The pause after the first refused login. A verdict needs two refusals that are some seconds apart.
const AGAIN: Duration = Duration::from_secs(5);

/// Runs until it is dropped.
pub async fn run(door: Arc<Door>, interval: Duration) {
    let mut snapshot = door.shared.snapshot.clone();
    let mut refused = false;
    loop {
        let before = refused;
        refused = match door.login().await {
            Ok(session) => {
                // The database logs connections that are dropped without a quit.
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
            // It fails only while the agent stops.
            Ok(_) = snapshot.wait_for(|now| now.watch.probe.contains(door.instance())) => {}
        }
    }
}
