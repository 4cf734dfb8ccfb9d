//! Compares the acknowledgements of the clients of a load with the tables.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::{LoadError, client::Shared, session::Session, statements};
use crate::process;

/// How long statements of clients that went away may take to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// The tables beside the acknowledgements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Verified {
    pub commits_acknowledged: u64,
    /// Commits that the table counts.
    pub commits_in_table: u64,
    /// Commits that took place though their client was not told.
    pub commits_unacknowledged: u64,
    /// Acknowledged commits that are missing.
    pub commits_lost: u64,
    pub rows_acknowledged: u64,
    /// Rows that are there.
    pub rows_in_table: u64,
    /// Rows that are there though their client saw an error.
    pub rows_present_after_error: u64,
    /// Acknowledged rows that are missing.
    pub rows_lost: u64,
}

impl Verified {
    /// All acknowledgements are true: the tables have what was acknowledged, and nothing else.
    pub fn is_exact(&self) -> bool {
        self.commits_unacknowledged == 0
            && self.commits_lost == 0
            && self.rows_present_after_error == 0
            && self.rows_lost == 0
            && self.commits_acknowledged == self.commits_in_table
            && self.rows_acknowledged == self.rows_in_table
    }
}

pub(super) async fn verify(shared: &Shared, mut session: Session) -> Result<Verified, LoadError> {
    let (told, rows_acknowledged, unsure, abandoned) = {
        let tally = shared.tally();
        (tally.commits.clone(), tally.inserted, tally.unsure_rows.clone(), tally.abandoned.clone())
    };
    nothing_runs(&mut session, &abandoned).await?;

    let run = shared.run;
    let counters = statements::counters(session.engine(), run);
    let counters = value(&mut session, &counters).await?.unwrap_or_default();
    let counted: BTreeMap<u32, u64> = counters
        .split(' ')
        .filter_map(|pair| pair.split_once('='))
        .filter_map(|(client, done)| Some((client.parse().ok()?, done.parse().ok()?)))
        .collect();

    let rows = format!("SELECT count(*) FROM load_rows WHERE run = {run}");
    let rows_in_table = count(&mut session, &rows).await?;
    let rows_present_after_error = if unsure.is_empty() {
        0
    } else {
        let pairs: Vec<String> =
            unsure.iter().map(|(client, number)| format!("({client}, {number})")).collect();
        let present = format!("{rows} AND (client, number) IN ({})", pairs.join(", "));
        count(&mut session, &present).await?
    };
    session.close().await;

    let done = |counts: &BTreeMap<u32, u64>, client: &u32| counts.get(client).copied().unwrap_or(0);
    Ok(Verified {
        commits_acknowledged: told.values().sum(),
        commits_in_table: counted.values().sum(),
        commits_unacknowledged: counted.iter().map(|(c, n)| n.saturating_sub(done(&told, c))).sum(),
        commits_lost: told.iter().map(|(c, n)| n.saturating_sub(done(&counted, c))).sum(),
        rows_acknowledged,
        rows_in_table,
        rows_present_after_error,
        rows_lost: (rows_acknowledged + rows_present_after_error).saturating_sub(rows_in_table),
    })
}

/// A server finishes what it runs before it notices that its client is gone: a count that
/// comes too early would miss it.
async fn nothing_runs(session: &mut Session, backends: &[u64]) -> Result<(), LoadError> {
    if backends.is_empty() {
        return Ok(());
    }
    let running = statements::count_sessions(session.engine(), backends);
    let began = Instant::now();
    loop {
        let left = count(session, &running).await?;
        if left == 0 {
            return Ok(());
        }
        if began.elapsed() > PATIENCE {
            return Err(LoadError::Process(process::Error::Deadline {
                what: "server processes of clients that went away to end".to_owned(),
                waited: began.elapsed(),
                last_seen: format!("{left} run"),
            }));
        }
        sleep(Duration::from_millis(50)).await;
    }
}

async fn count(session: &mut Session, statement: &str) -> Result<u64, LoadError> {
    let counted = value(session, statement).await?;
    Ok(counted.and_then(|text| text.parse().ok()).unwrap_or_default())
}

async fn value(session: &mut Session, statement: &str) -> Result<Option<String>, LoadError> {
    session.value(statement).await.map_err(|ending| LoadError::sql(statement, ending))
}
