//! The check port of an agent that is gone: it still answers what it answered last.
//!
//! So the proxy of the mute arm stays as it was, even through a restart of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;

const PATIENCE: Duration = Duration::from_secs(2);

/// By what HAProxy sends, such as `orders_write/a`.
pub(super) type Answers = BTreeMap<String, String>;

/// Asks a running agent about each server.
pub(super) async fn answers(agent: SocketAddr, servers: Vec<String>) -> io::Result<Answers> {
    let mut answers = Answers::new();
    for server in servers {
        let mut stream = TcpStream::connect(agent).await?;
        stream.write_all(format!("{server}\n").as_bytes()).await?;
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await??;
        answers.insert(server, answer);
    }
    Ok(answers)
}

/// Repeats them on the port of the agent, which is dead, while it exists.
pub(super) struct LastAnswers {
    answers: Arc<Answers>,
    asked: Arc<Mutex<BTreeSet<String>>>,
    _task: AbortOnDropHandle<()>,
}

impl LastAnswers {
    pub(super) fn repeat(agent: SocketAddr, answers: Answers) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(agent)?;
        let listener = socket.listen(128)?;
        let (answers, asked) = (Arc::new(answers), Arc::<Mutex<BTreeSet<String>>>::default());
        let (known, seen) = (answers.clone(), asked.clone());
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let (answers, asked) = (known.clone(), seen.clone());
                tokio::spawn(async move {
                    let mut stream = BufReader::new(stream);
                    let mut line = String::new();
                    if let Ok(Ok(_)) = timeout(PATIENCE, stream.read_line(&mut line)).await
                        && let Some((server, answer)) = answers.get_key_value(line.trim())
                        && stream.write_all(answer.as_bytes()).await.is_ok()
                    {
                        asked.lock().unwrap_or_else(PoisonError::into_inner).insert(server.clone());
                    }
                });
            }
        });
        Ok(Self { answers, asked, _task: AbortOnDropHandle::new(task) })
    }

    /// Whether each server was asked about.
    pub(super) fn all_asked(&self) -> bool {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).len() == self.answers.len()
    }
}
