//! The proxy restarts, an operator's commands, addresses.

use super::{BASE, ENVOY_PG, HAPROXY_PG, Load, ONE_READER, Script};
use crate::{
    regret::script::{
        Address::{Dead, Of},
        Event::{
            CrashProxy, Failover, KillAgent, Operator, Readdress, Reload, RestartProxy, Start, StartAgent,
            Stop,
        },
    },
    standin::StopMode::Fast,
};

pub(super) const ALL: &[Script] = &[
    Script {
        name: "proxy-reload",
        what: "HAProxy is reloaded three times",
        events: &[(2_000, Reload), (4_000, Reload), (6_000, Reload)],
        ..BASE
    },
    Script {
        name: "proxy-restart",
        what: "the proxy restarts in 0.2 s",
        cells: &[HAPROXY_PG, ENVOY_PG],
        events: &[(2_000, RestartProxy(200))],
        ..BASE
    },
    Script {
        name: "proxy-crash",
        what: "the proxy is killed, and back in 0.2 s",
        cells: &[HAPROXY_PG, ENVOY_PG],
        events: &[(2_000, CrashProxy(200))],
        ..BASE
    },
    Script {
        name: "proxy-crash-failover",
        what: "the proxy is killed, and back 4 s later, after a failover",
        seconds: 16,
        gains: true,
        events: &[(2_000, CrashProxy(4_000)), (2_500, Failover("b"))],
        ..BASE
    },
    // === without the agent; the mute arm's check port still answers ===
    Script {
        name: "proxy-reload-no-agent",
        what: "HAProxy is reloaded while the agent is dead",
        events: &[(1_000, KillAgent), (2_000, Reload), (7_000, StartAgent)],
        ..BASE
    },
    Script {
        name: "proxy-restart-no-agent",
        what: "the proxy restarts while the agent is dead",
        cells: &[HAPROXY_PG, ENVOY_PG],
        events: &[(1_000, KillAgent), (2_000, RestartProxy(200)), (7_000, StartAgent)],
        ..BASE
    },
    Script {
        name: "proxy-restart-no-agent-failover",
        what: "b takes over and the proxy restarts while the agent is dead",
        seconds: 18,
        events: &[
            (1_000, KillAgent),
            (2_000, Failover("b")),
            (7_000, RestartProxy(200)),
            (12_000, StartAgent),
        ],
        ..BASE
    },
    // === what an operator does ===
    Script {
        name: "operator-maint-reader",
        what: "an operator puts a reader into maintenance, and the other reader restarts in 1 s",
        load: Load::Reads,
        seconds: 14,
        no_plain: ONE_READER,
        events: &[
            (2_000, Operator("set server orders_read/b state maint")),
            (5_000, Stop("c", Fast)),
            (6_000, Start("c")),
            (10_000, Operator("set server orders_read/b state ready")),
        ],
        ..BASE
    },
    Script {
        name: "operator-drain-writer",
        what: "an operator drains a reader, then b takes over",
        seconds: 16,
        gains: true,
        events: &[(2_000, Operator("set server orders_write/c state drain")), (4_000, Failover("b"))],
        ..BASE
    },
    Script {
        name: "operator-weight-0-reader",
        what: "the only reader is away; an operator gives it weight 0, and it comes back",
        load: Load::Reads,
        replicas: 1,
        seconds: 14,
        before: &[Stop("b", Fast)],
        readers: &["a"],
        events: &[(2_000, Operator("set server orders_read/b weight 0")), (3_000, Start("b"))],
        ci: true,
        ..BASE
    },
    Script {
        name: "operator-maint-only-reader",
        what: "the only reader is away; an operator puts it into maintenance, and it comes back",
        load: Load::Reads,
        replicas: 1,
        seconds: 14,
        before: &[Stop("b", Fast)],
        readers: &["a"],
        events: &[(2_000, Operator("set server orders_read/b state maint")), (3_000, Start("b"))],
        ..BASE
    },
    Script {
        name: "operator-disables-agent",
        what: "an operator disables the agent's check of one reader, and it stops",
        load: Load::Reads,
        seconds: 14,
        events: &[(2_000, Operator("disable agent orders_read/b")), (4_000, Stop("b", Fast))],
        ..BASE
    },
    // === addresses ===
    Script {
        name: "address-dead-reader",
        what: "HAProxy's address of one reader leads nowhere",
        load: Load::Reads,
        seconds: 14,
        events: &[(2_000, Readdress("c", Dead))],
        ..BASE
    },
    Script {
        name: "address-dead-reader-then-restart",
        what: "HAProxy's address of one reader leads nowhere, and HAProxy's other reader restarts",
        load: Load::Reads,
        seconds: 14,
        events: &[(2_000, Readdress("c", Dead)), (5_000, Stop("b", Fast)), (8_000, Start("b"))],
        ..BASE
    },
    Script {
        name: "addresses-swapped",
        what: "HAProxy's addresses of the writer and a reader are swapped",
        no_plain: Some(
            "plain has no address to swap; the agent sees a change at its next look, half a second later",
        ),
        load: Load::Writes,
        seconds: 14,
        gains: true,
        events: &[(2_000, Readdress("a", Of("b"))), (2_000, Readdress("b", Of("a")))],
        ..BASE
    },
];
