//! How old sessions get, asked of the database itself: the agent is not its own judge.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use crate::{
    bench::Error,
    scene::{Proxy, Scene},
    standin::Engine,
};

const EVERY: Duration = Duration::from_millis(250);

/// A pause in which a session that is past its limit could have been closed: the agent's
/// `quiet_min` and one poll.
const PAUSE: f64 = 0.3;

/// What was seen at most, in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Oldest {
    /// The age of a session, whatever it did.
    pub age: f64,
    /// How long a session past every limit lived on after its first long pause.
    pub after_pause: f64,
}

/// Asks for the sessions of the clients with pauses: identity, age (none where the database
/// does not know), and for how long it is idle outside a transaction; 0 where that is not known.
pub fn sessions(engine: Engine, transactions_shown: bool, application: &str) -> String {
    match (engine, transactions_shown) {
        (Engine::Postgresql, _) => format!(
            "SELECT pid || '@' || backend_start, extract(epoch FROM clock_timestamp() - backend_start), \
             CASE state WHEN 'idle' THEN extract(epoch FROM clock_timestamp() - state_change) ELSE 0 END \
             FROM pg_stat_activity WHERE application_name = '{application}'"
        ),
        // It knows no application; these clients alone have this user.
        (Engine::Mariadb, true) => {
            "SELECT p.id, NULL, IF(p.command = 'Sleep' AND e.state IS NULL, p.time_ms, 0) / 1000 \
             FROM information_schema.processlist p \
             JOIN performance_schema.threads t ON t.processlist_id = p.id \
             LEFT JOIN performance_schema.events_transactions_current e \
             ON e.thread_id = t.thread_id AND e.state = 'ACTIVE' WHERE p.user = 'app'"
                .to_owned()
        }
        // A query of innodb_trx keeps the agent from reading it fresh.
        (Engine::Mariadb, false) => {
            "SELECT id, NULL, 0 FROM information_schema.processlist WHERE user = 'app'".to_owned()
        }
    }
}

/// Looks at sessions with such a statement of [`sessions`] until told to stop. Past every limit is who
/// is older than `limit_s`.
pub async fn watch<P: Proxy>(
    statement: &str,
    limit_s: f64,
    scene: &Scene<P>,
    stop: &CancellationToken,
) -> Result<Oldest, Error> {
    let writer = scene.standin.writer()?.name();
    let mut oldest = Oldest::default();
    let mut known: HashMap<String, Seen> = HashMap::new();
    let mut last_look = Instant::now();
    let mut clock = interval(EVERY);
    while stop.run_until_cancelled(clock.tick()).await.is_some() {
        let looked = Instant::now();
        let rows = scene.standin.execute_sql(writer, statement).await?;
        let now = Instant::now();
        let mut before = std::mem::take(&mut known);
        for row in rows {
            let mut columns = row.into_iter();
            let (Some(Some(session)), Some(age), Some(Some(idle))) =
                (columns.next(), columns.next(), columns.next())
            else {
                continue;
            };
            let mut seen = before.remove(&session).unwrap_or(Seen { not_before: last_look, paused: None });
            // Without a reported time: since it was last absent.
            let age = match age {
                Some(age) => age.parse::<f64>().ok(),
                None => Some(now.duration_since(seen.not_before).as_secs_f64()),
            };
            let (Some(age), Ok(idle)) = (age, idle.parse::<f64>()) else { continue };
            oldest.age = oldest.age.max(age);
            let long = age - idle.min(PAUSE) >= limit_s && idle >= PAUSE;
            seen.paused = seen.paused.or(long.then_some(now));
            if let Some(since) = seen.paused {
                oldest.after_pause = oldest.after_pause.max(now.duration_since(since).as_secs_f64());
            }
            known.insert(session, seen);
        }
        last_look = looked;
    }
    Ok(oldest)
}

/// What is known of a session.
struct Seen {
    /// The last look before it was there.
    not_before: Instant,
    /// When it first paused for long, past every limit.
    paused: Option<Instant>,
}
