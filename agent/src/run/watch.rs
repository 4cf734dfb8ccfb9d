//! When to look at the configuration again, and when to stop.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use notify::{RecursiveMode, Watcher};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

/// What happened.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// A file may have changed.
    Look,
    /// Somebody asks to look.
    Reload,
    /// Stop.
    Stop(&'static str),
}

/// A burst of changes to the folder is looked at once.
const SETTLE: Duration = Duration::from_millis(200);

/// Signals to the process, and changes of files.
pub(super) struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
    changes: mpsc::Receiver<()>,
    /// Watches while it is kept. `None` where nothing can be watched.
    watcher: Option<notify::RecommendedWatcher>,
    /// The folders it watches.
    watched: BTreeSet<PathBuf>,
}

impl Signals {
    /// Listens for signals, and for changes of the folder that holds the file: editors
    /// replace files, and Kubernetes swaps links in it.
    pub(super) fn listen(path: &Path) -> io::Result<Self> {
        let (sender, changes) = mpsc::channel(1);
        let watcher = watcher(sender)
            .inspect_err(|error| tracing::warn!(%error, "changes of files are not seen; SIGHUP reloads them"))
            .ok();
        let mut signals = Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            changes,
            watcher,
            watched: BTreeSet::new(),
        };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        signals.follow(&BTreeSet::from([folder.unwrap_or(Path::new("."))]));
        Ok(signals)
    }

    /// Watches these folders too.
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
                    "changes of files in this folder are not seen; SIGHUP reloads them"
                ),
            }
        }
    }

    /// The next thing that happens.
    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Signal::Stop("SIGINT"),
            _ = self.hangup.recv() => Signal::Reload,
            () = changed(&mut self.changes) => Signal::Look,
        }
    }
}

async fn changed(changes: &mut mpsc::Receiver<()>) {
    if changes.recv().await.is_none() {
        // Nothing is watched: SIGHUP alone.
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(SETTLE).await;
    while changes.try_recv().is_ok() {}
}

fn watcher(sender: mpsc::Sender<()>) -> notify::Result<notify::RecommendedWatcher> {
    notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let read = event.as_ref().is_ok_and(|event| event.kind.is_access());
        if !read {
            // Full means that a look is due already.
            let _ = sender.try_send(());
        }
    })
}
