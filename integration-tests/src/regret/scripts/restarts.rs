//! Servers that restart or hang, and no failover.

use super::{BASE, ENVOY_MARIA, ENVOY_PG, HAPROXY_MARIA, HAPROXY_PG, Load, ONE_READER, Script};
use crate::{
    regret::script::Event::{Freeze, FreezePostmaster, Restart, Start, Stop, Thaw, ThawPostmaster},
    standin::StopMode::{Fast, Immediate},
};

pub(super) const ALL: &[Script] = &[
    Script {
        name: "nothing",
        what: "no fault at all",
        cells: &[HAPROXY_PG, HAPROXY_MARIA, ENVOY_PG, ENVOY_MARIA],
        seconds: 8,
        ..BASE
    },
    // === the only server ===
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
        name: "restart-single-1.5s-no-room",
        what: "the same without a waiting room",
        load: Load::Writes,
        replicas: 0,
        waiting_room: false,
        events: &[(2_000, Restart("a", Fast, 1_500))],
        ..BASE
    },
    Script {
        name: "restart-single-1.5s-immediate",
        what: "the only server crashes and is back in 1.5 s",
        load: Load::Writes,
        replicas: 0,
        events: &[(2_000, Restart("a", Immediate, 1_500))],
        ..BASE
    },
    Script {
        name: "restart-single-10s",
        what: "the only server restarts in 10 s, fast shutdown",
        load: Load::Writes,
        replicas: 0,
        seconds: 18,
        rate: 4,
        events: &[(2_000, Restart("a", Fast, 10_000))],
        ..BASE
    },
    // === the writer ===
    Script {
        name: "restart-writer-0.5s",
        what: "the writer of three restarts in 0.5 s, fast shutdown",
        events: &[(2_000, Restart("a", Fast, 500))],
        ..BASE
    },
    Script {
        name: "restart-writer-1.5s",
        what: "the writer of three restarts in 1.5 s, fast shutdown",
        cells: &[HAPROXY_PG, HAPROXY_MARIA, ENVOY_PG, ENVOY_MARIA],
        ci: true,
        events: &[(2_000, Restart("a", Fast, 1_500))],
        ..BASE
    },
    Script {
        name: "restart-writer-1.5s-no-room",
        what: "the same without a waiting room",
        waiting_room: false,
        events: &[(2_000, Restart("a", Fast, 1_500))],
        ..BASE
    },
    Script {
        name: "restart-writer-1.5s-immediate",
        what: "the writer of three crashes and is back in 1.5 s",
        events: &[(2_000, Restart("a", Immediate, 1_500))],
        ..BASE
    },
    Script {
        name: "restart-writer-10s",
        what: "the writer of three restarts in 10 s, without a failover",
        load: Load::Writes,
        seconds: 18,
        rate: 4,
        events: &[(2_000, Restart("a", Fast, 10_000))],
        ..BASE
    },
    // === readers ===
    Script {
        name: "restart-reader-1.5s",
        what: "one of two readers restarts in 1.5 s, fast shutdown",
        cells: &[HAPROXY_PG, HAPROXY_MARIA, ENVOY_PG],
        load: Load::Reads,
        events: &[(2_000, Restart("b", Fast, 1_500))],
        ..BASE
    },
    Script {
        name: "restart-reader-10s",
        what: "one of two readers restarts in 10 s",
        load: Load::Reads,
        seconds: 16,
        events: &[(2_000, Restart("b", Fast, 10_000))],
        ..BASE
    },
    Script {
        name: "restart-only-reader-0.5s",
        what: "the only reader restarts in 0.5 s",
        load: Load::Reads,
        replicas: 1,
        events: &[(2_000, Restart("b", Fast, 500))],
        ..BASE
    },
    Script {
        name: "restart-only-reader-0.5s-no-room",
        what: "the same without a waiting room",
        load: Load::Reads,
        replicas: 1,
        waiting_room: false,
        events: &[(2_000, Restart("b", Fast, 500))],
        ..BASE
    },
    Script {
        name: "restart-all-readers-1.5s",
        what: "both readers restart at the same time, in 1.5 s",
        load: Load::Reads,
        events: &[(2_000, Restart("b", Fast, 1_500)), (2_000, Restart("c", Fast, 1_500))],
        ..BASE
    },
    Script {
        name: "all-readers-gone",
        what: "one reader stops, then the other; the first comes back",
        load: Load::Reads,
        seconds: 18,
        no_plain: ONE_READER,
        events: &[(2_000, Stop("b", Fast)), (4_000, Stop("c", Fast)), (12_000, Start("b"))],
        ..BASE
    },
    // === servers that hang ===
    Script {
        name: "freeze-writer-4s",
        what: "the writer hangs for 4 s",
        load: Load::Writes,
        seconds: 12,
        events: &[(2_000, Freeze("a")), (6_000, Thaw("a"))],
        ..BASE
    },
    Script {
        name: "freeze-reader-8s",
        what: "one of two readers hangs for 8 s",
        load: Load::Reads,
        seconds: 14,
        events: &[(2_000, Freeze("c")), (10_000, Thaw("c"))],
        ..BASE
    },
    Script {
        name: "freeze-postmaster-writer",
        what: "new logins on the writer hang for 8 s, its sessions work",
        load: Load::Writes,
        seconds: 14,
        events: &[(2_000, FreezePostmaster("a")), (10_000, ThawPostmaster("a"))],
        ..BASE
    },
    Script {
        name: "freeze-postmaster-reader",
        what: "new logins on one of two readers hang for 24 s, its sessions work",
        load: Load::Reads,
        seconds: 28,
        probe_interval: "3s",
        events: &[(2_000, FreezePostmaster("c")), (26_000, ThawPostmaster("c"))],
        ..BASE
    },
];
