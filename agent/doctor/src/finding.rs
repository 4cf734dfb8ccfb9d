//! Findings, and a report of them as text. JSON is left to serde.

use std::{
    fmt::{self, Write},
    sync::Arc,
};

use serde::Serialize;

use crate::{
    position::Position,
    rule::{About, Severity},
};

/// A mistake, found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub rule: &'static str,
    pub severity: Severity,
    /// A file, or what else was examined, like an instance.
    pub file: Arc<str>,
    /// 0 if there is no line.
    pub line: u64,
    pub what: String,
    pub why: &'static str,
    pub fix: &'static str,
}

impl Finding {
    pub fn new(about: &About, (at, what): (Position, String)) -> Self {
        Self {
            rule: about.id,
            severity: about.severity,
            file: at.file,
            line: at.line,
            what: printable(&what),
            why: about.why,
            fix: about.fix,
        }
    }
}

/// Control characters of a configuration could change the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// All findings of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What was examined: the names of files, sockets and instances.
    pub examined: Vec<String>,
    /// What was not examined, and why.
    pub skipped: Vec<String>,
    pub findings: Vec<Finding>,
}

impl Report {
    /// Sorts by severity, then by position, and leaves out what is said twice or is allowed.
    pub fn finish(&mut self, allowed: &[String]) {
        self.findings.retain(|finding| !allowed.iter().any(|id| id == finding.rule));
        self.findings.sort_by(|one, other| {
            let key =
                |finding: &Finding| (finding.file.clone(), finding.line, finding.rule, finding.what.clone());
            other.severity.cmp(&one.severity).then_with(|| key(one).cmp(&key(other)))
        });
        self.findings.dedup();
    }

    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }

    /// Whether a finding is severe enough to fail; `strict` includes warnings.
    pub fn fails(&self, strict: bool) -> bool {
        let least = if strict { Severity::Warning } else { Severity::Error };
        self.findings.iter().any(|finding| finding.severity >= least)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            let Finding { rule, severity, file, line, what, why, fix } = finding;
            let at = Position { file: file.clone(), line: *line };
            writeln!(f, "{}[{rule}]: {at}: {what}\n  why: {why}\n  fix: {fix}", severity.word())?;
        }
        for skipped in &self.skipped {
            writeln!(f, "not examined: {skipped}")?;
        }
        let mut counts = String::new();
        for (severity, word) in
            [(Severity::Error, "error"), (Severity::Warning, "warning"), (Severity::Note, "note")]
        {
            let count = self.count(severity);
            write!(counts, ", {count} {word}{}", if count == 1 { "" } else { "s" })?;
        }
        let examined = if self.examined.is_empty() { "nothing".into() } else { self.examined.join(", ") };
        write!(f, "examined: {examined}{counts}")
    }
}
