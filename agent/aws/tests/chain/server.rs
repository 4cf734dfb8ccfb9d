//! A small HTTP server that answers as a test tells it to.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

pub struct Request {
    /// Method and path, without the query.
    pub path: String,
    headers: Vec<(String, String)>,
    pub body: String,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(held, _)| held == name).map(|(_, value)| value.as_str())
    }
}

pub enum Reply {
    Says {
        status: u16,
        headers: Vec<(&'static str, &'static str)>,
        body: String,
    },
    /// Nothing, with the connection open.
    Silence,
}

impl Reply {
    pub fn json(body: String) -> Self {
        Self::Says { status: 200, headers: vec![("content-type", "application/json")], body }
    }

    pub fn xml(body: String) -> Self {
        Self::Says { status: 200, headers: vec![("content-type", "text/xml")], body }
    }

    pub fn text(body: &str) -> Self {
        Self::Says { status: 200, headers: vec![("content-type", "text/plain")], body: body.to_owned() }
    }

    pub fn status(status: u16) -> Self {
        Self::Says { status, headers: vec![], body: String::new() }
    }

    pub fn with(mut self, name: &'static str, value: &'static str) -> Self {
        if let Self::Says { headers, .. } = &mut self {
            headers.push((name, value));
        }
        self
    }
}

/// Listens until dropped.
pub struct Server {
    address: SocketAddr,
    paths: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(reply: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let address = listener.local_addr().expect("address");
        let (paths, stop) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<AtomicBool>::default());
        let thread = std::thread::spawn({
            let (paths, stop) = (paths.clone(), stop.clone());
            move || {
                // Connections that are never answered stay open until the end.
                let mut silent = Vec::new();
                for stream in listener.incoming().map_while(Result::ok) {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    if let Some((stream, request)) = read(stream) {
                        paths.lock().expect("lock").push(request.path.clone());
                        match reply(&request) {
                            Reply::Says { status, headers, body } => answer(stream, status, &headers, &body),
                            Reply::Silence => silent.push(stream),
                        }
                    }
                }
            }
        });
        Self { address, paths, stop, thread: Some(thread) }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What has been asked so far.
    pub fn paths(&self) -> Vec<String> {
        self.paths.lock().expect("lock").clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the thread, which may have ended in a test's own assertion.
        drop(TcpStream::connect(self.address));
        let ended = self.thread.take().expect("thread").join();
        assert!(ended.is_ok() || std::thread::panicking(), "the server's test of a request failed");
    }
}

fn read(stream: TcpStream) -> Option<(TcpStream, Request)> {
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?);
    let path = format!("{method} {}", path.split('?').next()?);
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let mut body = vec![0; length.map_or(0, |(_, value)| value.parse().expect("a length"))];
    reader.read_exact(&mut body).ok()?;
    Some((reader.into_inner(), Request { path, headers, body: String::from_utf8(body).ok()? }))
}

fn answer(mut stream: TcpStream, status: u16, headers: &[(&str, &str)], body: &str) {
    let headers: String = headers.iter().flat_map(|(name, value)| [name, ": ", value, "\r\n"]).collect();
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status} Status\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n");
    // A client that has gone away is its own affair.
    let _ = stream.write_all((head + body).as_bytes());
}
