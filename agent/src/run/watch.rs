//! Signals to the process, and changes of the files it was configured from.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::FutureExt;
use notify::{RecursiveMode, Watcher};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// A file in a watched directory may have changed.
    FilesChanged,
    Reload,
    /// The name of the signal.
    Stop(&'static str),
    /// The same, and another agent follows at once.
    HandOver(&'static str),
}

/// After the first change, so that a burst of changes is one reload.
const SETTLE: Duration = Duration::from_millis(200);

pub(super) struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hand_over: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
    changes: mpsc::Receiver<()>,
    /// `None` if files cannot be watched. It watches until it is dropped.
    watcher: Option<notify::RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
}

impl Signals {
    /// Watches the directory of the file, not the file: editors replace files, and Kubernetes swaps
    /// symbolic links.
    pub(super) fn listen(path: &Path) -> io::Result<Self> {
        let (sender, changes) = mpsc::channel(1);
        let watcher = watcher(sender)
            .inspect_err(
                |error| tracing::warn!(%error, "changed files cannot be watched; reload them with SIGHUP"),
            )
            .ok();
        let mut signals = Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hand_over: signal(SignalKind::user_defined1())?,
            hangup: signal(SignalKind::hangup())?,
            changes,
            watcher,
            watched: BTreeSet::new(),
        };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        signals.follow(&BTreeSet::from([folder.unwrap_or(Path::new("."))]));
        Ok(signals)
    }

    /// Also watches these directories.
    pub(super) fn follow(&mut self, folders: &BTreeSet<&Path>) {
        let Some(watcher) = &mut self.watcher else { return };
        for folder in folders.iter().filter(|folder| !folder.as_os_str().is_empty()) {
            if self.watched.contains(*folder) {
                continue;
            }
            match watcher.watch(folder, RecursiveMode::NonRecursive) {
                Ok(()) => drop(self.watched.insert(folder.to_path_buf())),
                Err(error) => tracing::warn!(
                    folder = %folder.display(),
                    %error,
                    "changed files in this directory cannot be watched; reload them with SIGHUP"
                ),
            }
        }
    }

    /// Whether a signal to stop has arrived and was not read: while a hand-over was under way, for one.
    pub(super) fn stop_is_waiting(&mut self) -> bool {
        let terminated = self.terminate.recv().now_or_never().is_some();
        terminated || self.interrupt.recv().now_or_never().is_some()
    }

    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Signal::Stop("SIGINT"),
            _ = self.hand_over.recv() => Signal::HandOver("SIGUSR1"),
            _ = self.hangup.recv() => Signal::Reload,
            () = changed(&mut self.changes) => Signal::FilesChanged,
        }
    }
}

async fn changed(changes: &mut mpsc::Receiver<()>) {
    if changes.recv().await.is_none() {
        // Nothing is watched.
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(SETTLE).await;
    while changes.try_recv().is_ok() {}
}

fn watcher(sender: mpsc::Sender<()>) -> notify::Result<notify::RecommendedWatcher> {
    notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let read = event.as_ref().is_ok_and(|event| event.kind.is_access());
        if !read {
            // A full channel means that a reload is due already.
            let _ = sender.try_send(());
        }
    })
}
