//! Clients that run, and how to stop them.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use fastrand::Rng;
use jiff::Timestamp;
use tokio::{task::JoinSet, time::timeout};

use super::{
    Ending, LoadReport, Target, Verified, Work, autocommit,
    client::{Client, Shared},
    session::Session,
    statements, steady, transactions,
    transactions::Habits,
    verify,
};
use crate::process;

/// How long clients may take to end what they are at.
const STOP_PATIENCE: Duration = Duration::from_secs(15);

/// Why a load could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The login that makes or reads the tables.
    #[error("log in to {target:?}: {reason}")]
    Login {
        target: Target,
        /// An SQLSTATE, or an error number, or what went wrong before the server had a say.
        reason: String,
    },
    /// A statement that makes or reads the tables.
    #[error("{statement}: {ending}")]
    Sql { statement: String, ending: Ending },
    /// What was waited for did not come.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// Clients that do not end: their server hangs.
    #[error("{0} clients did not end within {STOP_PATIENCE:?}")]
    Stuck(usize),
}

/// A running load. Dropping it ends its clients in the middle of what they do.
pub struct Load {
    target: Arc<Target>,
    shared: Arc<Shared>,
    clients: Mutex<JoinSet<()>>,
    next_client: AtomicU32,
    seed: u64,
}

impl Load {
    /// Makes the tables, if they are not there; no client runs yet. `target` has to reach a
    /// writer. The same seed makes clients think the same pauses.
    pub async fn new(target: Target, seed: u64) -> Result<Self, LoadError> {
        let mut session = open(&target).await?;
        let tables = statements::tables(session.engine());
        session.execute(tables).await.map_err(|ending| LoadError::sql(tables, ending))?;
        session.close().await;
        let load = Self {
            target: Arc::new(target),
            shared: Arc::new(Shared::new(Timestamp::now().as_microsecond())),
            clients: Mutex::new(JoinSet::new()),
            next_client: AtomicU32::new(0),
            seed,
        };
        Ok(load)
    }

    /// Starts so many clients. They log in as soon as they can, a few at a time.
    pub fn add(&self, work: Work, count: usize) {
        self.add_to(&self.target, work, count);
    }

    /// The same at another target: another user, another port.
    pub fn add_to(&self, target: &Target, work: Work, count: usize) {
        let target = Arc::new(target.clone());
        self.shared.tally().clients += count;
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..count {
            let id = self.next_client.fetch_add(1, Ordering::Relaxed);
            let random = Rng::with_seed(self.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ u64::from(id));
            let client = Client::new(id, target.clone(), work.word(), self.shared.clone(), random);
            match work {
                Work::Transactions { think, retry_begin } => {
                    clients.spawn(transactions::run(client, Habits { think, retry_begin, writes: true }))
                }
                Work::Reads { think } => {
                    let habits = Habits { think, retry_begin: false, writes: false };
                    clients.spawn(transactions::run(client, habits))
                }
                Work::Autocommit { think } => clients.spawn(autocommit::run(client, think)),
                Work::Hold { .. } | Work::Idle | Work::Listen | Work::AdvisoryLock => {
                    clients.spawn(steady::run(client, work))
                }
            };
        }
    }

    /// Waits until every client has logged in once.
    pub async fn all_in(&self, patience: Duration) -> Result<(), LoadError> {
        process::wait_for("all clients to log in", patience, async || {
            let tally = self.shared.tally();
            let first = tally.logins.iter().filter(|login| login.first).count();
            if first >= tally.clients {
                return Ok(());
            }
            Err(format!("{first} of {}; ended and refused: {:?}", tally.clients, tally.causes))
        })
        .await?;
        Ok(())
    }

    /// The counts so far.
    pub fn report(&self) -> LoadReport {
        LoadReport::of(&self.shared.tally())
    }

    /// Lets every client end its transaction and say goodbye, and counts once more.
    ///
    /// # Errors
    /// [`LoadError::Stuck`]; those clients are ended the hard way.
    pub async fn stop(&self) -> Result<LoadReport, LoadError> {
        self.shared.stop.cancel();
        let mut clients = std::mem::take(&mut *self.clients.lock().unwrap_or_else(PoisonError::into_inner));
        let all = timeout(STOP_PATIENCE, async { while clients.join_next().await.is_some() {} }).await;
        match all {
            Ok(()) => Ok(self.report()),
            Err(_) => Err(LoadError::Stuck(clients.len())),
        }
    }

    /// Compares the tables, at `target`, with the acknowledgements of the clients. To be called
    /// after [`stop`](Self::stop).
    pub async fn verify(&self, target: &Target) -> Result<Verified, LoadError> {
        verify::verify(&self.shared, open(target).await?).await
    }
}

async fn open(target: &Target) -> Result<Session, LoadError> {
    let opened = Session::open(target, "load-verify").await;
    opened.map_err(|reason| LoadError::Login { target: target.clone(), reason })
}

impl LoadError {
    pub(super) fn sql(statement: &str, ending: Ending) -> Self {
        Self::Sql { statement: statement.to_owned(), ending }
    }
}
