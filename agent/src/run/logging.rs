//! Log lines on standard error, as JSON or text.

use std::io::IsTerminal;

use tracing::{Level, Metadata, level_filters::LevelFilter};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{FilterExt, filter_fn},
    fmt,
    layer::SubscriberExt,
    reload,
    util::SubscriberInitExt,
};

use super::collapse::Collapse;
use crate::{
    config::{
        Log,
        file::{LogFormat, LogLevel},
    },
    events::Recent,
};

/// The crates of the agent.
const OWN: [&str; 6] = ["rds_lb_agent", "agent_core", "agent_aws", "agent_database", "haproxy", "envoy"];

/// The environment variable that overrides the level in the file, in the syntax of `tracing`.
const LEVEL: &str = "RDS_LB_AGENT_LOG";

pub(super) struct Logging {
    /// The caller has to run [`Collapse::report`].
    pub(super) collapse: Collapse,
    /// The last lines.
    pub(super) recent: Recent,
    /// `None` if the environment sets the level.
    level: Option<reload::Handle<EnvFilter, Registry>>,
}

// === impl Logging ===

impl Logging {
    pub(super) fn start(log: &Log) -> Self {
        let collapse = Collapse::default();
        let from_environment = EnvFilter::try_from_env(LEVEL).ok();
        let fixed = from_environment.is_some();
        let (filter, level) = reload::Layer::new(from_environment.unwrap_or_else(|| filter(log.level)));
        let recent = Recent::default();
        let kept = filter_fn(|line| *line.level() <= Level::INFO && own(line));
        let kept = recent.clone().with_filter(kept.with_max_level_hint(LevelFilter::INFO));
        let written = filter.and(filter_fn(harmless)).and(collapse.clone());
        let layer = fmt::layer().with_target(false).with_writer(std::io::stderr);
        let layer: Box<dyn Layer<Registry> + Send + Sync> = match log.format {
            LogFormat::Json => layer.json().flatten_event(true).with_filter(written).boxed(),
            LogFormat::Text => layer.with_ansi(std::io::stderr().is_terminal()).with_filter(written).boxed(),
        };
        // A process has one logger: a second start (in tests) keeps the first.
        let _ = tracing_subscriber::registry().with(layer).with(kept).try_init();
        Self { collapse, recent, level: (!fixed).then_some(level) }
    }

    /// Applies a changed `log` section, as far as that is possible without a restart.
    pub(super) fn follow(&self, before: &Log, now: &Log) {
        if before.level != now.level {
            if let Some(level) = &self.level {
                if let Err(error) = level.reload(filter(now.level)) {
                    tracing::error!(%error, "`log.level` not changed");
                }
            } else {
                tracing::warn!("`log.level` not changed: {LEVEL} is set in the environment");
            }
        }
        if before.format != now.format {
            tracing::warn!("`log.format` not changed: it needs a restart of the agent");
        }
    }
}

fn filter(level: LogLevel) -> EnvFilter {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    EnvFilter::new(level.to_string())
}

/// Lines of other crates are written only at level warning and above, whatever the filter says: some
/// crates print what they send, which includes tokens.
fn harmless(line: &Metadata<'_>) -> bool {
    *line.level() <= Level::WARN || own(line)
}

/// Lines of the crates of the agent.
fn own(line: &Metadata<'_>) -> bool {
    OWN.contains(&line.target().split("::").next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(text);
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_of_other_crates_below_warning_are_never_written() {
        let lines = Lines::default();
        let writer = lines.clone();
        let layer = fmt::layer().with_ansi(false).with_writer(move || writer.clone());
        let logger = tracing_subscriber::registry()
            .with(EnvFilter::new("trace,hyper=trace"))
            .with(filter_fn(harmless))
            .with(layer);
        tracing::subscriber::with_default(logger, || {
            tracing::trace!(target: "hyper::proto", "a secret");
            tracing::debug!(target: "hyperactive", "a secret");
            tracing::warn!(target: "hyper::proto", "a warning");
            tracing::trace!(target: "rds_lb_agent::tasks", "a line");
            tracing::debug!(target: "agent_database::postgres", "another line");
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert!(!text.contains("secret"), "{text}");
        assert_eq!(text.lines().count(), 3, "{text}");
    }
}
