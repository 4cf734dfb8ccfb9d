//! Takes back the agent's own drains, of one server or of all records. The records alone are enough:
//! for a stop, a refused start, `ExecStopPost`, and package removal.

use std::time::Duration;

use haproxy::{
    Address,
    runtime::{AdminState, Connection, Limits, RuntimeError, ServerState},
};
use serde::Serialize;
use tokio::{task::JoinSet, time::Instant};

use crate::state::{
    StateError,
    records::{DrainRecord, DrainRecords, RecordedProxy},
};

/// The limits of one command are shorter; this is for a process that was suspended meanwhile.
const PATIENCE: Duration = Duration::from_secs(10);

/// What became of the records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Undone {
    /// Drains taken back.
    pub taken_back: Vec<String>,
    /// Not drained any more, or in maintenance, which an operator set: left alone.
    pub left_alone: Vec<String>,
    /// Not reached: server and reason. Their records stay.
    pub failed: Vec<(String, String)>,
}

/// Takes back every recorded drain that its proxy still shows, and removes the
/// records of those that are over.
///
/// # Errors
/// When the records cannot be read or written.
pub async fn own(file: &DrainRecords) -> Result<Undone, StateError> {
    let mut undone = Undone::default();
    let mut over = Vec::new();
    // All at once: a proxy that hangs must not use up the time of those that answer.
    let mut tasks = JoinSet::new();
    for record in file.load()? {
        tasks.spawn(async move {
            let result = recorded(&record).await;
            (record, result)
        });
    }
    while let Some(ended) = tasks.join_next().await {
        // One that could not be told is left on record.
        let Ok((record, result)) = ended else { continue };
        let name = format!("{}/{} at {}", record.backend, record.server, record.socket);
        match result {
            Ok(TakenBack::Drain) => undone.taken_back.push(name),
            Ok(TakenBack::Nothing) => undone.left_alone.push(name),
            Err(error) => {
                undone.failed.push((name, error));
                continue;
            }
        }
        over.push(record);
    }
    if !over.is_empty() {
        // A running agent may have recorded others meanwhile.
        file.remove(&over)?;
    }
    Ok(undone)
}

/// What was found when a drain was to be taken back.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum TakenBack {
    /// The drain, and it is over.
    Drain,
    /// No drain, or maintenance: nothing was changed.
    Nothing,
}

/// Takes back the drain of one record.
///
/// # Errors
/// Its proxy cannot be reached, or refuses.
pub async fn recorded(record: &DrainRecord) -> Result<TakenBack, String> {
    let address = match record.proxy() {
        RecordedProxy::Haproxy(socket) => socket.parse::<Address>()?,
        // A drain on an Envoy is part of the endpoints of a running agent. There is nothing to ask,
        // and the next agent does not send it again.
        RecordedProxy::Envoy => return Ok(TakenBack::Nothing),
    };
    let taken = async {
        let mut connection = Connection::open(&address, Limits::default()).await?;
        take_back(&mut connection, &record.backend, &record.server, PATIENCE).await
    };
    taken.await.map_err(|error: RuntimeError| error.to_string())
}

/// Takes back the drain of one server, if the proxy's own table shows it. A table that took longer
/// than `patience` may be from before a pause of this process, and counts as none.
///
/// # Errors
/// The proxy does not answer in time, or refuses.
pub async fn take_back(
    connection: &mut Connection,
    backend: &str,
    server: &str,
    patience: Duration,
) -> Result<TakenBack, RuntimeError> {
    let asked = Instant::now();
    // The whole table: the backend may be gone as well, and the drain with it.
    let states = connection.servers_state(None).await?;
    if asked.elapsed() > patience {
        let (peer, command) = (connection.peer().clone(), "show servers state".to_owned());
        return Err(RuntimeError::TimedOut { peer, command });
    }
    let here = |state: &&ServerState| state.backend == backend && state.server == server;
    match states.iter().find(here) {
        // Maintenance is never the agent's, and `ready` would end it as well.
        Some(state) if state.forced_drain() && !state.forced_maint() => {
            connection.set_state(backend, server, AdminState::Ready).await?;
            Ok(TakenBack::Drain)
        }
        Some(_) | None => Ok(TakenBack::Nothing),
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
        net::UnixListener,
    };

    use super::*;

    /// A HAProxy that knows one backend, and refuses to speak of any other.
    async fn answers(socket: UnixListener) {
        let columns = "# be_name srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_port \
            srv_iweight srv_check_state srv_agent_state srv_fqdn";
        loop {
            let (stream, _) = socket.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            while stream.read_line(&mut line).await.unwrap() > 0 {
                let answer = match line.trim() {
                    "show servers state" => {
                        format!("1\n{columns}\norders pg1 10.0.0.1 2 8 1 5432 1 0 22 -\n\n> ")
                    }
                    other if other.starts_with("show servers") => "Can't find backend.\n\n> ".to_owned(),
                    _ => "\n> ".to_owned(),
                };
                stream.write_all(answer.as_bytes()).await.unwrap();
                line.clear();
            }
        }
    }

    #[tokio::test]
    async fn a_drain_whose_backend_is_gone_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let haproxy = tokio::spawn(answers(UnixListener::bind(&path).unwrap()));
        let records = DrainRecords::in_directory(folder.path());
        let record = |backend: &str| DrainRecord {
            socket: path.display().to_string(),
            backend: backend.into(),
            server: "pg1".into(),
            reason: "sessions due".into(),
            since: 1_800_000_000,
        };
        records.store(&[record("orders"), record("renamed")]).unwrap();
        let undone = own(&records).await.unwrap();
        haproxy.abort();
        assert_eq!((undone.taken_back.len(), undone.left_alone.len()), (1, 1), "{undone:?}");
        assert_eq!(records.load().unwrap(), []);
    }
}
