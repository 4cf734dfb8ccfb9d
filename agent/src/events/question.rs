//! Questions that cannot be answered, and peers that ask too much.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tracing::warn;

use super::Event;
use crate::{
    config::nearest,
    metrics::{
        Metrics,
        labels::{OfQuestion, Question},
    },
};

/// The same name is logged again after this time.
const AGAIN: Duration = Duration::from_secs(600);

/// Names that are remembered as logged. More are counted alone.
const NAMES: usize = 64;

/// The longest part of a name that is logged, in characters.
const LONGEST: usize = 100;

/// Logs names that are not configured: each once in ten minutes.
#[derive(Debug)]
pub struct UnknownNames {
    question: Question,
    logged: Mutex<HashMap<String, Instant>>,
}

// === impl UnknownNames ===

impl UnknownNames {
    pub fn new(question: Question) -> Self {
        Self { question, logged: Mutex::default() }
    }

    /// Counts a question about `name`, and logs it with the nearest of the names that are `known`.
    pub fn asked(&self, name: &str, known: &[String], metrics: &Metrics) {
        metrics.unknown_names.get_or_create(&OfQuestion { question: self.question }).inc();
        let name: String = name.chars().take(LONGEST).collect();
        if self.is_news(&name) {
            UnknownName { question: self.question, name: &name, nearest: nearest(&name, known) }
                .emit(metrics);
        }
    }

    fn is_news(&self, name: &str) -> bool {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        logged.retain(|_, at| at.elapsed() < AGAIN);
        if logged.contains_key(name) || logged.len() >= NAMES {
            return false;
        }
        logged.insert(name.to_owned(), Instant::now());
        true
    }
}

/// A name that is not configured was asked for.
///
/// Do: correct the name where it is asked from; `nearest` is likely meant.
struct UnknownName<'a> {
    question: Question,
    name: &'a str,
    nearest: Option<&'a str>,
}

impl Event for UnknownName<'_> {
    fn emit(&self, _: &Metrics) {
        let name = self.name.escape_debug().to_string();
        match self.question {
            Question::Http => {
                warn!(name, nearest = self.nearest, "health check of a name that is not configured: 404");
            }
            Question::AgentCheck => {
                warn!(
                    name,
                    nearest = self.nearest,
                    "agent check of a server that is not configured: HAProxy keeps its state"
                );
            }
        }
    }
}

/// HTTP connections were closed for others.
///
/// Do: find out why the peer opens so many connections.
#[derive(Debug)]
pub struct ConnectionsClosed<'a> {
    /// The host of the last one.
    pub peer: &'a str,
    pub limit: usize,
    /// Since the last such line.
    pub closed: u64,
}

impl Event for ConnectionsClosed<'_> {
    fn emit(&self, _: &Metrics) {
        warn!(
            peer = self.peer,
            limit = self.limit,
            closed = self.closed,
            "too many HTTP connections: those that were idle for the longest are closed"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_name_is_logged_once_in_ten_minutes_and_many_names_are_not() {
        let names = UnknownNames::new(Question::Http);
        assert!(names.is_news("orders/z"));
        assert!(!names.is_news("orders/z"));
        tokio::time::advance(AGAIN).await;
        assert!(names.is_news("orders/z"));
        let logged = (0..1_000).filter(|name| names.is_news(&name.to_string())).count();
        assert_eq!(logged, NAMES - 1);
    }
}
