//! Takes the agent's recorded drains back, with nothing but the records: for a
//! stop, a refused start, `ExecStopPost`, and package removal.

use haproxy::{
    Address,
    runtime::{AdminState, Connection, Limits, RuntimeError, ServerState},
};
use serde::Serialize;
use tokio::task::JoinSet;

use crate::config::ENVOY;
use crate::state::{
    StateError,
    records::{DrainRecord, DrainRecords},
};

/// What became of the records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Undone {
    /// Drains taken back.
    pub taken_back: Vec<String>,
    /// Not drained any more, or in maintenance by a person's hand: left alone.
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
            let result = take_back(&record).await;
            (record, result)
        });
    }
    while let Some(ended) = tasks.join_next().await {
        // One that could not be told is left on record.
        let Ok((record, result)) = ended else { continue };
        let name = format!("{}/{} at {}", record.backend, record.server, record.socket);
        match result {
            Ok(true) => undone.taken_back.push(name),
            Ok(false) => undone.left_alone.push(name),
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

/// Whether there was anything to take back.
///
/// A drain on an Envoy is a word in the endpoints of an agent that runs: there is nothing to
/// ask, and the next agent does not say it again.
pub async fn take_back(record: &DrainRecord) -> Result<bool, String> {
    if record.socket.starts_with(ENVOY) {
        return Ok(false);
    }
    let address: Address = record.socket.parse()?;
    try_take_back(&address, record).await.map_err(|error| error.to_string())
}

async fn try_take_back(address: &Address, record: &DrainRecord) -> Result<bool, RuntimeError> {
    let mut connection = Connection::open(address, Limits::default()).await?;
    // All of it: the backend may be gone as well, and then so is the drain.
    let states = connection.servers_state(None).await?;
    let here = |state: &ServerState| state.backend == record.backend && state.server == record.server;
    let Some(state) = states.into_iter().find(here) else {
        return Ok(false);
    };
    // Maintenance is never the agent's: `ready` would end it as well.
    if !state.forced_drain() || state.forced_maint() {
        return Ok(false);
    }
    connection.set_state(&record.backend, &record.server, AdminState::Ready).await?;
    Ok(true)
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
