//! Another writer, and what becomes of the old one.

use super::{BASE, ENVOY_MARIA, ENVOY_PG, HAPROXY_MARIA, HAPROXY_PG, Load, Script};
use crate::{
    regret::script::Event::{Failover, Follow, Freeze, Promote, Rejoin, Sql, Stop, Thaw},
    standin::StopMode::{Fast, Immediate},
};

pub(super) const ALL: &[Script] = &[
    Script {
        name: "failover",
        what: "the writer stops, b takes over, the old writer comes back as a reader",
        cells: &[HAPROXY_PG, HAPROXY_MARIA, ENVOY_PG, ENVOY_MARIA],
        seconds: 15,
        gains: true,
        ci: true,
        events: &[(2_000, Failover("b"))],
        ..BASE
    },
    Script {
        name: "failover-no-room",
        what: "the same without a waiting room",
        seconds: 15,
        waiting_room: false,
        gains: true,
        events: &[(2_000, Failover("b"))],
        ..BASE
    },
    Script {
        name: "failover-old-dead",
        what: "the writer crashes and stays away, b takes over a second later",
        cells: &[HAPROXY_PG, HAPROXY_MARIA, ENVOY_PG],
        seconds: 15,
        gains: true,
        events: &[(2_000, Stop("a", Immediate)), (3_000, Promote("b")), (4_000, Follow("c"))],
        ..BASE
    },
    Script {
        name: "failover-slow",
        what: "the writer stops, b takes over 6 s later",
        load: Load::Writes,
        seconds: 18,
        gains: true,
        events: &[(2_000, Stop("a", Fast)), (8_000, Promote("b"))],
        ..BASE
    },
    Script {
        name: "failover-old-frozen",
        what: "the writer hangs, b takes over a second later",
        cells: &[HAPROXY_PG, ENVOY_PG],
        seconds: 15,
        gains: true,
        events: &[(2_000, Freeze("a")), (3_000, Promote("b")), (4_000, Follow("c"))],
        ..BASE
    },
    Script {
        name: "failover-old-thaws",
        what: "the writer hangs, b takes over, the old writer goes on and still claims to be it",
        seconds: 20,
        gains: true,
        events: &[
            (2_000, Freeze("a")),
            (3_000, Promote("b")),
            (4_000, Follow("c")),
            (9_000, Thaw("a")),
            (15_000, Rejoin("a")),
        ],
        ..BASE
    },
    Script {
        name: "failover-old-claims",
        what: "b takes over while the old writer still takes writes; it comes back as a reader",
        cells: &[HAPROXY_PG, HAPROXY_MARIA],
        seconds: 16,
        no_plain: Some("without the topology, two writers look like a promoted read replica"),
        events: &[(2_000, Promote("b")), (3_000, Follow("c")), (10_000, Rejoin("a"))],
        ..BASE
    },
    Script {
        name: "failover-twice",
        what: "b takes over, then c",
        seconds: 20,
        gains: true,
        events: &[(2_000, Failover("b")), (10_000, Failover("c"))],
        ..BASE
    },
    Script {
        name: "promoted-read-replica",
        what: "a reader is promoted to a database of its own; the writer stays the writer",
        seconds: 14,
        events: &[(2_000, Sql("b", "SELECT pg_promote()"))],
        ..BASE
    },
];
