//! What a plan is made of: commands, holds, outcomes. Plain data.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use serde::Serialize;

use super::{CloseVia, Purpose};
use crate::{
    InstanceId, ProxyIndex, ServerId, Time,
    session::{BackendKey, ProxySession},
};

/// Who closes a session, and how.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Close {
    /// The database, in one guarded statement, if the session has been idle for at least this long
    /// by its own clock. The client can read why.
    Quiet(Duration),
    /// The database, at the moment the session becomes idle: only the database can see that moment.
    Catch,
    /// The proxy, since the session was idle for this long at the last look. The client sees the
    /// end of the stream.
    QuietByProxy(Duration),
    /// The proxy, whatever the session is doing: the operator's `force_after` or `demotion_grace`.
    /// The database's guard closes nothing that is busy.
    Force,
}

impl Close {
    pub fn via(self) -> CloseVia {
        match self {
            Self::Quiet(_) | Self::Catch => CloseVia::Database,
            Self::QuietByProxy(_) | Self::Force => CloseVia::Proxy,
        }
    }
}

/// Close one session. Carries its whole identity and the state it must still be in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Retire {
    /// Where the session is.
    pub instance: InstanceId,
    /// Its identity at the database.
    pub key: BackendKey,
    pub client: SocketAddr,
    pub user: Arc<str>,
    /// Whether the user has to be one who logs in by IAM.
    pub iam_only: bool,
    /// Its identity at the proxy.
    pub proxy: ProxySession,
    /// Who closes it, and when it may be closed.
    pub how: Close,
    /// Which budget it takes its place from.
    pub purpose: Purpose,
    /// Its age when this was decided.
    pub age: Duration,
    /// The age at which it has to go.
    pub limit: Duration,
}

/// Why a server is drained.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DrainReason {
    /// So many of its sessions are due that new ones are better sent elsewhere.
    SessionsDue,
    /// It refuses logins while a sibling accepts them.
    AuthRefused,
    /// An operator asked the agent for it.
    Operator,
}

impl fmt::Display for DrainReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SessionsDue => "sessions due",
            Self::AuthRefused => "logins refused",
            Self::Operator => "asked for by an operator",
        })
    }
}

/// A drain that an operator asked for.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Requested {
    /// The drain ends then.
    pub until: Option<Time>,
    /// Sessions of the server are retired whatever their age.
    pub empty: bool,
    /// The capacity floor does not count.
    pub force: bool,
}

/// Why a drain is taken back.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UndrainReason {
    /// Its due sessions are gone.
    Done,
    /// It took too long.
    Deadline,
    /// Too few other servers are left.
    CapacityFloor,
    /// The proxy did not take it.
    NotTaken,
    /// The agent's mark at the instance is lost: other agents do not see the drain.
    Unmarked,
    /// The agent stops, is paused, or was started anew.
    Ending,
    /// An operator asked for it.
    Operator,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    Retire(Box<Retire>),
    /// Record a drain, then send it: only if the server has no admin flag now.
    /// What could not be sent within ten seconds must not be sent any more.
    Drain {
        server: ServerId,
        reason: DrainReason,
    },
    /// Take a recorded drain back: only if the server is drained and not in maintenance.
    Undrain {
        server: ServerId,
        reason: UndrainReason,
    },
    /// The drain has ended, whatever ended it: remove its record.
    Forget {
        server: ServerId,
    },
}

/// What became of a close.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Retired {
    Closed,
    /// It was gone already.
    Gone,
    /// It was not idle, or not long enough.
    Busy,
    /// It was not the session it was thought to be, or no longer in scope.
    Changed,
    /// The right to close it is missing.
    Denied,
    /// No place in the budget.
    OverBudget,
    /// It could not be tried, or nothing is known of what became of it.
    Failed,
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Retire {
        instance: InstanceId,
        key: BackendKey,
        /// What became of it.
        retired: Retired,
    },
    Drain {
        server: ServerId,
        sent: DrainSent,
    },
    Undrain {
        server: ServerId,
        /// Whether the proxy took it, and showed no drain right after. Then it is over: a drain
        /// that shows up later is an operator's.
        taken: bool,
    },
}

/// What became of the command to drain a server.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum DrainSent {
    /// Recorded, and taken by the proxy.
    Sent,
    /// Recorded and maybe sent: agent-check answers carry it until the proxy shows it.
    Unclear,
    NotSent,
}

