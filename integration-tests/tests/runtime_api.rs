//! The runtime API client on running HAProxy 2.6 and 2.8: what it reads, sets and closes,
//! over a reload as well, and what it says when it cannot.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use haproxy::{
    Address,
    close::{Closed, PAUSE, close, close_in_worker},
    runtime::{AdminState, Connection, Limits, Operational, RuntimeError, ask_once},
    show_sess::{Parser, Session, resolve},
    sweep::{Sweep, Worker, sweep, sweep_worker, workers},
};
use integration_tests::{
    haproxy::{Backend, Haproxy, HaproxyBinary, HaproxyConfig, Level, Server},
    process::wait_for,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const PATIENCE: Duration = Duration::from_secs(10);

fn limits() -> Limits {
    Limits { time: Duration::from_secs(5), ..Limits::default() }
}

// === the server behind, the proxy, the clients ===

/// Gives back what it gets, and knows who is connected.
#[derive(Clone, Debug, Default)]
struct Echo {
    peers: Arc<Mutex<BTreeSet<SocketAddr>>>,
}

impl Echo {
    async fn listen(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let peers = self.peers.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, peer)) = listener.accept().await {
                let peers = peers.clone();
                peers.lock().unwrap().insert(peer);
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                    peers.lock().unwrap().remove(&peer);
                });
            }
        });
        address
    }

    fn peers(&self) -> BTreeSet<SocketAddr> {
        self.peers.lock().unwrap().clone()
    }
}

struct Setup {
    haproxy: Haproxy,
    echo: Echo,
    server: SocketAddr,
}

impl Setup {
    async fn new(binary: &HaproxyBinary) -> Self {
        let echo = Echo::default();
        let server = echo.listen().await;
        let backend = Backend::new("orders")
            .server(Server::new("pg1", server))
            .server(Server::new("pg2", server).words("disabled weight 7"));
        let config = HaproxyConfig::new()
            .frontend("orders_in", "orders")
            .backend(backend)
            .stats_socket("user", Level::User)
            .stats_socket("operator", Level::Operator)
            .tcp_stats();
        Self { haproxy: Haproxy::start(binary, config).await.unwrap(), echo, server }
    }

    fn admin(&self) -> Address {
        Address::Unix(self.haproxy.admin_socket())
    }

    fn master(&self) -> Address {
        Address::Unix(self.haproxy.master_socket())
    }

    async fn open(&self) -> Connection {
        Connection::open(&self.admin(), limits()).await.unwrap()
    }

    /// A client whose session is known to have reached the server.
    async fn client(&self) -> TcpStream {
        let mut client = TcpStream::connect(self.haproxy.address("orders_in")).await.unwrap();
        assert!(echoes(&mut client).await);
        client
    }

    async fn sweep(&self) -> Sweep {
        let pid = self.open().await.info().await.unwrap().pid;
        sweep(&self.admin(), Worker { pid, old: false }, limits()).await.unwrap()
    }

    async fn session_of(&self, client: &TcpStream) -> Session {
        let source = client.local_addr().unwrap();
        self.sweep().await.sessions.into_iter().find(|session| session.source == Some(source)).unwrap()
    }
}

/// Whether this client's session goes on.
async fn echoes(client: &mut TcpStream) -> bool {
    let mut byte = [0];
    client.write_all(b"?").await.is_ok() && matches!(client.read(&mut byte).await, Ok(1))
}

async fn ends(client: &mut TcpStream) {
    let mut byte = [0];
    let end = tokio::time::timeout(PATIENCE, client.read(&mut byte)).await.unwrap();
    assert!(matches!(end, Ok(0) | Err(_)), "the session goes on");
}

async fn on_each(test: impl AsyncFn(Setup)) {
    for binary in HaproxyBinary::all().unwrap() {
        test(Setup::new(&binary).await).await;
    }
}

// === reading ===

