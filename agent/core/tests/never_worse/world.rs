//! The databases, RDS's names for them, and what changes them. The same for each arm: nothing that a proxy or
//! an agent does has an effect here.

use std::{fmt, time::Duration};

/// What a new connection, and a session, meets.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    Runs,
    /// It accepts connections and ends them with 57P03: it stops or starts.
    TurnsAway,
    /// Nothing listens.
    Refuses,
    /// The host is gone: no packet is answered.
    Drops,
    /// The kernel accepts connections; the process answers none, new or old.
    Frozen,
    /// New logins hang, open sessions work.
    LoginsHang,
    /// No free connection for anyone (53300), open sessions work.
    Full,
}

/// Whose logins are refused.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Refuses {
    None,
    Agent,
    Application,
    All,
}

/// The agent's own network path.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Path {
    Open,
    Refused,
    Silent,
}

/// What an operator sets for a server of HAProxy.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Hand {
    Maint,
    Drain,
    Weight0,
    Ready,
    Weight1,
}

/// One change at one moment. `None` for a server means all.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Condition(usize, Condition),
    /// All its sessions end; with 57P01 where the server has the time to say so.
    Cut(usize, bool),
    /// It takes writes from now on, or none.
    Claims(usize, bool),
    /// From now on this is the writer: what others acknowledge is lost.
    Writer(usize),
    Logins(Option<usize>, Refuses),
    AgentPath(Option<usize>, Path),
    /// AWS gives the agent no token.
    NoToken(bool),
    /// On the servers of both backends.
    Operator(usize, Hand),
    Reload,
    ProxyDown(bool),
    AgentKilled,
    AgentStopped,
    AgentStarted,
    AgentFrozen(bool),
}

#[derive(Clone, Debug)]
pub struct Server {
    pub condition: Condition,
    /// Changes whenever its sessions end.
    pub epoch: u32,
    /// Whether the last end of its sessions came with 57P01.
    pub said_so: bool,
    pub claims: bool,
    pub timeline: u32,
    pub refuses: Refuses,
}

/// Where RDS's names lead, as a proxy's resolver sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    pub cluster: usize,
    pub readers: Vec<usize>,
}

#[derive(Clone, Debug)]
pub struct World {
    pub servers: Vec<Server>,
    pub writer: usize,
    /// A standalone database that was a replica: no name of the cluster leads there.
    pub promoted_alone: Option<usize>,
}

/// DNS moves 5 s after the fact, and a resolver with a TTL of 5 s sees it some time later.
pub const NAMES_FOLLOW: Duration = Duration::from_millis(7_500);

impl World {
    /// Server 0 is the writer.
    pub fn new(servers: usize) -> Self {
        let server = |index| Server {
            condition: Condition::Runs,
            epoch: 0,
            said_so: false,
            claims: index == 0,
            timeline: 1,
            refuses: Refuses::None,
        };
        Self { servers: (0..servers).map(server).collect(), writer: 0, promoted_alone: None }
    }

    /// What the names lead to some time later, if that may have changed.
    pub fn change(&mut self, change: Change) -> Option<Names> {
        match change {
            Change::Condition(server, condition) => self.servers[server].condition = condition,
            Change::Cut(server, said_so) => {
                self.servers[server].epoch += 1;
                self.servers[server].said_so = said_so;
                return None;
            }
            Change::Claims(server, claims) => {
                if claims {
                    let latest = self.servers.iter().map(|server| server.timeline).max();
                    self.servers[server].timeline = latest.unwrap_or(0) + 1;
                    self.promoted_alone = Some(server);
                }
                self.servers[server].claims = claims;
            }
            Change::Writer(server) => {
                self.writer = server;
                self.promoted_alone = None;
            }
            Change::Logins(server, refuses) => {
                let all = server.map_or(0..self.servers.len(), |server| server..server + 1);
                self.servers[all].iter_mut().for_each(|server| server.refuses = refuses);
                return None;
            }
            _ => return None,
        }
        let runs = |index: &usize| {
            let condition = self.servers[*index].condition;
            !matches!(condition, Condition::Refuses | Condition::Drops | Condition::Frozen)
        };
        let readers = (0..self.servers.len())
            .filter(|index| *index != self.writer && Some(*index) != self.promoted_alone)
            .filter(runs);
        Some(Names { cluster: self.writer, readers: readers.collect() })
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}
