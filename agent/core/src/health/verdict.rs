//! The verdict of a server: whether new sessions may go there, why, and what that rests on.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Time;

/// The role a proxy's backend wants of its servers.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WantedRole {
    /// The one that takes writes.
    Writer,
    /// Replicas; the writer only when no replica is usable.
    Reader,
    /// Whatever answers.
    Any,
}

/// Whether new sessions may go to a server.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Up,
    /// Not while others can take them; its sessions go on.
    Drain,
    Down,
    /// The agent does not know: it changes nothing.
    Unknown,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum VerdictReason {
    /// It answers and has the wanted role.
    Proved,
    /// It had the wanted role when last observed, and nothing contradicts it.
    LastKnown,
    /// It is silent, but silence alone takes nothing away.
    SilentKept,
    /// The agent's logins are refused everywhere: the agent, its token or IAM is ill, not the database.
    AuthIllKept,
    /// The server blocks the agent's address, and no sibling is known to be better: the
    /// address is blocked, the database is not down.
    HostBlockedKept,
    /// The writer serves reads because no reader can.
    WriterServesReads,
    /// It is the only server left in a backend without a fallback: HAProxy closes the clients of an
    /// empty backend at once, and retries those of a server that refuses.
    OnlyServerKept,
    /// Its last answer is too old to say anything about its role now.
    RoleUnproved,
    /// Whether the readers take sessions cannot be read from the proxy, so the writer neither joins
    /// nor leaves them.
    ReadersUnseen,
    /// It was down, and what spoke against it has not been seen again for a while.
    NothingAgainst,
    /// It would be down, but an operator paused the agent, or the agent stops.
    Released,
    /// Logins are refused here while a sibling accepts them.
    AuthRefused,
    /// The server blocks the agent's address, most likely the proxy's too, while a sibling
    /// accepts logins from there.
    HostBlocked,
    /// It refuses the agent's connections, and no proxy shows yet what clients meet.
    RefusalUnconfirmed,
    /// It refuses the agent's connections while clients begin sessions there: the agent's own path fails.
    ServedForClients,
    Refusing,
    /// Silent while a sibling is usable.
    Silent,
    /// No answer, and another instance has proved itself writer since.
    Superseded,
    /// It says itself that it is not the writer.
    NotWriter,
    /// It is the writer, and there are readers.
    NotReader,
    /// It claims to be the writer, but an instance with a higher timeline does too.
    StaleWriter,
    /// Two claim to be the writer and nothing tells which: the last known one is held.
    ConflictKept,
    /// Two claim to be the writer, and this was not the last known one.
    Conflict,
    /// Several claim to be the writer and none of them was the last known one: an operator has to say.
    Undecided,
    /// New logins hang or fail here while a sibling accepts them.
    LoginsFail,
    /// It is too far behind.
    Lagging,
    /// The proxy dials an address that no login has proved to be the instance's.
    AddressUnproved,
    /// The address that the proxy dials accepts no connections.
    AddressDead,
    /// Nothing has been proved yet.
    NotProbedYet,
    /// Routing is only observed: proxies get no verdict.
    RoutingObserved,
}

impl fmt::Display for VerdictReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Proved => "answers in the wanted role",
            Self::LastKnown => "wanted role when last observed",
            Self::SilentKept => "silent, which alone takes nothing away",
            Self::AuthIllKept => "the agent's logins are refused, the database is not to blame",
            Self::HostBlockedKept => "the agent's address is blocked (1129), the database is not to blame",
            Self::WriterServesReads => "the writer serves reads: no reader can",
            Self::OnlyServerKept => "the only server left, and the backend has no fallback",
            Self::RoleUnproved => "its last answer is too old to prove its role",
            Self::ReadersUnseen => "the readers' state at the proxy cannot be read",
            Self::NothingAgainst => "nothing is known against it any more",
            Self::Released => "not kept down while the agent is paused or stops",
            Self::AuthRefused => "logins refused here and accepted by a sibling",
            Self::HostBlocked => "the agent's address is blocked (1129) here and not at a sibling",
            Self::RefusalUnconfirmed => "refused for the agent, not yet seen at the proxy",
            Self::ServedForClients => "refused for the agent, served for clients",
            Self::Refusing => "refuses connections",
            Self::Silent => "silent while a sibling is usable",
            Self::Superseded => "no answer, and superseded by another writer",
            Self::NotWriter => "not the writer",
            Self::NotReader => "the writer, and there are readers",
            Self::StaleWriter => "claims to be writer on an older timeline",
            Self::ConflictKept => "two claim to be writer, the last known one is kept",
            Self::Conflict => "two claim to be writer, this one was not",
            Self::Undecided => "several claim to be writer, an operator has to choose",
            Self::LoginsFail => "logins fail here and are accepted by a sibling",
            Self::Lagging => "too far behind",
            Self::AddressUnproved => "the proxy dials an address that is not proved to be this instance",
            Self::AddressDead => "the address that the proxy dials accepts no connections",
            Self::NotProbedYet => "not probed yet",
            Self::RoutingObserved => "routing is only observed",
        })
    }
}

