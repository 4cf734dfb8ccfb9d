//! What is promised of a measurement, and whether this run has kept it.

use serde::Serialize;

/// Promises, judged one by one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Bar {
    pub met: Vec<String>,
    pub missed: Vec<String>,
}

impl Bar {
    /// Judges a number that may be this much.
    #[must_use]
    pub fn at_most(self, what: &str, seen: f64, most: f64) -> Self {
        self.holds(format!("{what} {seen:.3}, at most {most}"), seen <= most)
    }

    /// Judges a count that may be this much.
    #[must_use]
    pub fn count(self, what: &str, seen: u64, most: u64) -> Self {
        self.holds(format!("{what} {seen}, at most {most}"), seen <= most)
    }

    /// Judges what is true or not.
    #[must_use]
    pub fn holds(mut self, what: impl Into<String>, kept: bool) -> Self {
        let list = if kept { &mut self.met } else { &mut self.missed };
        list.push(what.into());
        self
    }

    /// Whether all was kept.
    pub fn is_met(&self) -> bool {
        self.missed.is_empty()
    }

    pub fn line(&self) -> String {
        if self.is_met() {
            "bar: met".to_owned()
        } else {
            format!("bar: MISSED ({})", self.missed.join("; "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_met_by_what_is_just_allowed_and_names_all_that_is_not() {
        let met = Bar::default().count("closed", 1, 1).at_most("seconds", 2.0, 2.0).holds("exact", true);
        assert!(met.is_met() && met.line() == "bar: met" && met.met.len() == 3, "{met:?}");
        let missed = met.count("at COMMIT", 1, 0).at_most("seconds", 2.5, 2.0).holds("tables exact", false);
        assert_eq!(
            missed.line(),
            "bar: MISSED (at COMMIT 1, at most 0; seconds 2.500, at most 2; tables exact)"
        );
        assert!(!missed.is_met() && missed.met.len() == 3, "{missed:?}");
    }
}
