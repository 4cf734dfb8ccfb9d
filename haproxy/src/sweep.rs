//! The sessions of all workers of one HAProxy.
//!
//! After a reload, existing sessions stay in old workers, which only the master socket reaches.

use jiff::civil::DateTime;
use tokio::time::Instant;

use crate::{
    Address,
    runtime::{Limits, RuntimeError, ask_once, refusal, stream_once},
    show_sess::{Parser, Session, asked, resolve},
};

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Worker {
    pub pid: u32,
    /// From before the last reload.
    pub old: bool,
}

/// The sessions of one worker.
#[derive(Debug)]
pub struct Sweep {
    pub worker: Worker,
    /// When the dump was requested: ages are of this moment.
    pub at: Instant,
    /// The date on the clock of HAProxy's host at that moment.
    pub date: Option<DateTime>,
    pub sessions: Vec<Session>,
    /// The length of the dump.
    pub bytes: u64,
}

/// The workers of a master process, by `show proc`.
pub async fn workers(master: &Address, limits: Limits) -> Result<Vec<Worker>, RuntimeError> {
    let answer = ask_once(master, "show proc", limits).await?;
    parse_workers(&answer).map_err(|what| RuntimeError::Garbage {
        peer: master.clone(),
        command: "show proc".into(),
        what,
    })
}

/// Lists the sessions of the worker behind a stats socket.
pub async fn sweep(socket: &Address, worker: Worker, limits: Limits) -> Result<Sweep, RuntimeError> {
    dump(socket, "show sess all", worker, limits).await
}

/// Lists the sessions of one worker through the master socket.
///
/// # Errors
/// [`RuntimeError::Refused`] when the worker has ended since `show proc`, which is normal.
pub async fn sweep_worker(master: &Address, worker: Worker, limits: Limits) -> Result<Sweep, RuntimeError> {
    dump(master, &format!("@!{} show sess all", worker.pid), worker, limits).await
}

async fn dump(peer: &Address, command: &str, worker: Worker, limits: Limits) -> Result<Sweep, RuntimeError> {
    let at = Instant::now();
    let mut parser = Parser::new();
    let mut entries = Vec::new();
    let mut beginning = Vec::new();
    stream_once(peer, command, limits, |bytes| {
        if beginning.len() < 64 {
            beginning.extend_from_slice(bytes.get(..bytes.len().min(64)).unwrap_or_default());
        }
        parser.push(bytes, |entry| entries.push(entry));
    })
    .await?;
    let bytes = parser.bytes();
    entries.extend(parser.finish());
    // Every dump contains the connection that asked for it.
    if !entries.iter().any(|entry| entry.frontend == "GLOBAL") {
        refusal(peer, command, String::from_utf8_lossy(&beginning).into_owned())?;
        return Err(RuntimeError::Garbage {
            peer: peer.clone(),
            command: command.to_owned(),
            what: "it does not contain the connection that asked".into(),
        });
    }
    Ok(Sweep { worker, at, date: asked(&entries), sessions: resolve(entries), bytes })
}

/// `#<PID> <type> <reloads> <uptime> <version>` with `# workers` and `# old workers` sections.
fn parse_workers(answer: &str) -> Result<Vec<Worker>, String> {
    if !answer.contains("<PID>") {
        return Err("no `<PID>` header".into());
    }
    let mut old = false;
    let mut workers = Vec::new();
    for line in answer.lines() {
        match line.trim() {
            "# workers" => old = false,
            "# old workers" => old = true,
            "# programs" => break,
            line => {
                let mut words = line.split_whitespace();
                let pid = words.next().and_then(|word| word.parse().ok());
                if let (Some(pid), Some("worker")) = (pid, words.next()) {
                    workers.push(Worker { pid, old });
                }
            }
        }
    }
    Ok(workers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_workers_are_distinguished_from_current_ones() {
        let answer = "#<PID>          <type>          <reloads>       <uptime>        <version>      \n\
            1162            master          1               0d00h02m17s     2.6.12-1+deb12u3\n\
            # workers\n\
            1271            worker          0               0d00h00m20s     2.6.12-1+deb12u3\n\
            # old workers\n\
            1164            worker          1               0d00h02m17s     2.6.12-1+deb12u3\n\
            # programs\n\n";
        let expected = [Worker { pid: 1271, old: false }, Worker { pid: 1164, old: true }];
        assert_eq!(parse_workers(answer).unwrap(), expected);
        assert!(parse_workers("Unknown command").is_err());
    }
}
