//! Servers that name themselves and their role to each client, all on one port.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;

pub const NAMES: [&str; 3] = ["a", "b", "c"];

/// HAProxy's clients wait 10 s in the waiting room, Envoy's 15 s.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Databases {
    pub addresses: Vec<SocketAddr>,
    writer: Arc<AtomicUsize>,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

/// The answer that a client received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    pub server: String,
    pub writer: bool,
}

impl Databases {
    /// `a` is the writer.
    pub async fn start() -> Self {
        let listeners = loop {
            let first = TcpListener::bind((ip(0), 0)).await.unwrap();
            let port = first.local_addr().unwrap().port();
            let others = [TcpListener::bind((ip(1), port)).await, TcpListener::bind((ip(2), port)).await];
            if let [Ok(second), Ok(third)] = others {
                break [first, second, third];
            }
        };
        let writer = Arc::new(AtomicUsize::new(0));
        let addresses = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
        let serve = |(number, listener): (usize, TcpListener)| {
            let writer = writer.clone();
            AbortOnDropHandle::new(tokio::spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    let role = if writer.load(Ordering::SeqCst) == number { "writer" } else { "reader" };
                    let line = format!("{} {role}", NAMES[number]);
                    tokio::spawn(async move { stream.write_all(line.as_bytes()).await });
                }
            }))
        };
        let tasks = listeners.into_iter().enumerate().map(serve).collect();
        Self { addresses, writer, _tasks: tasks }
    }

    pub fn writer(&self) -> &'static str {
        NAMES[self.writer.load(Ordering::SeqCst)]
    }

    pub fn promote(&self, name: &str) {
        let number = NAMES.iter().position(|known| *known == name).unwrap();
        self.writer.store(number, Ordering::SeqCst);
    }

    pub fn address(&self, name: &str) -> SocketAddr {
        self.addresses[NAMES.iter().position(|known| *known == name).unwrap()]
    }
}

/// The address of a server.
pub fn ip_of(name: &str) -> Ipv4Addr {
    ip(NAMES.iter().position(|known| *known == name).unwrap())
}

fn ip(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, 11 + u8::try_from(number).unwrap())
}

/// One new session through the proxy.
pub async fn connect(dial: SocketAddr) -> Result<Reached, String> {
    let stream = TcpStream::connect(dial).await.map_err(|error| error.to_string())?;
    answer(stream).await
}

/// What the server says to a client that is connected to the proxy.
pub async fn answer(mut stream: TcpStream) -> Result<Reached, String> {
    let mut line = String::new();
    let read = timeout(PATIENCE, stream.read_to_string(&mut line)).await;
    read.map_err(|_| "no answer")?.map_err(|error| error.to_string())?;
    let (server, role) = line.split_once(' ').ok_or("closed without an answer")?;
    Ok(Reached { server: server.to_owned(), writer: role == "writer" })
}

/// So many clients, connected to the proxy and waiting for a server.
pub async fn waiting(
    dial: SocketAddr,
    count: usize,
) -> Vec<tokio::task::JoinHandle<Result<Reached, String>>> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let stream = TcpStream::connect(dial).await.unwrap();
        clients.push(tokio::spawn(answer(stream)));
    }
    clients
}
