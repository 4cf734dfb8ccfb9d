//! The failures of all proxies.

use std::{collections::VecDeque, time::Duration};

use super::{Closes, Collapse, Counts, Ends, Failure, Many, News, Summary};
use crate::Time;

/// Failures that are kept whole.
const MOST: usize = 1_000;

/// Of those suspected alone, so that they do not displace the others.
const MOST_SUSPECTED: usize = 200;

#[derive(Debug, Default)]
pub struct Journal {
    pub closes: Closes,
    pub ends: Ends,
    last: VecDeque<Record>,
    suspected: VecDeque<Record>,
    counts: Counts,
    collapse: Collapse,
}

/// A failure, and when its session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub at: Time,
    pub failure: Failure,
}

impl Journal {
    /// Keeps a failure. `at` is when the session ended, which may be earlier than now.
    pub fn record(&mut self, now: Time, at: Time, failure: Failure) -> News {
        let news = self.collapse.observe(now, &failure);
        self.counts.add(now, &failure);
        let (kept, most) = if failure.certainty == super::Certainty::Suspected {
            (&mut self.suspected, MOST_SUSPECTED)
        } else {
            (&mut self.last, MOST)
        };
        if kept.len() >= most {
            kept.pop_front();
        }
        kept.push_back(Record { at, failure });
        news
    }

    /// What was counted and is to be reported now. Once a second.
    pub fn round(&mut self, now: Time) -> Vec<Many> {
        self.ends.expire(now);
        self.collapse.due(now)
    }

    pub fn summary(&self, now: Time, since: Duration, most: usize) -> Summary {
        self.counts.summary(now, since, most)
    }

    /// The last failures, oldest first.
    pub fn last(&self, now: Time, since: Duration, most: usize) -> Vec<&Record> {
        let all = self.last.iter().chain(&self.suspected);
        let mut all: Vec<&Record> = all.filter(|record| now.since(record.at) <= since).collect();
        all.sort_by_key(|record| record.at);
        all.split_off(all.len().saturating_sub(most))
    }
}
