//! Sessions that ended lately without a sign of failure. The log of a proxy shows the same for a client that is done and
//! for a server that was stopped; the agent's next query on the instance tells them apart.

use std::{collections::VecDeque, time::Duration};

use super::{Certainty, Failure, Phase};
use crate::{InstanceId, Time};

/// The agent notices a server that stopped answering within this time, as a rule.
const KEPT: Duration = Duration::from_secs(10);

/// Sessions that are kept. More end together only where a large server goes.
const MOST: usize = 2_048;

#[derive(Debug, Default)]
pub struct Ends {
    ended: VecDeque<(Time, Failure)>,
}

impl Ends {
    /// A session has ended; `failure` is what it is if its server is gone.
    pub fn push(&mut self, now: Time, failure: Failure) {
        if self.ended.len() >= MOST {
            self.ended.pop_front();
        }
        self.ended.push_back((now, failure));
    }

    /// The sessions of an instance that ended since then: the instance does not answer.
    pub fn of_gone(&mut self, instance: &InstanceId, since: Time) -> Vec<(Time, Failure)> {
        let mut gone = Vec::new();
        self.ended.retain_mut(|(at, failure)| {
            let with_it = failure.instance.as_ref() == Some(instance) && *at >= since;
            if with_it {
                let failure =
                    Failure { phase: Phase::ServerGone, certainty: Certainty::Likely, ..failure.clone() };
                gone.push((*at, failure));
            }
            !with_it
        });
        gone
    }

    /// Forgets sessions that ended too long ago.
    pub fn expire(&mut self, now: Time) {
        while self.ended.front().is_some_and(|(at, _)| now.since(*at) > KEPT) {
            self.ended.pop_front();
        }
    }
}
