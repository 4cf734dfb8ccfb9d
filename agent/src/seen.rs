//! What a HAProxy shows of its servers, and where that differs from the configuration of the agent.
//!
//! Plain data and one pure comparison. The runtime socket is read in `proxies::haproxy`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use agent_core::Time;
use haproxy::runtime::{Check, Operational, ServerState, Stat};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::nearest;

/// The servers of one HAProxy at one moment.
#[derive(Clone, Debug)]
pub struct ProxyTable {
    /// When it was asked.
    pub at: Time,
    pub version: String,
    /// The configured servers that HAProxy has, by `backend/server`.
    pub servers: BTreeMap<String, ShownServer>,
    pub differences: Vec<Difference>,
}

/// A server as HAProxy shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ShownServer {
    /// Whether new sessions go there, or what keeps them away.
    pub state: ShownState,
    /// `status` of `show stat`, for example `UP`, `DOWN (agent)` or `MAINT`.
    pub status: String,
    pub weight: u32,
    /// Sessions now.
    pub sessions: u64,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ShownState {
    Up,
    /// By a health check or the agent check.
    Down,
    /// By an operator or by the agent.
    Drain,
    /// By an operator or in haproxy.cfg.
    Maint,
    /// The host name of the server cannot be resolved.
    Unresolved,
    /// Its weight is 0.
    Weightless,
}

/// RMAINT of `srv_admin_state`.
const UNRESOLVED: u32 = 0x20;
/// IDRAIN of `srv_admin_state`: a server that it tracks is drained.
const INHERITED_DRAIN: u32 = 0x10;

impl ShownServer {
    pub fn of(state: &ServerState, stat: Option<&Stat>) -> Self {
        let up = matches!(state.operational, Operational::Starting | Operational::Running);
        let shown = if state.admin & UNRESOLVED != 0 {
            ShownState::Unresolved
        } else if state.forced_maint() || state.admin & !INHERITED_DRAIN != 0 && !state.forced_drain() {
            ShownState::Maint
        } else if state.admin != 0 || state.operational == Operational::Stopping {
            ShownState::Drain
        } else if !up {
            ShownState::Down
        } else if state.weight == 0 {
            ShownState::Weightless
        } else {
            ShownState::Up
        };
        Self {
            state: shown,
            status: stat.map(|stat| stat.status.clone()).unwrap_or_default(),
            weight: state.weight,
            sessions: stat.map_or(0, |stat| stat.sessions),
        }
    }
}

/// One difference between a HAProxy and the configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Difference {
    pub kind: DifferenceKind,
    /// The backend, or `backend/server`.
    pub name: String,
    /// The most similar name that exists, if one is similar enough to be meant.
    pub nearest: Option<String>,
    /// `agent-port` in HAProxy and the port that the agent listens on, if they differ.
    pub ports: Option<(u16, u16)>,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DifferenceKind {
    /// A configured backend that HAProxy does not have.
    BackendMissing,
    /// A configured server that HAProxy does not have in its backend.
    ServerMissing,
    /// The server has no agent check, so HAProxy does not ask for its verdict.
    AgentCheckMissing,
    /// The agent check of the server is switched off at the runtime socket.
    AgentCheckDisabled,
    /// The agent check of the server goes to another port.
    AgentCheckPort,
    /// The agent check runs, and no question with the name of the server arrives.
    AgentCheckUnheard,
    /// HAProxy asks for a server that is not configured.
    NotConfigured,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        match self.kind {
            DifferenceKind::BackendMissing => write!(f, "HAProxy has no backend `{name}`")?,
            DifferenceKind::ServerMissing => write!(f, "HAProxy has no server `{name}`")?,
            DifferenceKind::AgentCheckMissing => {
                write!(f, "{name} has no agent-check in haproxy.cfg: HAProxy does not get its verdict")?;
            }
            DifferenceKind::AgentCheckDisabled => {
                write!(f, "the agent check of {name} is disabled; `enable agent {name}` enables it")?;
            }
            DifferenceKind::AgentCheckPort => {
                let (theirs, ours) = self.ports.unwrap_or_default();
                write!(f, "agent-port of {name} is {theirs}, and the agent listens on {ours}")?;
            }
            DifferenceKind::AgentCheckUnheard => write!(
                f,
                "no agent check arrives for {name}; check agent-addr, agent-port and agent-send \
                 \"{name}\\n\" (double quotes) in haproxy.cfg"
            )?,
            DifferenceKind::NotConfigured => {
                write!(f, "HAProxy asks for {name}, which the agent does not know: it keeps its state")?;
            }
        }
        match &self.nearest {
            Some(nearest) => write!(f, "; did you mean `{nearest}`?"),
            None => Ok(()),
        }
    }
}

