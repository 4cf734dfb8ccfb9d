//! The runtime API client against peers that are slow, truncated, hostile, or not HAProxy.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use haproxy::{
    Address,
    runtime::{
        Check, Connection, Info, Limits, Operational, RuntimeError, ServerState, Stat, ask_once,
        state_file::{self, FirstState},
    },
    sweep::{Worker, sweep, sweep_worker, workers},
};
use proptest::prelude::*;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
};

const DUMP: &str = include_str!("data/2.8-show-sess-all.txt");

/// A peer on a Unix socket in a temporary folder.
struct Peer {
    address: Address,
    _folder: TempDir,
}

impl Peer {
    /// The script answers each connection.
    fn new<F: Future<Output = std::io::Result<()>> + Send>(
        script: impl Fn(BufReader<UnixStream>) -> F + Clone + Send + Sync + 'static,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peer.sock");
        let listener = UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let script = script.clone();
                tokio::spawn(async move { script(BufReader::new(stream)).await });
            }
        });
        Self { address: Address::Unix(path), _folder: folder }
    }

    /// Answers `prompt` as HAProxy does, and each command with these bytes.
    fn in_prompt(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::new(move |mut stream| {
            let answer = answer.clone();
            async move {
                let mut line = String::new();
                while stream.read_line(&mut line).await? > 0 {
                    let answer = if line == "prompt\n" { b"\n> " } else { &answer[..] };
                    stream.write_all(answer).await?;
                    line.clear();
                }
                Ok(())
            }
        })
    }

    /// Answers one command with these bytes, and closes.
    fn once(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::new(move |mut stream| {
            let answer = answer.clone();
            async move {
                stream.read_line(&mut String::new()).await?;
                stream.write_all(&answer).await
            }
        })
    }
}

fn brief() -> Limits {
    Limits { time: Duration::from_millis(400), size: 64 << 10 }
}

const WORKER: Worker = Worker { pid: 7, old: false };

// === a persistent connection ===

#[tokio::test]
async fn an_answer_may_arrive_in_pieces() {
    let peer = Peer::new(async |mut stream| {
        let mut line = String::new();
        while stream.read_line(&mut line).await? > 0 {
            let answer = if line == "prompt\n" { "\n> " } else { "first\n> not the end\n\n> " };
            for byte in answer.bytes() {
                stream.write_all(&[byte]).await?;
                tokio::task::yield_now().await;
            }
            line.clear();
        }
        Ok(())
    });
    let mut connection = Connection::open(&peer.address, brief()).await.unwrap();
    for _ in 0..3 {
        assert_eq!(connection.ask("show version").await.unwrap(), "first\n> not the end\n");
    }
}

#[tokio::test]
async fn a_silent_peer_is_an_error_and_ends_the_connection() {
    let peer = Peer::in_prompt("half an answer\n");
    let mut connection = Connection::open(&peer.address, brief()).await.unwrap();
    let began = Instant::now();
    let late = connection.ask("show info").await.unwrap_err();
    assert!(matches!(late, RuntimeError::TimedOut { .. }), "{late}");
    assert!(began.elapsed() < Duration::from_secs(2));
    assert!(!connection.is_usable());
    // Its answer may still come: it must not be taken for the next command's.
    let refused = connection.ask("show stat").await.unwrap_err();
    assert!(matches!(refused, RuntimeError::Broken { .. }), "{refused}");
}

#[tokio::test]
async fn a_dropped_command_ends_the_connection() {
    let peer = Peer::in_prompt("");
    let mut connection = Connection::open(&peer.address, Limits::default()).await.unwrap();
    let given_up = tokio::time::timeout(Duration::from_millis(50), connection.ask("show info")).await;
    assert!(given_up.is_err());
    assert!(!connection.is_usable());
    assert!(connection.ask("show info").await.is_err());
}

#[tokio::test]
async fn an_endless_answer_is_an_error() {
    let peer = Peer::new(async |mut stream| {
        stream.read_line(&mut String::new()).await?;
        loop {
            stream.write_all(&[b'x'; 4096]).await?;
        }
    });
    let limits = Limits { time: Duration::from_secs(30), ..brief() };
    let error = Connection::open(&peer.address, limits).await.unwrap_err();
    assert!(matches!(error, RuntimeError::TooLong { .. }), "{error}");
    let error = ask_once(&peer.address, "show info", limits).await.unwrap_err();
    assert!(matches!(error, RuntimeError::TooLong { .. }), "{error}");
    let error = sweep(&peer.address, WORKER, limits).await.unwrap_err();
    assert!(matches!(error, RuntimeError::TooLong { .. }), "{error}");
}

