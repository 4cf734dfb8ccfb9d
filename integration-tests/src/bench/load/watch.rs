//! How old sessions get, asked of the database itself: the agent is not its own judge.

use std::time::Duration;

use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use crate::{bench::Error, scene::Scene};

const EVERY: Duration = Duration::from_millis(500);

/// The greatest ages that were seen, in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Oldest {
    /// Whatever the session did.
    pub any: f64,
    /// Between two transactions.
    pub idle: f64,
}

/// Looks at sessions of this application until told to stop.
pub(super) async fn watch(
    application: &str,
    scene: &Scene,
    stop: &CancellationToken,
) -> Result<Oldest, Error> {
    let writer = scene.standin.writer()?.name();
    let statement = format!(
        "SELECT coalesce(max(age), 0) || ' ' || coalesce(max(age) FILTER (WHERE state = 'idle'), 0) FROM \
         (SELECT extract(epoch FROM clock_timestamp() - backend_start) AS age, state \
            FROM pg_stat_activity WHERE application_name = '{application}') AS session"
    );
    let mut oldest = Oldest::default();
    let mut clock = interval(EVERY);
    while stop.run_until_cancelled(clock.tick()).await.is_some() {
        let ages = scene.standin.value(writer, &statement).await?;
        let mut ages = ages.split(' ').filter_map(|age| age.parse::<f64>().ok());
        if let (Some(any), Some(idle)) = (ages.next(), ages.next()) {
            oldest = Oldest { any: oldest.any.max(any), idle: oldest.idle.max(idle) };
        }
    }
    Ok(oldest)
}
