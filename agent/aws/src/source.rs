//! The tokens of one target: the task around [`rotation`](crate::rotation).
//!
//! A source signs its first token when it starts, and each next one well before the current one
//! expires, in its own task. Callers get the current token from memory. They wait only if there
//! is none, all for the same attempt, and no longer than one load of credentials may take.
//!
//! # Proving a new token
//! A new token is a candidate while the old one stays in use. A caller that logs in anyway (the
//! probe) takes [`TokenSource::candidate`] first if there is one, and
//! [`report`](TokenSource::report)s the result:
//! ```text
//! let token = match source.candidate() { Some(new) => new, None => source.token().await? };
//! match login(&token).await {
//!     accepted          => source.report(&token, Proof::Accepted),  // now in use
//!     refused, class 28 => source.report(&token, Proof::Refused),   // dropped, the old one stays
//!     anything else     => {}                                       // not about the token
//! }
//! ```
//! Without logins a candidate takes over unproved when the old token may no longer be used. A
//! refused token also causes the credentials to be loaded again, so that revoked ones are
//! replaced before they expire.

use std::{
    fmt,
    hash::{BuildHasher, Hasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{Notify, watch},
    task::AbortHandle,
    time::Instant,
};

use crate::{
    credentials::{CredentialChain, Lease},
    error::TokenError,
    rotation::{Action, Life, Need, Rotation, Signed},
    sign::sign,
    status::{Failure, Status, TokenView},
    target::Target,
    token::Token,
};

/// The longest sleep before the wall clock is read again: it may be set, and timers do not run
/// while a host is suspended.
const NAP_MAX: Duration = Duration::from_secs(15);
/// How much longer than a load a caller waits.
const GRACE: Duration = Duration::from_secs(1);

/// The result of a login with a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    Accepted,
    /// SQLSTATE class 28, MySQL 1045.
    Refused,
}

/// The tokens of one target. Cheap to clone; the task ends with the last clone.
#[derive(Clone)]
pub struct TokenSource {
    shared: Arc<Shared>,
    _task: Arc<Task>,
}

struct Shared {
    target: Target,
    chain: CredentialChain,
    book: Mutex<Book>,
    /// The number of completed attempts. Callers without a token wait for it to change.
    attempts: watch::Sender<u64>,
    /// Wakes the task, after something changed its plan.
    kick: Notify,
}

#[derive(Default)]
struct Book {
    rotation: Rotation<Arc<Token>>,
    refreshes: u64,
    failures: u64,
    refusals: u64,
    last_failure: Option<(SystemTime, TokenError)>,
}

/// Ends the task when the last clone is dropped.
struct Task(AbortHandle);

// === impl TokenSource ===

impl TokenSource {
    /// Starts the task. Has to be called within a tokio runtime.
    pub fn start(chain: CredentialChain, target: Target) -> Self {
        let shared = Arc::new(Shared {
            target,
            chain,
            book: Mutex::default(),
            attempts: watch::Sender::new(0),
            kick: Notify::new(),
        });
        let task = tokio::spawn(shared.clone().run());
        Self { shared, _task: Arc::new(Task(task.abort_handle())) }
    }

    /// The token to log in with. Returns at once if there is one, otherwise after the current
    /// attempt, within the load timeout plus one second. After a failed attempt it returns the
    /// error at once until the next attempt is due.
    pub async fn token(&self) -> Result<Arc<Token>, TokenError> {
        let shared = &*self.shared;
        let mut attempts = shared.attempts.subscribe();
        let waited = shared.chain.load_timeout() + GRACE;
        let deadline = Instant::now() + waited;
        loop {
            attempts.borrow_and_update();
            let now = shared.now();
            {
                let book = shared.book();
                if let Some(token) = book.rotation.current(now) {
                    return Ok(token.clone());
                }
                if let (Action::Wait(_), Some((_, error))) = (book.rotation.plan(now), &book.last_failure) {
                    return Err(error.clone());
                }
            }
            shared.kick.notify_one();
            // The sender lives as long as `self`.
            if tokio::time::timeout_at(deadline, attempts.changed()).await.is_err() {
                return Err(TokenError::Stalled { target: shared.target.clone(), waited });
            }
        }
    }

    /// The next token, until a login has proved it.
    pub fn candidate(&self) -> Option<Arc<Token>> {
        self.shared.book().rotation.candidate(self.shared.now()).cloned()
    }

    /// Reports the result of a login with `token`. Tokens that have been replaced are ignored.
    pub fn report(&self, token: &Arc<Token>, proof: Proof) {
        let shared = &*self.shared;
        let now = shared.now();
        let is = |held: &Arc<Token>| Arc::ptr_eq(held, token);
        let mut book = shared.book();
        let known = match proof {
            Proof::Accepted => book.rotation.accepted(now, is),
            Proof::Refused => book.rotation.refused(now, is, chance()),
        };
        if known && proof == Proof::Refused {
            book.refusals += 1;
            tracing::warn!(
                token_for = %shared.target,
                age_s = token.age(now).as_secs(),
                expires_in_s = token.expires_in(now).as_secs(),
                provider = token.provider(),
                "token refused"
            );
        }
        drop(book);
        shared.kick.notify_one();
    }

