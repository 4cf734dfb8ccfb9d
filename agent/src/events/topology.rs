//! What AWS reports about a database, compared with the configuration.

use std::time::Duration;

use tracing::{info, warn};

use super::Event;
use crate::metrics::{
    Metrics,
    labels::{OfAnswered, OfDatabase},
};

/// AWS and the configured instances of a database differ, in two answers in a row. The agent changes nothing by it.
///
/// Do: add or remove the instance in the configuration of the agent and of the proxy.
#[derive(Debug)]
pub struct TopologyDiffers<'a> {
    pub database: &'a str,
    /// What AWS was asked for.
    pub asked: &'a str,
    pub difference: String,
}

impl Event for TopologyDiffers<'_> {
    fn emit(&self, _: &Metrics) {
        warn!(
            database = self.database,
            asked = self.asked,
            difference = self.difference,
            "AWS and the configured instances differ"
        );
    }
}

/// AWS and the configured instances of a database agree again.
#[derive(Debug)]
pub struct TopologyAgrees<'a> {
    pub database: &'a str,
    pub asked: &'a str,
}

impl Event for TopologyAgrees<'_> {
    fn emit(&self, _: &Metrics) {
        info!(database = self.database, asked = self.asked, "AWS and the configured instances agree again");
    }
}

/// RDS's API does not answer, or does not allow the call. Health checks and sessions do not depend on it; the last
/// differences stay shown.
///
/// Do: follow `error`; the policy is deploy/iam/policies/topology.json.
#[derive(Debug)]
pub struct TopologyUnread<'a> {
    pub database: &'a str,
    pub asked: &'a str,
    /// Why, as a word.
    pub result: &'a str,
    pub error: &'a str,
    /// Whether this failure is logged, or was before.
    pub news: bool,
}

impl Event for TopologyUnread<'_> {
    fn emit(&self, metrics: &Metrics) {
        count(metrics, self.database, self.result);
        if self.news {
            warn!(
                database = self.database,
                asked = self.asked,
                error = self.error,
                "AWS does not report the instances of a database; nothing else depends on it"
            );
        }
    }
}

/// RDS's API has reported the instances of a database.
#[derive(Debug)]
pub struct TopologyRead<'a> {
    pub database: &'a str,
    pub asked: &'a str,
    /// Of the database, now.
    pub differences: usize,
    /// How long it did not answer before.
    pub silent_for: Option<Duration>,
}

impl Event for TopologyRead<'_> {
    fn emit(&self, metrics: &Metrics) {
        count(metrics, self.database, "ok");
        let labels = OfDatabase { database: self.database.to_owned() };
        let differences = i64::try_from(self.differences).unwrap_or(i64::MAX);
        metrics.topology_differences.get_or_create(&labels).set(differences);
        if let Some(silent) = self.silent_for {
            info!(
                database = self.database,
                asked = self.asked,
                silent_s = silent.as_secs(),
                "AWS reports the instances of a database again"
            );
        }
    }
}

fn count(metrics: &Metrics, database: &str, result: &str) {
    let labels = OfAnswered { database: database.to_owned(), result: result.to_owned() };
    metrics.topology_answers.get_or_create(&labels).inc();
}