#[tokio::test]
async fn it_says_who_it_is_on_unix_and_on_tcp() {
    on_each(async |setup| {
        let tcp: Address = format!("ipv4@{}", setup.haproxy.tcp_stats().unwrap()).parse().unwrap();
        let (present, _) = setup.haproxy.workers().await.unwrap();
        for address in [setup.admin(), tcp] {
            let mut connection = Connection::open(&address, limits()).await.unwrap();
            for _ in 0..3 {
                let info = connection.info().await.unwrap();
                let version = setup.haproxy.version();
                assert_eq!(info.version_text, version.text);
                assert_eq!(u32::from(info.version.minor), version.minor);
                assert_eq!((&[info.pid][..], info.stopping), (&*present, false));
                assert!(info.max_connections > 100);
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_small_command_on_tcp_does_not_wait_for_the_kernel() {
    on_each(async |setup| {
        let tcp = Address::Tcp(setup.haproxy.tcp_stats().unwrap().to_string());
        let mut connection = Connection::open(&tcp, limits()).await.unwrap();
        let mut times = Vec::new();
        for _ in 0..50 {
            let began = Instant::now();
            connection.info().await.unwrap();
            times.push(began.elapsed());
        }
        // 40 ms at least for nearly all, were a command's end held back until its beginning is
        // acknowledged. A busy machine delays some.
        times.sort();
        assert!(times[25] < Duration::from_millis(40), "{times:?}");
    })
    .await;
}

#[tokio::test]
async fn servers_are_read_with_their_flags_and_sessions() {
    on_each(async |setup| {
        let _clients = [setup.client().await, setup.client().await];
        let mut connection = setup.open().await;

        let stat = connection.stat().await.unwrap();
        let row =
            |server: &str| stat.iter().find(|row| row.proxy == "orders" && row.server == server).unwrap();
        assert_eq!((&*row("pg1").status, row("pg1").sessions), ("no check", 2));
        assert_eq!((&*row("pg2").status, row("pg2").sessions), ("MAINT", 0));
        assert_eq!(row("pg2").weight, Some(7));

        for backend in [None, Some("orders")] {
            let states = connection.servers_state(backend).await.unwrap();
            assert_eq!(states.len(), 2);
            let [pg1, pg2] = &states[..] else { unreachable!() };
            assert_eq!((&*pg1.backend, &*pg1.server), ("orders", "pg1"));
            assert_eq!(pg1.socket_address(), Some(setup.server));
            assert_eq!((pg1.operational, pg1.admin), (Operational::Running, 0));
            // `disabled` in the configuration is not set by hand: FMAINT and CMAINT.
            assert!(pg2.forced_maint() && pg2.other_admin() && !pg2.forced_drain());
            assert_eq!(pg2.weight, 7);
        }
    })
    .await;
}

// === setting ===

#[tokio::test]
async fn what_is_set_is_seen() {
    on_each(async |setup| {
        let mut connection = setup.open().await;
        for (state, flags) in
            [(AdminState::Drain, 0x08), (AdminState::Maint, 0x01), (AdminState::Ready, 0x00)]
        {
            connection.set_state("orders", "pg1", state).await.unwrap();
            assert_eq!(setup.haproxy.admin_bits("orders", "pg1").await.unwrap(), flags, "{state:?}");
        }
        connection.silent("set server orders/pg1 weight 1").await.unwrap();
        assert_eq!(connection.servers_state(None).await.unwrap()[0].weight, 1);
    })
    .await;
}

#[tokio::test]
async fn a_refusal_has_haproxys_message_and_the_connection_stays_usable() {
    on_each(async |setup| {
        let mut connection = setup.open().await;
        let refused = |result: Result<(), RuntimeError>, words: &str| match result {
            Err(RuntimeError::Refused { answer, .. }) => assert!(answer.contains(words), "{answer}"),
            other => panic!("{words}: {other:?}"),
        };
        refused(connection.set_state("nowhere", "pg1", AdminState::Drain).await, "No such backend");
        refused(connection.set_state("orders", "pg9", AdminState::Drain).await, "No such server");
        refused(connection.set_agent("orders", "pg1", false).await, "agent checks are not enabled");
        refused(connection.silent("set server orders/pg1 weight 999").await, "between 0 and 256");
        refused(connection.servers_state(Some("nowhere")).await.map(drop), "Can't find backend");
        refused(connection.ask("no such thing").await.map(drop), "Unknown command");
        // None of these is ever sent.
        for name in ["pg1;show info", "pg1\nset server orders/pg1 state maint", "pg1 state maint", ""] {
            refused(connection.set_state("orders", name, AdminState::Ready).await, "not a name");
        }
        refused(connection.ask("show info;shutdown sessions server orders/pg1").await.map(drop), "not one");
        refused(ask_once(&setup.admin(), "show info\nshow stat", limits()).await.map(drop), "not one");
        assert!(connection.is_usable());
        assert_eq!(connection.servers_state(None).await.unwrap()[0].admin, 0);
    })
    .await;
}

#[tokio::test]
async fn a_socket_of_a_lower_level_is_recognised() {
    on_each(async |setup| {
        let _client = setup.client().await;
        let user = Address::Unix(setup.haproxy.socket("user"));
        let mut connection = Connection::open(&user, limits()).await.unwrap();
        connection.info().await.unwrap();
        connection.servers_state(None).await.unwrap();
        let denied = connection.set_state("orders", "pg1", AdminState::Drain).await.unwrap_err();
        assert!(denied.to_string().contains("level admin"), "{denied}");
        assert!(matches!(denied, RuntimeError::Denied { .. }));
        let worker = Worker { pid: 1, old: false };
        let denied = sweep(&user, worker, limits()).await.unwrap_err();
        assert!(matches!(denied, RuntimeError::Denied { .. }), "{denied}");

        let operator = Address::Unix(setup.haproxy.socket("operator"));
        let found = sweep(&operator, worker, limits()).await.unwrap();
        assert_eq!(found.sessions.len(), 1);
        let mut connection = Connection::open(&operator, limits()).await.unwrap();
        let denied = close(&mut connection, &found.sessions[0]).await.unwrap_err();
        assert!(matches!(denied, RuntimeError::Denied { .. }), "{denied}");
    })
    .await;
}

#[tokio::test]
async fn a_wrong_socket_is_named_with_advice() {
    on_each(async |mut setup| {
        let nowhere = Address::Unix(PathBuf::from("/nonexistent/admin.sock"));
        let missing = Connection::open(&nowhere, limits()).await.unwrap_err().to_string();
        assert!(missing.contains("/nonexistent/admin.sock") && missing.contains("stats socket"), "{missing}");

        let master = Connection::open(&setup.master(), limits()).await.unwrap_err();
        assert!(matches!(master, RuntimeError::Garbage { .. }), "{master}");
        assert!(master.to_string().contains("master socket"), "{master}");

        let echo = Address::Tcp(setup.server.to_string());
        let brief = Limits { time: Duration::from_millis(300), ..limits() };
        let silent = Connection::open(&echo, brief).await.unwrap_err();
        assert!(matches!(silent, RuntimeError::TimedOut { .. }), "{silent}");

        let mut connection = setup.open().await;
        setup.haproxy.stop().await.unwrap();
        let broken = connection.info().await.unwrap_err();
        assert!(matches!(broken, RuntimeError::Broken { .. }), "{broken}");
        assert!(!connection.is_usable());
        let away = Connection::open(&setup.admin(), limits()).await.unwrap_err();
        assert!(matches!(away, RuntimeError::Connect { .. }), "{away}");
    })
    .await;
}

// === sessions ===

#[tokio::test]
async fn each_session_is_joined_to_both_of_its_ends() {
    on_each(async |setup| {
        let mut clients = Vec::new();
        for _ in 0..50 {
            clients.push(setup.client().await);
        }
        let found = setup.sweep().await;
        let at_clients: BTreeSet<_> = clients.iter().map(|client| client.local_addr().unwrap()).collect();
        assert_eq!(
            found.sessions.iter().map(|session| session.source.unwrap()).collect::<BTreeSet<_>>(),
            at_clients
        );
        let outgoing: BTreeSet<_> = found.sessions.iter().map(|session| session.outgoing).collect();
        assert_eq!(outgoing, setup.echo.peers());
        let ids: BTreeSet<_> = found.sessions.iter().map(|session| (session.id, &session.pointer)).collect();
        assert_eq!(ids.len(), 50);
        for session in &found.sessions {
            assert_eq!((&*session.backend, &*session.server), ("orders", "pg1"));
            assert_eq!(session.peer, setup.server);
        }
    })
    .await;
}

#[tokio::test]
async fn ages_hold_beside_other_command_lines_old_and_new() {
    on_each(async |setup| {
        let mut kept = setup.open().await;
        let before = Instant::now();
        let first = setup.client().await;
        let opened = Instant::now();
        // The age is all there is to wait for.
        wait_for("a second", PATIENCE, async || {
            if opened.elapsed() > Duration::from_secs(1) { Ok(()) } else { Err("not yet") }
        })
        .await
        .unwrap();
        kept.info().await.unwrap();
        let (socket, stop) = (setup.admin(), Arc::new(Mutex::new(false)));
        let stopped = stop.clone();
        let others = tokio::spawn(async move {
            while !*stopped.lock().unwrap() {
                ask_once(&socket, "show info", limits()).await.unwrap();
            }
        });
        for _ in 0..30 {
            let asked = Instant::now();
            let session = setup.session_of(&first).await;
            let age = session.age().unwrap();
            let (least, most) = (asked - opened, before.elapsed());
            let slack = Duration::from_millis(20);
            assert!(age + slack >= least && age <= most + slack, "{least:?} <= {age:?} <= {most:?}");
        }
        *stop.lock().unwrap() = true;
        others.await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_large_dump_is_whole_while_sessions_come_and_go() {
    on_each(async |setup| {
        let mut clients = Vec::new();
        for _ in 0..1_000 {
            clients.push(setup.client().await);
        }
        let stay: BTreeSet<_> = clients.iter().map(|client| client.local_addr().unwrap()).collect();
        let address = setup.haproxy.address("orders_in");
        let churn = tokio::spawn(async move {
            loop {
                let mut client = TcpStream::connect(address).await.unwrap();
                assert!(echoes(&mut client).await);
            }
        });
        let pid = setup.open().await.info().await.unwrap().pid;
        let worker = Worker { pid, old: false };
        for _ in 0..10 {
            let by_stats = sweep(&setup.admin(), worker, limits()).await.unwrap();
            let by_master = sweep_worker(&setup.master(), worker, limits()).await.unwrap();
            for found in [by_stats, by_master] {
                let sources: BTreeSet<_> =
                    found.sessions.iter().map(|session| session.source.unwrap()).collect();
                assert!(stay.is_subset(&sources), "{} of {}", sources.len(), stay.len());
                assert!(found.bytes > 1_000_000);
                assert!(found.sessions.iter().all(|session| session.age().is_some()));
            }
        }
        churn.abort();
    })
    .await;
}

// === closing ===

#[tokio::test]
async fn exactly_the_named_session_is_closed() {
    on_each(async |setup| {
        let (mut one, mut other) = (setup.client().await, setup.client().await);
        let session = setup.session_of(&one).await;
        let mut connection = setup.open().await;

        assert_eq!(close(&mut connection, &session).await.unwrap(), Closed::Sent);
        ends(&mut one).await;
        assert!(echoes(&mut other).await);
        wait_for("it to be gone at the server", PATIENCE, async || {
            if setup.echo.peers().contains(&session.outgoing) { Err("there") } else { Ok(()) }
        })
        .await
        .unwrap();
        let again = close(&mut connection, &session).await.unwrap();
        assert!(matches!(again, Closed::Gone | Closed::Changed), "{again:?}");
        assert!(echoes(&mut other).await);
    })
    .await;
}

#[tokio::test]
async fn a_session_that_differs_in_anything_is_left_alone() {
    on_each(async |setup| {
        let mut client = setup.client().await;
        let session = setup.session_of(&client).await;
        let elsewhere: SocketAddr = "127.0.0.9:9".parse().unwrap();
        let different = [
            Session { id: session.id + 1, ..session.clone() },
            Session { accepted: "22/Nov/2020:00:00:00.000000".into(), ..session.clone() },
            Session { source: Some(elsewhere), ..session.clone() },
            Session { outgoing: elsewhere, ..session.clone() },
            Session { backend: "invoices".into(), ..session.clone() },
            Session { server: "pg2".into(), ..session.clone() },
        ];
        let mut connection = setup.open().await;
        let pid = connection.info().await.unwrap().pid;
        for other in different {
            assert_eq!(close(&mut connection, &other).await.unwrap(), Closed::Changed, "{other:?}");
            let by_master = close_in_worker(&setup.master(), pid, &other, limits()).await.unwrap();
            assert_eq!(by_master, Closed::Changed, "{other:?}");
        }
        let nowhere = Session { pointer: "0x123".into(), ..session.clone() };
        assert_eq!(close(&mut connection, &nowhere).await.unwrap(), Closed::Gone);
        let injected = Session { pointer: "0x1; shutdown sessions server orders/pg1".into(), ..session };
        assert!(close(&mut connection, &injected).await.is_err());
        assert!(close_in_worker(&setup.master(), pid, &injected, limits()).await.is_err());
        assert!(echoes(&mut client).await);
    })
    .await;
}

/// As [`Setup::session_of`], on a connection that is there: a new one would take the pointer
/// of a session that just ended for itself.
async fn on_kept(connection: &mut Connection, client: &TcpStream) -> Session {
    let dump = connection.ask("show sess all").await.unwrap();
    let (mut parser, mut entries) = (Parser::new(), Vec::new());
    parser.push(dump.as_bytes(), |entry| entries.push(entry));
    entries.extend(parser.finish());
    let source = client.local_addr().unwrap();
    resolve(entries).into_iter().find(|session| session.source == Some(source)).unwrap()
}

/// HAProxy gives a pointer to the next session at once: the guard is all there is.
#[tokio::test]
async fn a_reused_pointer_never_costs_its_new_session() {
    on_each(async |setup| {
        let mut connection = setup.open().await;
        let mut gone: BTreeMap<String, Session> = BTreeMap::new();
        let mut reused = 0;
        for _ in 0..40 {
            let mut client = setup.client().await;
            let session = on_kept(&mut connection, &client).await;
            if let Some(before) = gone.insert(session.pointer.clone(), session) {
                reused += 1;
                assert_eq!(close(&mut connection, &before).await.unwrap(), Closed::Changed);
                assert!(echoes(&mut client).await);
            }
            drop(client);
            wait_for("it to end", PATIENCE, async || {
                if setup.echo.peers().is_empty() { Ok(()) } else { Err("there") }
            })
            .await
            .unwrap();
        }
        assert!(reused > 0, "no pointer was used twice: this test showed nothing");
    })
    .await;
}

#[tokio::test]
async fn closes_are_paced() {
    on_each(async |setup| {
        let mut clients = Vec::new();
        for _ in 0..20 {
            clients.push(setup.client().await);
        }
        let sessions = setup.sweep().await.sessions;
        let mut connection = setup.open().await;
        let began = Instant::now();
        for session in &sessions {
            assert_eq!(close(&mut connection, session).await.unwrap(), Closed::Sent);
        }
        assert!(began.elapsed() >= PAUSE * 20, "{:?}", began.elapsed());
        for client in &mut clients {
            ends(client).await;
        }
    })
    .await;
}

// === reloads ===

#[tokio::test]
async fn sessions_of_old_workers_are_seen_and_closed_through_the_master() {
    on_each(async |mut setup| {
        let mut clients = BTreeMap::new();
        let mut kept = setup.open().await;
        for generation in 0..3 {
            let client = setup.client().await;
            clients.insert(setup.open().await.info().await.unwrap().pid, client);
            if generation < 2 {
                setup.haproxy.reload().await.unwrap();
            }
        }
        assert_eq!(clients.len(), 3);
        // A connection from before a reload goes on in the old worker, and says so.
        assert!(kept.info().await.unwrap().stopping);
        drop(kept);

        let found = workers(&setup.master(), limits()).await.unwrap();
        assert_eq!(
            found.iter().map(|worker| worker.pid).collect::<BTreeSet<_>>(),
            clients.keys().copied().collect()
        );
        assert_eq!(found.iter().filter(|worker| !worker.old).count(), 1);
        for worker in found {
            let swept = sweep_worker(&setup.master(), worker, limits()).await.unwrap();
            let client = clients.get_mut(&worker.pid).unwrap();
            let [session] = &swept.sessions[..] else { panic!("{:?}", swept.sessions) };
            assert_eq!(session.source.unwrap(), client.local_addr().unwrap());
            assert!(session.age().unwrap() < Duration::from_secs(60));
            assert!(echoes(client).await);
            let closed = close_in_worker(&setup.master(), worker.pid, session, limits()).await.unwrap();
            assert_eq!(closed, Closed::Sent);
            ends(client).await;
        }
        wait_for("old workers to end", PATIENCE, async || {
            match workers(&setup.master(), limits()).await.unwrap().len() {
                1 => Ok(()),
                more => Err(format!("{more} workers")),
            }
        })
        .await
        .unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_worker_that_is_gone_is_refused_by_the_master() {
    on_each(async |setup| {
        for _ in 0..20 {
            let gone = Worker { pid: 4_000_000, old: true };
            let error = sweep_worker(&setup.master(), gone, limits()).await.unwrap_err();
            assert!(matches!(error, RuntimeError::Refused { .. }), "{error}");
            assert!(error.to_string().contains("Can't find the target"), "{error}");
        }
    })
    .await;
}
