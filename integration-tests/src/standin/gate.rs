//! Where the servers ask whether a token is good: the other end of `pam/libpam.c`.
//!
//! One Unix socket for all servers of a stand-in. A question is
//! `server NUL user NUL address NUL token`, ended by the end of the stream; the answer is one
//! byte, `A` or `R`. Whatever goes wrong on the way is a refusal.

use std::{
    collections::{HashMap, VecDeque},
    fmt, fs, io,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    runtime::Runtime,
};

use super::{
    credential::Issuer,
    journal::{Journal, LoginAttempt},
    token::{Expected, Refusal, verify},
};
use crate::process::{Account, Error};

/// Longer questions are cut off, and so refused.
const LONGEST_QUESTION: u64 = 10_000;

/// A server that asks slower than this is not answered.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the gate knows of a server.
#[derive(Clone, Debug)]
pub(super) struct Door {
    /// Its name, such as `a`.
    pub(super) server: String,
    /// The names that a token for it may be signed for.
    pub(super) names: Vec<String>,
    /// The port that a token for it has to be signed for.
    pub(super) port: u16,
    /// The region that a token for it has to be signed for.
    pub(super) region: String,
}

/// Judges tokens for as long as it lives, on a thread of its own: a test that blocks its
/// own runtime does not block logins.
pub(super) struct Gate {
    judge: Arc<Judge>,
    runtime: Option<Runtime>,
}

struct Judge {
    doors: Vec<Door>,
    issuer: Arc<Issuer>,
    journal: Arc<Journal>,
    closed: Mutex<Vec<Closed>>,
    throttle: Mutex<Throttle>,
}

/// RDS refuses tokens above a number of logins a second, which depends on the instance class.
#[derive(Default)]
struct Throttle {
    /// None: unlimited.
    logins_per_second: Option<usize>,
    /// The logins of the last second, by server.
    accepted: HashMap<String, VecDeque<Timestamp>>,
}

impl Throttle {
    fn admit(&mut self, server: &str, now: Timestamp) -> Result<(), Refusal> {
        let Some(most) = self.logins_per_second else { return Ok(()) };
        let accepted = self.accepted.entry(server.to_owned()).or_default();
        while accepted.front().is_some_and(|at| now.duration_since(*at) >= SignedDuration::from_secs(1)) {
            accepted.pop_front();
        }
        if accepted.len() >= most {
            return Err(Refusal::Throttled);
        }
        accepted.push_back(now);
        Ok(())
    }
}

/// Tokens that are refused for a while; `None` means all.
struct Closed {
    server: Option<String>,
    user: Option<String>,
}

impl fmt::Debug for Gate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Gate").field("doors", &self.judge.doors).finish_non_exhaustive()
    }
}

impl Gate {
    /// Listens on `path`, which only `account` (or this process) may connect to.
    pub(super) fn open(
        path: &Path,
        account: Option<&Account>,
        doors: Vec<Door>,
        issuer: Arc<Issuer>,
        journal: Arc<Journal>,
    ) -> Result<Self, Error> {
        let what = || Error::io(format!("listen for the servers' questions on {}", path.display()));
        let runtime = background_runtime("gate")?;
        let listener = {
            let _inside = runtime.enter();
            UnixListener::bind(path).map_err(what())?
        };
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(what())?;
        if let Some(Account { uid, gid }) = account {
            chown(path, Some(*uid), Some(*gid)).map_err(what())?;
        }
        let judge =
            Arc::new(Judge { doors, issuer, journal, closed: Mutex::default(), throttle: Mutex::default() });
        runtime.spawn(listen(listener, judge.clone()));
        Ok(Self { judge, runtime: Some(runtime) })
    }

    /// Refuses tokens from now on: of one server or all, of one user or all.
    pub(super) fn refuse(&self, server: Option<&str>, user: Option<&str>) {
        let closed = Closed { server: server.map(str::to_owned), user: user.map(str::to_owned) };
        self.judge.closed.lock().unwrap_or_else(PoisonError::into_inner).push(closed);
    }

