//! The agent is killed, stopped, upgraded, starved.

use super::{BASE, ENVOY_PG, HAPROXY_PG, Load, ONE_READER, Script};
use crate::{
    regret::script::Event::{
        Failover, FreezeAgent, KillAgent, Restart, Start, StartAgent, StarveAgent, Stop, StopAgent,
        ThawAgent, UpgradeAgent,
    },
    standin::StopMode::Fast,
};

pub(super) const ALL: &[Script] = &[
    Script {
        name: "agent-killed",
        what: "the agent is killed, and started 5 s later",
        cells: &[HAPROXY_PG, ENVOY_PG],
        events: &[(2_000, KillAgent), (7_000, StartAgent)],
        ..BASE
    },
    Script {
        name: "agent-killed-failover",
        what: "b takes over while the agent is dead, which is started 6 s later",
        cells: &[HAPROXY_PG, ENVOY_PG],
        seconds: 16,
        gains: true,
        events: &[(2_000, KillAgent), (3_000, Failover("b")), (9_000, StartAgent)],
        ..BASE
    },
    Script {
        name: "agent-stopped",
        what: "the agent is stopped, and started 5 s later",
        cells: &[HAPROXY_PG, ENVOY_PG],
        ci: true,
        events: &[(2_000, StopAgent), (7_000, StartAgent)],
        ..BASE
    },
    Script {
        name: "agent-stopped-reader-down",
        what: "a reader is down while the agent is stopped for good; it is back when the other reader stops",
        cells: &[HAPROXY_PG, ENVOY_PG],
        load: Load::Reads,
        seconds: 14,
        no_plain: ONE_READER,
        events: &[
            (1_000, Stop("b", Fast)),
            (4_000, StopAgent),
            (5_000, Start("b")),
            (9_000, Stop("c", Fast)),
        ],
        ..BASE
    },
    Script {
        name: "agent-upgraded-reader-down",
        what: "a reader is down while the agent is upgraded; it is back when the other reader stops",
        cells: &[HAPROXY_PG, ENVOY_PG],
        load: Load::Reads,
        seconds: 14,
        no_plain: ONE_READER,
        events: &[
            (1_000, Stop("b", Fast)),
            (4_000, UpgradeAgent),
            (5_000, Start("b")),
            (9_000, Stop("c", Fast)),
        ],
        ..BASE
    },
    Script {
        name: "agent-upgraded",
        what: "the agent is stopped and started at once, twice",
        cells: &[HAPROXY_PG, ENVOY_PG],
        events: &[(2_000, UpgradeAgent), (5_000, UpgradeAgent)],
        ..BASE
    },
    Script {
        name: "agent-upgraded-restart",
        what: "the agent is upgraded while the writer restarts",
        events: &[(2_000, Restart("a", Fast, 1_500)), (2_200, UpgradeAgent)],
        ..BASE
    },
    Script {
        name: "agent-upgraded-failover",
        what: "the agent is upgraded during a failover",
        seconds: 15,
        gains: true,
        events: &[(2_000, Failover("b")), (2_500, UpgradeAgent)],
        ..BASE
    },
    Script {
        name: "agent-frozen",
        what: "the agent is frozen for 6 s",
        cells: &[HAPROXY_PG, ENVOY_PG],
        seconds: 14,
        events: &[(2_000, FreezeAgent), (8_000, ThawAgent)],
        ..BASE
    },
    Script {
        name: "agent-starved",
        what: "the agent runs for 0.2 s of every 1.2 s",
        seconds: 14,
        ci: true,
        events: &[(1_000, StarveAgent(10, 1_000, 200))],
        ..BASE
    },
    Script {
        name: "agent-starved-long",
        what: "the agent runs for 0.1 s of every 4.1 s",
        seconds: 20,
        events: &[(1_000, StarveAgent(4, 4_000, 100))],
        ..BASE
    },
    Script {
        name: "agent-starved-restart",
        what: "the agent runs for 0.2 s of every 1.2 s, and the writer restarts",
        seconds: 14,
        events: &[(1_000, StarveAgent(8, 1_000, 200)), (3_000, Restart("a", Fast, 1_500))],
        ..BASE
    },
];
