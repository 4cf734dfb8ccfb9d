//! What is said to the agent: its commands, and edits of its configuration.
//!
//! In most of them a reader is down when the agent has to release it. The reader comes back, and then the
//! other one stops: a server that the agent left DOWN costs every read.

use super::{BASE, ENVOY_PG, HAPROXY_PG, Load, ONE_READER, Script};
use crate::{
    regret::script::Event::{
        AgentCommand, EditConfig, Failover, KillAgent, Reload, Restart, Start, StartAgent, Stop, StopAgent,
    },
    standin::StopMode::Fast,
};

/// Reads, with time for a reader to be down, back, and the only one.
const READS: Script = Script { load: Load::Reads, seconds: 14, no_plain: ONE_READER, ..BASE };

pub(super) const ALL: &[Script] = &[
    Script {
        name: "agent-paused-reader-down",
        what: "a reader is down when the agent is paused; it is back when the other reader stops",
        cells: &[HAPROXY_PG, ENVOY_PG],
        events: &[
            (1_000, Stop("b", Fast)),
            (4_000, AgentCommand(&["pause"])),
            (5_000, Start("b")),
            (9_000, Stop("c", Fast)),
        ],
        ..READS
    },
    Script {
        name: "agent-paused-resumed",
        what: "the agent is paused and resumed three times, and a reader restarts meanwhile",
        events: &[
            (1_000, AgentCommand(&["pause"])),
            (2_000, Restart("b", Fast, 2_000)),
            (3_000, AgentCommand(&["resume"])),
            (5_000, AgentCommand(&["pause"])),
            (6_000, AgentCommand(&["resume"])),
            (7_000, AgentCommand(&["pause"])),
            (9_000, AgentCommand(&["resume"])),
        ],
        ..READS
    },
    Script {
        name: "agent-killed-released",
        what: "a reader is down, the agent is killed and released; the reader is back when the other one stops",
        events: &[
            (1_000, Stop("b", Fast)),
            (4_000, KillAgent),
            (4_500, AgentCommand(&["release"])),
            (5_500, Start("b")),
            (9_000, Stop("c", Fast)),
        ],
        ..READS
    },
    Script {
        name: "reader-unconfigured",
        what: "a reader that is down leaves the agent's configuration; it is back when the other one stops",
        events: &[
            (1_000, Stop("b", Fast)),
            (4_000, EditConfig("{name: b,", "{name: unused,")),
            (6_000, Start("b")),
            (9_000, Stop("c", Fast)),
        ],
        ..READS
    },
    Script {
        name: "reload-refused",
        what: "the configuration is broken by an edit, b takes over, and the edit is taken back",
        seconds: 15,
        gains: true,
        events: &[
            (1_000, EditConfig("databases:", "databasses:")),
            (3_000, Failover("b")),
            (8_000, EditConfig("databasses:", "databases:")),
        ],
        ..BASE
    },
    Script {
        name: "ca-file-gone",
        what: "the configuration names a certificate file that does not exist, the agent restarts, and a reader stops",
        seconds: 14,
        no_plain: ONE_READER,
        events: &[
            (1_000, EditConfig("ca.pem", "gone.pem")),
            (2_000, StopAgent),
            (2_500, StartAgent),
            (6_000, Stop("c", Fast)),
        ],
        ..BASE
    },
    Script {
        name: "drain-reader-reload",
        what: "an operator drains a reader by the agent, HAProxy is reloaded, and the other reader stops after the drain",
        events: &[
            (1_000, AgentCommand(&["drain", "orders_read/b"])),
            (3_000, Reload),
            (6_000, AgentCommand(&["undrain", "orders_read/b"])),
            (9_000, Stop("c", Fast)),
        ],
        ..READS
    },
    Script {
        name: "drain-reader-killed",
        what: "an operator drains a reader by the agent for 3 s, and the agent is killed and started meanwhile",
        events: &[
            (1_000, AgentCommand(&["drain", "orders_read/b", "--for", "3s"])),
            (2_000, KillAgent),
            (3_000, StartAgent),
            (9_000, Stop("c", Fast)),
        ],
        ..READS
    },
];
