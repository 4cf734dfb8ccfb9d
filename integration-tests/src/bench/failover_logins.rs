//! Clients that log in while the writer changes, again and again: none of them may fail.
//!
//! Clients come by a schedule, ten a second, each with a connection of its own and a limit of 10 s for its
//! login. The old writer is shut down, crashes, or loses all its packets for 3 s; the
//! successor is promoted meanwhile. The servers take at most 200 logins a second, as RDS does.
//!
//! Clients that were connecting when the writer went are counted apart: their connection to it may have
//! been made, and no proxy repeats a login.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::{task::JoinSet, time::sleep};

use super::{Bar, Error, Measurement, Report};
use crate::{
    envoy::Envoy,
    haproxy::Haproxy,
    packets::Dropped,
    regret::{
        Outcome,
        client::{Clients, Done, schedule},
        script::Load,
    },
    scene::{Proxy, Scene, Setting},
    standin::{StandIn, StopMode},
};

/// What becomes of the old writer.
#[derive(Clone, Copy, Debug)]
enum End {
    ShutDown,
    Crash,
    LosesPackets,
}

impl End {
    fn word(self) -> &'static str {
        match self {
            Self::ShutDown => "shut_down",
            Self::Crash => "crash",
            Self::LosesPackets => "loses_packets",
        }
    }
}

/// Clients come from this long before the end of the old writer.
const BEFORE: Duration = Duration::from_secs(1);

const LENGTH: Duration = Duration::from_secs(7);

/// On RDS a promotion begins when the loss has been noticed.
const NOTICED: Duration = Duration::from_secs(1);

/// From the loss of the first packet to the end of the old writer.
const LOST: Duration = Duration::from_secs(3);

pub(super) async fn run(quick: bool, report: &mut Report) -> Result<(), Error> {
    let failovers = if quick { 6 } else { 50 };
    let (haproxy, envoy) = tokio::join!(behind::<Haproxy>(failovers), behind::<Envoy>(failovers));
    report.tell(&haproxy?)?;
    report.tell(&envoy?)
}

async fn behind<P: Proxy>(failovers: usize) -> Result<Measurement, Error> {
    let setting = Setting { waiting_room: true, ..Setting::default() };
    let scene = Scene::<P>::with(setting).await?;
    scene.standin.throttle_logins(Some(200));
    let names: Vec<String> = scene.standin.servers().iter().map(|server| server.name().to_owned()).collect();
    let mut ends = vec![End::ShutDown, End::Crash];
    if Dropped::is_possible() {
        ends.push(End::LosesPackets);
    }
    let mut tally = Tally::default();
    for (round, (end, to)) in
        ends.iter().cycle().zip(names.iter().cycle().skip(1)).take(failovers).enumerate()
    {
        let clients = Clients {
            standin: scene.standin.clone(),
            tls: scene.standin.tls()?,
            write: scene.proxy.dial("write"),
            read: scene.proxy.dial("read"),
            client: round + 1,
        };
        let (done, gone) = failover(&scene.standin, clients, *end, to).await?;
        tally.add(*end, &done, gone);
        let readers: Vec<&str> = names.iter().filter(|name| *name != to).map(String::as_str).collect();
        scene.routed().await?;
        scene.up("orders_read", &readers).await?;
    }
    scene.clear().await?;
    let name = format!("failover_logins_{}", P::NAME.to_lowercase());
    Ok(tally.measurement(&name, failovers, &ends))
}

/// What became of the clients, and when after the first of them the old writer went.
async fn failover(
    standin: &Arc<StandIn>,
    clients: Clients,
    end: End,
    to: &str,
) -> Result<(Vec<Done>, Duration), Error> {
    let clients = Arc::new(clients);
    let start = Instant::now();
    let mut attempts = JoinSet::new();
    for order in schedule(clients.client as u64, Load::Writes, 10, LENGTH) {
        let clients = clients.clone();
        attempts.spawn(async move { clients.attempt(order, start).await });
    }
    sleep(BEFORE).await;
    let gone = start.elapsed();
    let old = standin.writer()?.name().to_owned();
    match end {
        End::ShutDown => standin.failover(to).await?,
        End::Crash => {
            standin.stop(&old, StopMode::Immediate).await?;
            standin.succeed(&old, to).await?;
            standin.rebuild_as_replica(&old).await?;
        }
        End::LosesPackets => {
            let IpAddr::V4(address) = standin.server(&old)?.connect().ip() else {
                return Err(Error::Unexpected(format!("server {old} has no IPv4 address")));
            };
            let dropped = Dropped::of(address)?;
            let until = Instant::now() + LOST;
            sleep(NOTICED).await;
            standin.succeed(&old, to).await?;
            sleep(until.saturating_duration_since(Instant::now())).await;
            standin.stop(&old, StopMode::Immediate).await?;
            drop(dropped);
            standin.rebuild_as_replica(&old).await?;
        }
    }
    Ok((attempts.join_all().await, gone))
}

#[derive(Default)]
struct Tally {
    logins: u64,
    /// Those that began after the end of the old writer, or had ended before it.
    failed: u64,
    /// Those that were under way at that moment.
    apart: u64,
    by_end: BTreeMap<&'static str, u64>,
    reasons: BTreeMap<String, u64>,
    slowest_ms: u128,
}

impl Tally {
    fn add(&mut self, end: End, done: &[Done], gone: Duration) {
        for done in done {
            self.logins += 1;
            let under_way = done.at_ms < gone.as_millis() && done.at_ms + done.took_ms >= gone.as_millis();
            if done.outcome < Outcome::Failed {
                self.slowest_ms = self.slowest_ms.max(done.took_ms);
            } else if under_way {
                self.apart += 1;
            } else {
                self.failed += 1;
                *self.by_end.entry(end.word()).or_default() += 1;
                let reason = format!("{} at {} ms: {}", end.word(), done.at_ms, done.reason);
                *self.reasons.entry(reason).or_default() += 1;
            }
        }
    }

    fn measurement(&self, name: &str, failovers: usize, ends: &[End]) -> Measurement {
        let ends: Vec<&str> = ends.iter().map(|end| end.word()).collect();
        Measurement::new(name, self.failed as f64, "failed")
            .bar(Bar::default().count("failed logins", self.failed, 0))
            .details(&json!({
                "failovers": failovers, "ends": ends, "logins": self.logins, "failed": self.failed,
                "under_way": self.apart, "by_end": self.by_end, "reasons": self.reasons,
                "slowest_ms": self.slowest_ms,
            }))
            .note(format!(
                "of {} logins in {failovers} failovers ({}); {} more of those under way; slowest {:.1} s",
                self.logins,
                ends.join(", "),
                self.apart,
                self.slowest_ms as f64 / 1e3
            ))
    }
}
