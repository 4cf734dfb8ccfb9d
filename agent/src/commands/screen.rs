//! Text for a terminal of 80 columns: tables, ages, and redrawing for `--watch`. Pure, except for [`watch`].

use std::{io::IsTerminal, time::Duration};

use super::{Exit, print};

/// The narrowest terminal that is cared for.
const WIDTH: usize = 80;

/// Between two redraws.
const EVERY: Duration = Duration::from_secs(1);

/// The width to use: 80 columns, or more if `COLUMNS` says so.
pub(super) fn width() -> usize {
    let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    columns.unwrap_or(WIDTH).max(WIDTH)
}

/// A column of a table. If the table is too wide, flexible columns are cut.
#[derive(Copy, Clone, Debug)]
pub(super) struct Column {
    pub(super) title: &'static str,
    pub(super) right: bool,
    /// The width below which it is not cut; `None` if it is never cut.
    pub(super) least: Option<usize>,
}

impl Column {
    pub(super) const fn fixed(title: &'static str) -> Self {
        Self { title, right: false, least: None }
    }

    pub(super) const fn number(title: &'static str) -> Self {
        Self { title, right: true, least: None }
    }

    pub(super) const fn flexible(title: &'static str, least: usize) -> Self {
        Self { title, right: false, least: Some(least) }
    }
}

/// A table with a line of titles.
pub(super) fn table(columns: &[Column], rows: &[Vec<String>], width: usize) -> String {
    let length = |text: &str| text.chars().count();
    let longest = |index: usize, column: &Column| {
        let cells = rows.iter().filter_map(|row| row.get(index)).map(|cell| length(cell));
        cells.chain([length(column.title)]).max().unwrap_or(0)
    };
    let mut widths: Vec<usize> =
        columns.iter().enumerate().map(|(index, column)| longest(index, column)).collect();
    let gaps = columns.len().saturating_sub(1);
    while widths.iter().sum::<usize>() + gaps > width {
        let flexible = columns
            .iter()
            .zip(&mut widths)
            .filter(|(column, width)| column.least.is_some_and(|least| **width > least));
        match flexible.max_by_key(|(_, width)| **width) {
            Some((_, widest)) => *widest -= 1,
            None => break,
        }
    }
    let line = |cells: &[String]| {
        let cells = columns.iter().zip(&widths).zip(cells).map(|((column, width), cell)| {
            let cell = cut(cell, *width);
            if column.right { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        cells.collect::<Vec<_>>().join(" ").trim_end().to_owned() + "\n"
    };
    let titles: Vec<String> = columns.iter().map(|column| column.title.to_owned()).collect();
    rows.iter().fold(line(&titles), |text, row| text + &line(row))
}

/// The text, cut to `width` characters.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// Words on lines of at most `width` characters; further lines are indented.
pub(super) fn wrapped(text: &str, width: usize, indent: &str) -> String {
    let words = text.trim_start_matches(' ');
    let mut lines = vec![" ".repeat(text.len() - words.len())];
    for word in words.split(' ') {
        let line = lines.last().map_or(0, |line| line.chars().count());
        if line > indent.len() && line + 1 + word.chars().count() > width {
            lines.push(format!("{indent}{word}"));
        } else if let Some(line) = lines.last_mut() {
            let gap = if line.trim_start().is_empty() { "" } else { " " };
            line.push_str(gap);
            line.push_str(word);
        }
    }
    lines.join("\n") + "\n"
}

/// `12s`, `15m00s`, `2h05m`, `3d04h`.
pub(super) fn age(seconds: f64) -> String {
    let seconds = Duration::try_from_secs_f64(seconds).unwrap_or_default().as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m{:02}s", seconds % 60),
        (0, hours, minutes) => format!("{hours}h{:02}m", minutes % 60),
        (days, hours, _) => format!("{days}d{:02}h", hours % 24),
    }
}

/// The same; `-` if unknown.
pub(super) fn age_or_dash(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "-".to_owned(), age)
}

/// Runs `draw` once, or again and again: on a terminal the screen is cleared before each text.
pub(super) async fn watch(again: bool, draw: impl AsyncFn() -> Result<String, Exit>) -> Exit {
    loop {
        match draw().await {
            Ok(text) if again && std::io::stdout().is_terminal() => {
                print(format_args!("\u{1b}[H\u{1b}[2J{}", text.trim_end()));
            }
            Ok(text) => print(text.trim_end()),
            Err(exit) => return exit,
        }
        if !again {
            return Exit::Ok;
        }
        tokio::time::sleep(EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_two_units() {
        let ages = [0.4, 12.0, 60.0, 900.0, 3_599.9, 7_500.0, 273_600.0].map(age);
        assert_eq!(ages, ["0s", "12s", "1m00s", "15m00s", "59m59s", "2h05m", "3d04h"]);
    }

    #[test]
    fn a_table_fits_by_cutting_its_flexible_columns() {
        let columns = [Column::flexible("SERVER", 8), Column::number("AGE"), Column::flexible("WHY", 7)];
        let rows = [vec!["orders_write/a".into(), "5s".into(), "answers".into()]];
        assert_eq!(table(&columns, &rows, 80), "SERVER         AGE WHY\norders_write/a  5s answers\n");
        assert_eq!(table(&columns, &rows, 22), "SERVER     AGE WHY\norders_wr…  5s answers\n");
    }

    #[test]
    fn long_text_is_wrapped_and_indented() {
        assert_eq!(wrapped("one two three four", 9, "  "), "one two\n  three\n  four\n");
        assert_eq!(wrapped("  one two", 20, "    "), "  one two\n");
    }
}
