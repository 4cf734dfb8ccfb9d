//! How old sessions get, asked of the database itself: the agent is not its own judge.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use crate::{bench::Error, scene::Scene};

const EVERY: Duration = Duration::from_millis(250);

/// A pause in which a session that is past its limit could have been closed: the agent's
/// `quiet_min` and one poll.
const PAUSE: f64 = 0.3;

/// What was seen at most, in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Oldest {
    /// The age of a session, whatever it did.
    pub age: f64,
    /// How long a session past every limit lived on after its first long pause.
    pub after_pause: f64,
}

/// Looks at sessions of this application until told to stop. Past every limit is who is older
/// than `limit_s`.
pub(super) async fn watch(
    application: &str,
    limit_s: f64,
    scene: &Scene,
    stop: &CancellationToken,
) -> Result<Oldest, Error> {
    let writer = scene.standin.writer()?.name();
    let statement = format!(
        "SELECT pid || '@' || backend_start, extract(epoch FROM clock_timestamp() - backend_start), \
         CASE state WHEN 'idle' THEN extract(epoch FROM clock_timestamp() - state_change) ELSE 0 END \
         FROM pg_stat_activity WHERE application_name = '{application}'"
    );
    let mut oldest = Oldest::default();
    let mut paused: HashMap<String, Instant> = HashMap::new();
    let mut clock = interval(EVERY);
    while stop.run_until_cancelled(clock.tick()).await.is_some() {
        let rows = scene.standin.execute_sql(writer, &statement).await?;
        let now = Instant::now();
        let mut before = std::mem::take(&mut paused);
        for row in rows {
            let mut columns = row.into_iter().flatten();
            let (Some(session), Some(age), Some(idle)) = (columns.next(), columns.next(), columns.next())
            else {
                continue;
            };
            let (Ok(age), Ok(idle)) = (age.parse::<f64>(), idle.parse::<f64>()) else { continue };
            oldest.age = oldest.age.max(age);
            let long = (age - idle.min(PAUSE) >= limit_s && idle >= PAUSE).then_some(now);
            if let Some(since) = before.remove(&session).or(long) {
                oldest.after_pause = oldest.after_pause.max(now.duration_since(since).as_secs_f64());
                paused.insert(session, since);
            }
        }
    }
    Ok(oldest)
}
