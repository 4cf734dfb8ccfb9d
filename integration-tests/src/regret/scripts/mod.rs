//! The scripts. A name says the fault in short, `what` all of it.
//!
//! - `restarts`: servers that restart or hang, without a failover
//! - `failovers`: another writer, and what becomes of the old one
//! - `logins`: IAM, AWS, the agent's user and the agent's own path to the servers
//! - `proxies`: the proxy restarts, an operator's commands, addresses
//! - `agents`: the agent is killed, stopped, upgraded, starved
//! - `commands`: the agent's own commands, and edits of its configuration

mod agents;
mod commands;
mod failovers;
mod logins;
mod proxies;
mod restarts;

use super::script::{Cell, Load, ProxyKind, Script};
use crate::standin::Engine;

const HAPROXY_PG: Cell = Cell { proxy: ProxyKind::Haproxy, engine: Engine::Postgresql };
const HAPROXY_MARIA: Cell = Cell { proxy: ProxyKind::Haproxy, engine: Engine::Mariadb };
const ENVOY_PG: Cell = Cell { proxy: ProxyKind::Envoy, engine: Engine::Postgresql };
const ENVOY_MARIA: Cell = Cell { proxy: ProxyKind::Envoy, engine: Engine::Mariadb };

/// A fault of one reader strikes all other arms, and plain only if it is there.
const ONE_READER: Option<&str> = Some("plain has one reader at a time, which the fault may miss");

/// What most scripts have in common: HAProxy with a waiting room, PostgreSQL, a writer and two replicas.
const BASE: Script = Script {
    name: "",
    what: "",
    cells: &[HAPROXY_PG],
    load: Load::Both,
    replicas: 2,
    seconds: 10,
    rate: 10,
    waiting_room: true,
    probe_interval: "30s",
    gains: false,
    no_plain: None,
    ci: false,
    before: &[],
    readers: &[],
    events: &[],
};

/// All of them, in the order of the table.
pub fn all() -> Vec<Script> {
    let parts = [restarts::ALL, failovers::ALL, logins::ALL, proxies::ALL, agents::ALL, commands::ALL];
    parts.into_iter().flatten().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_no_script_is_longer_than_half_a_minute() {
        let all = all();
        assert!(all.len() >= 30, "{} scripts", all.len());
        let names: std::collections::BTreeSet<_> = all.iter().map(|script| script.name).collect();
        assert_eq!(names.len(), all.len());
        for script in all {
            assert!(script.seconds <= 30, "{}", script.name);
            assert!(script.events.iter().all(|(at, _)| *at < script.seconds * 1_000), "{}", script.name);
            assert!(!script.cells.is_empty(), "{}", script.name);
        }
    }
}
