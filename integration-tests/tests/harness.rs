//! The harness itself, on every HAProxy that the tests use: what other tests take for granted.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use integration_tests::{
    haproxy::{Backend, Haproxy, HaproxyBinary, HaproxyConfig, Level, Server, ask},
    process::{Signal, send_signal, wait_for},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

const PATIENCE: Duration = Duration::from_secs(10);

/// Gives back what it gets, after its own name and a newline.
async fn echo(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                stream.write_all(format!("{name}\n").as_bytes()).await?;
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    address
}

/// An agent that answers each `backend/server` with a configured line.
#[derive(Clone, Default)]
struct Agent {
    lines: Arc<Mutex<BTreeMap<String, &'static str>>>,
    asked: Arc<Mutex<BTreeMap<String, u32>>>,
}

impl Agent {
    async fn listen(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let agent = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let agent = agent.clone();
                tokio::spawn(async move {
                    let mut stream = BufReader::new(stream);
                    let mut key = String::new();
                    stream.read_line(&mut key).await?;
                    let key = key.trim_end().to_owned();
                    let line = agent.lines.lock().unwrap().get(&key).copied().unwrap_or("#unknown");
                    *agent.asked.lock().unwrap().entry(key).or_default() += 1;
                    stream.write_all(format!("{line}\n").as_bytes()).await
                });
            }
        });
        address
    }

    fn say(&self, key: &str, line: &'static str) {
        self.lines.lock().unwrap().insert(key.to_owned(), line);
    }

    /// Waits until `key` has been asked for and answered `rounds` more times.
    async fn asked_again(&self, key: &str, rounds: u32) {
        let count = || self.asked.lock().unwrap().get(key).copied().unwrap_or(0);
        let enough = count() + rounds;
        wait_for("checks", PATIENCE, async || if count() >= enough { Ok(()) } else { Err(count()) })
            .await
            .unwrap();
    }
}

/// Connects, and reads which server answers.
async fn connect(address: SocketAddr) -> io::Result<(BufReader<TcpStream>, String)> {
    let mut stream = BufReader::new(TcpStream::connect(address).await?);
    let mut name = String::new();
    stream.read_line(&mut name).await?;
    Ok((stream, name.trim_end().to_owned()))
}

async fn says_back(stream: &mut BufReader<TcpStream>, word: &str) {
    stream.write_all(word.as_bytes()).await.unwrap();
    let mut back = vec![0; word.len()];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(back, word.as_bytes());
}

fn one_server(server: Server) -> HaproxyConfig {
    HaproxyConfig::new().frontend("in", "out").backend(Backend::new("out").server(server))
}

#[tokio::test]
async fn it_is_the_version_it_says() {
    let versions: Vec<_> = HaproxyBinary::all().unwrap().iter().map(|b| b.version().clone()).collect();
    assert_eq!((versions[1].major, versions[1].minor), (2, 8));
    for binary in HaproxyBinary::all().unwrap() {
        let haproxy = Haproxy::start(&binary, HaproxyConfig::new()).await.unwrap();
        let info = haproxy.cli("show info").await.unwrap();
        assert!(info.contains(&format!("Version: {}", haproxy.version())), "{info}");
    }
}

#[tokio::test]
async fn it_serves_logs_and_leaves_nothing_behind() {
    for binary in HaproxyBinary::all().unwrap() {
        let config = one_server(Server::new("a", echo("a").await))
            .tcp_stats()
            .stats_socket("watcher", Level::Operator);
        let haproxy = Haproxy::start(&binary, config).await.unwrap();

        let (mut session, server) = connect(haproxy.address("in")).await.unwrap();
        assert_eq!(server, "a");
        says_back(&mut session, "hello").await;
        assert!(haproxy.cli("show sess").await.unwrap().contains("be=out"));
        let denied = ask(&haproxy.socket("watcher"), "shutdown sessions server out/a").await.unwrap();
        assert!(denied.to_lowercase().contains("permission denied"), "{denied}");
        let mut stats = TcpStream::connect(haproxy.tcp_stats().unwrap()).await.unwrap();
        stats.write_all(b"show info\n").await.unwrap();
        let mut info = String::new();
        stats.read_to_string(&mut info).await.unwrap();
        assert!(info.contains("Name: HAProxy"), "{info}");

        drop(session);
        let line = haproxy.logged().line("of the session", PATIENCE, |line| line.contains("out/a")).await;
        assert!(line.unwrap().contains(" in out/a "));

        let (config_file, address) = (haproxy.config_file(), haproxy.address("in"));
        drop(haproxy);
        assert!(!config_file.exists());
        wait_for("its port to be free", PATIENCE, async || match TcpStream::connect(address).await {
            Ok(_) => Err("it still accepts"),
            Err(_) => Ok(()),
        })
        .await
        .unwrap();
    }
}

