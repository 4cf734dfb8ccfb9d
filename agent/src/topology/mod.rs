//! Asks RDS's API once a minute which instances a database has, and reports differences to the configuration. One
//! task for each database with `topology`.
//!
//! It only reports: nothing waits for it, no verdict and no session depends on it, and an answer that is denied,
//! late or empty leaves what was seen before (`docs/decisions/the-api-adds-and-removes-nothing.md`).
//!
//! - [`members`]: the calls, and what they mean.

mod members;

use std::{sync::Arc, time::Duration};

use agent_aws::{
    CredentialChain, Region,
    rds::{RdsApi, RdsClient},
};
use agent_core::topology::{Configured, Member, compare};
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use self::members::Unanswered;
use crate::{
    config::{Database, Topology},
    events::{Episodes, Event, TopologyAgrees, TopologyDiffers, TopologyRead, TopologyUnread},
    shared::{Backoff, Shared, jittered, part_of},
};

/// AWS publishes no rate for these calls, and shares it between all callers of an account.
const INTERVAL: Duration = Duration::from_secs(60);

/// Until a new difference is confirmed or not.
const CONFIRM: Duration = Duration::from_secs(10);

/// After a failure, at least and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(600));

/// Agents that start together ask at different times.
const SPREAD: Duration = Duration::from_secs(5);

/// Compares one database, if it is configured.
pub async fn run(database: Database, chain: CredentialChain, shared: Shared) {
    let Some(topology) = database.topology.clone() else { return };
    sleep(part_of(SPREAD)).await;
    let name = database.name.clone();
    restarted(&name, &topology, &shared, || {
        let (database, topology) = (database.clone(), topology.clone());
        connected(database, topology, chain.clone(), shared.clone())
    })
    .await;
}

/// Runs a task again when it panics. A panic in another task ends the agent, so that it acts on nothing that is
/// half done; here nothing is acted on, and a bug of a client library must not stop the health checks.
async fn restarted<F: Future<Output = ()> + Send + 'static>(
    database: &str,
    topology: &Topology,
    shared: &Shared,
    task: impl Fn() -> F,
) {
    let mut backoff = Backoff::new(RETRY.0, RETRY.1);
    let mut episodes = Episodes::default();
    while let Err(error) = AbortOnDropHandle::new(tokio::spawn(task())).await {
        let message = format!("internal error, please report it: {error}");
        let error = Unanswered { result: "internal", message };
        unread(database, topology, &error, &mut episodes, shared);
        sleep(backoff.wait()).await;
    }
}

async fn connected(database: Database, topology: Topology, chain: CredentialChain, shared: Shared) {
    let named = database.instances.iter().find_map(|instance| instance.region.clone());
    let mut backoff = Backoff::new(RETRY.0, RETRY.1);
    let mut episodes = Episodes::default();
    let (region, api) = loop {
        let region = match &named {
            Some(named) => Region::parse(named).ok(),
            None => chain.region().await,
        };
        if let Some(region) = region {
            let client: Arc<dyn RdsApi> = Arc::new(RdsClient::new(&chain, &region).await);
            break (region, client);
        }
        let error = Unanswered {
            result: "no_region",
            message: "no AWS region is known: set `region` in its database, or AWS_REGION".into(),
        };
        unread(&database.name, &topology, &error, &mut episodes, &shared);
        sleep(backoff.wait()).await;
    };
    let configured = configured(&database, &region);
    poll(&database.name, &topology, &configured, &*api, &shared).await;
}

/// The instances of the region that is asked. Others are not in its answer.
fn configured(database: &Database, region: &Region) -> Vec<Configured> {
    let here = |region_of: &Option<String>| region_of.as_deref().is_none_or(|name| name == region.as_str());
    let instances = database.instances.iter().filter(|instance| here(&instance.region));
    let configured = instances.map(|instance| Configured {
        instance: instance.id().clone(),
        host: instance.target.endpoint.host.to_string(),
        port: instance.target.endpoint.port,
    });
    configured.collect()
}

async fn poll(
    database: &str,
    topology: &Topology,
    configured: &[Configured],
    api: &dyn RdsApi,
    shared: &Shared,
) {
    let mut backoff = Backoff::new(RETRY.0, RETRY.1);
    let mut episodes = Episodes::default();
    loop {
        let wait = match members::members(api, topology).await {
            Ok(members) => {
                backoff.reset();
                let silent = episodes.end(database).map(|ended| ended.lasted);
                let unconfirmed = read(database, topology, configured, members, silent, shared);
                jittered(if unconfirmed { CONFIRM } else { INTERVAL })
            }
            Err(error) => {
                unread(database, topology, &error, &mut episodes, shared);
                backoff.wait()
            }
        };
        sleep(wait).await;
    }
}

/// Takes a whole answer. Whether it should be confirmed soon.
fn read(
    database: &str,
    topology: &Topology,
    configured: &[Configured],
    members: Vec<Member>,
    silent_for: Option<Duration>,
    shared: &Shared,
) -> bool {
    let asked = topology.to_string();
    let (change, differences) = shared.topologies.with(database, &asked, |seen| {
        let change = seen.comparison.answered(compare(configured, &members));
        seen.members = members;
        seen.answered = Some(shared.clock.now());
        seen.error = None;
        (change, seen.comparison.lasting().len())
    });
    TopologyRead { database, asked: &asked, differences, silent_for }.emit(&shared.metrics);
    for difference in &change.new {
        TopologyDiffers { database, asked: &asked, difference: difference.to_string() }.emit(&shared.metrics);
    }
    if change.agrees {
        TopologyAgrees { database, asked: &asked }.emit(&shared.metrics);
    }
    change.unconfirmed
}

fn unread(database: &str, topology: &Topology, error: &Unanswered, episodes: &mut Episodes, shared: &Shared) {
    let asked = topology.to_string();
    let Unanswered { result, message } = error;
    shared.topologies.with(database, &asked, |seen| seen.error = Some(message.clone()));
    // Messages of AWS have numbers that differ each time.
    let news = episodes.begins(database, result);
    TopologyUnread { database, asked: &asked, result, error: message, news }.emit(&shared.metrics);
}

#[cfg(test)]
mod tests;
