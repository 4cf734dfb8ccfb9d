//! The socket: kept in `prompt` mode, one command at a time, every answer
//! bounded in time and size.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    time::{Instant, timeout, timeout_at},
};

use super::{AdminState, Info, RuntimeError, ServerState, Stat};
use crate::Address;

/// What one command may cost.
#[derive(Copy, Clone, Debug)]
pub struct Limits {
    /// Time for connecting, and for each whole answer.
    pub time: Duration,
    /// The longest answer, in bytes. Dumps of sessions are streamed and may be 64 times as long.
    pub size: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { time: Duration::from_secs(5), size: 4 << 20 }
    }
}

/// Both kinds of socket.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A kept connection. After an error it is of no use any more: open another.
pub struct Connection {
    stream: Box<dyn Stream>,
    peer: Address,
    limits: Limits,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// What the prompt looks like after a whole answer.
const PROMPT: &[u8] = b"\n> ";

impl Connection {
    /// Opens a connection and switches it to `prompt` mode, in which it stays open.
    pub async fn open(peer: &Address, limits: Limits) -> Result<Self, RuntimeError> {
        let stream = connect(peer, limits).await?;
        let mut connection = Self { stream, peer: peer.clone(), limits };
        connection.ask("prompt").await?;
        Ok(connection)
    }

    /// Where it goes.
    pub fn peer(&self) -> &Address {
        &self.peer
    }

    /// Sends one command and reads its whole answer, without the prompt.
    pub async fn ask(&mut self, command: &str) -> Result<String, RuntimeError> {
        let deadline = Instant::now() + self.limits.time;
        let broken =
            |source| RuntimeError::Broken { peer: self.peer.clone(), command: command.into(), source };
        let late = |_| RuntimeError::TimedOut { peer: self.peer.clone(), command: command.into() };
        let sending = async {
            self.stream.write_all(command.as_bytes()).await?;
            self.stream.write_all(b"\n").await
        };
        timeout_at(deadline, sending).await.map_err(late)?.map_err(broken)?;
        let mut answer = Vec::with_capacity(512);
        while !answer.ends_with(PROMPT) {
            if answer.len() > self.limits.size {
                return Err(RuntimeError::TooLong { peer: self.peer.clone(), command: command.into() });
            }
            let read = self.stream.read_buf(&mut answer);
            if timeout_at(deadline, read).await.map_err(late)?.map_err(broken)? == 0 {
                return Err(broken(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        answer.truncate(answer.len() - PROMPT.len());
        let text = text(&self.peer, command, answer)?;
        refusal(&self.peer, command, text)
    }

    /// `show info`: also proves that the peer is a living HAProxy.
    pub async fn info(&mut self) -> Result<Info, RuntimeError> {
        let answer = self.ask("show info").await?;
        Info::parse(&answer).map_err(|what| self.garbage("show info", what))
    }

    /// `show stat`: one row a frontend, backend and server.
    pub async fn stat(&mut self) -> Result<Vec<Stat>, RuntimeError> {
        let answer = self.ask("show stat").await?;
        Stat::parse(&answer).map_err(|what| self.garbage("show stat", what))
    }

    /// `show servers state`: admin flags of all servers, or of one backend's.
    pub async fn servers_state(&mut self, backend: Option<&str>) -> Result<Vec<ServerState>, RuntimeError> {
        let command = match backend {
            Some(backend) => format!("show servers state {}", self.word(backend)?),
            None => "show servers state".to_owned(),
        };
        let answer = self.ask(&command).await?;
        ServerState::parse(&answer).map_err(|what| self.garbage(&command, what))
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

    /// `set server b/s agent up|down`: what the next agent check would say, at once.
    pub async fn set_agent(&mut self, backend: &str, server: &str, up: bool) -> Result<(), RuntimeError> {
        let (backend, server) = (self.word(backend)?, self.word(server)?);
        let command = format!("set server {backend}/{server} agent {}", if up { "up" } else { "down" });
        self.silent(&command).await
    }

    /// A command that answers nothing when it is carried out.
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

    /// A name that is one word of a command, and can be nothing else.
    pub(crate) fn word<'a>(&self, name: &'a str) -> Result<&'a str, RuntimeError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:@!".contains(c);
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

/// One command on a connection of its own, read to its end. The master socket
/// is asked this way: its prompt changes with its state.
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
    let text = text(peer, command, answer)?;
    refusal(peer, command, text)
}

/// One command on a connection of its own; the answer is handed out piece by piece.
pub async fn stream_once(
    peer: &Address,
    command: &str,
    limits: Limits,
    mut piece: impl FnMut(&[u8]),
) -> Result<(), RuntimeError> {
    let mut stream = connect(peer, limits).await?;
    let broken = |source| RuntimeError::Broken { peer: peer.clone(), command: command.into(), source };
    let late = |_| RuntimeError::TimedOut { peer: peer.clone(), command: command.into() };
    let line = format!("{command}\n");
    timeout(limits.time, stream.write_all(line.as_bytes())).await.map_err(late)?.map_err(broken)?;
    // Each piece has its time: a long dump is fine, a silent one is not.
    let mut buffer = vec![0_u8; 64 << 10];
    let mut left = limits.size.saturating_mul(64);
    loop {
        let read = timeout(limits.time, stream.read(&mut buffer)).await.map_err(late)?.map_err(broken)?;
        if read == 0 {
            return Ok(());
        }
        if read > left {
            return Err(RuntimeError::TooLong { peer: peer.clone(), command: command.into() });
        }
        left -= read;
        piece(buffer.get(..read).unwrap_or_default());
    }
}

async fn connect(peer: &Address, limits: Limits) -> Result<Box<dyn Stream>, RuntimeError> {
    let connecting = async {
        Ok(match peer {
            Address::Unix(path) => Box::new(UnixStream::connect(path).await?) as Box<dyn Stream>,
            Address::Tcp(address) => Box::new(TcpStream::connect(address).await?),
        })
    };
    timeout(limits.time, connecting)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|source| RuntimeError::Connect { peer: peer.clone(), source })
}

fn text(peer: &Address, command: &str, answer: Vec<u8>) -> Result<String, RuntimeError> {
    String::from_utf8(answer).map_err(|_| RuntimeError::Garbage {
        peer: peer.clone(),
        command: command.into(),
        what: "it is not text".into(),
    })
}

/// The ways in which HAProxy says no, in all versions.
fn refusal(peer: &Address, command: &str, answer: String) -> Result<String, RuntimeError> {
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
