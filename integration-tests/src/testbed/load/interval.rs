//! How far a counted rate can be trusted.

use serde::Serialize;

/// The 95 % interval of a rate (Wilson's score interval): also sensible at 0 events.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// What was counted, of `trials`.
    pub events: u64,
    /// How often it could have happened.
    pub trials: u64,
    /// The rate as counted, 0 to 1; 0 without trials.
    pub rate: f64,
    pub low: f64,
    /// Its upper bound; 1 without trials.
    pub high: f64,
}

impl Interval {
    /// Of so many events in so many trials.
    pub fn of(events: u64, trials: u64) -> Self {
        // The 97.5th percentile of the normal distribution.
        const Z: f64 = 1.959_964;
        if trials == 0 {
            return Self { events, trials, rate: 0.0, low: 0.0, high: 1.0 };
        }
        let n = trials as f64;
        let rate = events as f64 / n;
        let z2 = Z * Z;
        let centre = (rate + z2 / (2.0 * n)) / (1.0 + z2 / n);
        let half = Z * (rate * (1.0 - rate) / n + z2 / (4.0 * n * n)).sqrt() / (1.0 + z2 / n);
        // At the ends the bound is the end itself; rounding must not say otherwise.
        let low = if events == 0 { 0.0 } else { (centre - half).max(0.0) };
        let high = if events >= trials { 1.0 } else { (centre + half).min(1.0) };
        Self { events, trials, rate, low, high }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(left: f64, right: f64) -> bool {
        (left - right).abs() < 1e-6
    }

    // Worked out apart; 5 of 10 is the textbook's case.
    #[test]
    fn agrees_with_the_textbook() {
        let none = Interval::of(0, 1500);
        assert!(none.low == 0.0 && close(none.high, 0.002_554_4), "{none:?}");
        let some = Interval::of(10, 300);
        assert!(close(some.low, 0.018_204_9) && close(some.high, 0.060_261_8), "{some:?}");
        let half = Interval::of(5, 10);
        assert!(close(half.low, 0.236_593_1) && close(half.high, 0.763_406_9), "{half:?}");
    }

    #[test]
    fn knows_nothing_without_trials_and_is_sure_of_neither_end() {
        assert_eq!((Interval::of(0, 0).low, Interval::of(0, 0).high), (0.0, 1.0));
        let all = Interval::of(20, 20);
        assert!(close(all.high, 1.0) && all.low < 0.9, "{all:?}");
    }
}
