//! The text formats of `/metrics`: Prometheus 0.0.4, and OpenMetrics 1.0 for clients that accept it.
//!
//! The library writes OpenMetrics. The older format differs in the names of counters in `# HELP` and `# TYPE`,
//! and in the end of the text.

use std::fmt::Write;

use prometheus_client::{encoding::text::encode, registry::Registry};

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Format {
    Prometheus,
    OpenMetrics,
}

const END: &str = "# EOF\n";

impl Format {
    /// By the `Accept` header.
    pub fn accepted(accept: Option<&str>) -> Self {
        let open = accept.is_some_and(|accept| accept.contains("application/openmetrics-text"));
        if open { Self::OpenMetrics } else { Self::Prometheus }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// The registry, followed by metrics that are already OpenMetrics text.
    pub(super) fn text(self, registry: &Registry, more: &str) -> String {
        let mut text = String::new();
        if encode(&mut text, registry).is_err() {
            // Writing to a String fails only if a metric's own encoder does.
            let _ = write!(text, "# encoding failed");
        }
        let text = text.strip_suffix(END).unwrap_or(&text).to_owned() + more;
        match self {
            Self::OpenMetrics => text + END,
            Self::Prometheus => to_prometheus(&text),
        }
    }
}

/// Names counters with their suffix in comments too.
fn to_prometheus(text: &str) -> String {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let counters: std::collections::HashSet<&str> =
        types.filter_map(|line| line.strip_suffix(" counter")).collect();
    let line = |line: &str| {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(kind), Some(name), Some(rest)) if counters.contains(name) => {
                format!("# {kind} {name}_total {rest}\n")
            }
            _ => format!("{line}\n"),
        }
    };
    text.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::{counter::Counter, gauge::Gauge};

    use super::*;

    #[test]
    fn the_format_follows_the_accept_header() {
        assert_eq!(Format::accepted(None), Format::Prometheus);
        assert_eq!(Format::accepted(Some("text/plain;version=0.0.4")), Format::Prometheus);
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;q=0.5";
        assert_eq!(Format::accepted(Some(prometheus)), Format::OpenMetrics);
    }

    #[test]
    fn only_the_names_of_counters_and_the_end_differ() {
        let mut registry = Registry::default();
        registry.register("logins", "Logins", Counter::<u64>::default());
        registry.register("sessions", "Sessions", Gauge::<i64>::default());
        let open = Format::OpenMetrics.text(&registry, "");
        assert_eq!(
            open,
            "# HELP logins Logins.\n# TYPE logins counter\nlogins_total 0\n\
             # HELP sessions Sessions.\n# TYPE sessions gauge\nsessions 0\n# EOF\n"
        );
        let old = open.replace(" logins ", " logins_total ").replace("# EOF\n", "");
        assert_eq!(Format::Prometheus.text(&registry, ""), old);
    }
}
