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

/// What counts as old: what the agent is told as `max_age`.
const OLD: &str = "5 seconds";

/// Closes until told to stop; with an agent that acts, does nothing.
pub(super) async fn close<P: Proxy>(
    closer: Closer,
    scene: &Scene<P>,
    stop: &CancellationToken,
) -> Result<(), Error> {
    let writer = scene.standin.writer()?.name();
    match closer {
        Closer::Agent(_) => {
            stop.cancelled().await;
            Ok(())
        }
        Closer::Shutdown => {
            let mut clock = interval(SHUTDOWN_EVERY);
            // The first is at once, and clients have just come.
            clock.tick().await;
            while stop.run_until_cancelled(clock.tick()).await.is_some() {
                scene.proxy.shut_down("orders_write", writer).await?;
            }
            Ok(())
        }
        Closer::Terminate => {
            let statement = format!(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename IN ('app', 'app2') \
                 AND backend_start < clock_timestamp() - interval '{OLD}'"
            );
            let mut clock = interval(TERMINATE_EVERY);
            while stop.run_until_cancelled(clock.tick()).await.is_some() {
                scene.standin.value(writer, &statement).await?;
            }
            Ok(())
        }
    }
}