    /// Refuses tokens of a server above this number of logins a second.
    pub(super) fn throttle(&self, logins_per_second: Option<usize>) {
        let throttle = Throttle { logins_per_second, ..Throttle::default() };
        *self.judge.throttle.lock().unwrap_or_else(PoisonError::into_inner) = throttle;
    }

    /// Takes back every [`Gate::refuse`].
    pub(super) fn accept(&self) {
        self.judge.closed.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        // Waiting for it is not allowed where the stand-in is dropped by an async test.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A runtime with one thread, apart from the caller's.
pub(super) fn background_runtime(name: &str) -> Result<Runtime, Error> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name(format!("standin-{name}"))
        .enable_all()
        .build()
        .map_err(Error::io(format!("start the thread of the stand-in's {name}")))
}

async fn listen(listener: UnixListener, judge: Arc<Judge>) {
    loop {
        match listener.accept().await {
            Ok((peer, _)) => {
                let judge = judge.clone();
                tokio::spawn(async move {
                    // Failed or late: the peer reads the end of the stream, and refuses.
                    let _ = tokio::time::timeout(PATIENCE, judge.answer(peer)).await;
                });
            }
            // Out of file descriptors: those who wait are refused by their own deadline.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

impl Judge {
    async fn answer(&self, mut peer: UnixStream) -> io::Result<()> {
        let mut question = Vec::new();
        (&mut peer).take(LONGEST_QUESTION).read_to_end(&mut question).await?;
        let accepted = String::from_utf8(question).ok().and_then(|question| {
            let mut parts = question.splitn(4, '\0');
            let (server, user, from) = (parts.next()?, parts.next()?, parts.next()?);
            Some(self.judge(server, user, from, parts.next()?).is_ok())
        });
        peer.write_all(if accepted == Some(true) { b"A" } else { b"R" }).await
    }

    fn judge(&self, server: &str, user: &str, from: &str, token: &str) -> Result<(), Refusal> {
        let now = Timestamp::now();
        let verdict = self.verdict(server, user, token, now);
        let (server, user, from) = (server.to_owned(), user.to_owned(), from.to_owned());
        self.journal.record(LoginAttempt { at: now, server, user, from, verdict });
        verdict
    }

    fn verdict(&self, server: &str, user: &str, token: &str, now: Timestamp) -> Result<(), Refusal> {
        let Some(door) = self.doors.iter().find(|door| door.server == server) else {
            return Err(Refusal::Malformed("from a server that is not known"));
        };
        let expected = Expected { names: &door.names, port: door.port, region: &door.region, user };
        verify(token, &expected, |access_key| self.issuer.look_up(access_key), now)?;
        // Last, so that a token that is wrong is still named for what is wrong with it.
        let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        let applies = |rule: &Closed| {
            rule.server.as_deref().is_none_or(|only| only == server)
                && rule.user.as_deref().is_none_or(|only| only == user)
        };
        if closed.iter().any(applies) {
            return Err(Refusal::ForAWhile);
        }
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner).admit(server, now)
    }
}

/// The environment by which `pam/libpam.c` finds the gate.
pub(super) fn environment(socket: &Path, server: &str) -> [(&'static str, PathBuf); 2] {
    [("IAM_STANDIN_SOCKET", socket.to_owned()), ("IAM_STANDIN_SERVER", server.into())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_throttled_server_takes_so_many_logins_in_any_second() {
        let mut throttle = Throttle { logins_per_second: Some(2), ..Throttle::default() };
        let mut at = |server, ms| {
            throttle.admit(server, Timestamp::UNIX_EPOCH + SignedDuration::from_millis(ms)).is_ok()
        };
        assert!(at("a", 0) && at("a", 900) && at("b", 950));
        assert!(!at("a", 999));
        // The refused one does not count.
        assert!(at("a", 1_000));
        assert!(!at("a", 1_899));
        assert!(at("a", 1_900));
    }
}
