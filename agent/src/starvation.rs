//! How long the agent's own tasks wait for a processor.
//!
//! On a host without free CPU time, in a throttled container or a stopped process, time limits pass while
//! the answer waits to be read. Such a miss is the agent's, not the server's.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// How often the delay is measured.
const TICK: Duration = Duration::from_millis(50);

/// A shorter delay is a timer's inaccuracy.
const INACCURACY: Duration = Duration::from_millis(10);

/// A wait in which the agent itself was delayed for at least this share says nothing about the server.
const SHARE: u32 = 4;

/// The delay measured so far. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Starvation(Arc<Mutex<Measured>>);

#[derive(Debug)]
struct Measured {
    delayed: Duration,
    /// When the next measurement should begin; what has passed since is a delay too.
    due: Option<Instant>,
}

/// The beginning of a wait.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    began: Instant,
    delayed: Duration,
}

impl Default for Starvation {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Measured { delayed: Duration::ZERO, due: None })))
    }
}

impl Wait {
    /// The duration until now.
    pub fn lasts(&self) -> Duration {
        self.began.elapsed()
    }
}

impl Starvation {
    /// Measures until it is dropped. Without it there is no delay.
    pub async fn measure(self) {
        loop {
            let due = Instant::now() + TICK;
            self.lock().due = Some(due);
            sleep_until(due).await;
            self.lock().pass(due.elapsed());
        }
    }

    /// Begins a wait for an answer.
    pub fn begin(&self) -> Wait {
        Wait { began: Instant::now(), delayed: self.delayed() }
    }

    /// Whether the agent itself was delayed for so much of this wait that a missed time limit is its own.
    pub fn spoils(&self, wait: Wait) -> bool {
        let delayed = self.delayed().saturating_sub(wait.delayed);
        !delayed.is_zero() && delayed * SHARE >= wait.lasts()
    }

    fn delayed(&self) -> Duration {
        let measured = self.lock();
        let pending = measured.due.map(|due| due.elapsed()).filter(|late| *late > INACCURACY);
        measured.delayed + pending.unwrap_or_default()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Measured> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Measured {
    fn pass(&mut self, late: Duration) {
        if late > INACCURACY {
            self.delayed += late;
        }
        self.due = None;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, sleep};
    use tokio_util::task::AbortOnDropHandle;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_wait_is_spoiled_by_a_delay_of_a_quarter_of_it() {
        let starvation = Starvation::default();
        let _measures = AbortOnDropHandle::new(tokio::spawn(starvation.clone().measure()));
        let undisturbed = starvation.begin();
        sleep(Duration::from_secs(2)).await;
        assert!(!starvation.spoils(undisturbed));

        // The process is stopped for a second: nothing runs, the clock goes on.
        let disturbed = starvation.begin();
        sleep(Duration::from_secs(1)).await;
        advance(Duration::from_secs(1)).await;
        assert!(starvation.spoils(disturbed), "before and after the delay is measured");
        sleep(Duration::from_secs(1)).await;
        assert!(starvation.spoils(disturbed));
        sleep(Duration::from_secs(2)).await;
        assert!(!starvation.spoils(disturbed), "one second of five");
        assert!(!starvation.spoils(starvation.begin()));
    }
}
