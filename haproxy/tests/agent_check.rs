//! The agent-check server against peers that are many, slow, cut off or hostile.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use haproxy::agent_check::{Answer, Limits, serve};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
};

#[derive(Debug, Default)]
struct Echo {
    delivered: Mutex<Vec<(String, String)>>,
}

impl Answer for Echo {
    fn line(&self, key: &str) -> String {
        if key == "long/line" { format!("down #{}\n", "x".repeat(20 << 20)) } else { format!("up #{key}\n") }
    }

    fn delivered(&self, key: &str, line: &str) {
        self.delivered.lock().unwrap().push((key.to_owned(), line.to_owned()));
    }
}

struct Server {
    address: SocketAddr,
    echo: Arc<Echo>,
    task: AbortHandle,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn server(limits: Limits) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let echo = Arc::new(Echo::default());
    let task = tokio::spawn(serve(listener, echo.clone(), limits)).abort_handle();
    Server { address, echo, task }
}

/// The answer up to the end of the connection. A reset is an error.
async fn ask(address: SocketAddr, request: &[u8]) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// On a busy machine a peer may pause for longer than the usual grace.
fn patient() -> Limits {
    Limits { grace: Duration::from_secs(20), life: Duration::from_secs(60), ..Limits::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_checks_get_their_own_answers() {
    let server = server(patient()).await;
    let mut checks = JoinSet::new();
    for worker in 0..20 {
        let address = server.address;
        checks.spawn(async move {
            for check in 0..200 {
                let key = format!("orders/pg{}", worker * 1_000 + check);
                let answer = ask(address, format!("{key}\n").as_bytes()).await.unwrap();
                assert_eq!(answer, format!("up #{key}\n"));
            }
        });
    }
    while let Some(done) = checks.join_next().await {
        done.unwrap();
    }
    assert_eq!(server.echo.delivered.lock().unwrap().len(), 4_000);
}

#[tokio::test]
async fn an_answer_is_never_lost_to_a_reset() {
    let server = server(Limits::default()).await;
    for request in
        [&b"a/b\nmore than was asked for"[..], &[b'x'; 512], &[b'x'; 3_000], &[0; 3_000], b"\n\n\n"]
    {
        for _ in 0..50 {
            let answer = ask(server.address, request).await.unwrap();
            assert!(answer.starts_with("up #") && answer.ends_with('\n'), "{answer:?}");
        }
    }
}

#[tokio::test]
async fn an_empty_request_is_answered_after_the_grace() {
    let server = server(Limits::default()).await;
    let began = Instant::now();
    assert_eq!(ask(server.address, b"").await.unwrap(), "up #\n");
    assert!(began.elapsed() >= Limits::default().grace);
}

#[tokio::test]
async fn a_key_may_arrive_byte_by_byte() {
    let server = server(patient()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in b"orders/pg1\n" {
        stream.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "up #orders/pg1\n");
}

#[tokio::test]
async fn silent_peers_lose_their_permits_after_their_time() {
    let limits = Limits { connections: 8, life: Duration::from_millis(300), ..Limits::default() };
    let server = server(limits).await;
    let mut silent = Vec::new();
    for _ in 0..24 {
        silent.push(TcpStream::connect(server.address).await.unwrap());
    }
    let began = Instant::now();
    assert_eq!(ask(server.address, b"a/b\n").await.unwrap(), "up #a/b\n");
    // Three rounds of eight come first.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_peer_that_does_not_read_loses_its_permit_after_its_time() {
    let limits = Limits { connections: 1, life: Duration::from_millis(300), ..Limits::default() };
    let server = server(limits).await;
    let mut deaf = TcpStream::connect(server.address).await.unwrap();
    deaf.write_all(b"long/line\n").await.unwrap();
    let began = Instant::now();
    assert_eq!(ask(server.address, b"a/b\n").await.unwrap(), "up #a/b\n");
    assert!(began.elapsed() < Duration::from_secs(5));
    // What was not written whole was not delivered.
    let delivered = server.echo.delivered.lock().unwrap().clone();
    assert_eq!(delivered, [("a/b".to_owned(), "up #a/b\n".to_owned())]);
}

#[tokio::test]
async fn a_stopped_server_frees_its_port() {
    let server = server(Limits::default()).await;
    let address = server.address;
    ask(address, b"a/b\n").await.unwrap();
    drop(server);
    let deadline = Instant::now() + Duration::from_secs(5);
    while TcpStream::connect(address).await.is_ok() {
        assert!(Instant::now() < deadline, "still listening");
        tokio::task::yield_now().await;
    }
}
