//! What HAProxy sees of an agent: agent checks and HTTP health, answered from this test's memory.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use haproxy::agent_check::{Answer, Limits, serve};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
};
use tokio_util::task::AbortOnDropHandle;

/// `backend/server` → the line.
#[derive(Debug, Default)]
pub struct Lines(Mutex<HashMap<String, String>>);

impl Answer for Lines {
    fn line(&self, key: &str) -> String {
        let line = self.0.lock().unwrap().get(key).cloned();
        line.unwrap_or_else(|| "#unknown".to_owned()) + "\n"
    }

    fn delivered(&self, _key: &str, _line: &str) {}
}

/// Answers while [`start`](Self::start)ed; [`kill`](Self::kill) frees its ports.
pub struct Agent {
    pub checks: SocketAddr,
    pub http: SocketAddr,
    lines: Arc<Lines>,
    tasks: Vec<AbortOnDropHandle<()>>,
}

impl Agent {
    pub async fn start() -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut agent = Self { checks: any, http: any, lines: Arc::default(), tasks: Vec::new() };
        agent.start_again().await;
        agent
    }

    /// On the same ports, with what it said before.
    pub async fn start_again(&mut self) {
        let checks = TcpListener::bind(self.checks).await.unwrap();
        let http = TcpListener::bind(self.http).await.unwrap();
        (self.checks, self.http) = (checks.local_addr().unwrap(), http.local_addr().unwrap());
        let lines = self.lines.clone();
        self.tasks = [
            tokio::spawn(serve(checks, lines.clone(), Limits::default())),
            tokio::spawn(health(http, lines)),
        ]
        .map(AbortOnDropHandle::new)
        .into();
    }

    pub async fn kill(&mut self) {
        for task in self.tasks.drain(..) {
            task.abort();
            let _ = task.await;
        }
    }

    /// `up`, `down #reason`, `drain` and so on, from now on.
    pub fn say(&self, backend: &str, server: &str, line: &str) {
        self.lines.0.lock().unwrap().insert(format!("{backend}/{server}"), line.to_owned());
    }

    /// Of `a` and `b`, this one is the writer.
    pub fn writer_is(&self, writer: &str) {
        for server in ["a", "b"] {
            let lines = if server == writer { ["up", "down #writer"] } else { ["down #reader", "up"] };
            self.say("orders_write", server, lines[0]);
            self.say("orders_read", server, lines[1]);
        }
    }
}

/// `GET /orders/NAME/primary` and `/replica`: 200 where the agent check says `up`.
async fn health(listener: TcpListener, lines: Arc<Lines>) {
    while let Ok((stream, _)) = listener.accept().await {
        let lines = lines.clone();
        tokio::spawn(async move {
            let mut stream = BufReader::new(stream);
            let mut request = String::new();
            while stream.read_line(&mut request).await? > 2 {}
            let path = request.split(' ').nth(1).unwrap_or_default();
            let mut parts = path.trim_start_matches("/orders/").split('/');
            let (server, role) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            let backend = if role == "primary" { "orders_write" } else { "orders_read" };
            let status = if lines.line(&format!("{backend}/{server}")).starts_with("up") {
                "200 OK"
            } else {
                "503 Service Unavailable"
            };
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            stream.write_all(answer.as_bytes()).await
        });
    }
}
