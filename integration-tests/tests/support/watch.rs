//! The administrative bits of all servers, looked at without a pause.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use integration_tests::haproxy::ask;
use tokio_util::sync::{CancellationToken, DropGuard};

/// `srv_admin_state` of a server that was drained by the API or an agent.
pub const FDRAIN: u8 = 8;

/// `backend/server` → its bits.
pub type Bits = BTreeMap<String, u8>;

/// What was seen: each state that differs from the one before.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub states: Vec<Bits>,
    pub looks: u64,
}

/// A task that looks.
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
                // A proxy that is being reloaded has nothing to say.
                if let Ok(table) = ask(&socket, "show servers state").await {
                    let bits = bits(&table);
                    let mut seen = into.lock().unwrap();
                    seen.looks += 1;
                    if seen.states.last() != Some(&bits) {
                        seen.states.push(bits);
                    }
                }
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        });
        Self { seen, task, _guard: stop.clone().drop_guard(), stop }
    }

    /// Drains of a server that were seen to begin and to end.
    pub fn ended(&self, server: &str) -> usize {
        let seen = self.seen.lock().unwrap();
        let of = |bits: &Bits| bits.get(server).copied().unwrap_or(0);
        seen.states.windows(2).filter(|pair| of(&pair[0]) == FDRAIN && of(&pair[1]) == 0).count()
    }

    pub async fn stop(self) -> Seen {
        self.stop.cancel();
        self.task.await.unwrap();
        self.seen.lock().unwrap().clone()
    }
}

/// Reads `show servers state`.
pub fn bits(table: &str) -> Bits {
    let rows = table.lines().map(|row| row.split(' ').collect::<Vec<_>>());
    rows.filter_map(|row| Some((format!("{}/{}", row.get(1)?, row.get(3)?), row.get(6)?.parse().ok()?)))
        .collect()
}
