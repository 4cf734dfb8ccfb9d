//! What every client does: log in, pause, say how its session ended.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use fastrand::Rng;
use tokio::{sync::Semaphore, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{
    Ending, Target, Think,
    session::Session,
    tally::{Login, Phase, Tally},
};

/// Between two tries of a login.
const LOGIN_AGAIN: Duration = Duration::from_millis(50);

/// What the clients of one load share.
pub(super) struct Shared {
    /// Tells the rows of this load from those of others.
    pub run: i64,
    pub stop: CancellationToken,
    /// A machine's worth of logins at once: more only makes each slower.
    pub logins_at_once: Semaphore,
    tally: Mutex<Tally>,
}

impl Shared {
    pub(super) fn new(run: i64) -> Self {
        let tally = Mutex::new(Tally::new());
        Self { run, stop: CancellationToken::new(), logins_at_once: Semaphore::new(16), tally }
    }

    pub(super) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A client, with or without a session.
pub(super) struct Client {
    pub id: u32,
    pub shared: Arc<Shared>,
    pub random: Rng,
    target: Arc<Target>,
    application: String,
    logged_in_before: bool,
}

impl Client {
    pub(super) fn new(id: u32, target: Arc<Target>, word: &str, shared: Arc<Shared>, random: Rng) -> Self {
        let application = target.application.clone().unwrap_or_else(|| format!("load-{word}"));
        Self { id, shared, random, target, application, logged_in_before: false }
    }

    /// A new session, however often that takes; `None` when the load is to stop.
    pub(super) async fn log_in(&mut self) -> Option<Session> {
        let stop = self.shared.stop.clone();
        stop.run_until_cancelled(self.log_in_at_last()).await
    }

    /// The same, whether the load is to stop or not.
    pub(super) async fn log_in_at_last(&mut self) -> Session {
        loop {
            if let Some(session) = self.try_to_log_in().await {
                return session;
            }
            sleep(LOGIN_AGAIN).await;
        }
    }

    async fn try_to_log_in(&mut self) -> Option<Session> {
        let opened = {
            let _turn = self.shared.logins_at_once.acquire().await;
            Session::open(&self.target, &self.application).await
        };
        let mut tally = self.shared.tally();
        match opened {
            Ok(session) => {
                let login = Login {
                    at: tally.began.elapsed(),
                    took: session.opened().elapsed(),
                    first: !self.logged_in_before,
                };
                tally.logins.push(login);
                self.logged_in_before = true;
                Some(session)
            }
            Err(reason) => {
                tally.failed_logins += 1;
                *tally.causes.entry(format!("login: {reason}")).or_default() += 1;
                None
            }
        }
    }

    /// Thinks; shorter when the load is to stop.
    pub(super) async fn pause(&mut self, think: Think) {
        let pause = think.pause(&mut self.random);
        self.shared.stop.run_until_cancelled(sleep(pause)).await;
    }

    pub(super) fn is_to_stop(&self) -> bool {
        self.shared.stop.is_cancelled()
    }

    /// Counts the end of a session.
    pub(super) fn ended(&self, phase: Phase, ending: &Ending, session: &Session) {
        self.shared.tally().ended(phase, ending, session.backend());
    }

    /// How long after the load's begin a moment was, in seconds.
    pub(super) fn seconds(&self, moment: Instant) -> f64 {
        moment.saturating_duration_since(self.shared.tally().began).as_secs_f64()
    }
}
