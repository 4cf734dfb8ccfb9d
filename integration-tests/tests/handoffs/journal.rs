//! What the agent reports of failed sessions.

use std::io;

use integration_tests::{
    mysql::{Dial, Secret},
    process::wait_for,
    scene::{PATIENCE, Scene},
    standin::Engine,
};
use serde_json::Value;
use tokio::{io::AsyncReadExt, net::TcpStream};

/// Waits until the agent receives HAProxy's log: HAProxy routes before that.
pub async fn received(scene: &Scene) {
    wait_for("the log to be received", PATIENCE, async || {
        let received = scene.agent.log().contains("the log of HAProxy is received");
        if received { Ok(()) } else { Err(scene.agent.log()) }
    })
    .await
    .unwrap();
}

/// `GET /handoffs`.
pub async fn journal(scene: &Scene) -> Value {
    let (status, body) = scene.agent.get("/handoffs?since=3600").await.unwrap();
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// Waits for a failed session in this phase; its row.
pub async fn row(scene: &Scene, phase: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let what = format!("a session that failed as {phase}");
    let found = wait_for(&what, PATIENCE, async || {
        let journal = journal(scene).await;
        let rows = journal["last"].as_array().unwrap();
        let row = rows.iter().find(|row| row["phase"] == phase && fits(row)).cloned();
        row.ok_or_else(|| journal.to_string())
    });
    found
        .await
        .unwrap_or_else(|error| panic!("{error}\n{}\n{:?}", scene.agent.log(), scene.proxy.logged().lines()))
}

/// The line of HAProxy's log for this client, for the documentation.
pub fn line(scene: &Scene, row: &Value) -> String {
    let source = row["source"].as_str().unwrap();
    let (ip, port) = source.rsplit_once(':').unwrap_or((source, ""));
    let lines = scene.proxy.logged().lines();
    let of = |line: &&String| {
        line.contains(&format!("ci={ip} cp={port} ")) || line.contains(&format!("{source} ["))
    };
    lines.iter().find(of).cloned().unwrap_or_default()
}

/// A client that is closed without a byte; its own address.
pub async fn lost_client(scene: &Scene) -> String {
    let mut client = TcpStream::connect(scene.proxy.address("write")).await.unwrap();
    let own = client.local_addr().unwrap().to_string();
    match client.read(&mut [0; 16]).await {
        Ok(0) => {}
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
        other => panic!("{other:?}"),
    }
    own
}

/// A client whose login is refused.
pub async fn refused_client(scene: &Scene) {
    let to = scene.proxy.address("write");
    match scene.standin.engine() {
        Engine::Postgresql => {
            let mut config = tokio_postgres::Config::new();
            let endpoint = scene.standin.server("a").unwrap().endpoint().to_owned();
            config.host(endpoint).hostaddr(to.ip()).port(to.port()).user("app").password("an-expired-token");
            config.ssl_mode(tokio_postgres::config::SslMode::Require);
            assert!(config.connect(scene.standin.tls().unwrap()).await.is_err());
        }
        Engine::Mariadb => {
            let mut login = scene.standin.mysql_login("a", "app").unwrap();
            (login.dial, login.secret) = (Dial::Tcp(to), Secret::Token("an-expired-token".into()));
            assert!(login.connect().await.is_err());
        }
    }
}
