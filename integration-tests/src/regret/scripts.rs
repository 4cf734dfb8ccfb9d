//! The scripts. The name says the fault, `what` all of it.

use super::script::{Address, Cell, Event::*, Load, Path, ProxyKind, Script};
use crate::standin::{
    Engine,
    StopMode::{Fast, Immediate},
};

const HAPROXY_PG: Cell = Cell { proxy: ProxyKind::Haproxy, engine: Engine::Postgresql };
const HAPROXY_MARIA: Cell = Cell { proxy: ProxyKind::Haproxy, engine: Engine::Mariadb };
const ENVOY_PG: Cell = Cell { proxy: ProxyKind::Envoy, engine: Engine::Postgresql };
const ENVOY_MARIA: Cell = Cell { proxy: ProxyKind::Envoy, engine: Engine::Mariadb };

/// What most scripts have in common: a writer and two replicas, HAProxy and PostgreSQL, half a minute at most.
const BASE: Script = Script {
    name: "",
    what: "",
    cells: &[HAPROXY_PG],
    load: Load::Both,
    replicas: 2,
    seconds: 12,
    waiting_room: true,
    gains: false,
    ci: false,
    before: &[],
    readers: &[],
    events: &[],
};

/// All of them, in the order of the table.
pub fn all() -> Vec<Script> {
    vec![
        Script {
            name: "nothing",
            what: "no fault at all",
            cells: &[HAPROXY_PG, HAPROXY_MARIA, ENVOY_PG, ENVOY_MARIA],
            ci: true,
            ..BASE
        },
        // === a server restarts ===
        Script {
            name: "restart-single-0.5s",
            what: "the only server restarts in 0.5 s, fast shutdown",
            cells: &[HAPROXY_PG, HAPROXY_MARIA],
            load: Load::Writes,
            replicas: 0,
            events: &[(2_000, Restart("a", Fast, 500))],
            ..BASE
        },
        Script {
            name: "restart-single-1.5s",
            what: "the only server restarts in 1.5 s, fast shutdown",
            cells: &[HAPROXY_PG, ENVOY_PG],
            load: Load::Writes,
            replicas: 0,
            ci: true,
            events: &[(2_000, Restart("a", Fast, 1_500))],
            ..BASE
        },
        Script {
            name: "restart-writer-1.5s",
            what: "the writer of three restarts in 1.5 s, fast shutdown",
            cells: &[HAPROXY_PG, HAPROXY_MARIA, ENVOY_PG],
            ci: true,
            events: &[(2_000, Restart("a", Fast, 1_500))],
            ..BASE
        },
        Script {
            name: "restart-reader-1.5s",
            what: "a reader of two restarts in 1.5 s, fast shutdown",
            load: Load::Reads,
            events: &[(2_000, Restart("b", Fast, 1_500))],
            ..BASE
        },
        // === failovers ===
        Script {
            name: "failover",
            what: "the writer stops, b takes over, the old writer comes back as a reader",
            cells: &[HAPROXY_PG, HAPROXY_MARIA, ENVOY_PG],
            seconds: 20,
            gains: true,
            ci: true,
            events: &[(2_000, Failover("b"))],
            ..BASE
        },
        Script {
            name: "failover-old-frozen",
            what: "the writer freezes, b takes over a second later",
            seconds: 20,
            gains: true,
            events: &[(2_000, Freeze("a")), (3_000, Promote("b")), (3_500, Follow("c"))],
            ..BASE
        },
        // === HAProxy ===
        Script {
            name: "haproxy-restart-no-agent",
            what: "HAProxy is restarted while the agent is dead",
            events: &[(2_000, KillAgent), (3_000, RestartProxy(200)), (8_000, StartAgent)],
            ..BASE
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_no_script_is_longer_than_half_a_minute() {
        let all = all();
        let names: std::collections::BTreeSet<_> = all.iter().map(|script| script.name).collect();
        assert_eq!(names.len(), all.len());
        for script in all {
            assert!(script.seconds <= 30, "{}", script.name);
            assert!(script.events.iter().all(|(at, _)| *at < script.seconds * 1_000), "{}", script.name);
            assert!(!script.cells.is_empty(), "{}", script.name);
        }
    }
}
