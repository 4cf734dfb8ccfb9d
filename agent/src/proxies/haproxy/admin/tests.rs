//! The task on a socket that the test answers.

use agent_core::plan::Policy;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::UnixListener,
    sync::watch,
    time::timeout,
};

use super::*;
use crate::{clock::Clock, snapshot::Snapshot};

/// The task of a proxy of which a test answers for the runtime socket.
struct Fixture {
    proxy: Proxy,
    socket: UnixListener,
    inputs: mpsc::Receiver<Input>,
    _publish: watch::Sender<Arc<Snapshot>>,
    _folder: tempfile::TempDir,
}

fn fixture(servers: &[ServerId]) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let socket = UnixListener::bind(&path).unwrap();
    let clock = Clock::start();
    let (decider, inputs) = mpsc::channel(8);
    let (publish, snapshot) = watch::channel(Arc::new(Snapshot::empty(clock.now())));
    let shared = Shared::new(clock, Arc::default(), &Policy::default(), snapshot, decider);
    let named = |server: &ServerId| (server.backend.to_string(), server.server.to_string());
    let config = Config {
        proxy: ProxyIndex(0),
        socket: path.to_str().unwrap().parse().unwrap(),
        master: None,
        state_file: None,
        follow_addresses: true,
        expected: Expected::default(),
        servers: servers.iter().map(|server| (named(server), server.clone())).collect(),
        limits: Limits::default(),
    };
    let proxy = Proxy::new(config, shared);
    Fixture { proxy, socket, inputs, _publish: publish, _folder: folder }
}

const INFO: &str =
    "Name: HAProxy\nVersion: 2.6.12\nPid: 7\nUptime_sec: 60\nStopping: 0\nCurrConns: 1\nMaxconn: 100\n\n> ";

/// Answers like a HAProxy with these servers, for ever; tells what it was commanded.
async fn answers(socket: UnixListener, rows: String, commands: mpsc::Sender<String>) {
    let columns = "# be_name srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_port \
        srv_iweight srv_check_state srv_agent_state srv_fqdn";
    let rows: Vec<String> = rows.lines().map(|row| format!("{row} 1 0 22 -")).collect();
    let rows = rows.join("\n") + "\n";
    loop {
        let (stream, _) = socket.accept().await.unwrap();
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        while stream.read_line(&mut line).await.unwrap() > 0 {
            let answer = if line.starts_with("show servers state") {
                format!("1\n{columns}\n{rows}\n> ")
            } else if line.starts_with("show info") {
                INFO.to_owned()
            } else if line.starts_with("show stat") {
                "# pxname,svname,bck\n\n> ".to_owned()
            } else {
                "\n> ".to_owned()
            };
            stream.write_all(answer.as_bytes()).await.unwrap();
            commands.send(std::mem::take(&mut line)).await.unwrap();
        }
    }
}

/// Commands of a drain of `pg1` beside these rows, and the inputs of the decider.
async fn drain_beside(rows: &str) -> (bool, Vec<Input>) {
    let servers = ["pg1", "pg2"].map(|name| ServerId::new(ProxyIndex(0), "orders", name));
    let Fixture { mut proxy, socket, mut inputs, _publish, _folder } = fixture(&servers);
    let (commands, mut commanded) = mpsc::channel(64);
    let rows = format!("orders pg1 10.0.0.1 2 0 1 5432\n{rows}");
    let haproxy = tokio::spawn(answers(socket, rows, commands));
    let order = Order {
        command: Command::Drain { server: servers[0].clone(), force: false },
        decided: Instant::now(),
    };
    proxy.command(order).await;
    haproxy.abort();
    let mut drained = false;
    while let Ok(command) = commanded.try_recv() {
        drained |= command.starts_with("set server orders/pg1 state drain");
    }
    (drained, std::iter::from_fn(|| inputs.try_recv().ok()).collect())
}