/// What the agent expects of a HAProxy.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// Backend and server.
    pub servers: BTreeSet<(String, String)>,
    /// The port of `listen.agent_check`.
    pub agent_port: u16,
    /// The port of `listen.http`: servers whose health check goes there need no agent check.
    pub http_port: u16,
}

/// Another port may be forwarded to the agent's: only silence shows that it is not.
const PORT_PATIENCE: Duration = Duration::from_secs(10);

/// Longer than `agent-inter` should be.
const PATIENCE: Duration = Duration::from_secs(60);

/// Compares a HAProxy with the configuration. `silent_for` is the time without an agent check for a
/// server; `None` if the agent checks are not observed.
pub fn differences(
    expected: &Expected,
    states: &[ServerState],
    silent_for: impl Fn(&str) -> Option<Duration>,
) -> Vec<Difference> {
    let backends: BTreeSet<&str> = states.iter().map(|state| &*state.backend).collect();
    let difference = |kind, name: String| Difference { kind, name, nearest: None, ports: None };
    let mut found = BTreeSet::new();
    for (backend, server) in &expected.servers {
        let name = format!("{backend}/{server}");
        if !backends.contains(&**backend) {
            let choices: Vec<&str> = backends.iter().copied().collect();
            let nearest = nearest(backend, &choices).map(str::to_owned);
            found.insert(Difference {
                nearest,
                ..difference(DifferenceKind::BackendMissing, backend.clone())
            });
            continue;
        }
        let of_backend = || states.iter().filter(|state| state.backend == *backend);
        let Some(state) = of_backend().find(|state| state.server == *server) else {
            let choices: Vec<&str> = of_backend().map(|state| &*state.server).collect();
            let nearest = nearest(server, &choices).map(|server| format!("{backend}/{server}"));
            found.insert(Difference { nearest, ..difference(DifferenceKind::ServerMissing, name) });
            continue;
        };
        let silent = silent_for(&name);
        let kind = match (state.agent, state.agent_port) {
            (Check::Absent, _) if state.check_port == Some(expected.http_port) => continue,
            (Check::Absent, _) => DifferenceKind::AgentCheckMissing,
            (Check::Disabled, _) => DifferenceKind::AgentCheckDisabled,
            (Check::Enabled, Some(port)) if port != expected.agent_port => {
                if silent.is_none_or(|silent| silent >= PORT_PATIENCE) {
                    let ports = Some((port, expected.agent_port));
                    found.insert(Difference { ports, ..difference(DifferenceKind::AgentCheckPort, name) });
                }
                continue;
            }
            (Check::Enabled, _) if silent.is_some_and(|silent| silent >= PATIENCE) => {
                DifferenceKind::AgentCheckUnheard
            }
            (Check::Enabled, _) => continue,
        };
        found.insert(difference(kind, name));
    }
    let known: Vec<String> =
        expected.servers.iter().map(|(backend, server)| format!("{backend}/{server}")).collect();
    for state in states {
        let name = format!("{}/{}", state.backend, state.server);
        let asks = state.agent == Check::Enabled && state.agent_port == Some(expected.agent_port);
        if asks && !known.contains(&name) {
            let nearest = nearest(&name, &known).map(str::to_owned);
            found.insert(Difference { nearest, ..difference(DifferenceKind::NotConfigured, name) });
        }
    }
    found.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(servers: &[(&str, &str)]) -> Expected {
        let servers = servers.iter().map(|(backend, server)| ((*backend).to_owned(), (*server).to_owned()));
        Expected { servers: servers.collect(), agent_port: 7878, http_port: 7879 }
    }

    fn state(backend: &str, server: &str) -> ServerState {
        ServerState {
            backend: backend.into(),
            server: server.into(),
            address: None,
            port: 5432,
            fqdn: None,
            operational: Operational::Running,
            admin: 0,
            weight: 1,
            initial_weight: 1,
            check: Check::Absent,
            agent: Check::Enabled,
            check_port: None,
            agent_port: Some(7878),
        }
    }

    /// The differences as text.
    fn found(expected: &Expected, states: &[ServerState], silent: Option<u64>) -> Vec<String> {
        let differences = differences(expected, states, |_| silent.map(Duration::from_secs));
        differences.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_haproxy_that_matches_has_no_difference() {
        let expected = expected(&[("orders", "a"), ("orders", "b")]);
        let states = [
            state("orders", "a"),
            state("orders", "b"),
            ServerState { agent: Check::Absent, agent_port: None, ..state("web", "x") },
        ];
        assert_eq!(found(&expected, &states, Some(1)), [""; 0]);
    }

    #[test]
    fn missing_names_are_found_with_the_nearest_name() {
        let expected = expected(&[("orders_raed", "a"), ("orders_raed", "b"), ("orders_write", "pg3")]);
        let states = [state("orders_read", "a"), state("orders_write", "pg1")];
        let absent = states.map(|state| ServerState { agent: Check::Absent, agent_port: None, ..state });
        assert_eq!(
            found(&expected, &absent, None),
            [
                "HAProxy has no backend `orders_raed`; did you mean `orders_read`?",
                "HAProxy has no server `orders_write/pg3`; did you mean `orders_write/pg1`?",
            ]
        );
    }

    #[test]
    fn a_server_that_haproxy_does_not_ask_about_is_found() {
        let expected = expected(&[("orders", "a")]);
        let without = ServerState { agent: Check::Absent, agent_port: None, ..state("orders", "a") };
        assert!(found(&expected, std::slice::from_ref(&without), None)[0].contains("no agent-check"));
        let by_http = ServerState { check: Check::Enabled, check_port: Some(7879), ..without };
        assert_eq!(found(&expected, &[by_http], None), [""; 0], "its health check asks over HTTP");
        let disabled = ServerState { agent: Check::Disabled, ..state("orders", "a") };
        assert!(found(&expected, &[disabled], None)[0].contains("`enable agent orders/a`"));
    }

    #[test]
    fn another_agent_port_is_a_difference_while_no_question_arrives() {
        let expected = expected(&[("orders", "a")]);
        let other = [ServerState { agent_port: Some(9999), ..state("orders", "a") }];
        assert!(found(&expected, &other, None)[0].contains("is 9999, and the agent listens on 7878"));
        assert_eq!(found(&expected, &other, Some(2)), [""; 0], "the port may be forwarded");
        assert_eq!(found(&expected, &other, Some(10)).len(), 1);
    }

    #[test]
    fn an_agent_check_that_never_arrives_by_its_name_is_found() {
        let expected = expected(&[("orders", "a")]);
        let states = [state("orders", "a"), state("orders", "c")];
        let found = found(&expected, &states, Some(60));
        assert!(found[0].contains("no agent check arrives for orders/a"), "{found:?}");
        assert!(found[1].starts_with("HAProxy asks for orders/c"), "{found:?}");
    }

    #[test]
    fn the_state_of_a_server_is_what_keeps_sessions_away() {
        for (admin, operational, weight, expected) in [
            (0, Operational::Running, 1, ShownState::Up),
            (0, Operational::Stopped, 1, ShownState::Down),
            (0x01, Operational::Stopped, 1, ShownState::Maint),
            (0x04, Operational::Stopped, 1, ShownState::Maint),
            (0x08, Operational::Running, 1, ShownState::Drain),
            (0x10, Operational::Running, 1, ShownState::Drain),
            (0x20, Operational::Stopped, 1, ShownState::Unresolved),
            (0, Operational::Running, 0, ShownState::Weightless),
        ] {
            let state = ServerState { admin, operational, weight, ..state("orders", "a") };
            assert_eq!(ShownServer::of(&state, None).state, expected, "{admin:#x}");
        }
    }
}
