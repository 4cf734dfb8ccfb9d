//! What became of an attempt, and how many there were of each kind.

use serde::{Serialize, Serializer};

/// What became of one attempt of a client, from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Logged in, ran its transaction and received the acknowledgement within 5 s.
    Ok,
    /// The statement succeeded, but late.
    Slow,
    /// No login within 10 s, or an error before anything ran.
    Failed,
    /// A write on a server that takes none: 25006, 1290.
    WrongRole,
    /// An error between the first statement and the answer to COMMIT.
    Cut,
    /// COMMIT was acknowledged, and the final writer does not have the row.
    WrongWriter,
}

impl Outcome {
    /// All that clients suffer from, from best to worst.
    pub const BAD: [Self; 5] = [Self::Slow, Self::Failed, Self::WrongRole, Self::Cut, Self::WrongWriter];

    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Slow => "slow",
            Self::Failed => "failed",
            Self::WrongRole => "wrong_role",
            Self::Cut => "cut",
            Self::WrongWriter => "wrong_writer",
        }
    }
}

impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

/// Attempts by outcome. Each field counts the attempts that fared so **or worse**.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub attempts: u32,
    pub slow: u32,
    pub failed: u32,
    pub wrong_role: u32,
    pub cut: u32,
    pub wrong_writer: u32,
}

impl Counts {
    pub fn add(&mut self, outcome: Outcome) {
        self.attempts += 1;
        let [slow, failed, wrong_role, cut, wrong_writer] = Outcome::BAD.map(|bad| u32::from(outcome >= bad));
        self.slow += slow;
        self.failed += failed;
        self.wrong_role += wrong_role;
        self.cut += cut;
        self.wrong_writer += wrong_writer;
    }

    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            attempts: self.attempts + other.attempts,
            slow: self.slow + other.slow,
            failed: self.failed + other.failed,
            wrong_role: self.wrong_role + other.wrong_role,
            cut: self.cut + other.cut,
            wrong_writer: self.wrong_writer + other.wrong_writer,
        }
    }

    /// The counts in the order of [`Outcome::BAD`].
    pub fn bad(self) -> [f64; 5] {
        [self.slow, self.failed, self.wrong_role, self.cut, self.wrong_writer].map(f64::from)
    }
}

impl FromIterator<Outcome> for Counts {
    fn from_iter<I: IntoIterator<Item = Outcome>>(outcomes: I) -> Self {
        outcomes.into_iter().fold(Self::default(), |mut counts, outcome| {
            counts.add(outcome);
            counts
        })
    }
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "whole numbers")]
mod tests {
    use super::*;

    #[test]
    fn a_worse_outcome_counts_in_each_milder_column() {
        let counts: Counts = [Outcome::Ok, Outcome::Failed, Outcome::Cut].into_iter().collect();
        assert_eq!(counts.attempts, 3);
        assert_eq!(counts.bad(), [2.0, 2.0, 1.0, 1.0, 0.0]);
    }
}
