//! Checks without an answer wait for one. So Envoy behaves as without an agent: it keeps the state until its
//! own threshold, and then falls back.

use std::{fmt, sync::Arc, time::Duration};

use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};

use super::{Answer, Source};

/// The longest wait of a check: longer than any useful timeout of a check.
const LONGEST: Duration = Duration::from_secs(10);

/// The most waiting checks. An Envoy has one for each endpoint.
const MOST: usize = 1_024;

/// The interval in which a waiting check asks again: a source that hung reports no change.
const LOOK: Duration = Duration::from_millis(250);

/// Answers from a source, as soon as it has an answer. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Waiting {
    source: Arc<dyn Source>,
    permits: Arc<Semaphore>,
}

// === impl Waiting ===

impl Waiting {
    pub fn new(source: Arc<dyn Source>) -> Self {
        Self { source, permits: Arc::new(Semaphore::new(MOST)) }
    }

    pub fn source(&self) -> &dyn Source {
        &*self.source
    }

    /// The answer to a check, see [`Source::answer`]. `None` after 10 s, or when too many checks wait: the
    /// check has to fail.
    pub async fn answer(
        &self,
        cluster: &str,
        header: Option<&str>,
        authority: Option<&str>,
    ) -> Option<Answer> {
        let ask = || self.source.answer(cluster, header, authority);
        if let Some(answer) = ask() {
            return Some(answer);
        }
        let _permit = self.permits.try_acquire().ok()?;
        let mut changes = self.source.changes();
        let known = async {
            loop {
                if let Some(answer) = ask() {
                    return answer;
                }
                tokio::select! {
                    Ok(()) = changes.changed() => {}
                    () = sleep(LOOK) => {}
                }
            }
        };
        timeout(LONGEST, known).await.ok()
    }
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::{sync::watch, time::Instant};

    use super::*;

    struct Script {
        answer: Mutex<Option<Answer>>,
        changed: watch::Sender<()>,
    }

    impl Source for Script {
        fn answer(&self, _: &str, _: Option<&str>, _: Option<&str>) -> Option<Answer> {
            *self.answer.lock().unwrap()
        }

        fn changes(&self) -> watch::Receiver<()> {
            self.changed.subscribe()
        }
    }

    fn script(answer: Option<Answer>) -> Arc<Script> {
        Arc::new(Script { answer: Mutex::new(answer), changed: watch::Sender::new(()) })
    }

    #[tokio::test(start_paused = true)]
    async fn a_known_answer_comes_at_once() {
        let waiting = Waiting::new(script(Some(Answer::PASS)));
        let began = Instant::now();
        assert_eq!(waiting.answer("w", None, None).await, Some(Answer::PASS));
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_becomes_known_ends_the_wait_with_or_without_a_notice() {
        for notice in [true, false] {
            let source = script(None);
            let waiting = Waiting::new(source.clone());
            let began = Instant::now();
            let becomes_known = async {
                sleep(Duration::from_secs(3)).await;
                *source.answer.lock().unwrap() = Some(Answer::PASS);
                if notice {
                    source.changed.send_replace(());
                }
            };
            let (answer, ()) = tokio::join!(waiting.answer("w", None, None), becomes_known);
            assert_eq!(answer, Some(Answer::PASS));
            assert!(began.elapsed() < Duration::from_secs(3) + LOOK * 2);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_is_limited() {
        let waiting = Waiting::new(script(None));
        let began = Instant::now();
        assert_eq!(waiting.answer("w", None, None).await, None);
        assert_eq!(began.elapsed(), LONGEST);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_checks_are_limited() {
        let waiting = Waiting::new(script(None));
        let all = waiting.permits.clone().acquire_many_owned(MOST.try_into().unwrap()).await.unwrap();
        let began = Instant::now();
        assert_eq!(waiting.answer("w", None, None).await, None);
        assert_eq!(began.elapsed(), Duration::ZERO);
        drop(all);
        assert_eq!(waiting.answer("w", None, None).await, None);
        assert_eq!(began.elapsed(), LONGEST);
    }
}
