//! A table that is redrawn in a terminal, or a plain line now and then.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal, Write as _},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::picture::Picture;

/// Without a terminal, one line in this time is enough.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// As many sessions as fit on a small terminal.
const ROWS: usize = 14;

pub(super) struct Screen {
    terminal: bool,
    drawn: usize,
    last_line: Option<Instant>,
}

impl Screen {
    pub(super) fn new() -> Self {
        Self { terminal: io::stdout().is_terminal(), drawn: 0, last_line: None }
    }

    /// Says something that stays.
    pub(super) fn say(&mut self, text: &str) {
        self.drawn = 0;
        println!("{text}");
    }

    pub(super) fn show(&mut self, picture: &Picture, left: Duration) {
        if self.terminal {
            let table = table(picture, left);
            let up = if self.drawn > 0 { format!("\x1b[{}A", self.drawn) } else { String::new() };
            let cleared: String = table.lines().fold(String::new(), |mut text, line| {
                let _ = writeln!(text, "\x1b[2K{line}");
                text
            });
            // Lines that are too long for the terminal are cut by it, not wrapped.
            print!("\x1b[?7l{up}{cleared}\x1b[?7h");
            let _ = io::stdout().flush();
            self.drawn = table.lines().count();
        } else if self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY) {
            self.last_line = Some(Instant::now());
            println!("{}", line(picture, left));
        }
    }

    /// The table stays where it is.
    pub(super) fn end(&mut self) {
        self.drawn = 0;
    }
}

fn line(picture: &Picture, left: Duration) -> String {
    let report = &picture.report;
    format!(
        "{:>3}s left  sessions {}  due {}  retired {}  oldest {:.1}s  holds {}  transactions {}  broken {}/{}/{}",
        left.as_secs(),
        picture.sessions.len(),
        picture.value("/sessions/due"),
        picture.value("/sessions/retired"),
        picture.sessions.first().map_or(0.0, |session| session.age_s),
        holds(picture),
        report.transactions,
        report.broken_at_begin,
        report.broken_inside,
        report.broken_at_commit,
    )
}

fn holds(picture: &Picture) -> String {
    let holds = picture.value("/sessions/holds").as_object();
    let words: Vec<String> =
        holds.into_iter().flatten().map(|(reason, count)| format!("{reason}={count}")).collect();
    if words.is_empty() { "-".to_owned() } else { words.join(",") }
}

fn table(picture: &Picture, left: Duration) -> String {
    let mut text = String::new();
    let report = &picture.report;
    let _ = writeln!(
        text,
        "── rds-lb-agent ── {:>2}s left ─────────────────────────────────────────────",
        left.as_secs()
    );
    for (instance, view) in picture.value("/fleet/instances").as_object().into_iter().flatten() {
        let word = |key: &str| view.get(key).and_then(Value::as_str).unwrap_or("-").to_owned();
        let drains = picture.value("/drains").as_object().map_or(0, |drains| {
            drains.keys().filter(|server| server.ends_with(instance.trim_start_matches("orders"))).count()
        });
        let drain = if drains > 0 { "  draining" } else { "" };
        let _ = writeln!(text, "{instance:<12} {:<8} {:<8}{drain}", word("role"), word("status"));
    }
    let _ = writeln!(
        text,
        "retired {}   due {}",
        picture.value("/sessions/retired"),
        picture.value("/sessions/due"),
    );
    let _ = writeln!(text, "holds {}", holds(picture));
    let _ = writeln!(
        text,
        "transactions {}   clean retirements {}   broken at BEGIN {}, inside {}, at COMMIT {}",
        report.transactions,
        report.clean_retirements,
        report.broken_at_begin,
        report.broken_inside,
        report.broken_at_commit
    );
    let _ = writeln!(
        text,
        "{:<18} {:<8} {:<20} {:<16} {:>6} {:>6}  HOLD",
        "SERVER", "USER", "CLIENT", "ACTIVITY", "AGE", "LIMIT"
    );
    for at in 0..ROWS {
        match picture.sessions.get(at) {
            Some(one) => {
                let _ = writeln!(
                    text,
                    "{:<18} {:<8} {:<20} {:<16} {:>5.1}s {:>5.1}s  {}",
                    one.server,
                    one.user,
                    one.application,
                    one.activity,
                    one.age_s,
                    one.limit_s,
                    one.hold.as_deref().unwrap_or("")
                );
            }
            None => text.push('\n'),
        }
    }
    text
}
