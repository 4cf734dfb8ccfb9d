//! HAProxy reloaded, restarted and killed while no agent runs: by the server state file that the agent
//! wrote, each server keeps its role, and no write reaches a reader.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use serde_json::json;
use tokio::task::JoinSet;

use super::{Bar, Error, Measurement, Report};
use crate::{
    process::wait_for,
    regret::{
        Outcome,
        client::{Clients, schedule},
        script::Load,
    },
    scene::{PATIENCE, Proxy, Scene, Setting},
};

#[derive(Clone, Copy, Debug)]
enum Start {
    Reload,
    Restart,
    Kill,
}

/// Clients of a round; they come within a second.
const CLIENTS: u32 = 20;

pub(super) async fn run(quick: bool, report: &mut Report) -> Result<(), Error> {
    let rounds = if quick { 12 } else { 200 };
    let setting = Setting { state_file: true, waiting_room: true, ..Setting::default() };
    let mut scene = Scene::set(setting).await?;
    let mut random = fastrand::Rng::with_seed(1);
    let mut outcomes: BTreeMap<&str, u64> = BTreeMap::new();
    let mut wrong_role = 0;
    let mut failovers = 0_u64;
    for round in 1..=rounds {
        if random.bool() {
            failovers += 1;
            let readers = names(&scene, false)?;
            let to = random.choice(&readers).cloned().unwrap_or_default();
            scene.standin.failover(&to).await?;
        }
        let (writer, readers) = (names(&scene, true)?, names(&scene, false)?);
        let readers: Vec<&str> = readers.iter().map(String::as_str).collect();
        scene.routed().await?;
        scene.up("orders_read", &readers).await?;
        in_file(&scene, &writer).await?;
        scene.agent.kill();
        match random.choice([Start::Reload, Start::Restart, Start::Kill]).unwrap_or(Start::Reload) {
            Start::Reload => scene.proxy.reload().await?,
            Start::Restart => {
                scene.proxy.stop().await?;
                scene.proxy.start_again().await?;
            }
            Start::Kill => {
                scene.proxy.kill();
                scene.proxy.start_again().await?;
            }
        }
        for outcome in clients(&scene, round).await? {
            *outcomes.entry(outcome.word()).or_default() += 1;
            wrong_role += u64::from(outcome >= Outcome::WrongRole);
        }
        scene.agent.spawn()?;
    }
    scene.clear().await?;
    let measurement = Measurement::new("without_agent", wrong_role as f64, "wrong_role")
        .bar(Bar::default().count("statements for the wrong role", wrong_role, 0))
        .details(&json!({"rounds": rounds, "failovers": failovers, "outcomes": outcomes}))
        .note(format!(
            "{rounds} starts of HAProxy without an agent, {failovers} after a failover: {outcomes:?}"
        ));
    report.tell(&measurement)
}

/// The writer, or the others.
fn names(scene: &Scene, writer: bool) -> Result<Vec<String>, Error> {
    let name = scene.standin.writer()?.name();
    let servers = scene.standin.servers().iter().map(|server| server.name().to_owned());
    Ok(servers.filter(|server| (server == name) == writer).collect())
}

/// Waits until the server state file has this writer alone up in the writer's backend.
async fn in_file(scene: &Scene, writer: &[String]) -> Result<(), Error> {
    let path = scene.agent.folder().join("server-state");
    let shown = wait_for("the server state file to show the roles", PATIENCE, async || {
        let file = std::fs::read_to_string(&path).unwrap_or_default();
        let rows = file.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let up: Vec<String> = rows
            .filter(|fields| fields.get(1) == Some(&"orders_write") && fields.get(5) == Some(&"2"))
            .filter_map(|fields| fields.get(3).map(|name| (*name).to_owned()))
            .filter(|name| scene.standin.server(name).is_ok())
            .collect();
        if up == writer { Ok(()) } else { Err(file) }
    });
    Ok(shown.await?)
}

async fn clients(scene: &Scene, round: usize) -> Result<Vec<Outcome>, Error> {
    let clients = Arc::new(Clients {
        standin: scene.standin.clone(),
        tls: scene.standin.tls()?,
        write: scene.proxy.dial("write"),
        read: scene.proxy.dial("read"),
        client: round,
    });
    let start = Instant::now();
    let mut attempts = JoinSet::new();
    for order in schedule(round as u64, Load::Both, CLIENTS, std::time::Duration::from_secs(1)) {
        let clients = clients.clone();
        attempts.spawn(async move { clients.attempt(order, start).await.outcome });
    }
    Ok(attempts.join_all().await)
}
