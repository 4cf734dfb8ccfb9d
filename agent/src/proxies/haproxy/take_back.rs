//! Takes back one drain of the agent's own, with nothing but its record.

use std::time::Duration;

use haproxy::{
    Address,
    runtime::{AdminState, Connection, Limits, RuntimeError, ServerState},
};
use tokio::time::Instant;

use crate::state::records::{DrainRecord, RecordedProxy};

/// The limits of one command are shorter; this is for a process that was suspended meanwhile.
const PATIENCE: Duration = Duration::from_secs(10);

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
            let states = connection.servers_state(None).await?;
            if states.iter().find(here).is_some_and(ServerState::forced_drain) {
                let (peer, command) =
                    (connection.peer().clone(), format!("set server {backend}/{server} state ready"));
                return Err(RuntimeError::Refused {
                    peer,
                    command,
                    answer: "HAProxy still shows the drain".into(),
                });
            }
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

    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    use super::*;
    use crate::{proxies::haproxy::release, state::records::DrainRecords};

    /// A HAProxy that knows one backend, and refuses to speak of any other.
    async fn answers(socket: UnixListener) {
        let columns = "# be_name srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_port \
            srv_iweight srv_check_state srv_agent_state srv_fqdn";
        let ready = Arc::new(AtomicBool::default());
        loop {
            let (stream, _) = socket.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            while stream.read_line(&mut line).await.unwrap() > 0 {
                let answer = match line.trim() {
                    "show servers state" => {
                        let admin = if ready.load(Ordering::Relaxed) { 0 } else { 8 };
                        format!("1\n{columns}\norders pg1 10.0.0.1 2 {admin} 1 5432 1 0 22 -\n\n> ")
                    }
                    "set server orders/pg1 state ready" => {
                        ready.store(true, Ordering::Relaxed);
                        "\n> ".to_owned()
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
            force: false,
            reason: "sessions due".into(),
            since: 1_800_000_000,
            operator: false,
            until: None,
        };
        records.store(&[record("orders"), record("renamed")]).unwrap();
        let mut released = release::Released::default();
        release::drains(folder.path(), false, &mut released).await.unwrap();
        haproxy.abort();
        assert_eq!((released.taken_back.len(), released.left_alone.len()), (1, 1), "{released:?}");
        assert_eq!(records.load().unwrap(), []);
    }
}
