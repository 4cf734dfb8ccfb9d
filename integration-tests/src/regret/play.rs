//! One play of a script: all arms at once, in front of the same servers, with the same load.
//!
//! So a fault strikes each arm at the same moment, and what chance does to one it does to the others.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::Duration,
};

use serde_json::json;
use tokio::{task::JoinSet, time::Instant};

use super::{
    Error,
    arm::ArmKind,
    client::{Done, schedule},
    outcome::{Counts, Outcome},
    script::{Cell, Script},
    stage::Stage,
};

/// What clients suffered in each arm.
#[derive(Clone, Debug)]
pub struct Play {
    pub counts: BTreeMap<ArmKind, Counts>,
    /// Why attempts went wrong, and how many.
    pub causes: BTreeMap<ArmKind, BTreeMap<String, u32>>,
}

/// Plays it once. Each attempt, and the agent's log, go to files in `details`.
pub async fn play(script: &Script, cell: Cell, seed: u64, details: &Path) -> Result<Play, Error> {
    let stage = Stage::set(script, cell).await?;
    let start = Instant::now() + Duration::from_millis(100);
    let mut attempts = JoinSet::new();
    for arm in &stage.arms {
        for order in schedule(seed ^ of_name(script.name), script.load, script.rate, script.length()) {
            let (clients, kind) = (arm.clients.clone(), arm.kind);
            attempts.spawn(async move { (kind, clients.attempt(order, start.into_std()).await) });
        }
    }
    let (done, played) = tokio::join!(attempts.join_all(), stage.play(script.events, start));
    stage.release().await?;
    let mut done = by_arm(done);
    find_lost(&stage, &mut done).await?;

    let file = |ending: &str| {
        let (proxy, engine) = (cell.proxy.word(), cell.engine_word());
        details.join(format!("{}-{proxy}-{engine}-{seed}.{ending}", script.name))
    };
    fs::write(file("json"), serde_json::to_string(&json!(done)).unwrap_or_default())?;
    if let Some(arm) = stage.arm(ArmKind::Acting)
        && let Some(agent) = arm.agent.lock().await.as_ref()
    {
        fs::write(file("agent.log"), agent.log())?;
    }
    stage.clear().await?;
    played?;
    let counts = done.iter().map(|(kind, done)| (*kind, done.iter().map(|done| done.outcome).collect()));
    let causes = done.iter().map(|(kind, done)| {
        let mut causes = BTreeMap::new();
        for done in done.iter().filter(|done| !done.reason.is_empty()) {
            *causes.entry(done.reason.clone()).or_default() += 1;
        }
        (*kind, causes)
    });
    Ok(Play { counts: counts.collect(), causes: causes.collect() })
}

fn by_arm(done: Vec<(ArmKind, Done)>) -> BTreeMap<ArmKind, Vec<Done>> {
    let mut by_arm: BTreeMap<ArmKind, Vec<Done>> = BTreeMap::new();
    for (kind, done) in done {
        by_arm.entry(kind).or_default().push(done);
    }
    for done in by_arm.values_mut() {
        done.sort_by_key(|done| done.number);
    }
    by_arm
}

/// Finds writes that were acknowledged and that the final writer does not have.
async fn find_lost(stage: &Stage, done: &mut BTreeMap<ArmKind, Vec<Done>>) -> Result<(), Error> {
    let writer = stage.standin.writer()?.name();
    for arm in &stage.arms {
        let rows = format!("SELECT number FROM orders WHERE client = {}", arm.clients.client);
        let rows = stage.standin.execute_sql(writer, &rows).await?;
        let there: BTreeSet<u32> =
            rows.into_iter().flatten().flatten().filter_map(|number| number.parse().ok()).collect();
        for done in done.entry(arm.kind).or_default() {
            if done.write && done.outcome <= Outcome::Slow && !there.contains(&done.number) {
                done.outcome = Outcome::WrongWriter;
                done.reason = "acknowledged, and not on the final writer".into();
            }
        }
    }
    Ok(())
}

/// FNV-1a.
fn of_name(name: &str) -> u64 {
    name.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}
