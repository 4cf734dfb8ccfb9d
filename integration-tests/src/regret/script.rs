//! What a fault script is: a cluster, a load, and faults with their times.

use std::time::Duration;

use serde::Serialize;

use crate::standin::{Behaviour, Engine, StopMode};

/// One fault script. The servers are `a`, the writer at the start, and its replicas `b`, `c`, …
#[derive(Clone, Copy, Debug)]
pub struct Script {
    pub name: &'static str,
    /// For people, in one line.
    pub what: &'static str,
    pub cells: &'static [Cell],
    pub load: Load,
    pub replicas: usize,
    /// How long clients come.
    pub seconds: u64,
    /// How many come each second. Fewer where they wait long: those of all arms come back to the same
    /// servers at once, and must not wait for one another there.
    pub rate: u32,
    /// Whether HAProxy has the waiting room (retries, redispatch and a last backup that refuses).
    pub waiting_room: bool,
    /// The agent's; its default is 30 s, longer than a script.
    pub probe_interval: &'static str,
    /// Whether the agent can help, so that regret has to be below 0: the old writer goes away, or one
    /// of several readers ails.
    pub gains: bool,
    /// Why it is not compared with plain.
    pub no_plain: Option<&'static str>,
    /// Whether it is played in CI.
    pub ci: bool,
    /// The state before any proxy is started.
    pub before: &'static [Event],
    /// The servers of the read backend that are up when the script begins; all replicas if empty.
    pub readers: &'static [&'static str],
    /// Milliseconds from the start, and what happens then. Events that overlap run side by side.
    pub events: &'static [(u64, Event)],
}

/// A proxy in front of a kind of database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    pub proxy: ProxyKind,
    pub engine: Engine,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProxyKind {
    Haproxy,
    Envoy,
}

/// Which frontend clients go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    Writes,
    Reads,
    Both,
}

/// A fault, or its end.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    // === servers ===
    /// Down for so many milliseconds from the signal to the start.
    Restart(&'static str, StopMode, u64),
    Stop(&'static str, StopMode),
    Start(&'static str),
    Freeze(&'static str),
    Thaw(&'static str),
    /// Only PostgreSQL's postmaster: sessions work, new connections hang.
    FreezePostmaster(&'static str),
    ThawPostmaster(&'static str),
    /// A replica becomes a writer; the old one is not touched and still claims to be it.
    Promote(&'static str),
    /// A running replica follows the present writer.
    Follow(&'static str),
    /// The old writer stops, `0` takes over, the others follow, the old writer comes back as a replica.
    Failover(&'static str),
    /// The server comes back as a replica of the present writer.
    Rejoin(&'static str),
    /// Runs a statement as superuser on a server.
    Sql(&'static str, &'static str),

    // === AWS ===
    /// Tokens are refused: by this server or all, for this user or all.
    RefuseTokens(Option<&'static str>, Option<&'static str>),
    AcceptTokens,
    Credentials(Behaviour),

    // === the proxy, in every arm ===
    Reload,
    /// Stopped (or killed) and started again after so many milliseconds.
    RestartProxy(u64),
    CrashProxy(u64),
    /// A command of the operator on HAProxy's socket.
    Operator(&'static str),
    /// HAProxy dials `1` for the server `0`, in both backends.
    Readdress(&'static str, Address),

    // === the agent, in the acting arm ===
    KillAgent,
    StopAgent,
    StartAgent,
    /// Stopped and started at once.
    UpgradeAgent,
    FreezeAgent,
    ThawAgent,
    /// So many times: frozen, then running, for so many milliseconds each.
    StarveAgent(u32, u64, u64),
    /// How the agent's own path to a server behaves; the proxy's is not touched.
    AgentPath(&'static str, Path),
    /// A command of the agent's own binary, which has to succeed.
    AgentCommand(&'static [&'static str]),
    /// An edit of its configuration file: each `0` becomes `1`.
    EditConfig(&'static str, &'static str),
}

/// Where a server's entry in the proxy leads to.
#[derive(Clone, Copy, Debug)]
pub enum Address {
    /// The name resolves to this server.
    Of(&'static str),
    Dead,
}

/// How a network path behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    Open,
    Refused,
    /// Connections are accepted, and nothing passes.
    Silent,
}

impl Script {
    pub fn length(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// Whether the agent needs a path of its own to the servers.
    pub fn has_agent_path(&self) -> bool {
        self.events.iter().any(|(_, event)| matches!(event, Event::AgentPath(..)))
    }

    pub fn writes(&self) -> bool {
        self.load != Load::Reads
    }

    pub fn reads(&self) -> bool {
        self.load != Load::Writes
    }
}

impl ProxyKind {
    pub fn word(self) -> &'static str {
        match self {
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
        }
    }
}

impl Cell {
    pub fn engine_word(self) -> &'static str {
        match self.engine {
            Engine::Postgresql => "postgresql",
            Engine::Mariadb => "mariadb",
        }
    }
}
