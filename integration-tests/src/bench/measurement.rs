//! One number, told in the terminal and written to a file.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Serialize;
use serde_json::Value;

use super::{Bar, Error};

/// One number that was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    /// What was measured; the file's name, too.
    pub name: String,
    /// What `value` and `baseline` count.
    pub unit: &'static str,
    pub value: f64,
    /// The same of something to compare it with, in the same run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline_name: Option<&'static str>,
    /// `value` over `baseline`; none where the baseline is 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// Whether what is promised of it was kept; none where nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bar: Option<Bar>,
    /// Whatever else is worth keeping.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub details: Value,
    #[serde(skip)]
    pub notes: Vec<String>,
}

impl Measurement {
    pub fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self {
            name: name.into(),
            unit,
            value,
            baseline: None,
            baseline_name: None,
            ratio: None,
            bar: None,
            details: Value::Null,
            notes: Vec::new(),
        }
    }

    #[must_use]
    pub fn beside(mut self, baseline_name: &'static str, baseline: f64) -> Self {
        self.baseline = Some(baseline);
        self.baseline_name = Some(baseline_name);
        self.ratio = (baseline != 0.0).then_some(self.value / baseline);
        self
    }

    /// With what is promised of it.
    #[must_use]
    pub fn bar(mut self, bar: Bar) -> Self {
        self.bar = Some(bar);
        self
    }

    /// With everything that was found on the way.
    #[must_use]
    pub fn details(mut self, details: &impl Serialize) -> Self {
        self.details = serde_json::to_value(details).unwrap_or_default();
        self
    }

    /// With a line for people.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }
}

/// Where measurements go: a table on standard output, and a folder.
#[derive(Debug)]
pub struct Report {
    folder: PathBuf,
    told: BTreeMap<String, f64>,
    missed: Vec<String>,
}

impl Report {
    /// Prints the head of the table; files go to this folder.
    pub fn begin(folder: &Path) -> Result<Self, Error> {
        fs::create_dir_all(folder)?;
        println!(
            "{:<34} {:>14} {:<12} {:>14} {:>7}  beside",
            "measurement", "value", "unit", "baseline", "ratio"
        );
        Ok(Self { folder: folder.to_owned(), told: BTreeMap::new(), missed: Vec::new() })
    }

    /// Prints the median, the 99th of a hundred, and the most of these times, and writes them.
    pub fn tell_shares(&mut self, name: &str, mut times: Vec<Duration>) -> Result<(), Error> {
        times.sort_unstable();
        let milliseconds = |share: f64| {
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "an index into the slice"
            )]
            let at = (times.len().saturating_sub(1) as f64 * share) as usize;
            times.get(at).map_or(0.0, |time| time.as_secs_f64() * 1e3)
        };
        for (part, share) in [("p50", 0.50), ("p99", 0.99), ("max", 1.0)] {
            self.tell(&Measurement::new(format!("{name}_{part}"), milliseconds(share), "ms"))?;
        }
        Ok(())
    }

    /// Prints one measurement, and writes it.
    pub fn tell(&mut self, measurement: &Measurement) -> Result<(), Error> {
        let Measurement { name, unit, value, baseline, baseline_name, ratio, bar, notes, .. } = measurement;
        let row = format!(
            "{name:<34} {:>14} {unit:<12} {:>14} {:>7}  {}",
            number(*value),
            baseline.map_or(String::new(), number),
            ratio.map_or(String::new(), |ratio| format!("{ratio:.3}")),
            baseline_name.unwrap_or_default(),
        );
        println!("{}", row.trim_end());
        for note in notes {
            println!("    {note}");
        }
        if let Some(bar) = bar {
            println!("    {}", bar.line());
            if !bar.is_met() {
                self.missed.push(name.clone());
            }
        }
        let text = serde_json::to_string_pretty(measurement).map_err(std::io::Error::from)?;
        fs::write(self.folder.join(format!("{name}.json")), text + "\n")?;
        self.told.insert(name.clone(), *value);
        Ok(())
    }

    /// The measurements of this run that missed their bar.
    pub fn missed(&self) -> &[String] {
        &self.missed
    }

    /// A number of this run.
    pub fn told(&self, name: &str) -> Option<f64> {
        self.told.get(name).copied()
    }
}

/// Four digits that mean something, with thousands apart.
fn number(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 1_000.0 => 0,
        size if size >= 100.0 => 1,
        size if size >= 10.0 => 2,
        size if size >= 1.0 => 3,
        _ => 5,
    };
    let text = format!("{value:.decimals$}");
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && digit.is_ascii_digit() && (whole.len() - index).is_multiple_of(3) && grouped != "-" {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if fraction.is_empty() { grouped } else { format!("{grouped}.{fraction}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_long_as_they_are_exact() {
        let cases = [
            (0.0, "0.00000"),
            (0.0013, "0.00130"),
            (1.5, "1.500"),
            (-123_456.0, "-123,456"),
            (1_234_567.8, "1,234,568"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn a_ratio_is_the_value_over_its_baseline() {
        let measurement = Measurement::new("x", 3.0, "s").beside("other", 2.0);
        assert_eq!(measurement.ratio, Some(1.5));
        assert_eq!(Measurement::new("x", 3.0, "s").beside("other", 0.0).ratio, None);
    }

    #[test]
    fn a_missed_bar_is_remembered_and_written_down() {
        let folder = tempfile::tempdir().unwrap();
        let mut report = Report::begin(folder.path()).unwrap();
        report
            .tell(&Measurement::new("kept", 1.0, "s").bar(Bar::default().at_most("seconds", 1.0, 2.0)))
            .unwrap();
        assert!(report.missed().is_empty());
        report
            .tell(&Measurement::new("broken", 3.0, "s").bar(Bar::default().at_most("seconds", 3.0, 2.0)))
            .unwrap();
        assert_eq!(report.missed(), ["broken"]);
        let written = fs::read_to_string(folder.path().join("broken.json")).unwrap();
        assert!(written.contains("seconds 3.000, at most 2"), "{written}");
    }
}
