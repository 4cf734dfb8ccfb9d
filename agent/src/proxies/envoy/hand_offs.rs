//! Clients that were not handed to a database server. Each is reported once, by whichever log shows it
//! first.

use std::{
    collections::{HashSet, VecDeque},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use envoy::access_log::{Event as Entry, HandOff, Tail};
use tokio::time::{Instant, sleep};

use crate::{
    events::{Episodes, Event, HandOffFailed, StateFailed},
    metrics::Metrics,
    shared::Shared,
    state::log::PositionFile,
};

/// Between two reads at the end of the file.
const ROUND: Duration = Duration::from_secs(1);

/// Between two records of the position.
const NOTE: Duration = Duration::from_secs(5);

/// How many ended sessions are remembered. The file lags by the number that end within its flush interval.
const REMEMBERED: usize = 50_000;

/// The failures that were reported. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct HandOffs(Arc<Mutex<Reported>>);

#[derive(Debug, Default)]
struct Reported {
    order: VecDeque<Arc<str>>,
    ids: HashSet<Arc<str>>,
}

impl HandOffs {
    /// Reports an entry if it is the end of a failed session that was not reported before.
    /// `cluster` is its cluster as metrics may name it.
    pub fn report(&self, proxy: &str, cluster: &str, entry: &Entry, metrics: &Metrics) {
        let Some(hand_off) = HandOff::of(entry) else { return };
        if self.is_new(&entry.id) {
            let ended = (entry.started + entry.lasted.unwrap_or_default()).as_secs_f64();
            HandOffFailed { proxy, hand_off, label: cluster, entry, ended }.emit(metrics);
        }
    }

    fn is_new(&self, id: &Arc<str>) -> bool {
        let mut reported = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !reported.ids.insert(id.clone()) {
            return false;
        }
        reported.order.push_back(id.clone());
        if reported.order.len() > REMEMBERED
            && let Some(oldest) = reported.order.pop_front()
        {
            reported.ids.remove(&oldest);
        }
        true
    }
}

/// Reads the file log of one Envoy, for ever.
pub async fn follow(proxy: String, log: PathBuf, file: PositionFile, hand_offs: HandOffs, shared: Shared) {
    let mut episodes = Episodes::default();
    let from = file.load().unwrap_or_else(|error| {
        let consequence = "missed entries of an access log are not reported";
        StateFailed { consequence, error: error.to_string() }.emit(&shared.metrics);
        None
    });
    let mut tail = Tail::new(log.clone(), from);
    let (mut noted, mut next_note) = (from, Instant::now() + NOTE);
    loop {
        // The disk may be slow; nothing else waits for it.
        let reading = tokio::task::spawn_blocking(move || {
            let read = tail.read();
            (tail, read)
        });
        let Ok((returned, read)) = reading.await else { return std::future::pending().await };
        tail = returned;
        let more = match read {
            Ok(lines) => {
                episodes.ends("log");
                for entry in &lines.events {
                    // Envoy's own file: its clusters are those of its configuration.
                    let cluster = entry.cluster.as_deref().unwrap_or("-");
                    hand_offs.report(&proxy, cluster, entry, &shared.metrics);
                }
                lines.more
            }
            Err(error) => {
                if episodes.begins("log", &error.to_string()) {
                    tracing::warn!(proxy, log = %log.display(), %error, "access log not read");
                }
                false
            }
        };
        if Instant::now() >= next_note && tail.position() != noted {
            next_note = Instant::now() + NOTE;
            noted = tail.position();
            if let Some(position) = noted {
                let file = file.clone();
                let stored = tokio::task::spawn_blocking(move || file.store(position)).await;
                if let Ok(Err(error)) = stored
                    && episodes.begins("note", &error.to_string())
                {
                    let consequence = "failed hand-offs may be reported again after a restart";
                    StateFailed { consequence, error: error.to_string() }.emit(&shared.metrics);
                }
            }
        }
        if !more {
            sleep(ROUND).await;
        }
    }
}
