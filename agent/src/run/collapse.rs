//! Keeps one cause from filling the log: of one kind of line, so many a second
//! are written, and the others are counted and told once a second.

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

/// Lines of one kind that are written in one second.
const MOST: u32 = 20;

/// The time that they are counted in.
const SECOND: Duration = Duration::from_secs(1);

/// A filter for the layer that writes. Clones count together.
#[derive(Clone, Debug, Default)]
pub(super) struct Collapse(Arc<Mutex<HashMap<Identifier, Kind>>>);

/// One kind of line: what one place in the code writes.
#[derive(Debug)]
struct Kind {
    /// When its second began.
    since: Instant,
    written: u32,
    left_out: u64,
    /// The message of those left out.
    message: String,
}

/// Lines were left out of the log.
#[derive(Debug)]
struct Collapsed {
    message: String,
    left_out: u64,
}

// === impl Collapse ===

impl Collapse {
    /// Tells once a second what was left out, for ever.
    pub(super) async fn report(self, metrics: Arc<Metrics>) {
        loop {
            tokio::time::sleep(SECOND).await;
            for collapsed in self.take() {
                collapsed.emit(&metrics);
            }
        }
    }

    /// What was left out since the last call. Kinds that are silent are forgotten.
    fn take(&self) -> Vec<Collapsed> {
        let mut kinds = self.kinds();
        let taken = kinds.values_mut().filter(|kind| kind.left_out > 0).map(|kind| Collapsed {
            message: kind.message.clone(),
            left_out: std::mem::take(&mut kind.left_out),
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
            left_out: 0,
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
        if kind.left_out == 0 {
            kind.message.clear();
            event.record(&mut Message(&mut kind.message));
        }
        kind.left_out += 1;
        false
    }
}

/// Reads the message of a line and none of its fields.
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
        metrics.events_collapsed.inc_by(self.left_out);
        warn!(of = self.message, left_out = self.left_out, "lines left out: too many of one kind");
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use tracing_subscriber::{Layer, fmt, layer::SubscriberExt};

    use super::*;

    /// What the layer writes, to be read by the test.
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
    async fn one_kind_of_line_is_written_so_often_a_second_and_the_rest_is_counted() {
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
        assert_eq!(lines.count("lines left out"), 1);
        assert_eq!(metrics.events_collapsed.get(), 30);

        tokio::time::advance(SECOND).await;
        often(5);
        assert_eq!(
            lines.count("login failed"),
            20 + 5 + 1,
            "a new second, and the line that told of the others"
        );
        assert!(collapse.take().is_empty());

        tokio::time::advance(SECOND).await;
        collapse.take();
        assert!(collapse.kinds().is_empty(), "silent kinds are forgotten");
    }
}
