//! The connection: in `prompt` mode, one command at a time, with limits on the time and the size of each
//! answer.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    time::{Instant, timeout, timeout_at},
};

use super::{AdminState, Info, RuntimeError, ServerState, Stat, state_file};
use crate::Address;

/// Limits of one command.
#[derive(Copy, Clone, Debug)]
pub struct Limits {
    /// For connecting, and for each complete answer.
    pub time: Duration,
    /// The maximum length of an answer, in bytes. Dumps of sessions are streamed and may be 64 times as long.
    pub size: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { time: Duration::from_secs(5), size: 4 << 20 }
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A persistent connection. After an error it cannot be used any more.
///
/// Keep it for a round of work only: after a reload it stays connected to the old worker, keeps that
/// alive, and shows its servers and sessions ([`Info::stopping`](super::Info::stopping)). HAProxy closes
/// an idle one after `stats timeout`, 10 s by default.
pub struct Connection {
    stream: Box<dyn Stream>,
    peer: Address,
    limits: Limits,
    /// A command is in progress, or its answer was not read completely (an error, or the future was
    /// dropped): the rest would be taken for the next command's answer.
    pending: bool,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// The prompt after a complete answer.
const PROMPT: &[u8] = b"\n> ";

/// Empty, or ending with an empty line: otherwise it may be a line of a description.
fn is_complete(answer: &[u8]) -> bool {
    answer == PROMPT || answer.strip_suffix(PROMPT).is_some_and(|lines| lines.ends_with(b"\n"))
}

/// The prompt of the master socket, which does not have the commands used here.
const MASTER_PROMPT: &[u8] = b"master> ";

/// An answer that looks complete is so after this long without another byte. Usually the connection is
/// closed then, but the master socket of 2.8 sometimes keeps it open after refusing a worker that is gone.
const SETTLED: Duration = Duration::from_millis(250);

impl Connection {
    /// Opens a connection and switches it to `prompt` mode, in which it stays open.
    pub async fn open(peer: &Address, limits: Limits) -> Result<Self, RuntimeError> {
        let stream = connect(peer, limits).await?;
        let mut connection = Self { stream, peer: peer.clone(), limits, pending: false };
        connection.ask("prompt").await?;
        Ok(connection)
    }

    pub fn peer(&self) -> &Address {
        &self.peer
    }

    /// Whether another command can be sent: not after an error of the connection, nor after an
    /// [`ask`](Self::ask) that was dropped before its end.
    pub fn is_usable(&self) -> bool {
        !self.pending
    }

    /// Sends one command and returns its answer, without the prompt.
    pub async fn ask(&mut self, command: &str) -> Result<String, RuntimeError> {
        let line = command_line(&self.peer, command)?;
        let broken =
            |source| RuntimeError::Broken { peer: self.peer.clone(), command: command.into(), source };
        let late = |_| RuntimeError::TimedOut { peer: self.peer.clone(), command: command.into() };
        if self.pending {
            return Err(broken(io::Error::other("the previous answer was not read completely")));
        }
        self.pending = true;
        let deadline = Instant::now() + self.limits.time;
        let sending = self.stream.write_all(line.as_bytes());
        timeout_at(deadline, sending).await.map_err(late)?.map_err(broken)?;
        let mut answer = Vec::with_capacity(512);
        while !is_complete(&answer) {
            if answer.len() > self.limits.size {
                return Err(RuntimeError::TooLong { peer: self.peer.clone(), command: command.into() });
            }
            if answer.ends_with(MASTER_PROMPT) {
                return Err(self.garbage(
                    command,
                    "it is the prompt of the master socket, not of a `stats socket`".into(),
                ));
            }
            let looks_complete = answer.ends_with(PROMPT);
            let patience = if looks_complete { deadline.min(Instant::now() + SETTLED) } else { deadline };
            let read = match timeout_at(patience, self.stream.read_buf(&mut answer)).await {
                Err(_) if looks_complete => break,
                read => read.map_err(late)?.map_err(broken)?,
            };
            if read == 0 {
                return Err(if answer.is_empty() {
                    broken(io::ErrorKind::UnexpectedEof.into())
                } else {
                    self.garbage(command, format!("it ends without a prompt: {}", beginning(&answer)))
                });
            }
        }
        self.pending = false;
        answer.truncate(answer.len() - PROMPT.len());
        refusal(&self.peer, command, text(&answer))
    }