#[tokio::test]
async fn another_program_is_an_error_with_its_first_words() {
    let peer = Peer::once("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
    let error = Connection::open(&peer.address, brief()).await.unwrap_err();
    assert!(matches!(error, RuntimeError::Garbage { .. }), "{error}");
    assert!(error.to_string().contains("HTTP/1.1 400"), "{error}");

    let peer = Peer::in_prompt("+OK\n\n> ");
    let mut connection = Connection::open(&peer.address, brief()).await.unwrap();
    for error in [
        connection.info().await.map(drop).unwrap_err(),
        connection.stat().await.map(drop).unwrap_err(),
        connection.servers_state(None).await.map(drop).unwrap_err(),
    ] {
        assert!(matches!(error, RuntimeError::Garbage { .. }), "{error}");
    }
}

#[tokio::test]
async fn descriptions_may_have_any_encoding() {
    let answer = b"# pxname,svname,scur,status,desc\norders,pg1,3,UP,caf\xe9\n\n> ";
    let peer = Peer::in_prompt(&answer[..]);
    let mut connection = Connection::open(&peer.address, brief()).await.unwrap();
    assert_eq!(connection.stat().await.unwrap()[0].sessions, 3);
}

// === one command, one connection ===

#[tokio::test]
async fn a_truncated_dump_is_an_error() {
    assert_eq!(sweep(&Peer::once(DUMP).address, WORKER, brief()).await.unwrap().sessions.len(), 1);
    for cut in (1..DUMP.len()).step_by(31).chain([DUMP.len() - 1]) {
        let error = sweep(&Peer::once(&DUMP[..cut]).address, WORKER, brief()).await.unwrap_err();
        assert!(matches!(error, RuntimeError::Broken { .. }), "{cut}: {error}");
    }
}

#[tokio::test]
async fn another_answer_than_a_dump_is_an_error() {
    for (answer, denied) in [("Permission denied\n\n", true), ("\n", false), ("hello\n\n", false)] {
        let error = sweep(&Peer::once(answer).address, WORKER, brief()).await.unwrap_err();
        assert_eq!(matches!(error, RuntimeError::Denied { .. }), denied, "{error}");
    }
}

/// The master socket of 2.8 does not always close after this one.
#[tokio::test]
async fn a_worker_that_is_gone_is_an_error_at_once() {
    let peer = Peer::new(async |mut stream| {
        stream.read_line(&mut String::new()).await?;
        stream.write_all(b"Can't find the target PID matching the prefix '@!7'\n").await?;
        std::future::pending().await
    });
    let limits = Limits { time: Duration::from_secs(30), ..brief() };
    let began = Instant::now();
    let error = sweep_worker(&peer.address, WORKER, limits).await.unwrap_err();
    assert!(matches!(error, RuntimeError::Refused { .. }), "{error}");
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn only_the_master_socket_lists_workers() {
    let error = workers(&Peer::once("Unknown command: 'show proc'\n\n").address, brief()).await.unwrap_err();
    assert!(matches!(error, RuntimeError::Refused { .. }), "{error}");
    let error = workers(&Peer::once("# workers\n\n").address, brief()).await.unwrap_err();
    assert!(matches!(error, RuntimeError::Garbage { .. }), "{error}");
}

// === answers ===

const STATES: [(&str, &str); 2] = [
    ("2.6", include_str!("data/2.6-servers-state.txt")),
    ("2.8", include_str!("data/2.8-servers-state.txt")),
];
const STATE: &str = STATES[0].1;

fn states(answer: &str) -> HashMap<String, ServerState> {
    let states = ServerState::parse(answer).unwrap();
    states.into_iter().map(|state| (state.server.clone(), state)).collect()
}

#[test]
fn each_server_is_shown_with_what_stops_its_new_sessions() {
    use Operational::{Running, Stopped};
    // How the server came to its state; operational state, admin bits, weight, new sessions.
    let expected = [
        ("up", Running, 0x00, 100, true),
        ("down", Stopped, 0x00, 100, false),
        ("agent_drain", Running, 0x08, 100, false),
        ("agent_maint", Stopped, 0x01, 100, false),
        ("agent_zero", Running, 0x00, 0, false),
        ("cli_drain", Running, 0x08, 100, false),
        ("cli_maint", Stopped, 0x01, 100, false),
        ("cli_zero", Running, 0x00, 0, false),
        ("cli_agent_off", Running, 0x00, 100, true),
        ("half", Running, 0x00, 25, true),
        ("file_zero", Running, 0x00, 0, false),
        ("file_disabled", Stopped, 0x05, 100, false),
        ("down_off", Stopped, 0x00, 100, false),
        ("name_unresolved", Stopped, 0x20, 10, false),
        ("unix", Running, 0x00, 10, true),
        ("checked", Stopped, 0x00, 10, false),
        ("tracks", Stopped, 0x00, 10, false),
        ("wait", Running, 0x00, 10, true),
    ];
    for (version, answer) in STATES {
        let states = states(answer);
        for (server, operational, admin, weight, takes) in expected {
            let state = &states[server];
            let shown = (state.operational, state.admin, state.weight, state.takes_new_sessions());
            assert_eq!(shown, (operational, admin, weight, takes), "{version}: {server}");
        }
        assert_eq!((states["half"].weight, states["half"].initial_weight), (25, 50), "{version}");
        assert_eq!((states["cli_zero"].initial_weight, states["file_zero"].initial_weight), (100, 0));
    }
}

#[test]
fn addresses_are_those_that_haproxy_connects_to() {
    for (version, answer) in STATES {
        let states = states(answer);
        let address = |server: &str| states[server].socket_address().map(|address| address.to_string());
        assert_eq!(address("up").as_deref(), Some("127.0.0.1:5432"), "{version}");
        assert_eq!(address("v6").as_deref(), Some("[2001:db8::1]:5432"), "{version}");
        assert_eq!(address("moved").as_deref(), Some("127.0.0.2:6000"), "{version}: `set server addr`");
        for server in ["unix", "abns", "name_unresolved"] {
            assert_eq!(address(server), None, "{version}: {server}");
        }
        assert_eq!(states["name_unresolved"].fqdn.as_deref(), Some("db.example.invalid"), "{version}");
        assert_eq!(states["up"].fqdn, None, "{version}");
    }
}

#[test]
fn disabled_checks_are_distinguished_from_missing_ones() {
    for (version, answer) in STATES {
        let states = states(answer);
        for (server, check, agent) in [
            ("up", Check::Absent, Check::Enabled),
            ("cli_agent_off", Check::Absent, Check::Disabled),
            ("checked", Check::Enabled, Check::Absent),
            ("checked_off", Check::Disabled, Check::Absent),
            ("wait", Check::Absent, Check::Absent),
            ("file_disabled", Check::Absent, Check::Enabled),
        ] {
            assert_eq!((states[server].check, states[server].agent), (check, agent), "{version}: {server}");
        }
    }
}

#[test]
fn columns_are_found_by_name() {
    let moved = "1\n# srv_admin_state be_name srv_name srv_port srv_addr srv_uweight novel srv_op_state \
        srv_iweight srv_check_state srv_agent_state srv_fqdn\n8 be s1 5432 10.0.0.1 1 ? 2 1 0 0 -\n";
    let state = &ServerState::parse(moved).unwrap()[0];
    assert!(state.forced_drain() && !state.forced_maint() && !state.other_admin());
}

/// An admin bit or a state of a later version stops new sessions as far as is known.
#[test]
fn unknown_states_and_flags_are_not_taken_for_clear() {
    let line = "2 orders 1 up 127.0.0.1 2 0 ";
    for unknown in ["2 orders 1 up 127.0.0.1 2 512 ", "2 orders 1 up 127.0.0.1 9 0 "] {
        let state = &ServerState::parse(&STATE.replace(line, unknown)).unwrap()[0];
        assert!(!state.takes_new_sessions(), "{unknown}");
    }
}

// === the server state file ===

#[test]
fn a_state_file_is_the_answer_without_the_agents_own_drains() {
    for (version, answer) in STATES {
        let file = state_file::render(answer, |_, server| server == "agent_drain").unwrap();
        let (before, after) = (states(answer), states(&file));
        for (server, state) in &before {
            let mut expected = state.clone();
            if server == "agent_drain" {
                expected.admin = 0;
            }
            assert_eq!(after[server], expected, "{version}: {server}");
        }
        assert_eq!(before["cli_drain"].admin, 8, "{version}: an operator's drain stays");
        // The columns that are not read here are those of the answer.
        let untouched = |text: &str| -> Vec<String> {
            text.lines().map(|line| line.split(' ').skip(15).collect::<Vec<_>>().join(" ")).collect()
        };
        assert_eq!(untouched(&file), untouched(answer.trim_end()), "{version}");
    }
}

#[test]
fn a_drain_of_the_agents_that_an_operator_put_into_maintenance_leaves_the_maintenance() {
    let both = STATE.replace("agent_drain 127.0.0.1 2 8 ", "agent_drain 127.0.0.1 0 9 ");
    let file = state_file::render(&both, |_, server| server == "agent_drain").unwrap();
    assert_eq!(states(&file)["agent_drain"].admin, 1);
}

#[test]
fn a_state_file_changes_only_with_the_states() {
    let later = STATE.replace(" 100 100 1 1 0 2 0 22 ", " 100 100 77 1 0 2 0 23 ");
    assert_ne!(later, STATE);
    let none = |_: &str, _: &str| false;
    assert_eq!(state_file::render(&later, none), state_file::render(STATE, none));
}

#[test]
fn a_first_file_has_every_server_down_and_its_port() {
    let first = |server: &str| FirstState { backend: "orders".into(), server: server.into(), port: 5432 };
    let file = state_file::all_down(&[first("a"), first("b")]);
    for state in states(&file).values() {
        assert_eq!((state.operational, state.admin, state.port), (Operational::Stopped, 0, 5432));
    }
    assert_eq!(states(&file).len(), 2);
}

// === other formats ===

#[test]
fn other_formats_are_errors() {
    for wrong in ["", "2\n# be_name\n", "1\n", &STATE.replace("srv_admin_state", "srv_flags")] {
        assert!(ServerState::parse(wrong).is_err(), "{wrong}");
        assert!(state_file::render(wrong, |_, _| true).is_err(), "{wrong}");
    }
    let short = STATE.replace("2 0 100 100 1 1 0 2 0 22 0 0 - 5432 ", "2 0 ");
    assert!(ServerState::parse(&short).unwrap_err().contains("orders 1 up"));
    assert!(Info::parse("Name: HAProxy\nVersion: two\n").is_err());
    assert!(Stat::parse("pxname,svname\n").is_err());
}

#[test]
fn a_development_version_is_a_version() {
    let text = "Name: HAProxy\nVersion: 3.5-dev1-abc\nPid: 12\nUptime_sec: 1\nStopping: 0\nCurrConns: 2\nMaxconn: 3\n";
    let info = Info::parse(text).unwrap();
    assert_eq!((info.version.to_string(), info.pid), ("3.5".to_owned(), 12));
}

#[test]
fn a_quoted_field_may_hold_a_comma() {
    let text = "# pxname,svname,check_desc,agent_status,scur\nbe,s1,\"a, b\",L7OK,4\nbe,s2,,,\n";
    let stat = Stat::parse(text).unwrap();
    assert_eq!((&*stat[0].agent_status, stat[0].sessions), ("L7OK", 4));
    assert_eq!(stat[1].sessions, 0);
}

proptest! {
    #[test]
    fn parsers_accept_any_text_without_panic(text in "(?s).{0,400}") {
        let _ = (Info::parse(&text), Stat::parse(&text), ServerState::parse(&text));
        let _ = text.parse::<Address>();
    }

    #[test]
    fn parsers_accept_damaged_answers_without_panic(at in 0_usize..STATE.len(), with in "(?s).{0,9}") {
        let mut text = STATE.to_owned();
        text.replace_range(at..=at, &with);
        let _ = ServerState::parse(&text);
        let _ = state_file::render(&text, |_, _| true);
        let _ = Stat::parse(&text.replace(' ', ","));
    }
}