    pub fn target(&self) -> &Target {
        &self.shared.target
    }

    pub fn chain(&self) -> &CredentialChain {
        &self.shared.chain
    }

    /// What `/state` and the metrics show.
    pub fn status(&self) -> Status {
        let now = self.shared.now();
        let book = self.shared.book();
        let rotation = &book.rotation;
        let view = |token: &Arc<Token>, life: Life, proved| TokenView {
            age: token.age(now),
            expires_in: token.expires_in(now),
            served_for: span(now, life.last_use()),
            proved,
            provider: token.provider().to_owned(),
        };
        Status {
            target: self.shared.target.to_string(),
            region: self.shared.target.region().to_string(),
            served: rotation
                .current(now)
                .zip(rotation.current_life(now))
                .map(|(token, (life, proved))| view(token, life, proved)),
            candidate: rotation
                .candidate(now)
                .zip(rotation.candidate_life(now))
                .map(|(token, life)| view(token, life, false)),
            refreshes: book.refreshes,
            failures: book.failures,
            failures_in_a_row: rotation.failures_in_a_row(),
            refusals: book.refusals,
            last_failure: book
                .last_failure
                .as_ref()
                .map(|(at, error)| Failure { ago: span(*at, now), message: error.to_string() }),
        }
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenSource").field("status", &self.status()).finish_non_exhaustive()
    }
}

// === impl Shared ===

impl Shared {
    async fn run(self: Arc<Self>) {
        loop {
            let now = self.now();
            let action = self.book().rotation.plan(now);
            match action {
                Action::Sign(need) => self.attempt(need).await,
                Action::Wait(at) => {
                    let nap = span(now, at).min(NAP_MAX);
                    tokio::select! {
                        () = tokio::time::sleep(nap) => {}
                        () = self.kick.notified() => {}
                    }
                }
            }
        }
    }

    /// One attempt at a token with a later expiry.
    async fn attempt(&self, need: Need) {
        let offer = self.chain.lease(need).await;
        let now = self.now();
        let (signed, trouble) = match offer {
            Ok(offer) => (self.sign(&offer.lease, now), offer.trouble),
            Err(cause) => (Err(TokenError::Credentials { target: self.target.clone(), cause }), None),
        };
        let trouble = trouble.map(|cause| TokenError::Credentials { target: self.target.clone(), cause });

        let mut book = self.book();
        let outcome = match signed {
            Ok((life, token)) => {
                let expires_in = token.expires_in(now);
                let provider = token.provider().to_owned();
                match book.rotation.signed(now, life, token, chance()) {
                    Signed::Served | Signed::Candidate => Ok(()),
                    Signed::NoGain | Signed::Expiring => Err(trouble.clone().unwrap_or_else(|| {
                        TokenError::NotRenewed { target: self.target.clone(), provider, expires_in }
                    })),
                }
            }
            Err(error) => {
                book.rotation.failed(now, chance());
                Err(error)
            }
        };
        let token_for = &self.target;
        let served_s = book.rotation.current(now).map(|token| token.expires_in(now).as_secs());
        let failure = match outcome {
            Ok(()) => {
                book.refreshes += 1;
                tracing::debug!(%token_for, expires_in_s = served_s, "token signed");
                if let Some(error) = &trouble {
                    tracing::warn!(%token_for, %error, "new credentials could not be loaded; token signed with the old ones");
                }
                trouble
            }
            Err(error) => {
                book.failures += 1;
                if let Some(expires_in_s) = served_s {
                    tracing::warn!(%token_for, expires_in_s, %error, "token not refreshed; the old one stays in use");
                } else {
                    tracing::error!(%token_for, %error, "no token; the agent cannot log in");
                }
                Some(error)
            }
        };
        if let Some(error) = failure {
            book.last_failure = Some((now, error));
        }
        drop(book);
        self.attempts.send_modify(|count| *count += 1);
    }

    fn sign(&self, lease: &Lease, now: SystemTime) -> Result<(Life, Arc<Token>), TokenError> {
        let token = sign(&self.target, &lease.credentials, now)
            .map_err(|cause| TokenError::Sign { target: self.target.clone(), cause })?;
        let life = Life {
            known_since: lease.known_since,
            signed_at: token.signed_at(),
            expires_at: token.expires_at(),
        };
        Ok((life, Arc::new(token)))
    }

    fn now(&self) -> SystemTime {
        self.chain.clock().now()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A number in 0..1, so that agents that fail together retry at different times.
fn chance() -> f64 {
    let random = RandomState::new().build_hasher().finish();
    f64::from(u32::try_from(random >> 32).unwrap_or_default()) / f64::from(u32::MAX)
}

fn span(from: SystemTime, to: SystemTime) -> Duration {
    to.duration_since(from).unwrap_or_default()
}
