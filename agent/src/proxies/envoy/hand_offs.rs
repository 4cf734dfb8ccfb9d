//! Ends of sessions for the journal of failures. Each is passed on once, by whichever log shows it first.

use std::{
    collections::{HashSet, VecDeque},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use agent_core::hand_offs::{Certainty, Phase};
use envoy::access_log::{Event as Entry, HandOff, Kind, Tail};
use tokio::time::{Instant, sleep};

use crate::{
    events::{Episodes, Event, StateFailed},
    hand_offs::envoy::{Place, failure, judge},
    shared::Shared,
    state::log::PositionFile,
};

/// Between two reads at the end of the file.
const ROUND: Duration = Duration::from_secs(1);

/// Between two records of the position.
const NOTE: Duration = Duration::from_secs(5);

/// How many ended sessions are remembered. The file lags by the number that end within its flush interval.
const REMEMBERED: usize = 50_000;

/// The failures that were passed on. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Ends(Arc<Mutex<Reported>>);

#[derive(Debug, Default)]
struct Reported {
    order: VecDeque<Arc<str>>,
    ids: HashSet<Arc<str>>,
}

impl Ends {
    /// Passes an entry on if it is the end of a session that was not passed on before.
    pub fn pass(&self, place: Place<'_>, entry: &Entry, shared: &Shared) {
        if entry.kind != Kind::End {
            return;
        }
        let now = shared.clock.now();
        let Some(hand_off) = HandOff::of(entry) else {
            if entry.outgoing.is_some() && place.instance.is_some() && self.is_new(&entry.id) {
                // What it is if its server turns out to be gone.
                let failure = failure(place, entry, (Phase::ServerGone, Certainty::Likely));
                if !shared.hand_offs.is_own(now, &failure) {
                    shared.hand_offs.ended(now, failure);
                }
            }
            return;
        };
        let failure = failure(place, entry, judge(hand_off));
        if self.is_new(&entry.id) && !shared.hand_offs.is_own(now, &failure) {
            shared.hand_offs.failed(now, now, failure, &shared.metrics);
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
pub async fn follow(proxy: String, log: PathBuf, file: PositionFile, ends: Ends, shared: Shared) {
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
                    let label = entry.cluster.as_deref().unwrap_or("-");
                    let place = Place { proxy: &proxy, label, database: None, instance: None };
                    ends.pass(place, entry, &shared);
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
