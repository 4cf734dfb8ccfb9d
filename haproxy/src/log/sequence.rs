//! Lost lines. HAProxy numbers the lines of each frontend in each worker (`%lc`): a number that does not come is a line
//! that HAProxy could not send or the kernel dropped.
//!
//! Threads of HAProxy may give two lines one number and skip the next (the counter is read and raised in two steps), and
//! datagrams may arrive out of order. So a missing number counts as lost only after it stayed missing for a round, and a
//! number that came twice makes up for one.

use std::collections::{BTreeSet, HashMap};

/// Missing numbers that are waited for. Of a larger gap the rest is lost at once.
const WAITED_FOR: u64 = 1_024;

/// A larger step is a new beginning, or a hostile number.
const STEP: u64 = 1_000_000;

/// Frontends of workers that are followed.
const STREAMS: usize = 256;

/// The lines of one frontend in one worker.
#[derive(Clone, Debug, Default)]
pub struct Sequence {
    next: Option<u64>,
    /// Missing since the last round.
    missing: BTreeSet<u64>,
    /// Missing since the round before.
    late: BTreeSet<u64>,
    /// Numbers that came twice.
    twice: u64,
    lost: u64,
    /// A line came since the last round.
    active: bool,
}

/// The lines of one HAProxy.
#[derive(Clone, Debug, Default)]
pub struct Sequences {
    streams: HashMap<(u32, Box<str>), (Sequence, u32)>,
}

impl Sequence {
    /// Notes the number of a line.
    pub fn observe(&mut self, number: u64) {
        self.active = true;
        let Some(next) = self.next else {
            self.next = number.checked_add(1);
            return;
        };
        if number.abs_diff(next) > STEP {
            *self = Self { next: number.checked_add(1), lost: self.lost, active: true, ..Self::default() };
            return;
        }
        if number < next {
            if !self.missing.remove(&number) && !self.late.remove(&number) {
                self.twice += 1;
            }
            return;
        }
        let gap = number - next;
        self.lost += gap.saturating_sub(WAITED_FOR);
        self.missing.extend(number - gap.min(WAITED_FOR)..number);
        while self.missing.len() as u64 > WAITED_FOR {
            self.missing.pop_first();
            self.lost += 1;
        }
        self.next = number.checked_add(1);
    }

    /// Ends a round: the lines that are lost for certain since the last.
    pub fn round(&mut self) -> u64 {
        let lost = self.lost + self.late.len() as u64;
        let counted = lost.saturating_sub(self.twice);
        self.twice = self.twice.saturating_sub(lost).min(WAITED_FOR);
        self.late = std::mem::take(&mut self.missing);
        self.lost = 0;
        counted
    }
}

impl Sequences {
    /// Rounds without a line after which a frontend is forgotten.
    const QUIET: u32 = 3_600;

    pub fn observe(&mut self, worker: u32, frontend: &str, number: u64) {
        // No allocation for a frontend that is known would need another key type; names are short.
        let key = (worker, Box::from(frontend));
        if self.streams.len() >= STREAMS && !self.streams.contains_key(&key) {
            return;
        }
        self.streams.entry(key).or_default().0.observe(number);
    }

    /// The lines that are lost since the last round.
    pub fn round(&mut self) -> u64 {
        let mut lost = 0;
        self.streams.retain(|_, (sequence, quiet)| {
            *quiet = if std::mem::take(&mut sequence.active) { 0 } else { *quiet + 1 };
            lost += sequence.round();
            *quiet < Self::QUIET
        });
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(numbers: &[u64]) -> u64 {
        let mut sequence = Sequence::default();
        for number in numbers {
            sequence.observe(*number);
        }
        sequence.round() + sequence.round() + sequence.round()
    }

    #[test]
    fn numbers_that_do_not_come_are_lost() {
        assert_eq!(lost(&[0, 1, 2, 3]), 0);
        assert_eq!(lost(&[7, 8, 11]), 2);
        assert_eq!(lost(&[5, 100_005]), 99_999);
        assert_eq!(lost(&[u64::MAX - 1, u64::MAX, u64::MAX, 7, 8, u64::MAX, 10]), 0, "hostile numbers");
    }

    #[test]
    fn late_lines_and_numbers_that_came_twice_are_not_lost() {
        assert_eq!(lost(&[0, 2, 3, 1]), 0);
        assert_eq!(lost(&[0, 1, 1, 3]), 0, "two threads took the same number");
        assert_eq!(lost(&[0, 1, 1, 4]), 1);
    }

    #[test]
    fn a_missing_line_has_a_round_to_come() {
        let mut sequence = Sequence::default();
        sequence.observe(0);
        sequence.observe(2);
        assert_eq!(sequence.round(), 0);
        sequence.observe(1);
        assert_eq!(sequence.round(), 0);
        sequence.observe(4);
        assert_eq!((sequence.round(), sequence.round(), sequence.round()), (0, 1, 0));
    }

    #[test]
    fn frontends_and_workers_are_apart_and_bounded() {
        let mut sequences = Sequences::default();
        sequences.observe(1, "write", 5);
        sequences.observe(2, "write", 900);
        sequences.observe(1, "read", 7);
        sequences.observe(1, "write", 8);
        assert_eq!((sequences.round(), sequences.round()), (0, 2));
        for worker in 0..10_000 {
            sequences.observe(worker, "write", 0);
        }
        assert_eq!(sequences.streams.len(), STREAMS);
        for _ in 0..=Sequences::QUIET {
            sequences.round();
        }
        assert!(sequences.streams.is_empty());
    }
}
