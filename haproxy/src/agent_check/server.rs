//! Answers agent checks for all servers on one port, from memory.
//!
//! HAProxy opens a connection for each check and reads one line within `agent-inter`. It ignores
//! a later line, a reset and a refused connection. So the answer is written at once, with one write,
//! and then the connection is shut down in order.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};

use super::{Request, request::MAX_REQUEST};

#[derive(Copy, Clone, Debug)]
pub struct Limits {
    /// Open connections; more wait in the kernel's queue.
    pub connections: usize,
    /// A request without a newline is complete after this time without another byte: `add server`
    /// on HAProxy's command line cannot configure a newline.
    pub grace: Duration,
    /// The longest duration of a connection.
    pub life: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 512, grace: Duration::from_millis(50), life: Duration::from_secs(2) }
    }
}

pub trait Answer: Send + Sync + 'static {
    /// The line for a server, with its newline; a neutral one for an unknown key.
    fn line(&self, key: &str) -> String;

    /// The line was written completely to the proxy.
    fn delivered(&self, key: &str, line: &str);
}

/// The pause after a failed accept: the process may be out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until cancelled (dropped). Never fails: a failed accept is retried.
pub async fn serve<A: Answer>(listener: TcpListener, answer: Arc<A>, limits: Limits) {
    let permits = Arc::new(Semaphore::new(limits.connections));
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let answer = answer.clone();
                tokio::spawn(async move {
                    let _ = timeout(limits.life, converse(stream, &*answer, limits)).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "agent-check accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn converse<A: Answer>(mut stream: TcpStream, answer: &A, limits: Limits) -> io::Result<()> {
    let key = read_key(&mut stream, limits.grace).await?;
    let line = answer.line(&key);
    stream.write_all(line.as_bytes()).await?;
    // Before the shutdown, which fails if HAProxy has closed the connection already.
    answer.delivered(&key, &line);
    stream.shutdown().await?;
    // Closing with unread bytes would send a reset, which HAProxy may see before the line.
    let mut rest = [0_u8; 256];
    let mut left = 16;
    while left > 0 && stream.read(&mut rest).await? > 0 {
        left -= 1;
    }
    Ok(())
}

async fn read_key(stream: &mut TcpStream, grace: Duration) -> io::Result<String> {
    let mut buffer = [0_u8; MAX_REQUEST + 1];
    let mut filled = 0;
    loop {
        let free = buffer.get_mut(filled..).unwrap_or_default();
        let read = if free.is_empty() { Ok(Ok(0)) } else { timeout(grace, stream.read(free)).await };
        let silent = matches!(read, Ok(Ok(0)) | Err(_));
        if let Ok(read) = read {
            filled += read?;
        }
        match Request::parse(buffer.get(..filled).unwrap_or_default()) {
            Request::Complete(key) => return Ok(key),
            Request::Partial(key) if silent => return Ok(key),
            Request::Partial(_) => {}
            Request::Invalid => return Ok(String::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::net::TcpStream;

    use super::*;

    #[derive(Default)]
    struct Echo {
        delivered: Mutex<Vec<String>>,
    }

    impl Answer for Echo {
        fn line(&self, key: &str) -> String {
            format!("up #{key}\n")
        }
        fn delivered(&self, key: &str, _line: &str) {
            self.delivered.lock().unwrap().push(key.to_owned());
        }
    }

    async fn ask(request: &[u8], close: bool) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener, Arc::new(Echo::default()), Limits::default()));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request).await.unwrap();
        if close {
            stream.shutdown().await.unwrap();
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        server.abort();
        answer
    }

    #[tokio::test]
    async fn a_request_is_answered_with_or_without_a_newline() {
        assert_eq!(ask(b"orders/pg1\n", false).await, "up #orders/pg1\n");
        assert_eq!(ask(b"orders/pg1", false).await, "up #orders/pg1\n");
        assert_eq!(ask(b"orders/pg1", true).await, "up #orders/pg1\n");
        assert_eq!(ask(b"", true).await, "up #\n");
    }

    #[tokio::test]
    async fn an_invalid_request_is_answered_as_an_unknown_server() {
        assert_eq!(ask(&[b'x'; 513], false).await, "up #\n");
        assert_eq!(ask(b"\xff\xff\n", false).await, "up #\n");
    }

    #[tokio::test]
    async fn a_silent_peer_does_not_delay_others() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let echo = Arc::new(Echo::default());
        let limits = Limits { grace: Duration::from_secs(60), ..Limits::default() };
        let server = tokio::spawn(serve(listener, echo.clone(), limits));
        let _silent = TcpStream::connect(address).await.unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"a/b\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "up #a/b\n");
        assert_eq!(*echo.delivered.lock().unwrap(), ["a/b"]);
        server.abort();
    }
}
