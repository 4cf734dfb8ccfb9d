//! Steps of the clock of HAProxy's host, and its changes to and from daylight saving time. Pure.
//!
//! HAProxy prints when it accepted a session as a date in local time, and an age is the difference of two
//! dates. A step between them would make every session older or younger at once. So each listing compares
//! the host's clock with one that never steps.

use std::{collections::VecDeque, time::Duration};

use jiff::{SignedDuration, civil::DateTime};

/// A smaller difference may be the time that a connection took: an answer within 5 s is accepted.
const LEAST: SignedDuration = SignedDuration::from_secs(10);

/// Steps that are remembered. Sessions end long before so many.
const STEPS: usize = 16;

/// Times are of a clock that never steps, since any moment.
#[derive(Debug, Default)]
pub struct HostClock {
    /// The last reading of both clocks.
    last: Option<(DateTime, Duration)>,
    /// The oldest step comes first.
    steps: VecDeque<Step>,
}

/// A step between two readings.
#[derive(Debug)]
struct Step {
    after: Duration,
    before: Duration,
    by: SignedDuration,
}

impl HostClock {
    /// Takes in the date on the host's clock at a time.
    pub fn read(&mut self, date: DateTime, at: Duration) {
        if let Some((last_date, last)) = self.last.replace((date, at)) {
            let by = date.duration_since(last_date) - signed(at.saturating_sub(last));
            if by.abs() >= LEAST {
                self.steps.push_back(Step { after: last, before: at, by });
                if self.steps.len() > STEPS {
                    self.steps.pop_front();
                }
            }
        }
    }

    /// The age at a time of a session that looks `apparent` old by the dates of the host's clock.
    ///
    /// Where it is unknown whether a session was accepted before or after a step, it is the younger one.
    pub fn age(&self, apparent: SignedDuration, at: Duration) -> Duration {
        let mut age = apparent;
        for step in self.steps.iter().rev() {
            let (shortest, longest) =
                (signed(at.saturating_sub(step.before)), signed(at.saturating_sub(step.after)));
            let accepted_before = if step.by.is_negative() {
                age.is_negative()
            } else {
                age > longest || age - step.by >= shortest
            };
            if accepted_before {
                age -= step.by;
            }
        }
        Duration::try_from(age).unwrap_or_default()
    }
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600;

    fn date(text: &str) -> DateTime {
        text.parse().unwrap()
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn age(clock: &HostClock, apparent: i64, seconds: u64) -> u64 {
        clock.age(SignedDuration::from_secs(apparent), at(seconds)).as_secs()
    }

    #[test]
    fn a_change_to_summer_time_makes_no_session_older() {
        let mut clock = HostClock::default();
        clock.read(date("2026-03-29T01:50:00"), at(0));
        // Eleven minutes later it is 03:01.
        clock.read(date("2026-03-29T03:01:00"), at(660));
        assert_eq!(age(&clock, HOUR + 15 * 60, 660), 15 * 60, "accepted at 01:46");
        assert_eq!(age(&clock, HOUR + 6 * 60, 660), 6 * 60, "accepted at 01:55, between the readings");
        assert_eq!(age(&clock, 30, 660), 30, "accepted at 03:00:30");
        clock.read(date("2026-03-29T03:11:00"), at(1_260));
        assert_eq!(age(&clock, HOUR + 16 * 60, 1_260), 16 * 60, "accepted at 01:55");
        assert_eq!(age(&clock, 10 * 60, 1_260), 10 * 60, "accepted at 03:01");
    }

    #[test]
    fn a_session_from_before_a_step_back_has_an_age() {
        let mut clock = HostClock::default();
        clock.read(date("2026-10-25T02:55:00"), at(0));
        // Ten minutes later it is 02:05.
        clock.read(date("2026-10-25T02:05:00"), at(600));
        assert_eq!(age(&clock, -50 * 60, 600), 10 * 60, "accepted at 02:55, before the change");
        assert_eq!(age(&clock, 60, 600), 60, "accepted at 02:04");
    }

    #[test]
    fn small_differences_are_no_steps_and_the_number_of_steps_is_bounded() {
        let mut clock = HostClock::default();
        clock.read(date("2026-11-22T14:00:00"), at(0));
        clock.read(date("2026-11-22T14:00:14"), at(10));
        assert_eq!(age(&clock, 700, 10), 700);
        for step in 1..100 {
            let day = if step % 2 == 0 { "2026-11-22T14:00:00" } else { "2026-11-23T14:00:00" };
            clock.read(date(day), at(10 + step));
        }
        assert!(clock.steps.len() <= STEPS, "{}", clock.steps.len());
    }
}
