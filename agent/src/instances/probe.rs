//! The probe: a full login per interval. The interval is long, because each probe is an IAM login on the
//! instance.

use std::{sync::Arc, time::Duration};

use super::door::Door;
use crate::shared::{Backoff, jittered, part_of};

/// The minimum time between a probe and one on demand.
const GAP: Duration = Duration::from_secs(1);

/// The first pause after a failed login. A verdict needs two failures that are some seconds apart; a
/// server that clients cannot log in to is known within ten seconds.
const AGAIN: Duration = Duration::from_secs(5);

/// Runs until it is dropped.
pub async fn run(door: Arc<Door>, interval: Duration) {
    let mut snapshot = door.shared.snapshot.clone();
    let mut failing = Backoff::new(AGAIN.min(interval), interval);
    let mut failed = false;
    // Agents that are started at the same time do not probe at the same time.
    let mut phase = Some(part_of(interval));
    loop {
        let before = failed;
        failed = match door.login().await {
            Ok(session) => {
                // The database logs connections that are dropped without a quit.
                session.close().await;
                false
            }
            Err(_) => true,
        };
        // Siblings say at once whether logins fail there too, or work again there too.
        if failed != before {
            door.probe_now.notify_waiters();
        }
        let wait = match (failed, before) {
            (true, _) => failing.wait(),
            // One good login may be chance: a second one ends the drain.
            (false, true) => AGAIN.min(interval),
            (false, false) => phase.take().unwrap_or(interval),
        };
        if !failed {
            failing.reset();
        }
        tokio::time::sleep(GAP).await;
        tokio::select! {
            () = tokio::time::sleep(jittered(wait).saturating_sub(GAP)) => {}
            () = door.probe_now.notified() => {}
            // It fails only while the agent stops.
            Ok(_) = snapshot.wait_for(|now| now.watch.probe.contains(door.instance())) => {}
        }
    }
}
