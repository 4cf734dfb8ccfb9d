//! Serves endpoint discovery from standard input, to try an Envoy's configuration without
//! databases: `cargo run -p envoy --example eds -- 127.0.0.1:18000`, or the path of a Unix
//! socket. Each line replaces everything: `CLUSTER ENDPOINT=ADDRESS:PORT=HEALTH...`, with `;`
//! between clusters and `pending` for one of which nothing is known, as in
//!
//! ```text
//! writer a=127.0.0.1:5432=healthy b=127.0.0.1:5433=unhealthy; reader pending
//! ```
//!
//! What Envoys do is written to standard output.

use std::{error::Error, io, sync::Arc};

use envoy::{
    eds::{Cluster, Endpoint, Health, Snapshot, serve},
    serve::Listener,
};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::watch,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).ok_or("usage: eds ADDRESS:PORT|PATH")?;
    let listener: Listener = if address.contains('/') {
        UnixListener::bind(&address)?.into()
    } else {
        TcpListener::bind(&address).await?.into()
    };
    let (publish, snapshots) = watch::channel(Snapshot::default());
    tokio::spawn(serve(listener, snapshots, Arc::new(|event| println!("{event:?}"))));
    println!("serving on {address}");
    // This thread is free to wait: the streams have their own.
    for line in io::stdin().lines() {
        match line?.split(';').map(cluster).collect::<Result<Vec<_>, _>>() {
            Ok(clusters) => {
                publish.send_replace(Snapshot::new(clusters));
            }
            Err(error) => eprintln!("{error}"),
        }
    }
    Ok(())
}

fn cluster(text: &str) -> io::Result<Cluster> {
    let mut words = text.split_whitespace();
    let name = words.next().ok_or_else(|| io::Error::other("a cluster needs a name"))?.to_owned();
    let words: Vec<&str> = words.collect();
    if words == ["pending"] {
        return Ok(Cluster { name, endpoints: None });
    }
    Ok(Cluster { name, endpoints: Some(words.into_iter().map(endpoint).collect::<io::Result<_>>()?) })
}

fn endpoint(text: &str) -> io::Result<Endpoint> {
    let wrong = || io::Error::other(format!("{text}: expected NAME=ADDRESS:PORT=HEALTH"));
    let mut parts = text.split('=');
    let (Some(name), Some(address), Some(health)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(wrong());
    };
    let health = match health {
        "healthy" => Health::Healthy,
        "draining" => Health::Draining,
        "degraded" => Health::Degraded,
        "unhealthy" => Health::Unhealthy,
        _ => return Err(wrong()),
    };
    Ok(Endpoint { name: name.to_owned(), addresses: vec![address.parse().map_err(|_| wrong())?], health })
}
