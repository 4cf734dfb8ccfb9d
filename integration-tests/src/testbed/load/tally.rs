//! What clients count while they run.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{Ending, SteadySession};

/// When a session's end hit its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Before the client's first transaction, while it made its row.
    Preparation,
    /// Found by the look before BEGIN.
    Look,
    /// BEGIN failed, and the one retry went well.
    RetriedBegin,
    Begin,
    Inside,
    Commit,
    /// Found by the look before INSERT.
    LookBeforeInsert,
    Insert,
    /// A session that only has to be there.
    Steady,
}

impl Phase {
    pub(super) fn word(self) -> &'static str {
        match self {
            Phase::Preparation => "in preparation",
            Phase::Look => "clean",
            Phase::RetriedBegin => "retried at BEGIN",
            Phase::Begin => "at BEGIN",
            Phase::Inside => "inside",
            Phase::Commit => "at COMMIT",
            Phase::LookBeforeInsert => "clean before INSERT",
            Phase::Insert => "at INSERT",
            Phase::Steady => "steady",
        }
    }
}

/// A login that went well.
#[derive(Clone, Copy, Debug)]
pub(super) struct Login {
    /// After the load began.
    pub at: Duration,
    pub took: Duration,
    pub first: bool,
}

/// All counts of a load.
#[derive(Debug)]
pub(super) struct Tally {
    pub began: Instant,
    pub clients: usize,
    pub logins: Vec<Login>,
    pub failed_logins: u64,
    /// Phase and ending (`inside 57P01`), or why a login failed, with how often.
    pub causes: BTreeMap<String, u64>,
    /// Client → commits that were acknowledged to it.
    pub commits: BTreeMap<u32, u64>,
    pub transactions: u64,
    /// Of each transaction, the time that its statements took.
    pub waits: Vec<Duration>,
    /// Ended before their client had begun to work.
    pub unprepared: u64,
    pub clean: u64,
    pub retried: u64,
    pub at_begin: u64,
    pub inside: u64,
    pub at_commit: u64,
    pub clean_before_insert: u64,
    pub inserted: u64,
    /// Client and number of the rows whose INSERT was not acknowledged.
    pub unsure_rows: Vec<(u32, u64)>,
    pub steady_closed: u64,
    pub steady: Vec<SteadySession>,
    /// Server processes, or connection numbers, whose client went away without knowing what they did.
    pub abandoned: Vec<u64>,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            clients: 0,
            logins: Vec::new(),
            failed_logins: 0,
            causes: BTreeMap::new(),
            commits: BTreeMap::new(),
            transactions: 0,
            waits: Vec::new(),
            unprepared: 0,
            clean: 0,
            retried: 0,
            at_begin: 0,
            inside: 0,
            at_commit: 0,
            clean_before_insert: 0,
            inserted: 0,
            unsure_rows: Vec::new(),
            steady_closed: 0,
            steady: Vec::new(),
            abandoned: Vec::new(),
        }
    }

    /// A session ended, or a statement of it failed, which ends it too.
    pub(super) fn ended(&mut self, phase: Phase, ending: &Ending, backend: u64) {
        let count = match phase {
            Phase::Preparation => &mut self.unprepared,
            Phase::Look => &mut self.clean,
            Phase::RetriedBegin => &mut self.retried,
            Phase::Begin => &mut self.at_begin,
            Phase::Inside => &mut self.inside,
            Phase::Commit => &mut self.at_commit,
            Phase::LookBeforeInsert => &mut self.clean_before_insert,
            // Its rows are counted one by one.
            Phase::Insert => &mut 0,
            Phase::Steady => &mut self.steady_closed,
        };
        *count += 1;
        if matches!(phase, Phase::Begin | Phase::Inside | Phase::Commit | Phase::Insert) {
            self.abandoned.push(backend);
        }
        *self.causes.entry(format!("{} {ending}", phase.word())).or_default() += 1;
    }

    /// A transaction was acknowledged; `client` is its writer, if it wrote.
    pub(super) fn committed(&mut self, client: Option<u32>, waited: Duration) {
        self.transactions += 1;
        self.waits.push(waited);
        if let Some(client) = client {
            *self.commits.entry(client).or_default() += 1;
        }
    }
}
