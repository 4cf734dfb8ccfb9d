//! Ends what the agent has set in HAProxy: its drains, and its downs except those for a role. The state
//! directory alone is enough: for a stop, a refused start, `release`, and package removal.

use std::path::Path;

use serde::Serialize;
use tokio::task::JoinSet;

use super::{
    lift::{Lifted, lift},
    take_back::{TakenBack, recorded},
};
use crate::state::{
    StateError,
    downs::{DownRecord, DownRecords},
    records::DrainRecords,
};

/// The result, by server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Released {
    pub taken_back: Vec<String>,
    /// Readers, and the last writer, that are up again.
    pub lifted: Vec<String>,
    /// No longer drained or DOWN, or in maintenance, which an operator set: not changed.
    pub left_alone: Vec<String>,
    /// Drained by an operator.
    pub operators: Vec<String>,
    /// DOWN for its role in a writer backend: server, and the command that lifts it.
    pub stays_down: Vec<(String, String)>,
    /// DOWN by the running agent, which `release` does not change.
    pub kept_down: Vec<String>,
    /// Server and error. The records are kept.
    pub failed: Vec<(String, String)>,
}

impl Released {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Takes back every recorded drain of the agent's own that its proxy still shows, and removes the records
/// of drains that are over. Operators' drains are left alone unless `operators`.
///
/// # Errors
/// When the records cannot be read or written.
pub async fn drains(state_dir: &Path, operators: bool, released: &mut Released) -> Result<(), StateError> {
    let file = DrainRecords::in_directory(state_dir);
    let mut over = Vec::new();
    // All at once: a proxy that hangs must not use up the time of those that answer.
    let mut tasks = JoinSet::new();
    let all = file.load()?;
    let (left, wanted) = all.into_iter().partition::<Vec<_>, _>(|record| record.operator && !operators);
    released.operators.extend(left.iter().map(ToString::to_string));
    for record in wanted {
        tasks.spawn(async move {
            let result = recorded(&record).await;
            (record, result)
        });
    }
    while let Some(ended) = tasks.join_next().await {
        let Ok((record, result)) = ended else { continue };
        let name = record.to_string();
        match result {
            Ok(TakenBack::Drain) => released.taken_back.push(name),
            Ok(TakenBack::Nothing) => released.left_alone.push(name),
            Err(error) => {
                released.failed.push((name, error));
                continue;
            }
        }
        over.push(record);
    }
    if !over.is_empty() {
        // A running agent may have recorded others meanwhile.
        file.remove(&over)?;
    }
    Ok(())
}

/// Lifts every recorded down that is not for a role. Not beside a running agent, which answers `down` again.
///
/// # Errors
/// When the records cannot be read or written.
pub async fn downs(state_dir: &Path, released: &mut Released) -> Result<(), StateError> {
    let file = DownRecords::in_directory(state_dir);
    let records = file.load()?;
    let mut left: Vec<DownRecord> = Vec::new();
    let mut tasks = JoinSet::new();
    for record in records.clone() {
        tasks.spawn(async move {
            let result = lift(&record).await;
            (record, result)
        });
    }
    while let Some(ended) = tasks.join_next().await {
        let Ok((record, result)) = ended else { continue };
        let name = record.to_string();
        match result {
            Ok(Lifted::Up) => released.lifted.push(name),
            Ok(Lifted::Nothing) => released.left_alone.push(name),
            Ok(Lifted::Stays) => {
                released.stays_down.push((name, record.command()));
                left.push(record);
            }
            Err(error) => {
                released.failed.push((name, error));
                left.push(record);
            }
        }
    }
    if left.len() < records.len() { file.store(&left) } else { Ok(()) }
}
