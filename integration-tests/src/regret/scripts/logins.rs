//! IAM, AWS, the agent's user, and the agent's own path to the servers.

use super::{BASE, ENVOY_PG, HAPROXY_PG, Load, ONE_READER, Script};
use crate::{
    regret::script::{
        Event::{
            AcceptTokens, AgentPath, Credentials, Failover, RefuseTokens, Restart, Sql, Stop, UpgradeAgent,
        },
        Path::{Open, Refused, Silent},
    },
    standin::{Behaviour, StopMode::Fast},
};

pub(super) const ALL: &[Script] = &[
    // === the agent's own path ===
    Script {
        name: "agent-path-refused-writer",
        what: "the agent's connections to the writer are refused for 10 s, the proxy's are not",
        seconds: 16,
        ci: true,
        events: &[(2_000, AgentPath("a", Refused)), (12_000, AgentPath("a", Open))],
        ..BASE
    },
    Script {
        name: "agent-path-refused-reader",
        what: "the agent's connections to a reader are refused for 10 s, and the other reader stops",
        load: Load::Reads,
        seconds: 16,
        no_plain: ONE_READER,
        events: &[(2_000, AgentPath("b", Refused)), (5_000, Stop("c", Fast)), (12_000, AgentPath("b", Open))],
        ..BASE
    },
    Script {
        name: "agent-path-refused-all",
        what: "all of the agent's connections are refused for 10 s",
        seconds: 16,
        events: &[
            (2_000, AgentPath("a", Refused)),
            (2_000, AgentPath("b", Refused)),
            (2_000, AgentPath("c", Refused)),
            (12_000, AgentPath("a", Open)),
            (12_000, AgentPath("b", Open)),
            (12_000, AgentPath("c", Open)),
        ],
        ..BASE
    },
    Script {
        name: "agent-path-silent-writer",
        what: "the agent's connections to the writer hang for 10 s, the proxy's do not",
        seconds: 16,
        events: &[(2_000, AgentPath("a", Silent)), (12_000, AgentPath("a", Open))],
        ..BASE
    },
    Script {
        name: "agent-path-silent-all",
        what: "all of the agent's connections hang for 10 s",
        seconds: 16,
        events: &[
            (2_000, AgentPath("a", Silent)),
            (2_000, AgentPath("b", Silent)),
            (2_000, AgentPath("c", Silent)),
            (12_000, AgentPath("a", Open)),
            (12_000, AgentPath("b", Open)),
            (12_000, AgentPath("c", Open)),
        ],
        ..BASE
    },
    // === IAM ===
    Script {
        name: "iam-refuses-agent",
        what: "every server refuses the agent's user",
        seconds: 20,
        probe_interval: "3s",
        events: &[(2_000, RefuseTokens(None, Some("lb_agent")))],
        ..BASE
    },
    Script {
        name: "iam-refuses-agent-at-writer",
        what: "the writer refuses the agent's user alone",
        seconds: 20,
        probe_interval: "3s",
        events: &[(2_000, RefuseTokens(Some("a"), Some("lb_agent")))],
        ..BASE
    },
    Script {
        name: "iam-refuses-agent-at-reader",
        what: "a reader refuses the agent's user alone, then the other reader restarts in 3 s",
        load: Load::Reads,
        seconds: 22,
        probe_interval: "3s",
        no_plain: ONE_READER,
        events: &[(2_000, RefuseTokens(Some("b"), Some("lb_agent"))), (14_000, Restart("c", Fast, 3_000))],
        ..BASE
    },
    Script {
        name: "iam-refuses-reader",
        what: "one of two readers refuses all logins for 14 s",
        cells: &[HAPROXY_PG, ENVOY_PG],
        load: Load::Reads,
        seconds: 20,
        probe_interval: "3s",
        gains: true,
        events: &[(2_000, RefuseTokens(Some("b"), None)), (16_000, AcceptTokens)],
        ..BASE
    },
    Script {
        name: "iam-refuses-all",
        what: "every server refuses all logins for 6 s",
        cells: &[HAPROXY_PG, ENVOY_PG],
        seconds: 24,
        probe_interval: "3s",
        events: &[(2_000, RefuseTokens(None, None)), (8_000, AcceptTokens)],
        ..BASE
    },
    Script {
        name: "iam-refuses-all-restart",
        what: "every server refuses all logins for 12 s, and all restart meanwhile",
        seconds: 24,
        probe_interval: "3s",
        events: &[
            (2_000, RefuseTokens(None, None)),
            (4_000, Restart("a", Fast, 500)),
            (4_000, Restart("b", Fast, 500)),
            (14_000, AcceptTokens),
        ],
        ..BASE
    },
    Script {
        name: "iam-refuses-agent-failover",
        what: "every server refuses the agent's user, and b takes over",
        seconds: 20,
        probe_interval: "3s",
        events: &[(2_000, RefuseTokens(None, Some("lb_agent"))), (8_000, Failover("b"))],
        ..BASE
    },
    // === AWS ===
    Script {
        name: "aws-away",
        what: "the credentials endpoint refuses",
        probe_interval: "3s",
        events: &[(1_000, Credentials(Behaviour::Refusing))],
        ..BASE
    },
    Script {
        name: "aws-away-failover",
        what: "the credentials endpoint is silent, the agent is restarted, and b takes over",
        seconds: 20,
        events: &[
            (1_000, Credentials(Behaviour::Silent)),
            (2_000, UpgradeAgent),
            (7_000, Failover("b")),
            (13_000, Credentials(Behaviour::Serving)),
        ],
        ..BASE
    },
    // === what holds for the agent's user alone ===
    Script {
        name: "agent-role-read-only",
        what: "default_transaction_read_only is on for the agent's user, and the agent is restarted",
        seconds: 14,
        ci: true,
        events: &[
            (1_000, Sql("a", "ALTER ROLE lb_agent SET default_transaction_read_only = on")),
            (3_000, UpgradeAgent),
        ],
        ..BASE
    },
    Script {
        name: "agent-role-serializable",
        what: "the agent's user is serializable by default, the agent is restarted, and b takes over",
        seconds: 20,
        events: &[
            (1_000, Sql("a", "ALTER ROLE lb_agent SET default_transaction_isolation = 'serializable'")),
            (2_000, UpgradeAgent),
            (7_000, Failover("b")),
        ],
        ..BASE
    },
    Script {
        name: "agent-role-no-connections",
        what: "the agent's user may have one connection only",
        seconds: 16,
        probe_interval: "3s",
        events: &[(1_000, Sql("a", "ALTER ROLE lb_agent CONNECTION LIMIT 1"))],
        ..BASE
    },
    Script {
        name: "agent-role-statement-timeout",
        what: "the agent's user has a statement timeout of 1 ms, and the agent is restarted",
        seconds: 16,
        probe_interval: "3s",
        events: &[(1_000, Sql("a", "ALTER ROLE lb_agent SET statement_timeout = 1")), (2_000, UpgradeAgent)],
        ..BASE
    },
];
