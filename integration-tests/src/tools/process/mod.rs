//! Real programs for a test: free ports, starting them unprivileged, waiting, stopping.
//!
//! Every program that is started here dies with the test process, however that ends,
//! and is killed when its [`Process`] is dropped. What it prints goes into a log file,
//! whose end is part of every failure message.
//!
//! Not a supervisor: nothing is restarted, and a program is known by its pid, never by
//! its name.
//!
//! # Layout
//! - [`Launch`]: how to start a program; [`Account`]: the user it runs as
//! - [`Process`]: one that was started
//! - [`wait_for`]: a condition, with a deadline
//! - [`free_port`], [`free_port_on`]
//! - [`send_signal`], [`children_of`], [`is_alive`], …: processes that others started

mod launch;
mod ports;
mod running;
mod signals;

use std::{
    fmt::Display,
    future::Future,
    io,
    time::{Duration, Instant},
};

pub use rustix::process::Signal;

pub use self::{
    launch::{Account, Launch},
    ports::{free_port, free_port_on},
    running::{Process, tail},
    signals::{children_of, is_alive, is_stopped, send_signal},
};

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Why a program could not be started, or did not do what was waited for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine's fault: a file, a port or a program that is missing or denied.
    #[error("{what}: {source}")]
    Io {
        /// What was tried, and on what.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// The program ended with an error, or ended though it should run.
    #[error("{name} ended with {status}; the end of its output:\n{log}")]
    Ended {
        /// The name given to [`Launch::new`].
        name: String,
        /// Its exit code or signal.
        status: String,
        /// The last lines that it printed.
        log: String,
    },
    #[error("waited {waited:.1?} for {what}; last seen: {last_seen}")]
    Deadline {
        what: String,
        /// How long it was waited for.
        waited: Duration,
        /// Why it was not yet so when last looked at.
        last_seen: String,
    },
}

impl Error {
    /// Names what was tried when the system refused it: `.map_err(Error::io("open x"))`.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let what = what.into();
        move |source| Error::Io { what, source }
    }
}

/// Waits until `look` succeeds, looking every 20 ms; its error says why not yet.
///
/// # Errors
/// [`Error::Deadline`] with the last reason when `patience` is over. A look that hangs is
/// abandoned at the deadline too.
pub async fn wait_for<T, E, F, L>(what: &str, patience: Duration, mut look: L) -> Result<T, Error>
where
    E: Display,
    F: Future<Output = Result<T, E>>,
    L: FnMut() -> F,
{
    let began = Instant::now();
    let mut last_seen = "nothing: the first look did not return".to_owned();
    loop {
        let left = patience.saturating_sub(began.elapsed());
        // A look that hangs leaves the reason of the one before.
        if let Ok(looked) = tokio::time::timeout(left, look()).await {
            match looked {
                Ok(found) => return Ok(found),
                Err(not_yet) => last_seen = not_yet.to_string(),
            }
        }
        if began.elapsed() >= patience {
            return Err(Error::Deadline { what: what.to_owned(), waited: began.elapsed(), last_seen });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests;
