//! A failover on its way to new sessions, with the whole agent beside a real Envoy: how long the
//! agent takes to find out, from the new writer's own word on, and how long it is from there to the
//! first session that is logged in on it.

use std::time::Duration;

use jiff::Timestamp;
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_postgres::{Config, config::SslMode, tls::MakeTlsConnect};

use super::{Error, Report};
use crate::{
    envoy::Envoy,
    process::wait_for,
    scene::{PATIENCE, Proxy, Scene, Setting},
    standin::{DATABASE, StandIn},
};

/// Between two looks: it is the error of what is measured.
const LOOK: Duration = Duration::from_millis(2);

pub(super) async fn run(quick: bool, report: &mut Report) -> Result<(), Error> {
    let scene = Scene::<Envoy>::with(Setting::default()).await?;
    let names: Vec<String> = scene.standin.servers().iter().map(|server| server.name().to_owned()).collect();
    let (mut detections, mut sessions) = (Vec::new(), Vec::new());
    // The first is the writer already.
    for to in names.iter().cycle().skip(1).take(if quick { 10 } else { 100 }) {
        let before = Timestamp::now();
        let (failover, writes, session) = tokio::join!(
            scene.standin.failover(to),
            writes(&scene.standin, to),
            first_session(&scene.standin, &scene.proxy),
        );
        failover?;
        let seen = seen(&scene, to, before).await?;
        detections.push(between(writes?, seen));
        sessions.push(between(seen, session?));
        // Changes come one by one, not in the wake of the one before.
        let readers: Vec<&str> = names.iter().filter(|name| *name != to).map(String::as_str).collect();
        scene.routed().await?;
        scene.up("orders_read", &readers).await?;
    }
    scene.clear().await?;
    report.tell_shares("envoy_failover_detection", detections)?;
    report.tell_shares("envoy_failover_session", sessions)
}

/// When an instance first says that it takes writes.
async fn writes(standin: &StandIn, instance: &str) -> Result<Timestamp, Error> {
    loop {
        if standin.value(instance, "SELECT pg_is_in_recovery()").await? == "f" {
            return Ok(Timestamp::now());
        }
        sleep(LOOK).await;
    }
}

/// When a new session is first on a writer again, after there was none.
async fn first_session(standin: &StandIn, proxy: &Envoy) -> Result<Timestamp, Error> {
    let mut gone = false;
    let first = async {
        loop {
            let reached = on_writer(standin, proxy).await;
            if reached && gone {
                return Timestamp::now();
            }
            gone |= !reached;
            sleep(LOOK).await;
        }
    };
    let late = |_| Error::Unexpected(format!("no session on the new writer after {PATIENCE:?}"));
    timeout(PATIENCE, first).await.map_err(late)
}

/// Whether a new session is logged in on an instance that takes writes.
async fn on_writer(standin: &StandIn, proxy: &Envoy) -> bool {
    let session = async {
        let stream = TcpStream::connect(proxy.dial("write")).await.ok()?;
        let mut tls = standin.tls().ok()?;
        let name = standin.cluster_endpoint();
        let handshake = MakeTlsConnect::<TcpStream>::make_tls_connect(&mut tls, name).ok()?;
        let mut config = Config::new();
        config.user("app").password(standin.cluster_token("app")).dbname(DATABASE).ssl_mode(SslMode::Require);
        let (client, connection) = config.connect_raw(stream, handshake).await.ok()?;
        tokio::select! {
            row = client.query_one("SELECT NOT pg_is_in_recovery()", &[]) => row.ok()?.try_get(0).ok(),
            _ = connection => None,
        }
    };
    timeout(PATIENCE, session).await.ok().flatten().unwrap_or(false)
}

/// When the agent told that this is the writer.
async fn seen(scene: &Scene<Envoy>, writer: &str, after: Timestamp) -> Result<Timestamp, Error> {
    let server = format!("orders_write/{writer}");
    let seen = wait_for("the agent to tell of the change", PATIENCE, async || {
        let told = scene.agent.events().into_iter().filter(|event| {
            let is = |field: &str, value: &str| event.get(field).is_some_and(|known| known == value);
            is("message", "verdict changed") && is("server", &server) && is("state", "up")
        });
        let moments = told.filter_map(|event| event.get("timestamp")?.as_str()?.parse::<Timestamp>().ok());
        moments.filter(|at| *at > after).min().ok_or("not yet")
    });
    Ok(seen.await?)
}

/// None where the second was first, by less than a look.
fn between(one: Timestamp, other: Timestamp) -> Duration {
    other.duration_since(one).try_into().unwrap_or_default()
}
