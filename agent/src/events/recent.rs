//! The last log lines of the agent at level INFO and above, kept in memory for `status` and `explain`.
//!
//! What `log.level` says does not matter here. Lines of other crates are not kept.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::{self, Debug},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing::{
    Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context};

/// Lines that are kept: a few hours of a bad day.
const MOST: usize = 400;

/// Lines about single sessions are apart, so that they do not displace all others.
const MOST_OF_SESSIONS: usize = 100;

/// Clones are the same memory.
#[derive(Clone, Debug, Default)]
pub struct Recent(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    /// The number of the next line.
    next: u64,
    lines: VecDeque<(u64, Line)>,
    of_sessions: VecDeque<(u64, Line)>,
}

/// A log line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Line {
    /// RFC 3339, in UTC.
    pub at: String,
    /// `ERROR`, `WARN` or `INFO`.
    pub level: String,
    pub message: String,
    pub fields: BTreeMap<String, String>,
}

// === impl Recent ===

impl Recent {
    /// The last lines for which `wanted` is true, oldest first.
    pub fn last(&self, most: usize, wanted: impl Fn(&Line) -> bool) -> Vec<Line> {
        let kept = self.kept();
        let mut lines: Vec<&(u64, Line)> = kept.lines.iter().chain(&kept.of_sessions).collect();
        lines.sort_by_key(|(number, _)| *number);
        let lines: Vec<&Line> = lines.into_iter().map(|(_, line)| line).filter(|line| wanted(line)).collect();
        lines.get(lines.len().saturating_sub(most)..).unwrap_or_default().iter().copied().cloned().collect()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Subscriber> Layer<S> for Recent {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let level = *event.metadata().level();
        if level > Level::INFO {
            return;
        }
        let at = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let mut line = Line { at, level: level.to_string(), message: String::new(), fields: BTreeMap::new() };
        event.record(&mut line);
        let mut kept = self.kept();
        let number = kept.next;
        kept.next += 1;
        let (lines, most) = if line.fields.contains_key("pid") {
            (&mut kept.of_sessions, MOST_OF_SESSIONS)
        } else {
            (&mut kept.lines, MOST)
        };
        if lines.len() >= most {
            lines.pop_front();
        }
        lines.push_back((number, line));
    }
}

// === impl Line ===

impl Line {
    /// Whether the line is about this server, instance, database or proxy.
    pub fn is_about(&self, name: &str) -> bool {
        const SUBJECTS: [&str; 7] = ["server", "instance", "database", "proxy", "backend", "name", "pid"];
        SUBJECTS.iter().any(|subject| self.fields.get(*subject).is_some_and(|value| value == name))
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.fields.iter().try_for_each(|(name, value)| write!(f, " {name}={value}"))
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // A value given with `%`, or the message: neither is Debug output.
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.fields.insert(field.name().to_owned(), value.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn the_last_lines_are_kept_with_their_fields() {
        let recent = Recent::default();
        let logger = tracing_subscriber::registry().with(recent.clone());
        tracing::subscriber::with_default(logger, || {
            tracing::debug!("not kept");
            for round in 0..MOST {
                tracing::info!(instance = "orders/a", round, "again");
                tracing::info!(pid = 7, "session retired");
            }
            tracing::warn!(server = %"orders_read/b", age_s = 1.5, silent = true, "the last");
        });
        assert_eq!(recent.last(1_000, |_| true).len(), MOST + MOST_OF_SESSIONS);
        let last = recent.last(2, |line| !line.is_about("7"));
        assert_eq!(last[1].to_string(), "the last age_s=1.5 server=orders_read/b silent=true");
        assert_eq!((&*last[0].message, &*last[0].fields["round"]), ("again", "399"));
        assert_eq!(recent.last(9, |line| line.is_about("orders_read/b")), [last[1].clone()]);
        assert!(last[1].at.parse::<Timestamp>().is_ok(), "{}", last[1].at);
    }
}
