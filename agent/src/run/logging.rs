//! Lines on standard error: JSON for machines, text for people.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{EnvFilter, Layer, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use super::collapse::Collapse;
use crate::config::{
    Log,
    file::{LogFormat, LogLevel},
};

/// Starts logging. `RDS_LB_AGENT_LOG` (in the syntax of `tracing`) beats the file's level.
/// What is returned has to [report](Collapse::report) what it leaves out.
pub(super) fn start(log: &Log) -> Collapse {
    let collapse = Collapse::default();
    let level = match log.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    // Other crates' lines are never below a warning: some print what they send.
    let default =
        format!("warn,rds_lb_agent={level},agent_aws={level},agent_database={level},haproxy={level}");
    let filter = EnvFilter::try_from_env("RDS_LB_AGENT_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let registry = tracing_subscriber::registry().with(filter);
    // Only one logger a process: a second start (in tests) keeps the first.
    let _ = match log.format {
        LogFormat::Json => {
            let layer =
                fmt::layer().json().flatten_event(true).with_target(false).with_writer(std::io::stderr);
            registry.with(layer.with_filter(collapse.clone())).try_init()
        }
        LogFormat::Text => {
            let layer = fmt::layer().with_target(false).with_writer(std::io::stderr);
            registry.with(layer.with_filter(collapse.clone())).try_init()
        }
    };
    collapse
}