#[tokio::test]
async fn a_reload_keeps_an_old_session_in_the_old_worker() {
    for binary in HaproxyBinary::all().unwrap() {
        let config = one_server(Server::new("a", echo("a").await));
        let mut haproxy = Haproxy::start(&binary, config).await.unwrap();
        let (before, none) = haproxy.workers().await.unwrap();
        assert!(none.is_empty());
        let (mut session, _) = connect(haproxy.address("in")).await.unwrap();

        haproxy.reload().await.unwrap();
        let (present, old) = haproxy.workers().await.unwrap();
        assert_eq!(old, before);
        assert!(!present.contains(&before[0]));
        says_back(&mut session, "still here").await;
        let (mut new, _) = connect(haproxy.address("in")).await.unwrap();
        says_back(&mut new, "and here").await;
        let sessions = haproxy.master_cli(&format!("@!{} show sess", before[0])).await.unwrap();
        assert!(sessions.contains("be=out"), "{sessions}");

        drop(session);
        wait_for("the old worker to end", PATIENCE, async || {
            let (_, old) = haproxy.workers().await.map_err(|error| error.to_string())?;
            if old.is_empty() { Ok(()) } else { Err(format!("{old:?}")) }
        })
        .await
        .unwrap();
    }
}

#[tokio::test]
async fn agent_checks_drain_and_bring_back() {
    const FORCED_DRAIN: u8 = 0x08;
    for binary in HaproxyBinary::all().unwrap() {
        let agent = Agent::default();
        let port = agent.listen().await;
        let every = Duration::from_millis(50);
        let backend = Backend::new("out")
            .server(Server::new("a", echo("a").await).agent_check(port, every))
            .server(Server::new("b", echo("b").await).agent_check(port, every).backup());
        let config = HaproxyConfig::new().frontend("in", "out").backend(backend);
        let haproxy = Haproxy::start(&binary, config).await.unwrap();
        agent.say("out/a", "up");
        agent.say("out/b", "up");
        let bits = async |want: u8| {
            let reached = wait_for("admin bits", PATIENCE, async || {
                let bits = haproxy.admin_bits("out", "a").await.map_err(|error| error.to_string())?;
                if bits == want { Ok(()) } else { Err(format!("{bits:#x}")) }
            });
            reached.await.unwrap();
        };
        let goes_to = async || connect(haproxy.address("in")).await.unwrap().1;

        let (mut session, server) = connect(haproxy.address("in")).await.unwrap();
        assert_eq!(server, "a");
        agent.say("out/a", "drain");
        bits(FORCED_DRAIN).await;
        assert_eq!(goes_to().await, "b");
        says_back(&mut session, "a drain leaves sessions alone").await;

        // Only `ready` ends a drain; `up` does not.
        agent.say("out/a", "up");
        agent.asked_again("out/a", 3).await;
        bits(FORCED_DRAIN).await;
        agent.say("out/a", "up ready");
        bits(0).await;
        assert_eq!(goes_to().await, "a");

        // An operator's setting stays under a steady `up`, and under an answer that is not a word.
        haproxy.cli("set server out/a state drain").await.unwrap();
        agent.say("out/a", "up");
        agent.asked_again("out/a", 3).await;
        agent.say("out/a", "#neutral");
        agent.asked_again("out/a", 3).await;
        bits(FORCED_DRAIN).await;
        haproxy.cli("set server out/a state ready").await.unwrap();
        bits(0).await;

        agent.say("out/a", "down #ill");
        haproxy.logged().line("a is down", PATIENCE, |line| line.contains("out/a is DOWN")).await.unwrap();
        assert_eq!(haproxy.operational_state("out", "a").await.unwrap(), 0);
        assert_eq!(goes_to().await, "b");
    }
}

#[tokio::test]
async fn server_states_outlive_a_reload_by_their_file() {
    for binary in HaproxyBinary::all().unwrap() {
        let config = one_server(Server::new("a", echo("a").await)).server_state_file();
        let mut haproxy = Haproxy::start(&binary, config).await.unwrap();
        haproxy.cli("set server out/a state maint").await.unwrap();
        haproxy.save_server_state().await.unwrap();
        haproxy.reload().await.unwrap();
        assert_eq!(haproxy.admin_bits("out", "a").await.unwrap() & 0x01, 0x01);
    }
}

#[tokio::test]
async fn its_workers_die_with_a_killed_master_and_it_starts_again_on_its_ports() {
    for binary in HaproxyBinary::all().unwrap() {
        let config = one_server(Server::new("a", echo("a").await).closes_when_down());
        let mut haproxy = Haproxy::start(&binary, config).await.unwrap();
        let (mut session, _) = connect(haproxy.address("in")).await.unwrap();

        // As the kernel does when the test process dies: the master alone is killed.
        send_signal(haproxy.pid(), Signal::KILL).unwrap();
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(PATIENCE, session.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "the worker outlived its master");

        haproxy.kill();
        haproxy.start_again().await.unwrap();
        assert_eq!(connect(haproxy.address("in")).await.unwrap().1, "a");

        // Maintenance closes sessions of a server that says so.
        let (mut session, _) = connect(haproxy.address("in")).await.unwrap();
        haproxy.cli("set server out/a state maint").await.unwrap();
        let closed = tokio::time::timeout(PATIENCE, session.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "maintenance left the session");
        haproxy.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_wrong_configuration_gives_haproxys_message() {
    let config = HaproxyConfig::new().global_line("no-such-keyword");
    let refused = Haproxy::start(&HaproxyBinary::debian().unwrap(), config).await.unwrap_err();
    assert!(refused.to_string().contains("no-such-keyword"), "{refused}");
}
