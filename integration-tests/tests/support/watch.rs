//! Polls the states of all servers every 10 ms.

#![allow(dead_code, reason = "each test crate uses a part")]

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use integration_tests::haproxy::ask;
use tokio_util::sync::{CancellationToken, DropGuard};

/// `srv_admin_state` of a server that was drained by the API or an agent.
pub const FDRAIN: u8 = 8;

/// `backend/server` → its administrative bits, or its operational state.
pub type States = BTreeMap<String, u8>;

/// Each state that differs from the one before.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub bits: Vec<States>,
    pub operation: Vec<States>,
    pub looks: u64,
}

impl Seen {
    /// Drains of a server that began and ended.
    pub fn drains(&self, server: &str) -> usize {
        let of = |bits: &States| bits.get(server).copied().unwrap_or(0);
        self.bits.windows(2).filter(|pair| of(&pair[0]) == FDRAIN && of(&pair[1]) == 0).count()
    }

    /// Whether a server was ever DOWN.
    pub fn was_down(&self, server: &str) -> bool {
        self.operation.iter().any(|states| states.get(server) == Some(&0))
    }
}

pub struct Watch {
    seen: Arc<Mutex<Seen>>,
    task: tokio::task::JoinHandle<()>,
    stop: CancellationToken,
    _guard: DropGuard,
}

impl Watch {
    pub fn begin(socket: PathBuf) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let stop = CancellationToken::new();
        let (into, until) = (seen.clone(), stop.clone());
        let task = tokio::spawn(async move {
            while !until.is_cancelled() {
                // A proxy does not answer during a reload.
                if let Ok(table) = ask(&socket, "show servers state").await {
                    let (bits, operation) = (column(&table, 6), column(&table, 5));
                    let mut seen = into.lock().unwrap();
                    seen.looks += 1;
                    if seen.bits.last() != Some(&bits) {
                        seen.bits.push(bits);
                    }
                    if seen.operation.last() != Some(&operation) {
                        seen.operation.push(operation);
                    }
                }
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        });
        Self { seen, task, _guard: stop.clone().drop_guard(), stop }
    }

    /// What was seen until now.
    pub fn so_far(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }

    /// All that was seen.
    pub async fn stop(self) -> Seen {
        self.stop.cancel();
        self.task.await.unwrap();
        self.seen.lock().unwrap().clone()
    }
}

/// The administrative bits in `show servers state`.
pub fn bits(table: &str) -> States {
    column(table, 6)
}

fn column(table: &str, column: usize) -> States {
    let rows = table.lines().map(|row| row.split(' ').collect::<Vec<_>>());
    let value = |row: &[&str]| row.get(column)?.parse().ok();
    rows.filter_map(|row| Some((format!("{}/{}", row.get(1)?, row.get(3)?), value(&row)?))).collect()
}
