//! The token socket.

use std::{
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::Path,
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use crate::Agent;

const DEADLINE: Duration = Duration::from_secs(30);

/// Status line with headers, and body.
fn ask(socket: &Path, path: &str) -> Option<(String, String)> {
    let mut stream = UnixStream::connect(socket).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: agent\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.to_owned(), body.to_owned()))
}

/// What the Python code of the documentation gets.
fn documented_client(socket: &Path) -> String {
    let page = include_str!("../../../docs/CLIENTS.md");
    let code = page.split("```python\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let code = format!("{code}\nprint(token('orders', 'app', '{}'), end='')", socket.display());
    let output = Command::new("python3").args(["-c", &code]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Asks until the status is as wanted.
fn until(socket: &Path, path: &str, status: &str) -> (String, String) {
    let began = Instant::now();
    loop {
        let answer = ask(socket, path);
        match answer {
            Some((head, body)) if head.starts_with(&format!("HTTP/1.1 {status} ")) => return (head, body),
            other => assert!(began.elapsed() < DEADLINE, "{path}: {other:?}"),
        }
        sleep(Duration::from_millis(50));
    }
}

#[test]
fn each_user_of_the_host_gets_its_own_tokens_and_no_others() {
    let own = rustix::process::getuid().as_raw();
    let tokens = |peer: u32| {
        format!(
            "token_socket:
  path: FOLDER/tokens.sock
  tokens:
    - {{database: orders, user: app, endpoint: 'orders.cluster-abc.eu-west-1.rds.amazonaws.com:5432', peers: ['{peer}']}}
    - {{database: orders, user: batch, endpoint: 'orders-a.abc.eu-west-1.rds.amazonaws.com:5432', peers: ['4294967294']}}
"
        )
    };
    let mut agent = Agent::start(&tokens(own), |command, _| {
        command.env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE").env("AWS_SECRET_ACCESS_KEY", "not-a-secret");
    });
    let socket = agent.folder.path().join("tokens.sock");

    let (head, token) = until(&socket, "/token/orders/app", "200");
    let start = "orders.cluster-abc.eu-west-1.rds.amazonaws.com:5432/?Action=connect&DBUser=app&";
    assert!(token.starts_with(start) && token.contains("X-Amz-Signature="), "{token}");
    let expires = head.lines().find_map(|line| line.strip_prefix("token-expires: ")).unwrap();
    assert!(expires.parse::<Timestamp>().unwrap() > Timestamp::now(), "{head}");
    assert!(head.contains("cache-control: no-store"), "{head}");
    assert_eq!(until(&socket, "/token/orders/app", "200").1, token, "the token is kept while it is good");

    assert_eq!(documented_client(&socket), token);

    let (_, refused) = until(&socket, "/token/orders/batch", "403");
    assert!(refused.contains("peers"), "{refused}");
    until(&socket, "/token/orders/root", "404");
    // Any user can ask: the kernel says who does.
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o666);

    // A reload gives another token, and keeps what is unchanged.
    let config = agent.folder.path().join("config.yaml");
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replace("peers: ['4294967294']", &format!("peers: ['{own}']"));
    std::fs::write(&config, &text).unwrap();
    until(&socket, "/token/orders/batch", "200");
    assert_eq!(until(&socket, "/token/orders/app", "200").1, token, "not signed anew");

    // A reload takes tokens back, and the socket stays open.
    std::fs::write(&config, text.replace(&format!("peers: ['{own}']"), "peers: ['4294967293']")).unwrap();
    until(&socket, "/token/orders/app", "403");
    assert!(agent.stop().success());
    assert!(!socket.exists());
}
