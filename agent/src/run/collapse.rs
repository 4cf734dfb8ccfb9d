//! Limits log lines of one kind per second. Suppressed lines are counted and reported once a second.

use std::{
    collections::HashMap,
    fmt::{Debug, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tracing::{
    Metadata,
    callsite::Identifier,
    field::{Field, Visit},
    warn,
};
use tracing_subscriber::layer::{Context, Filter};

use crate::{events::Event, metrics::Metrics};

/// Lines of one kind per second.
const MOST: u32 = 20;

const SECOND: Duration = Duration::from_secs(1);

/// A filter for the layer that writes. Clones share their counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Collapse(Arc<Mutex<HashMap<Identifier, Kind>>>);

/// Lines of one kind: those of one call site in the code.
#[derive(Debug)]
struct Kind {
    /// When the current second began.
    since: Instant,
    written: u32,
    suppressed: u64,
    /// The message of suppressed lines.
    message: String,
}

/// Log lines were suppressed.
#[derive(Debug)]
struct Collapsed {
    message: String,
    suppressed: u64,
}

// === impl Collapse ===

impl Collapse {
    /// AccessLogs suppressed lines once a second, until it is dropped.
    pub(super) async fn report(self, metrics: Arc<Metrics>) {
        loop {
            tokio::time::sleep(SECOND).await;
            for collapsed in self.take() {
                collapsed.emit(&metrics);
            }
        }
    }

    /// What was suppressed since the last call. Kinds without recent lines are removed.
    fn take(&self) -> Vec<Collapsed> {
        let mut kinds = self.kinds();
        let taken = kinds.values_mut().filter(|kind| kind.suppressed > 0).map(|kind| Collapsed {
            message: kind.message.clone(),
            suppressed: std::mem::take(&mut kind.suppressed),
        });
        let taken = taken.collect();
        kinds.retain(|_, kind| kind.since.elapsed() < SECOND);
        taken
    }

    fn kinds(&self) -> MutexGuard<'_, HashMap<Identifier, Kind>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> Filter<S> for Collapse {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &tracing::Event<'_>, _: &Context<'_, S>) -> bool {
        let now = Instant::now();
        let mut kinds = self.kinds();
        let kind = kinds.entry(event.metadata().callsite()).or_insert_with(|| Kind {
            since: now,
            written: 0,
            suppressed: 0,
            message: String::new(),
        });
        if now.duration_since(kind.since) >= SECOND {
            kind.since = now;
            kind.written = 0;
        }
        if kind.written < MOST {
            kind.written += 1;
            return true;
        }
        if kind.suppressed == 0 {
            kind.message.clear();
            event.record(&mut Message(&mut kind.message));
        }
        kind.suppressed += 1;
        false
    }
}

/// Reads the message of a log line, without its fields.
struct Message<'a>(&'a mut String);

impl Visit for Message<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            // Writing to a String does not fail.
            let _ = write!(self.0, "{value:?}");
        }
    }
}

// === impl Collapsed ===

impl Event for Collapsed {
    fn emit(&self, metrics: &Metrics) {
        metrics.events_collapsed.inc_by(self.suppressed);
        warn!(of = self.message, suppressed = self.suppressed, "log lines suppressed: too many of one kind");
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use tracing_subscriber::{Layer, fmt, layer::SubscriberExt};

    use super::*;

    /// The output of the layer.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Lines {
        fn count(&self, words: &str) -> usize {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap().matches(words).count()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn lines_of_one_kind_are_limited_per_second_and_the_rest_is_counted() {
        let (collapse, lines) = (Collapse::default(), Lines::default());
        let writer = lines.clone();
        let layer = fmt::layer().with_writer(move || writer.clone()).with_filter(collapse.clone());
        let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
        let metrics = Metrics::default();
        let often = |times: usize| (0..times).for_each(|instance| warn!(instance, "login failed"));

        often(50);
        warn!("something else");
        assert_eq!((lines.count("login failed"), lines.count("something else")), (20, 1));
        for collapsed in collapse.take() {
            collapsed.emit(&metrics);
        }
        assert_eq!(lines.count("log lines suppressed"), 1);
        assert_eq!(metrics.events_collapsed.get(), 30);

        tokio::time::advance(SECOND).await;
        often(5);
        assert_eq!(
            lines.count("login failed"),
            20 + 5 + 1,
            "a new second, and the report of suppressed lines"
        );
        assert!(collapse.take().is_empty());

        tokio::time::advance(SECOND).await;
        collapse.take();
        assert!(collapse.kinds().is_empty(), "kinds without recent lines are removed");
    }
}
