//! What becomes of a client's attempt.

use std::time::Duration;

use agent_core::health::Role;

/// In order of what a client suffers.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    Ok,
    /// Acknowledged after 5 s.
    Slow,
    /// No login within 10 s, or closed before anything ran.
    Failed,
    /// A write was refused because the server takes none.
    WrongRole,
    /// The session ended inside a transaction, or hung there for 10 s.
    Cut,
    /// `COMMIT` was acknowledged by a server that is not the writer.
    WrongWriter,
}

pub const ALL: [Outcome; 5] =
    [Outcome::Slow, Outcome::Failed, Outcome::WrongRole, Outcome::Cut, Outcome::WrongWriter];

/// How many more attempts fare at least as badly as each of [`ALL`].
pub type Columns = [i64; 5];

/// An attempt and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// When it began.
    pub at: Duration,
    pub role: Role,
    pub outcome: Outcome,
}

/// What clients suffer in `one` arm, less what they suffer in `other`, over the attempts that are `compared`.
pub fn regret(one: &[Ended], other: &[Ended], compared: impl Fn(&Ended) -> bool) -> Columns {
    let mut columns = Columns::default();
    for (one, other) in one.iter().zip(other).filter(|(one, _)| compared(one)) {
        let (one, other) = (suffered(one.outcome, other.outcome), other.outcome);
        for (column, at_least) in columns.iter_mut().zip(ALL) {
            *column += i64::from(one >= at_least) - i64::from(other >= at_least);
        }
    }
    columns
}

/// A client that is served may be cut by a later fault of the server; one that was not served in the other
/// arm could not. Being served is no regret.
fn suffered(one: Outcome, other: Outcome) -> Outcome {
    if one == Outcome::Cut && (Outcome::Failed..Outcome::Cut).contains(&other) { other } else { one }
}