    /// `show info`, which also proves that the peer is a running HAProxy.
    pub async fn info(&mut self) -> Result<Info, RuntimeError> {
        let answer = self.ask("show info").await?;
        Info::parse(&answer).map_err(|what| self.garbage("show info", what))
    }

    /// `show stat`: one row for each frontend, backend and server.
    pub async fn stat(&mut self) -> Result<Vec<Stat>, RuntimeError> {
        let answer = self.ask("show stat").await?;
        Stat::parse(&answer).map_err(|what| self.garbage("show stat", what))
    }

    /// `show servers state` of all servers, or of one backend's.
    pub async fn servers_state(&mut self, backend: Option<&str>) -> Result<Vec<ServerState>, RuntimeError> {
        let command = match backend {
            Some(backend) => format!("show servers state {}", self.word(backend)?),
            None => "show servers state".to_owned(),
        };
        let answer = self.ask(&command).await?;
        ServerState::parse(&answer).map_err(|what| self.garbage(&command, what))
    }

    /// `show servers state` as a server state file, see [`state_file::render`].
    pub async fn state_file(
        &mut self,
        is_own_drain: impl Fn(&str, &str) -> bool,
    ) -> Result<String, RuntimeError> {
        let command = "show servers state";
        let answer = self.ask(command).await?;
        state_file::render(&answer, is_own_drain).map_err(|what| self.garbage(command, what))
    }

    /// `set server b/s state ready|drain|maint`.
    pub async fn set_state(
        &mut self,
        backend: &str,
        server: &str,
        state: AdminState,
    ) -> Result<(), RuntimeError> {
        let (backend, server) = (self.word(backend)?, self.word(server)?);
        let command = format!("set server {backend}/{server} state {}", state.word());
        self.silent(&command).await
    }

    /// `set server b/s agent up|down`: as if the agent check had answered so. Its next answer overrides it.
    pub async fn set_agent(&mut self, backend: &str, server: &str, up: bool) -> Result<(), RuntimeError> {
        let (backend, server) = (self.word(backend)?, self.word(server)?);
        let command = format!("set server {backend}/{server} agent {}", if up { "up" } else { "down" });
        self.silent(&command).await
    }

    /// A command whose answer is empty when it succeeds.
    pub async fn silent(&mut self, command: &str) -> Result<(), RuntimeError> {
        let answer = self.ask(command).await?;
        if answer.trim().is_empty() {
            return Ok(());
        }
        Err(RuntimeError::Refused {
            peer: self.peer.clone(),
            command: command.into(),
            answer: answer.trim().into(),
        })
    }

    fn garbage(&self, command: &str, what: String) -> RuntimeError {
        RuntimeError::Garbage { peer: self.peer.clone(), command: command.into(), what }
    }

    /// A name as one word of a command.
    fn word<'a>(&self, name: &'a str) -> Result<&'a str, RuntimeError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
        if !name.is_empty() && name.chars().all(plain) {
            return Ok(name);
        }
        Err(RuntimeError::Refused {
            peer: self.peer.clone(),
            command: format!("{name:?}"),
            answer: "not a name that HAProxy's command line can take".into(),
        })
    }
}

/// One command on a connection of its own. For the master socket, whose prompt changes with its state.
pub async fn ask_once(peer: &Address, command: &str, limits: Limits) -> Result<String, RuntimeError> {
    let mut answer = Vec::new();
    let mut too_long = false;
    stream_once(peer, command, limits, |bytes| {
        too_long |= answer.len() + bytes.len() > limits.size;
        if !too_long {
            answer.extend_from_slice(bytes);
        }
    })
    .await?;
    if too_long {
        return Err(RuntimeError::TooLong { peer: peer.clone(), command: command.into() });
    }
    refusal(peer, command, text(&answer))
}

