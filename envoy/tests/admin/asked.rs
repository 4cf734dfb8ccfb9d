//! The interface, asked: over TCP, over a Unix socket, and where another program answers.

use envoy::admin::{Address, Admin, AdminError};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, UnixListener},
    task::JoinHandle,
};

use super::{CLUSTERS, CONFIG_DUMP, SERVER_INFO, STATS};

/// Answers one question as Envoy does.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut asked = Vec::new();
    while !asked.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        asked.push(byte);
    }
    let asked = String::from_utf8(asked).unwrap();
    let (status, body) = match asked.split(' ').nth(1).unwrap() {
        "/clusters?format=json" => (200, CLUSTERS),
        "/config_dump" => (200, CONFIG_DUMP),
        "/server_info" => (200, SERVER_INFO),
        "/stats?format=json&filter=%5Eaccess_logs" => (200, STATS),
        _ => (404, "no"),
    };
    let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.write_all(body.as_bytes()).await;
}

/// Dropped, it answers no more.
struct Server(JoinHandle<()>);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn all_questions(address: Address) {
    let admin = Admin::new(address).unwrap();
    assert_eq!(admin.server_info().await.unwrap().version, "1.40.0");
    assert_eq!(admin.clusters().await.unwrap().clusters.len(), 7);
    assert_eq!(admin.settings().await.unwrap().clusters.len(), 7);
    assert!(!admin.stats("^access_logs").await.unwrap().values.is_empty());
    let error = admin.stats("other").await.unwrap_err();
    assert!(matches!(&error, AdminError::Strange { what, .. } if what.contains("404")), "{error}");
}

#[tokio::test]
async fn it_answers_over_tcp() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = Address::Tcp(listener.local_addr().unwrap().to_string());
    let _server = Server(tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            answer(stream).await;
        }
    }));
    all_questions(address).await;
}

#[tokio::test]
async fn it_answers_over_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let _server = Server(tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            answer(stream).await;
        }
    }));
    all_questions(Address::Unix(path)).await;
}

#[tokio::test]
async fn errors_name_the_address_and_the_cause() {
    let folder = tempfile::tempdir().unwrap();
    let admin = Admin::new(Address::Unix(folder.path().join("admin.sock"))).unwrap();
    let error = admin.clusters().await.unwrap_err().to_string();
    assert!(error.contains("admin.sock") && error.contains("No such file"), "{error}");
}

#[tokio::test]
async fn an_answer_without_an_end_is_given_up() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = Address::Tcp(listener.local_addr().unwrap().to_string());
    let _server = Server(tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read_u8().await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while stream.write_all(&[b' '; 4_096]).await.is_ok() {}
    }));
    let error = Admin::new(address).unwrap().clusters().await.unwrap_err();
    assert!(matches!(error, AdminError::Strange { .. }), "{error}");
}
