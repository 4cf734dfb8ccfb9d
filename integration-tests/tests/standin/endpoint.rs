//! The credentials endpoint, as an SDK sees it.

use std::{collections::HashMap, io, sync::Arc, time::Duration};

use integration_tests::{
    process::wait_for,
    standin::{Behaviour, CredentialsServer, credential::Issuer},
};
use jiff::Timestamp;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::PATIENCE;

fn endpoint(life: Duration, renew_before: Duration) -> CredentialsServer {
    CredentialsServer::start(Arc::new(Issuer::new(life, renew_before))).unwrap()
}

/// Asks as an SDK does; gives the status and the body.
async fn ask_with(server: &CredentialsServer, authorization: &str) -> io::Result<(u16, String)> {
    let environment: HashMap<_, _> = server.environment().into_iter().collect();
    let uri = &environment["AWS_CONTAINER_CREDENTIALS_FULL_URI"];
    let (host, path) = uri.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = TcpStream::connect(host).await?;
    let request = format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {authorization}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    // To the end of the stream: the server closes it.
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    Ok((head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned()))
}

async fn ask(server: &CredentialsServer) -> io::Result<(u16, String)> {
    let environment: HashMap<_, _> = server.environment().into_iter().collect();
    ask_with(server, &environment["AWS_CONTAINER_AUTHORIZATION_TOKEN"]).await
}

async fn served(server: &CredentialsServer) -> HashMap<String, String> {
    let (status, body) = ask(server).await.unwrap();
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

#[tokio::test]
async fn credentials_are_served_to_authorized_clients() {
    let server = endpoint(Duration::from_hours(6), Duration::from_hours(1));
    let body = served(&server).await;
    let issued = server.issuer().current(Timestamp::now());
    assert_eq!(body["AccessKeyId"], issued.access_key);
    assert_eq!(body["SecretAccessKey"], issued.secret_key);
    assert_eq!(body["Token"], issued.session_token);
    let expiration: Timestamp = body["Expiration"].parse().unwrap();
    assert!(expiration <= issued.expires_at, "an SDK must not believe in them for longer");
    assert!(issued.expires_at.duration_since(expiration).as_secs() < 1);

    assert_eq!(ask_with(&server, "something else").await.unwrap().0, 401);
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn it_serves_new_credentials_near_the_end_and_after_a_revocation() {
    let server = endpoint(Duration::from_secs(3), Duration::from_secs(2));
    let first = served(&server).await;
    let rotated = wait_for("new credentials", PATIENCE, || async {
        Some(served(&server).await).filter(|served| *served != first).ok_or("the old ones")
    })
    .await
    .unwrap();
    server.issuer().revoke(&rotated["AccessKeyId"]);
    assert_ne!(served(&server).await["AccessKeyId"], rotated["AccessKeyId"]);
}

#[tokio::test]
async fn it_fails_as_configured() {
    let server = endpoint(Duration::from_hours(6), Duration::from_hours(1));

    server.behave(Behaviour::Failing);
    assert_eq!(ask(&server).await.unwrap().0, 500);

    server.behave(Behaviour::Silent);
    let before = server.requests();
    let mut asking = std::pin::pin!(ask(&server));
    tokio::time::timeout(Duration::from_millis(200), &mut asking).await.unwrap_err();
    assert_eq!(server.requests(), before + 1, "it heard");
    server.behave(Behaviour::Serving);
    assert_eq!(asking.await.unwrap().0, 200);

    for _round in 0..3 {
        server.behave(Behaviour::Refusing);
        wait_for("connections to be refused", PATIENCE, || async {
            match ask(&server).await {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await
        .unwrap();
        server.behave(Behaviour::Serving);
        wait_for("connections to be taken", PATIENCE, || async { ask(&server).await }).await.unwrap();
    }
}