/// What is set for a server at the proxy, apart from its health.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AdminFlags {
    /// Drained by a command, an operator's or the agent's: HAProxy does not record whose.
    pub drain: bool,
    /// In maintenance by a command.
    pub maint: bool,
    /// Any other admin flag: by configuration, inheritance or name resolution. Or there is no
    /// such server.
    pub other: bool,
    /// Its weight is 0: no new sessions, although no flag shows it.
    pub weightless: bool,
}

impl AdminFlags {
    /// Of a server that the proxy does not have: nothing of the agent's is left on it, and no
    /// new sessions go there.
    pub const ABSENT: Self = Self { drain: false, maint: false, other: true, weightless: false };

    /// Whether nothing keeps new sessions away.
    pub fn clear(self) -> bool {
        self == Self::default()
    }
}

/// An admin word of the agent-check protocol.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AdminWord {
    /// Send no new sessions.
    Drain,
    Ready,
}

/// Why something that is due is left alone.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldReason {
    /// It is inside a transaction.
    InTransaction,
    /// It is running a statement.
    Running,
    /// It is idle now and then, never for long enough.
    NeverQuiet,
    /// It is waiting to be quiet, with time left.
    WaitingForQuiet,
    /// The budget of this second is used up.
    OverBudget,
    /// Its user does not log in by IAM.
    NotIamUser,
    /// The operator exempted it.
    Exempt,
    /// It is a superuser's.
    Superuser,
    /// It is replication or a worker.
    NotClientBackend,
    /// Its last statement was LISTEN or alike.
    Listening,
    /// It holds session-level advisory locks.
    AdvisoryLock,
    /// The database does not show what it is doing.
    ActivityUnknown,
    /// No proxy session has its address and port.
    NotJoined,
    /// The proxy and the database do not agree on what it is.
    SourcesDisagree,
    /// A source has not answered lately.
    SourceStale,
    /// Its client could not log in again.
    InstanceUnusable,
    /// The agent's last login there was too long ago to prove that its client could. The
    /// next one is under way.
    LoginUnproved,
    /// Clients like it were closed and did not come back.
    Breaker,
    /// The right to close it is missing.
    Denied,
    /// Closing it failed, or it was still there afterwards. It is tried again ever more rarely.
    CloseFailed,
    /// An operator paused the agent.
    Paused,
    /// Mode `observe`: it would go.
    Observing,
    /// Mode `drain`: sessions are not closed.
    DrainingOnly,
    /// A server: too few others would be left.
    CapacityFloor,
    /// A server: a person has set an admin state.
    AdminState,
    /// A server: it was drained less than `max_age` ago.
    DrainedLately,
    /// A server: another agent drains another server of the database, and too few would be left.
    PeerDrains,
    /// A server: the locks cannot be held by which other agents see a drain.
    PeersUnseen,
}

impl HoldReason {
    /// Whether the session is none that the agent retires: it is not due, however old it is.
    pub(super) fn never_passes(self) -> bool {
        matches!(self, Self::NotIamUser | Self::Exempt | Self::Superuser | Self::NotClientBackend)
    }