/// One command on a connection of its own; the answer is passed on in pieces. A truncated answer is an
/// error at its end.
pub async fn stream_once(
    peer: &Address,
    command: &str,
    limits: Limits,
    mut piece: impl FnMut(&[u8]),
) -> Result<(), RuntimeError> {
    let line = command_line(peer, command)?;
    let mut stream = connect(peer, limits).await?;
    let broken = |source| RuntimeError::Broken { peer: peer.clone(), command: command.into(), source };
    let late = |_| RuntimeError::TimedOut { peer: peer.clone(), command: command.into() };
    let sending = async {
        stream.write_all(line.as_bytes()).await?;
        // The master socket waits for more commands until the end of its input.
        stream.shutdown().await
    };
    timeout(limits.time, sending).await.map_err(late)?.map_err(broken)?;
    // The time limit is for each piece, since dumps are long.
    let mut buffer = vec![0_u8; 64 << 10];
    let mut left = limits.size.saturating_mul(64);
    let mut end = End::default();
    loop {
        let patience = if end.looks_complete() { SETTLED.min(limits.time) } else { limits.time };
        let read = match timeout(patience, stream.read(&mut buffer)).await {
            Ok(read) => read.map_err(broken)?,
            Err(_) if end.looks_complete() => return Ok(()),
            Err(elapsed) => return Err(late(elapsed)),
        };
        if read == 0 {
            let whole = end.looks_complete();
            return if whole { Ok(()) } else { Err(broken(io::ErrorKind::UnexpectedEof.into())) };
        }
        if read > left {
            return Err(RuntimeError::TooLong { peer: peer.clone(), command: command.into() });
        }
        left -= read;
        let bytes = buffer.get(..read).unwrap_or_default();
        end.push(bytes);
        piece(bytes);
    }
}

/// The end of an answer outside `prompt` mode: an empty line, in all versions.
#[derive(Default)]
struct End {
    first: Vec<u8>,
    last: [u8; 2],
    bytes: u64,
}

impl End {
    /// The only answer that does not end with an empty line: the master's, when a worker is gone.
    const NO_WORKER: &[u8] = b"Can't find the target";

    fn push(&mut self, bytes: &[u8]) {
        let missing = Self::NO_WORKER.len().saturating_sub(self.first.len());
        self.first.extend(bytes.iter().take(missing));
        for byte in bytes.iter().skip(bytes.len().saturating_sub(2)) {
            self.last = [self.last[1], *byte];
        }
        self.bytes += bytes.len() as u64;
    }

    fn looks_complete(&self) -> bool {
        let empty_answer = self.bytes == 1 || self.first == Self::NO_WORKER;
        self.last == *b"\n\n" || (empty_answer && self.last[1] == b'\n')
    }
}

async fn connect(peer: &Address, limits: Limits) -> Result<Box<dyn Stream>, RuntimeError> {
    let connecting = async {
        Ok(match peer {
            Address::Unix(path) => Box::new(UnixStream::connect(path).await?) as Box<dyn Stream>,
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
        })
    };
    timeout(limits.time, connecting)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|source| RuntimeError::Connect { peer: peer.clone(), source })
}

/// Refuses text that HAProxy would read as several commands.
fn command_line(peer: &Address, command: &str) -> Result<String, RuntimeError> {
    if command.contains(['\n', '\r', ';']) || command.contains("<<") {
        return Err(RuntimeError::Refused {
            peer: peer.clone(),
            command: format!("{command:?}"),
            answer: "not one command, so it was not sent".into(),
        });
    }
    Ok(format!("{command}\n"))
}

/// Descriptions in the proxy's configuration may have any encoding.
fn text(answer: &[u8]) -> String {
    String::from_utf8_lossy(answer).into_owned()
}

/// The beginning of an answer that cannot be read, for an error message.
fn beginning(answer: &[u8]) -> String {
    format!("{:?}", text(answer.get(..answer.len().min(60)).unwrap_or_default()))
}

/// The error messages of HAProxy, in all versions.
pub(crate) fn refusal(peer: &Address, command: &str, answer: String) -> Result<String, RuntimeError> {
    let first = answer.trim_start().lines().next().unwrap_or("");
    if first.starts_with("Permission denied") {
        return Err(RuntimeError::Denied { peer: peer.clone(), command: command.into() });
    }
    let refusals = ["Unknown command", "No such", "Require", "'server'", "Can't find", "Invalid"];
    if refusals.iter().any(|words| first.starts_with(words)) {
        return Err(RuntimeError::Refused {
            peer: peer.clone(),
            command: command.into(),
            answer: first.trim_end_matches(['.', ',']).to_owned(),
        });
    }
    Ok(answer)
}
