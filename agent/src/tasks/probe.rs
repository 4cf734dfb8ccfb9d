//! The probe: a full login now and then. Slow and gentle, since each one is an
//! IAM login on the instance.

use std::{sync::Arc, time::Duration};

use super::{door::Door, jittered};

/// A probe that was asked for comes no sooner than this after the last one.
const GAP: Duration = Duration::from_secs(1);

/// Probes one instance for ever.
pub async fn run(door: Arc<Door>, interval: Duration) {
    loop {
        if let Ok(session) = door.login().await {
            // A clean quit: a dropped connection leaves a line in the database's log.
            session.close().await;
        }
        tokio::time::sleep(GAP).await;
        tokio::select! {
            () = tokio::time::sleep(jittered(interval).saturating_sub(GAP)) => {}
            () = door.shared.probe_now.notified() => {}
        }
    }
}
