//! What a HAProxy logs, kept for a test to look at.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{net::UnixDatagram, task::AbortHandle};

use crate::process::{Error, wait_for};

/// As `len` in the configuration, and room for the syslog header.
const LONGEST_LINE: usize = 16 * 1024;

/// The log lines of one HAProxy, in the order they came, collected while this exists.
#[derive(Debug)]
pub struct Logged {
    lines: Arc<Mutex<Vec<String>>>,
    collector: AbortHandle,
}

impl Logged {
    /// Collects what is sent to a datagram socket that anybody may write to.
    pub(super) fn at(socket: &Path) -> io::Result<Self> {
        let receiver = UnixDatagram::bind(socket)?;
        fs::set_permissions(socket, fs::Permissions::from_mode(0o666))?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&lines);
        let collector = tokio::spawn(async move {
            let mut buffer = vec![0; LONGEST_LINE];
            while let Ok(length) = receiver.recv(&mut buffer).await {
                let datagram = buffer.get(..length).unwrap_or_default();
                let line = String::from_utf8_lossy(datagram).trim_end().to_owned();
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        Ok(Self { lines, collector: collector.abort_handle() })
    }

    /// All lines so far, each with its syslog header.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The first line that `is_it`, waiting for one if there is none yet.
    ///
    /// # Errors
    /// [`Error::Deadline`] with the last line that came.
    pub async fn line(
        &self,
        what: &str,
        patience: Duration,
        is_it: impl Fn(&str) -> bool,
    ) -> Result<String, Error> {
        wait_for(&format!("a log line: {what}"), patience, async || {
            let lines = self.lines();
            let last = lines.last().cloned().unwrap_or_else(|| "no line at all".to_owned());
            lines.into_iter().find(|line| is_it(line)).ok_or(last)
        })
        .await
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        self.collector.abort();
    }
}