/// What a verdict rests on.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Current evidence: the instance has the wanted role, or something speaks against it.
    Proved,
    /// Evidence against the instance is too weak to take it out.
    Kept,
    /// An earlier observation, possibly of an earlier agent, that nothing has contradicted.
    Remembered,
    /// It serves only because no better server can.
    LastResort,
    /// Nothing is known, or nothing recent enough.
    Unproved,
}

/// The verdict of one server.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Whether new sessions may go there.
    pub state: State,
    pub reason: VerdictReason,
    /// Since when the state is this one, whatever the reasons were.
    pub since: Time,
}

impl Verdict {
    /// The same verdict, dated back to when its state began.
    pub(super) fn dated(self, before: Option<&Verdict>) -> Self {
        match before {
            Some(before) if before.state == self.state => Self { since: before.since, ..self },
            _ => self,
        }
    }

    /// The same verdict, following the one `before` it.
    ///
    /// HAProxy keeps a server DOWN until an answer says UP, so Unknown after Down becomes Up: evidence that
    /// has expired must not keep a server out. Not so in a writer backend (`wanted`), except for the
    /// last known writer: there the server was DOWN because another is the writer, whatever the reason
    /// named, and a reader that came UP would receive writes.
    pub(super) fn after(self, before: Option<&Verdict>, may_return: bool) -> Self {
        let was_out =
            |before: &&Verdict| before.state == State::Down || before.reason == VerdictReason::NothingAgainst;
        let verdict = match before.filter(was_out) {
            // No server is reported up at an address that is not proved.
            Some(_) if self.reason == VerdictReason::AddressUnproved => self,
            Some(_) if self.state == State::Unknown && may_return => {
                Self { state: State::Up, reason: VerdictReason::NothingAgainst, ..self }
            }
            _ => self,
        };
        verdict.dated(before)
    }

    /// Whether this agent has observed something that decides.
    pub(super) fn known(&self) -> bool {
        !self.unproved() && self.reason != VerdictReason::NothingAgainst
    }

    fn unproved(&self) -> bool {
        matches!(self.proof(), Proof::Unproved | Proof::Remembered)
    }

    /// The same verdict of a server that an earlier agent left DOWN long ago (`forgotten`): if nothing is
    /// known of it, it comes up.
    pub(super) fn left_down(self, forgotten: bool) -> Self {
        if forgotten && self.unproved() {
            return Self { state: State::Up, reason: VerdictReason::NothingAgainst, ..self };
        }
        self
    }

    /// The same verdict, up if it is down and `released`.
    pub(super) fn released(self, released: bool, before: Option<&Verdict>, now: Time) -> Self {
        if released && self.state == State::Down {
            return Self { state: State::Up, reason: VerdictReason::Released, since: now }.dated(before);
        }
        self
    }

    /// Whether new sessions may go there for all the agent knows.
    pub fn usable(&self) -> bool {
        self.state == State::Up
    }

    /// What the verdict rests on. Code that acts on a verdict uses this; reasons are for people.
    pub fn proof(&self) -> Proof {
        use VerdictReason as R;
        match self.reason {
            R::Proved
            | R::AuthRefused
            | R::LoginsFail
            | R::HostBlocked
            | R::Refusing
            | R::Silent
            | R::Superseded
            | R::NotWriter
            | R::NotReader
            | R::StaleWriter
            | R::Conflict
            | R::AddressDead
            | R::Lagging => Proof::Proved,
            R::SilentKept
            | R::AuthIllKept
            | R::HostBlockedKept
            | R::NothingAgainst
            | R::ConflictKept
            | R::RefusalUnconfirmed
            | R::ServedForClients => Proof::Kept,
            R::LastKnown => Proof::Remembered,
            R::WriterServesReads | R::OnlyServerKept | R::Released => Proof::LastResort,
            R::NotProbedYet
            | R::RoleUnproved
            | R::ReadersUnseen
            | R::Undecided
            | R::AddressUnproved
            | R::RoutingObserved => Proof::Unproved,
        }
    }
}
