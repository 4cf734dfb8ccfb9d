//! Agent-check answers from the snapshot.

use std::sync::Arc;

use haproxy::agent_check::{Answer, Reply};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::{mpsc, watch};

use crate::{
    metrics::Metrics,
    tasks::{Input, snapshot::Snapshot},
};

/// Answers for all servers of all proxies.
#[derive(Debug)]
pub struct Answers {
    snapshot: watch::Receiver<Arc<Snapshot>>,
    decider: mpsc::Sender<Input>,
    neutral: String,
    known: Counter,
    unknown: Counter,
}

impl Answers {
    /// Answers from this snapshot; admin words that were delivered are told to the decider.
    pub fn new(
        snapshot: watch::Receiver<Arc<Snapshot>>,
        decider: mpsc::Sender<Input>,
        metrics: &Metrics,
    ) -> Self {
        let counter =
            |answer: &str| metrics.agent_checks.get_or_create_owned(&vec![("answer", answer.into())]);
        Self {
            snapshot,
            decider,
            neutral: Reply::default().line(),
            known: counter("server"),
            unknown: counter("unknown_server"),
        }
    }
}

impl Answer for Answers {
    fn line(&self, key: &str) -> String {
        let snapshot = self.snapshot.borrow();
        if let Some(line) = snapshot.lines.get(key) {
            self.known.inc();
            return line.text.clone();
        }
        // Not the agent's server, or not known yet: change nothing.
        self.unknown.inc();
        self.neutral.clone()
    }

    fn delivered(&self, key: &str, text: &str) {
        let snapshot = self.snapshot.borrow();
        let Some(line) = snapshot.lines.get(key).filter(|line| line.text == text) else { return };
        if let Some(word) = line.admin {
            // A full queue only means that it is counted at the next answer.
            let _ = self.decider.try_send(Input::Delivered(line.server.clone(), word));
        }
    }
}