/// Two agents look after one proxy, and each sees the other's server up a moment before.
#[tokio::test]
async fn a_drain_is_not_sent_where_no_other_server_is_left_by_the_proxys_own_word() {
    let not_sent = [
        "orders pg2 10.0.0.2 2 8 1 5432",
        "orders pg2 10.0.0.2 2 1 1 5432",
        "orders pg2 10.0.0.2 0 0 1 5432",
        "orders other 10.0.0.3 2 0 1 5432",
    ];
    for rows in not_sent {
        let (drained, received) = drain_beside(rows).await;
        assert!(!drained, "{rows}");
        assert!(
            matches!(
                &received[..],
                [Input::NotDrained { .. }, Input::Outcome(Outcome::Drain { sent: DrainSent::NotSent, .. })]
            ),
            "{received:?}"
        );
    }
    let (drained, received) = drain_beside("orders pg2 10.0.0.2 2 0 1 5432").await;
    assert!(drained);
    assert!(
        matches!(received.last(), Some(Input::Outcome(Outcome::Drain { sent: DrainSent::Sent, .. }))),
        "{received:?}"
    );
}

#[tokio::test]
async fn a_server_that_the_table_lacks_is_told_as_absent() {
    let servers = ["pg1", "renamed"].map(|name| ServerId::new(ProxyIndex(0), "orders", name));
    let Fixture { mut proxy, socket, mut inputs, _publish, _folder } = fixture(&servers);
    let (commands, _commanded) = mpsc::channel(64);
    let haproxy = tokio::spawn(answers(socket, "orders pg1 10.0.0.1 2 0 1 5432".into(), commands));
    let mut connection = proxy.open().await.unwrap();
    proxy.flags(&mut connection).await.unwrap();
    haproxy.abort();
    let Some(Input::Admin { flags, restarted, .. }) = inputs.recv().await else { panic!("the flags") };
    assert!(!restarted);
    let flags: HashMap<ServerId, AdminFlags> = flags.into_iter().collect();
    assert!(flags[&servers[0]].clear());
    assert_eq!(flags[&servers[1]], AdminFlags::ABSENT);
}

#[tokio::test]
async fn another_process_is_told_as_a_restart() {
    let Fixture { mut proxy, socket, mut inputs, _publish, _folder } =
        fixture(&[ServerId::new(ProxyIndex(0), "orders", "pg1")]);
    let (commands, _commanded) = mpsc::channel(64);
    let haproxy = tokio::spawn(answers(socket, "orders pg1 10.0.0.1 2 0 1 5432".into(), commands));
    for (before, expected) in [
        (None, false),
        (Some((7, 60)), false),
        (Some((7, 59)), false),
        // In a container each process may have the same id.
        (Some((7, 61)), true),
        (Some((8, 5)), true),
    ] {
        proxy.process = before;
        let mut connection = proxy.open().await.unwrap();
        proxy.flags(&mut connection).await.unwrap();
        let told = loop {
            match inputs.recv().await {
                Some(Input::Admin { restarted, .. }) => break restarted,
                Some(_) => {}
                None => panic!("no flags"),
            }
        };
        assert_eq!(told, expected, "{before:?}");
    }
    haproxy.abort();
}

/// What waited while the socket hung is over: said now, it would flap a healthy
/// server, or undo what a person has done meanwhile.
#[tokio::test(start_paused = true)]
async fn an_order_that_has_waited_too_long_is_not_sent() {
    let Fixture { mut proxy, socket, mut inputs, _publish, _folder } = fixture(&[]);
    let server = ServerId::new(ProxyIndex(0), "orders", "pg1");
    let orders = || {
        let decided = Instant::now();
        [
            Command::Agent(server.clone(), false),
            Command::Drain { server: server.clone(), force: false },
            Command::Undrain(server.clone()),
        ]
        .map(|command| Order { command, decided })
    };
    let called = async || timeout(Duration::ZERO, socket.accept()).await.is_ok();

    let waited = orders();
    tokio::time::advance(OUTDATED + Duration::from_millis(1)).await;
    for order in waited {
        proxy.command(order).await;
    }
    assert!(!called().await, "nothing was sent");
    let mut received = Vec::new();
    for _ in 0..3 {
        received.push(inputs.recv().await.unwrap());
    }
    assert!(
        matches!(
            &received[..],
            [
                Input::NotDrained { .. },
                Input::Outcome(Outcome::Drain { sent: DrainSent::NotSent, .. }),
                Input::Outcome(Outcome::Undrain { taken: false, .. }),
            ]
        ),
        "{received:?}"
    );
    for number in 0..3 {
        // Nothing answers, so each waits for its time limit.
        let order = orders().into_iter().nth(number).unwrap();
        proxy.command(order).await;
        assert!(called().await, "fresh ones go out");
    }
}
