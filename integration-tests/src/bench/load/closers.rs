//! What people do without an agent: close by the clock, without looking.

use std::time::Duration;

use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use super::Closer;
use crate::{
    bench::Error,
    scene::{Proxy, Scene},
};

/// Between two times that all sessions of the server are shut down.
const SHUTDOWN_EVERY: Duration = Duration::from_secs(3);

/// Between two looks for old sessions.
const TERMINATE_EVERY: Duration = Duration::from_secs(1);

/// Between two sessions that the loose guard closes: as many a second as the agent may.
const GUARD_EVERY: Duration = Duration::from_millis(50);

/// What counts as old: the `max_age` of the agent.
const OLD: &str = "5 seconds";

/// Closes until told to stop; with an agent that acts, does nothing.
pub(super) async fn close<P: Proxy>(
    closer: Closer,
    scene: &Scene<P>,
    stop: &CancellationToken,
) -> Result<(), Error> {
    let old = format!("usename IN ('app', 'app2') AND backend_start < clock_timestamp() - interval '{OLD}'");
    match closer {
        Closer::Agent(_) => {
            stop.cancelled().await;
            Ok(())
        }
        Closer::Shutdown => {
            let writer = scene.standin.writer()?.name();
            let mut clock = interval(SHUTDOWN_EVERY);
            // The first is at once, and clients have just come.
            clock.tick().await;
            while stop.run_until_cancelled(clock.tick()).await.is_some() {
                scene.proxy.shut_down("orders_write", writer).await?;
            }
            Ok(())
        }
        Closer::Terminate => {
            let statement =
                format!("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {old}");
            repeat(scene, &statement, TERMINATE_EVERY, stop).await
        }
        Closer::LooseGuard => {
            let statement = format!(
                "SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity WHERE {old} \
                 AND state = 'idle' ORDER BY backend_start LIMIT 1) AS oldest"
            );
            repeat(scene, &statement, GUARD_EVERY, stop).await
        }
    }
}

/// Has the writer execute a statement again and again, until told to stop.
async fn repeat<P: Proxy>(
    scene: &Scene<P>,
    statement: &str,
    every: Duration,
    stop: &CancellationToken,
) -> Result<(), Error> {
    let writer = scene.standin.writer()?.name();
    let mut clock = interval(every);
    while stop.run_until_cancelled(clock.tick()).await.is_some() {
        scene.standin.value(writer, statement).await?;
    }
    Ok(())
}
