//! Liveness: queries the role frequently on a kept connection.

use std::{sync::Arc, time::Duration};

use agent_core::{
    Evidence, Fault, FaultKind,
    health::{Observation, Source},
};
use agent_database::Session;
use tokio::time::Instant;

use super::door::Door;
use crate::{
    messages::Input,
    metrics::labels::{LivenessResult, OfInstance, OfLiveness},
    shared::{Backoff, jittered},
};

/// The pause after a refused login: each login is work for IAM as well.
const REFUSED: Duration = Duration::from_secs(10);

/// The pause after a refused connection. It is short, because clients wait for a server that restarts
/// and their tries run out, and because the host refuses for the server, at no cost.
const STOPPED: Duration = Duration::from_millis(50);

/// The pause once connections have been refused for [`LONG`]: each try is also a name lookup and work of the
/// agent's own, and no client waits that long.
const STOPPED_LONG: Duration = Duration::from_secs(1);

/// When a stopped server is no longer about to be back.
const LONG: Duration = Duration::from_secs(60);

/// The pause while a server answers that it starts or stops. Such an answer takes a process of it, and a login of
/// the budget, which is 5 a second by default.
const STARTING: Duration = Duration::from_millis(200);

/// A connection that lasted this long is replaced without a pause.
const LASTING: Duration = Duration::from_secs(10);

/// Runs until it is dropped.
pub async fn run(door: Arc<Door>) {
    // The first failures are retried soon, because a verdict needs two.
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    let mut refused: Option<Instant> = None;
    loop {
        let login = door.login().await;
        let is_refused = login.as_ref().is_err_and(|fault| fault.kind == FaultKind::ConnectionRefused);
        refused = is_refused.then(|| refused.unwrap_or_else(Instant::now));
        match (login, refused) {
            (Ok(session), _) => {
                let began = Instant::now();
                let fault = ask_until_it_fails(&door, session).await;
                tracing::debug!(instance = %door.instance(), %fault, "liveness connection lost");
                door.source(Source::Role, Some(&fault)).await;
                door.probe_now.notify_waiters();
                // A connection that is lost soon and repeatedly must not use up the login budget.
                if began.elapsed() >= LASTING {
                    backoff.reset();
                } else {
                    tokio::time::sleep(backoff.wait()).await;
                }
            }
            (Err(fault), _) if fault.evidence() == Evidence::AuthIll => {
                // Another login that works again is worth a try at once.
                tokio::select! {
                    () = tokio::time::sleep(jittered(REFUSED)) => {}
                    () = door.probe_now.notified() => {}
                }
            }
            (Err(_), Some(since)) => {
                let pause = if since.elapsed() < LONG { STOPPED } else { STOPPED_LONG };
                tokio::time::sleep(jittered(pause)).await;
            }
            (Err(fault), _) if fault.evidence() == Evidence::Down => {
                tokio::time::sleep(jittered(STARTING)).await;
            }
            (Err(_), _) => tokio::time::sleep(backoff.wait()).await,
        }
    }
}

async fn ask_until_it_fails(door: &Door, mut session: Box<dyn Session>) -> Fault {
    let id = door.instance();
    let metrics = &door.shared.metrics;
    let labels = OfInstance::from(id);
    let seconds = metrics.liveness_seconds.get_or_create_owned(&labels);

    loop {
        let cadence = door.shared.snapshot.borrow().watch.cadence.get(id).copied();
        // A server that stops ends its sessions first: asking then, and not at the next turn, saves
        // clients from it.
        tokio::select! {
            () = tokio::time::sleep(cadence.unwrap_or(Duration::from_secs(1))) => {}
            () = session.interrupted() => {}
        }
        // If the process is stopped meanwhile, the answer is as old as its query.
        let at = door.shared.clock.now();
        let asked = door.shared.starvation.begin();
        let result = session.role().await;
        let OfInstance { database, instance } = labels.clone();
        let counted = match &result {
            Ok(_) => LivenessResult::Ok,
            Err(fault) if door.is_own_delay(fault, asked) => LivenessResult::Starved,
            Err(_) => LivenessResult::Failed,
        };
        metrics.liveness.get_or_create(&OfLiveness { database, instance, result: counted }).inc();
        if result.is_ok() {
            seconds.observe(asked.lasts().as_secs_f64());
        }
        let fault = result.as_ref().err().cloned();
        if counted != LivenessResult::Starved {
            let observation = Observation { instance: id.clone(), at, login: false, result };
            door.shared.send(Input::Health(observation)).await;
        }
        if let Some(fault) = fault {
            return fault;
        }
    }
}
