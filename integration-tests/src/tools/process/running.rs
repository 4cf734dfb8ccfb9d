//! A program that was started: asking, signalling, waiting, killing.

use std::{
    fmt::Display,
    fs,
    future::Future,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, ExitStatus},
    time::{Duration, Instant},
};

use super::{Error, LOOK_EVERY, Signal, send_signal, wait_for};

/// How much of a log goes into a failure message.
const LOG_TAIL_LINES: usize = 25;

/// A program that was started. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    pub(super) fn new(name: String, child: Child, log: PathBuf) -> Self {
        Self { name, child, log }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The file that has what it printed.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Whether it still runs (a frozen one does).
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Its process id if it still runs.
    pub fn running_pid(&mut self) -> Option<u32> {
        self.is_running().then(|| self.pid())
    }

    /// Sends it a signal. One that has ended already is no error.
    pub fn signal(&mut self, signal: Signal) -> Result<(), Error> {
        // Not reaped yet, so the pid is still its own.
        if !self.is_running() {
            return Ok(());
        }
        send_signal(self.pid(), signal)
    }

    /// Waits for its end.
    pub async fn ended(&mut self, patience: Duration) -> Result<ExitStatus, Error> {
        let what = format!("the end of {}", self.name);
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().map_err(Error::io(what.clone()))? {
                return Ok(status);
            }
            if began.elapsed() >= patience {
                let last_seen = format!("it runs; the end of its output:\n{}", tail(&self.log));
                return Err(Error::Deadline { what, waited: began.elapsed(), last_seen });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Sends `signal`, and waits for its end; kills it after `patience`, which is an error.
    pub async fn stop(&mut self, signal: Signal, patience: Duration) -> Result<ExitStatus, Error> {
        self.signal(signal)?;
        let ended = self.ended(patience).await;
        if ended.is_err() {
            self.kill();
        }
        ended
    }

    /// Kills it and waits for that, blocking for as long as the kernel takes.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits until `look` succeeds, as [`wait_for`], but gives up at once when the program
    /// has ended.
    ///
    /// # Errors
    /// [`Error::Ended`] with the end of its output, or [`Error::Deadline`].
    pub async fn ready<T, E, F, L>(&mut self, what: &str, patience: Duration, look: L) -> Result<T, Error>
    where
        E: Display,
        F: Future<Output = Result<T, E>>,
        L: FnMut() -> F,
    {
        tokio::select! {
            found = wait_for(what, patience, look) => found,
            // Asked for longer than the other, which has the better message.
            status = self.ended(patience * 2) => Err(self.failure(status?)),
        }
    }

    pub(super) fn failure(&self, status: ExitStatus) -> Error {
        let status = match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "no status".to_owned(),
        };
        Error::Ended { name: self.name.clone(), status, log: tail(&self.log) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The last lines of a file, for failure messages.
pub fn tail(path: &Path) -> String {
    let Ok(text) = fs::read(path) else { return format!("({} cannot be read)", path.display()) };
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines.iter().skip(lines.len().saturating_sub(LOG_TAIL_LINES)).copied().collect::<Vec<_>>().join("\n")
}