    /// What the reason means, and what would end it.
    pub fn explanation(self) -> &'static str {
        match self {
            Self::InTransaction => "it is in a transaction; it goes when the transaction has ended",
            Self::Running => "it runs a statement; it goes when the statement has ended and it is quiet",
            Self::NeverQuiet => {
                "it is idle now and then, and never long enough; `busy: catch` closes it anyway"
            }
            Self::WaitingForQuiet => "it goes when it has been idle long enough",
            Self::OverBudget => "the login budget of this second is used up; it goes soon",
            Self::NotIamUser => "its user does not log in by IAM; `sessions.scope` can include it",
            Self::Exempt => "`sessions.exempt` names it",
            Self::Superuser => "it is a superuser's",
            Self::NotClientBackend => "it is replication or a worker, not a client",
            Self::Listening => "its last statement was LISTEN or alike",
            Self::AdvisoryLock => "it holds session-level advisory locks; it goes when they are released",
            Self::ActivityUnknown => {
                "the database does not show what it is doing; see the rights of the agent's user"
            }
            Self::NotJoined => {
                "no proxy session has its address and port: it comes past the proxies, or through NAT or another \
                 proxy"
            }
            Self::SourcesDisagree => "the proxy and the database do not agree on its age",
            Self::SourceStale => "the proxy or the database has not answered lately",
            Self::InstanceUnusable => "no server is usable for its client to log in to again",
            Self::LoginUnproved => "the agent logs in first, to prove that its client can",
            Self::Breaker => {
                "clients of its group that were closed did not log in again; it goes when they do, or after `resume`"
            }
            Self::Denied => "the agent lacks the right to close it",
            Self::CloseFailed => "closing it failed; it is tried again ever more rarely",
            Self::Paused => "the agent is paused; `resume` ends that",
            Self::Observing => "would be retired: the mode is `observe`",
            Self::DrainingOnly => "the mode is `drain`, which closes no session",
            Self::CapacityFloor => "its server is not drained, because too few others would be left",
            Self::AdminState => "an operator has set an admin state for its server",
            Self::DrainedLately => "its server was drained less than `max_age` ago",
            Self::PeerDrains => "another agent drains another server of the database",
            Self::PeersUnseen => "the locks cannot be held by which other agents see a drain",
        }
    }

    /// Whether the reason may be gone soon, without an operator's action.
    pub(super) fn may_pass(self) -> bool {
        match self {
            Self::InTransaction
            | Self::Running
            | Self::NeverQuiet
            | Self::WaitingForQuiet
            | Self::OverBudget
            | Self::SourceStale
            | Self::InstanceUnusable
            | Self::LoginUnproved
            // What would go has to be known as fresh as what goes.
            | Self::Observing
            | Self::DrainingOnly => true,
            // The next trial of a paused group, or of a missing right, is a close like any other.
            Self::Breaker
            | Self::Denied
            | Self::CloseFailed
            | Self::NotIamUser
            | Self::Exempt
            | Self::Superuser
            | Self::NotClientBackend
            | Self::Listening
            | Self::AdvisoryLock
            | Self::ActivityUnknown
            | Self::NotJoined
            | Self::SourcesDisagree
            | Self::Paused
            | Self::CapacityFloor
            | Self::AdminState
            | Self::DrainedLately
            | Self::PeerDrains
            | Self::PeersUnseen => false,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    Session {
        instance: InstanceId,
        key: BackendKey,
        user: Arc<str>,
        age: Duration,
        /// The age at which it has to go.
        limit: Duration,
    },
    Server(ServerId),
}

/// Something due that is left alone, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hold {
    pub subject: Subject,
    pub reason: HoldReason,
    /// Since when for this reason.
    pub since: Time,
}

/// An instance with more sessions than the login budget can close within `max_age`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Shortage {
    pub instance: InstanceId,
    pub sessions: usize,
    /// Closes per second.
    pub needed_per_s: f64,
    pub allowed_per_s: f64,
    /// A `login_budget` that is enough.
    pub login_budget: u32,
}

/// What to do now, and what is left alone.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// When it was made.
    pub at: Time,
    pub commands: Vec<Command>,
    /// What is due and left alone.
    pub holds: Vec<Hold>,
    /// When to plan again at the latest.
    pub next_wake: Time,
    /// Sessions to look at again very soon, most overdue first.
    #[serde(serialize_with = "crate::names::by_text")]
    pub focus: BTreeMap<InstanceId, Vec<BackendKey>>,
    /// Instances whose whole table is wanted now: clients were closed there, and
    /// are expected to log in again. Each at most once a second.
    pub poll: BTreeSet<InstanceId>,
    /// Proxies whose sessions have to be listed again.
    pub sweep: BTreeSet<ProxyIndex>,
    /// Instances to log in to now: sessions are to be closed, and the last login was a while ago.
    pub probe: BTreeSet<InstanceId>,
    /// Sessions in the ledger.
    pub sessions: usize,
    /// Sessions that are due.
    pub due: usize,
    /// Instances whose budget is too small.
    pub shortages: Vec<Shortage>,
    /// Sessions of each instance that could be closed now, if there were permits.
    #[serde(serialize_with = "crate::names::by_text")]
    pub permits: BTreeMap<InstanceId, u32>,
    /// Instances that the agent drains, or is about to: other agents have to see it.
    pub marks: BTreeSet<InstanceId>,
    /// Instances whose locks have to be read now.
    pub meet: BTreeSet<InstanceId>,
    /// Whether any of them may have to be closed before long, so that tables and credentials
    /// have to be looked at more often: not while all are held for what does not pass.
    pub closing: bool,
}
