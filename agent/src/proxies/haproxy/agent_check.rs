//! Agent-check answers from the snapshot.

use std::sync::Arc;

use agent_core::freshness::Freshness;
use haproxy::agent_check::{Answer, Reply};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::{mpsc, watch};

use crate::{
    clock::Clock,
    events::UnknownNames,
    messages::Input,
    metrics::{
        Metrics,
        labels::{self, OfAnswer},
    },
    shared::Questions,
    snapshot::Snapshot,
};

/// Answers for all servers of all proxies.
#[derive(Debug)]
pub struct Answers {
    snapshot: watch::Receiver<Arc<Snapshot>>,
    decider: mpsc::Sender<Input>,
    clock: Option<Clock>,
    questions: Questions,
    neutral: String,
    known: Counter,
    unknown: Counter,
    unknown_names: UnknownNames,
    metrics: Arc<Metrics>,
}

impl Answers {
    /// Answers from this snapshot; delivered admin words are reported to the decider.
    pub fn new(
        snapshot: watch::Receiver<Arc<Snapshot>>,
        decider: mpsc::Sender<Input>,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let counter = |answer| metrics.agent_checks.get_or_create_owned(&OfAnswer { answer });
        Self {
            snapshot,
            decider,
            clock: None,
            questions: Questions::default(),
            neutral: Reply::default().line(),
            known: counter(labels::Answer::Server),
            unknown: counter(labels::Answer::UnknownServer),
            unknown_names: UnknownNames::new(labels::Question::AgentCheck),
            metrics: metrics.clone(),
        }
    }

    /// Answers neutrally from a snapshot that is too old by this clock: that of a decider
    /// that hangs, or of a process that stood still for a while.
    #[must_use]
    pub fn fresh_by(self, clock: Clock) -> Self {
        Self { clock: Some(clock), ..self }
    }

    /// Notes the questions for configured servers here.
    #[must_use]
    pub fn noting(self, questions: Questions) -> Self {
        Self { questions, ..self }
    }

    fn is_fresh(&self, snapshot: &Snapshot) -> bool {
        self.clock.is_none_or(|clock| Freshness::of(clock.now().since(snapshot.at)) == Freshness::Fresh)
    }
}

impl Answer for Answers {
    fn line(&self, key: &str) -> String {
        let snapshot = self.snapshot.borrow();
        if snapshot.lines.contains_key(key) {
            self.questions.heard(key);
        }
        if let Some(line) = snapshot.lines.get(key).filter(|_| self.is_fresh(&snapshot)) {
            self.known.inc();
            return line.text.clone();
        }
        // Not the agent's server, not known yet, or not known any more: change nothing.
        self.unknown.inc();
        if !snapshot.lines.is_empty() && !snapshot.lines.contains_key(key) {
            let known: Vec<String> = snapshot.lines.keys().cloned().collect();
            self.unknown_names.asked(key, &known, &self.metrics);
        }
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

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, time::Duration};

    use agent_core::{ProxyIndex, ServerId};

    use super::*;
    use crate::snapshot::Line;

    #[tokio::test(start_paused = true)]
    async fn what_a_decider_that_hangs_last_said_is_not_repeated_for_ever() {
        let clock = Clock::start();
        let server = ServerId::new(ProxyIndex(0), "orders", "pg1");
        let line = Line { server, text: "down #refused\n".into(), admin: None };
        let lines = Arc::new(HashMap::from([("orders/pg1".to_owned(), line)]));
        let snapshot_of_lines =
            || Arc::new(Snapshot { lines: lines.clone(), ..Snapshot::empty(clock.now()) });
        let (publish, snapshot) = watch::channel(snapshot_of_lines());
        let (decider, _inputs) = mpsc::channel(1);
        let answers = Answers::new(snapshot, decider, &Arc::new(Metrics::default())).fresh_by(clock);
        assert_eq!(answers.line("orders/pg1"), "down #refused\n");
        tokio::time::advance(Duration::from_secs(6)).await;
        assert_eq!(answers.line("orders/pg1"), "#no opinion\n", "nothing is known of now");
        publish.send_replace(snapshot_of_lines());
        assert_eq!(answers.line("orders/pg1"), "down #refused\n");
    }
}
