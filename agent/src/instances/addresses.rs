//! Logins at the addresses that proxies dial, where these differ from the agent's own: only a login with a
//! verified name proves which instance is there.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use agent_core::{Phase, health::AddressLogin};

use super::door::Door;
use crate::{
    messages::Input,
    shared::{Backoff, jittered},
};

/// The pause after a connection that failed: two prove that the address is dead.
const AGAIN: Duration = Duration::from_secs(2);

/// The longest pause after a login that another server refused. MySQL counts each against this host.
const ELSEWHERE: Duration = Duration::from_secs(300);

/// Runs until it is dropped.
pub async fn run(door: Arc<Door>, interval: Duration) {
    let mut snapshot = door.shared.snapshot.clone();
    let mut elsewhere = Backoff::new(AGAIN * 2, ELSEWHERE);
    let mut before: BTreeSet<SocketAddr> = BTreeSet::new();
    loop {
        let some = |addresses: Option<&BTreeSet<SocketAddr>>| addresses.is_some_and(|some| !some.is_empty());
        let found = snapshot.wait_for(|now| some(now.watch.dialled.get(door.instance()))).await;
        let found = found.map(|now| now.watch.dialled.get(door.instance()).cloned().unwrap_or_default());
        // Everything stops.
        let Ok(wanted) = found else { return std::future::pending().await };
        if wanted != before {
            elsewhere.reset();
            before.clone_from(&wanted);
        }
        let mut wait = interval;
        for address in &wanted {
            let at = door.shared.clock.now();
            let result = door.login_at(*address).await;
            match &result {
                Ok(()) => {}
                Err(fault) if fault.phase <= Phase::Tcp => wait = wait.min(AGAIN),
                Err(_) => wait = elsewhere.wait(),
            }
            let (instance, address) = (door.instance().clone(), *address);
            let login = AddressLogin { instance, address, at, own: false, result };
            door.shared.send(Input::Address(login)).await;
        }
        tokio::select! {
            () = tokio::time::sleep(jittered(wait)) => {}
            Ok(_) = snapshot.wait_for(|now| now.watch.dialled.get(door.instance()) != Some(&wanted)) => {}
        }
    }
}
