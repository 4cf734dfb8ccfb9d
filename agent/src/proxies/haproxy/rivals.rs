//! Notices another agent that commands the same HAProxy. Two agents with a state directory each would end one
//! another's drains and send different answers.
//!
//! Each agent listens on an abstract Unix socket that is named after HAProxy's runtime socket. The second
//! agent finds the name in use and asks the first for its process id and state directory. This only reports;
//! nothing waits for it. Agents on other hosts or in other network namespaces are not found.

use std::{
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener as StdListener, UnixStream as StdStream},
    },
    time::Duration,
};

use haproxy::Address;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    time::{sleep, timeout},
};

use crate::{
    events::{Episodes, Event, RivalFound},
    shared::Shared,
};

/// Between two looks while another agent is there.
const AGAIN: Duration = Duration::from_secs(5);

/// For the other agent to say who it is.
const PATIENCE: Duration = Duration::from_secs(2);

/// Its answer is one short line.
const LONGEST: u64 = 1_000;

/// Looks for other agents, and answers theirs, for ever.
pub async fn run(socket: Address, state_dir: String, shared: Shared) {
    let own = format!("process {} with state_dir {state_dir}", std::process::id());
    let mut episodes = Episodes::default();
    loop {
        match name(&socket).and_then(|name| listen(&name)) {
            Ok(listener) => {
                if episodes.ends("rival") {
                    tracing::info!(proxy = %socket, "the other agent is gone");
                }
                answer(&listener, &own).await;
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let other = timeout(PATIENCE, ask(&socket)).await;
                let other = other
                    .ok()
                    .and_then(Result::ok)
                    .unwrap_or_else(|| "a process that does not answer".into());
                if episodes.begins("rival", &other) {
                    RivalFound { proxy: &socket.to_string(), other: &other }.emit(&shared.metrics);
                }
            }
            Err(error) => tracing::debug!(proxy = %socket, %error, "other agents cannot be noticed"),
        }
        sleep(AGAIN).await;
    }
}

fn name(socket: &Address) -> io::Result<SocketAddr> {
    let text = match socket {
        Address::Unix(path) => path.canonicalize().unwrap_or_else(|_| path.clone()).display().to_string(),
        Address::Tcp(address) => address.clone(),
    };
    // A name is at most 107 bytes long; the end of a path tells more than its beginning.
    let tail = text.char_indices().rev().nth(80).map_or(0, |(index, _)| index);
    SocketAddr::from_abstract_name(format!("rds-lb-agent {}", text.get(tail..).unwrap_or(&text)))
}

fn listen(name: &SocketAddr) -> io::Result<UnixListener> {
    let listener = StdListener::bind_addr(name)?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// Answers each connection with this agent's identity. Returns only if the listener fails.
async fn answer(listener: &UnixListener, own: &str) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let _ = timeout(PATIENCE, stream.write_all(own.as_bytes())).await;
    }
}

async fn ask(socket: &Address) -> io::Result<String> {
    let stream = StdStream::connect_addr(&name(socket)?)?;
    stream.set_nonblocking(true)?;
    let mut text = String::new();
    UnixStream::from_std(stream)?.take(LONGEST).read_to_string(&mut text).await?;
    Ok(text)
}
