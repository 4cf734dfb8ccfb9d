//! How soon HAProxy's state is right after the agent was killed and started again, with
//! `agent-inter 2s`: a drain that it left is gone, and each role is where it is now.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{Bar, Error, Measurement, Report};
use crate::{
    load::{Load, Work},
    process::wait_for,
    scene::{PATIENCE, Proxy, Scene, Setting},
};

const SERVERS: [&str; 3] = ["a", "b", "c"];

const MOST_S: f64 = 5.0;

pub(super) async fn run(quick: bool, report: &mut Report) -> Result<(), Error> {
    let rounds = if quick { 2 } else { 10 };
    tell(report, "restart_to_right", after_a_drain(rounds).await?)?;
    tell(report, "restart_to_right_after_failover", after_a_failover(rounds / 2).await?)
}

fn tell(report: &mut Report, name: &str, mut took: Vec<f64>) -> Result<(), Error> {
    took.sort_by(f64::total_cmp);
    let at = |index: usize| took.get(index).copied().unwrap_or_default();
    let (median, most) = (at(took.len() / 2), at(took.len().saturating_sub(1)));
    let measurement = Measurement::new(name, most, "s")
        .bar(Bar::default().at_most("seconds after a restart", most, MOST_S))
        .details(&json!({"rounds": took.len(), "p50_s": median, "max_s": most}))
        .note(format!("the longest of {} rounds, p50 {median:.2} s", took.len()));
    report.tell(&measurement)
}

async fn set(sessions: &str) -> Result<Scene, Error> {
    let agent_inter = Duration::from_secs(2);
    let scene = Scene::set(Setting { sessions: sessions.into(), agent_inter, ..Setting::default() }).await?;
    scene.up("orders_read", &["b", "c"]).await?;
    Ok(scene)
}

/// The agent dies in the middle of a drain, nothing else happens.
async fn after_a_drain(rounds: usize) -> Result<Vec<f64>, Error> {
    // Idle clients never leave by themselves: only what ends the agent ends the drain.
    let mut scene = set("{mode: drain, max_age: 5s, drain_deadline: 10m}").await?;
    let load = Load::new(scene.writer("app")?, 1).await?;
    load.add_to(&scene.readers("app")?, Work::Idle, 6);
    load.all_in(PATIENCE).await?;
    let mut took = Vec::new();
    for _ in 0..rounds {
        wait_for("a drain of a replica", PATIENCE * 2, async || {
            if drained(&scene).await { Ok(()) } else { Err("none") }
        })
        .await?;
        took.push(killed_and_started(&mut scene, "a", async |_| Ok(())).await?);
    }
    load.stop().await?;
    drop(load);
    scene.clear().await?;
    Ok(took)
}

/// The writer is another one when the agent comes back.
async fn after_a_failover(rounds: usize) -> Result<Vec<f64>, Error> {
    let mut scene = set("{mode: observe}").await?;
    let mut took = Vec::new();
    for to in ["b", "c", "a"].into_iter().cycle().take(rounds) {
        let failover = async |scene: &Scene| Ok(scene.standin.failover(to).await?);
        took.push(killed_and_started(&mut scene, to, failover).await?);
    }
    scene.clear().await?;
    Ok(took)
}

/// Seconds from the start of the agent until nothing is drained any more, `writer` alone takes
/// writers' sessions, and the others take readers'.
async fn killed_and_started(
    scene: &mut Scene,
    writer: &str,
    meanwhile: impl AsyncFnOnce(&Scene) -> Result<(), Error>,
) -> Result<f64, Error> {
    scene.agent.kill();
    meanwhile(scene).await?;
    let readers: Vec<&str> = SERVERS.into_iter().filter(|server| *server != writer).collect();
    let began = Instant::now();
    scene.agent.spawn()?;
    // Each for itself: the agent may begin the next drain before the last server is right.
    let (drains, roles) = tokio::join!(
        wait_for("no drain left", PATIENCE, async || {
            if drained(scene).await { Err("there is one") } else { Ok(began.elapsed()) }
        }),
        wait_for("the roles to be right", PATIENCE, async || {
            let write = scene.proxy.up("orders_write", &scene.standin).await;
            let read = scene.proxy.up("orders_read", &scene.standin).await;
            match (write, read) {
                (Ok(write), Ok(read)) if write == [writer] && read == readers => Ok(began.elapsed()),
                other => Err(format!("{other:?}")),
            }
        }),
    );
    Ok(drains?.max(roles?).as_secs_f64())
}

/// Whether a replica is drained.
async fn drained(scene: &Scene) -> bool {
    for server in SERVERS {
        if !matches!(scene.proxy.admin_bits("orders_read", server).await, Ok(0)) {
            return true;
        }
    }
    false
}
