//! Answers to agent checks, beside a server that does nothing but answer.
//!
//! Both run in this process, on the same runtime, with the same clients, in turns: what
//! differs is the agent's own work. The answers come from a snapshot, as in the agent.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use agent_core::{ProxyIndex, ServerId};
use haproxy::agent_check::{Limits, serve};
use rds_lb_agent::{
    clock::Clock,
    metrics::Metrics,
    proxies::haproxy::agent_check::Answers,
    snapshot::{Line, Snapshot},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::JoinSet,
    time::sleep,
};

use super::{Error, Measurement, Report};

/// Checks under way at once.
const CLIENTS: usize = 8;

const TURN: Duration = Duration::from_secs(1);

/// Servers that the agent knows.
const SERVERS: usize = 20;

pub(super) async fn run(quick: bool, report: &mut Report) -> Result<(), Error> {
    let lines: HashMap<String, Line> = (0..SERVERS)
        .map(|number| {
            let server = ServerId::new(ProxyIndex(0), "orders_write", &format!("pg{number}"));
            (server.to_string(), Line { server, text: "up\n".into(), admin: None })
        })
        .collect();
    let clock = Clock::start();
    let snapshot = Snapshot { lines: Arc::new(lines), ..Snapshot::empty(clock.now()) };
    let (publish, snapshot) = watch::channel(Arc::new(snapshot));
    let (decider, _inputs) = mpsc::channel(1);
    let answers = Arc::new(Answers::new(snapshot, decider, &Arc::new(Metrics::default())).fresh_by(clock));

    let agent = TcpListener::bind("127.0.0.1:0").await?;
    let bare = TcpListener::bind("127.0.0.1:0").await?;
    let (agent_at, bare_at) = (agent.local_addr()?, bare.local_addr()?);
    let mut servers = JoinSet::new();
    servers.spawn(serve(agent, answers, Limits::default()));
    servers.spawn(answer_all(bare));
    // As the decider does: answers from an old snapshot are neutral.
    servers.spawn(async move {
        loop {
            sleep(TURN).await;
            publish.send_modify(|snapshot| Arc::make_mut(snapshot).at = clock.now());
        }
    });

    // The first turn of each warms up.
    turn(agent_at).await?;
    turn(bare_at).await?;
    let turns: u32 = if quick { 2 } else { 6 };
    let (mut of_agent, mut of_bare) = (Vec::new(), Vec::new());
    for _ in 0..turns {
        of_agent.extend(turn(agent_at).await?);
        of_bare.extend(turn(bare_at).await?);
    }
    of_agent.sort_unstable();
    of_bare.sort_unstable();

    let seconds = (TURN * turns).as_secs_f64();
    let rate = |times: &[Duration]| times.len() as f64 / seconds;
    let beside = "bare accept and answer";
    report.tell(
        &Measurement::new("agent_check_rate", rate(&of_agent), "answers/s").beside(beside, rate(&of_bare)),
    )?;
    for (name, share) in [("agent_check_p50", 0.50), ("agent_check_p99", 0.99)] {
        let value = microseconds(&of_agent, share);
        report.tell(&Measurement::new(name, value, "us").beside(beside, microseconds(&of_bare, share)))?;
    }
    Ok(())
}

/// Reads something, answers `up`, closes.
async fn answer_all(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut request = [0_u8; 512];
            if stream.read(&mut request).await.is_ok() {
                // A client that has gone away is counted by itself.
                let _ = stream.write_all(b"up\n").await;
            }
        });
    }
}

/// How long each check took that a turn's clients made, as HAProxy makes them.
async fn turn(address: SocketAddr) -> Result<Vec<Duration>, Error> {
    let end = Instant::now() + TURN;
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let key = format!("orders_write/pg{}\n", client % SERVERS);
        clients.spawn(async move {
            let mut times = Vec::new();
            while Instant::now() < end {
                let began = Instant::now();
                let answer = check(address, &key).await?;
                times.push(began.elapsed());
                if answer != b"up\n" {
                    return Err(Error::Unexpected(format!(
                        "an agent check is answered {:?}",
                        String::from_utf8_lossy(&answer)
                    )));
                }
            }
            Ok(times)
        });
    }
    let mut all = Vec::new();
    while let Some(times) = clients.join_next().await {
        all.extend(times.map_err(io::Error::from)??);
    }
    Ok(all)
}

async fn check(address: SocketAddr, key: &str) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(key.as_bytes()).await?;
    let mut answer = Vec::with_capacity(64);
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}

fn microseconds(sorted: &[Duration], share: f64) -> f64 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index into the slice")]
    let at = (sorted.len().saturating_sub(1) as f64 * share) as usize;
    sorted.get(at).map_or(0.0, |time| time.as_secs_f64() * 1e6)
}
