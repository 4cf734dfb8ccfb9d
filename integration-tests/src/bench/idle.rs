//! What the agent costs while nothing happens: ten instances behind one HAProxy, a kept
//! connection to each, no session but its own.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::time::sleep;

use super::{Error, Measurement, Report};
use crate::{
    load::{Load, Work},
    process::wait_for,
    scene::{PATIENCE, Scene, Setting},
    standin::Options,
};

const INSTANCES: usize = 10;

/// The unit of `/proc/PID/stat`: the same on all Linux (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

pub(super) async fn run(quick: bool, report: &mut Report) -> Result<(), Error> {
    let cost = Cost::of("{mode: retire}", quick, async |_| Ok(None)).await?;
    let Memory { now, peak } = cost.memory;
    report.tell(&Measurement::new("idle_rss", now, "MiB").details(&json!({"peak_mib": peak})))?;
    report.tell(&Measurement::new("idle_cpu", cost.cpu, "% of a core"))
}

/// The same with a client that listens, beside the replicas' own sessions: all far past a limit of
/// some seconds, and held. Nothing changes any more, so the agent should be as quiet.
pub(super) async fn run_held(quick: bool, report: &mut Report) -> Result<(), Error> {
    let listener = async |scene: &Scene| {
        let load = Load::new(scene.writer("app")?, 1).await?;
        load.add(Work::Listen, 1);
        load.all_in(PATIENCE).await?;
        let held = wait_for("the listener to be held", PATIENCE, async || {
            match scene.agent.number("/state/sessions/holds/listening").await {
                0.0 => Err(scene.verdicts().await),
                _ => Ok(()),
            }
        });
        held.await?;
        Ok(Some(load))
    };
    let cost = Cost::of("{mode: retire, max_age: 5s}", quick, listener).await?;
    report.tell(&Measurement::new("idle_held_cpu", cost.cpu, "% of a core"))?;
    let a_minute = cost.requests as f64 / cost.seconds * 60.0;
    report.tell(&Measurement::new("idle_held_credentials", a_minute, "requests/min"))
}

/// What the agent cost while nothing happened.
struct Cost {
    seconds: f64,
    /// In percent of a core.
    cpu: f64,
    memory: Memory,
    /// To the credentials endpoint.
    requests: u64,
}

impl Cost {
    /// With ten instances and these sessions; `beside` comes to be there first.
    async fn of(
        sessions: &str,
        quick: bool,
        beside: impl AsyncFnOnce(&Scene) -> Result<Option<Load>, Error>,
    ) -> Result<Self, Error> {
        let standin = Options { replicas: INSTANCES - 1, ..Options::default() };
        let setting = Setting {
            standin,
            agent_inter: Duration::from_secs(2),
            sessions: sessions.into(),
            ..Setting::default()
        };
        let scene = Scene::set(setting).await?;
        let usable = wait_for("all instances to be usable", PATIENCE, async || {
            let state = scene.agent.state().await.map_err(|error| error.to_string())?;
            let instances = state.pointer("/state/logins").and_then(|logins| logins.as_object());
            match instances.map_or(0, serde_json::Map::len) {
                INSTANCES => Ok(()),
                some => Err(format!("{some} of {INSTANCES}")),
            }
        });
        usable.await?;
        let load = beside(&scene).await?;
        let pid = scene.agent.pid().ok_or_else(|| Error::Unexpected("the agent does not run".into()))?;
        // What starting cost is not what idling costs.
        sleep(Duration::from_secs(3)).await;

        let credentials = scene.standin.credentials();
        let (began, before, asked) = (Instant::now(), cpu_seconds(pid)?, credentials.requests());
        sleep(Duration::from_secs(if quick { 8 } else { 20 })).await;
        let (seconds, used) = (began.elapsed().as_secs_f64(), cpu_seconds(pid)? - before);
        let (memory, requests) = (memory(pid)?, credentials.requests() - asked);
        if let Some(load) = load {
            load.stop().await?;
        }
        scene.clear().await?;
        Ok(Self { seconds, cpu: used / seconds * 100.0, memory, requests })
    }
}

/// The resident memory of a process, in MiB.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    pub(super) now: f64,
    /// The most that it has had.
    pub(super) peak: f64,
}

pub(super) fn memory(pid: u32) -> Result<Memory, Error> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let mebibytes = |key: &str| -> Option<f64> {
        let value = status.lines().find_map(|line| line.strip_prefix(key))?;
        let kilobytes: f64 = value.trim_start_matches(':').trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kilobytes / 1_024.0)
    };
    let unreadable = || Error::Unexpected(format!("/proc/{pid}/status is not as expected"));
    Ok(Memory {
        now: mebibytes("VmRSS").ok_or_else(unreadable)?,
        peak: mebibytes("VmHWM").ok_or_else(unreadable)?,
    })
}

/// User and system time of a process.
pub(super) fn cpu_seconds(pid: u32) -> Result<f64, Error> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name may have spaces in it; utime and stime are the 12th and 13th after it.
    let after = stat.rsplit_once(") ").map_or("", |(_, after)| after);
    let ticks: Vec<f64> = after.split(' ').skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    match ticks[..] {
        [user, system] => Ok((user + system) / TICKS_PER_SECOND),
        _ => Err(Error::Unexpected(format!("/proc/{pid}/stat is not as expected"))),
    }
}
