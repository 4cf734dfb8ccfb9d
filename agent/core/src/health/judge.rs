//! The rules: from the facts of a database's instances to verdicts.
//!
//! Pure and total: every combination of facts has a verdict, and every `Down`
//! names the evidence for it.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::{HealthRules, InstanceView, OnAuthFailure, Role, Status, instance::Instance};
use crate::{InstanceName, Time, freshness};

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
    /// Yes.
    Up,
    /// Not while others can take them; its sessions go on.
    Drain,
    /// No.
    Down,
    /// The agent does not know: it changes nothing.
    Unknown,
}

/// Why.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum VerdictReason {
    /// It answers and has the wanted role.
    Proved,
    /// It had the wanted role at its last answer, and nothing contradicts that.
    LastKnown,
    /// It is silent, but silence alone takes nothing away.
    SilentKept,
    /// The agent's logins are refused everywhere: the agent, its token or IAM is ill, not the database.
    AuthIllKept,
    /// The server blocks the agent's address, and no sibling is known to be better: the
    /// address is blocked, the database is not down.
    HostBlockedKept,
    /// Nothing with the wanted role is left: better this one than none.
    LastResort,
    /// It was down, and what spoke against it has not been seen again for a while.
    NothingAgainst,
    /// Logins are refused here while a sibling accepts them.
    AuthRefused,
    /// The server blocks the agent's address, most likely the proxy's too, while a sibling
    /// accepts logins from there.
    HostBlocked,
    /// It refuses connections.
    Refusing,
    /// Silent while a sibling is usable.
    Silent,
    /// Silent, and another instance has proved itself writer since.
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
    /// It is too far behind.
    Lagging,
    /// Nothing has been proved yet.
    NotProbedYet,
}

impl fmt::Display for VerdictReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Proved => "answers in the wanted role",
            Self::LastKnown => "wanted role when last heard of",
            Self::SilentKept => "silent, which alone takes nothing away",
            Self::AuthIllKept => "the agent's logins are refused, the database is not to blame",
            Self::HostBlockedKept => "the agent's address is blocked (1129), the database is not to blame",
            Self::LastResort => "no server in the wanted role is left",
            Self::NothingAgainst => "nothing is known against it any more",
            Self::AuthRefused => "logins refused here and accepted by a sibling",
            Self::HostBlocked => "the agent's address is blocked (1129) here and not at a sibling",
            Self::Refusing => "refuses connections",
            Self::Silent => "silent while a sibling is usable",
            Self::Superseded => "not heard of, and superseded by another writer",
            Self::NotWriter => "not the writer",
            Self::NotReader => "the writer, and there are readers",
            Self::StaleWriter => "claims to be writer on an older timeline",
            Self::ConflictKept => "two claim to be writer, the last known one is kept",
            Self::Conflict => "two claim to be writer, this one was not",
            Self::Lagging => "too far behind",
            Self::NotProbedYet => "not probed yet",
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
    /// It lacks the wanted role, and no server has it.
    LastResort,
    /// Nothing is known.
    Unproved,
}

/// The verdict of one server.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Whether new sessions may go there.
    pub state: State,
    /// Why.
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

    /// The same verdict, as what is said of a server after what was said `before`.
    ///
    /// HAProxy keeps a server DOWN until it is told UP, so Unknown after Down becomes Up. The
    /// exception is a backend whose writer is another, known server (`another_writes`): there the
    /// verdict before stays.
    pub(super) fn after(self, before: Option<&Verdict>, another_writes: bool) -> Self {
        let held =
            |before: &&Verdict| before.state == State::Down || before.reason == VerdictReason::NothingAgainst;
        let said = match before.filter(held) {
            Some(before) if self.state == State::Unknown && another_writes => *before,
            Some(_) if self.state == State::Unknown => {
                Self { state: State::Up, reason: VerdictReason::NothingAgainst, ..self }
            }
            _ => self,
        };
        said.dated(before)
    }

    /// Whether new sessions may go there for all the agent knows.
    pub fn usable(&self) -> bool {
        self.state == State::Up
    }

    /// What it rests on. Whoever acts on a verdict asks this; reasons are for people.
    pub fn proof(&self) -> Proof {
        use VerdictReason as R;
        match self.reason {
            R::Proved
            | R::AuthRefused
            | R::HostBlocked
            | R::Refusing
            | R::Silent
            | R::Superseded
            | R::NotWriter
            | R::NotReader
            | R::StaleWriter
            | R::Conflict
            | R::Lagging => Proof::Proved,
            R::SilentKept | R::AuthIllKept | R::HostBlockedKept | R::NothingAgainst | R::ConflictKept => {
                Proof::Kept
            }
            R::LastKnown => Proof::Remembered,
            R::LastResort => Proof::LastResort,
            R::NotProbedYet => Proof::Unproved,
        }
    }
}

/// A server of the backend that is judged.
#[derive(Copy, Clone)]
pub(super) struct Member<'a> {
    pub(super) name: &'a InstanceName,
    /// Administratively drained: the proxy sends it no new sessions.
    pub(super) drained: bool,
}

/// The instances of one database, which of them last held the writer's place, and which of
/// them stand in for one another in the backend that is judged.
pub(super) struct Siblings<'a> {
    pub(super) instances: &'a BTreeMap<InstanceName, Instance>,
    pub(super) members: &'a [Member<'a>],
    pub(super) last_writer: Option<&'a InstanceName>,
    pub(super) rules: &'a HealthRules,
    pub(super) now: Time,
}

impl Siblings<'_> {
    /// The verdicts of the members, in order.
    ///
    /// A server that is proved unfit is down whatever the others are. One that is merely worse than
    /// another is taken out only if that one [can take its sessions](Self::substitutes).
    pub(super) fn judge(&self, wanted: WantedRole) -> Vec<Verdict> {
        let mut verdicts: Vec<Verdict> =
            self.members.iter().map(|member| self.alone(member.name, wanted)).collect();
        self.spare_the_last(&mut verdicts);
        verdicts
    }

    /// Whether two instances claim to be the writer and nothing tells which is right.
    pub(super) fn conflict(&self) -> bool {
        let claims: Vec<_> = self.claims().collect();
        claims.len() > 1 && higher_timeline(&claims).is_none()
    }

    /// What the instance's own facts and its siblings' say.
    fn alone(&self, name: &InstanceName, wanted: WantedRole) -> Verdict {
        use VerdictReason as R;
        let Some(instance) = self.instances.get(name) else {
            return self.say(State::Unknown, R::NotProbedYet);
        };
        let view = instance.view();
        if view.status == Status::Refusing {
            return self.say(State::Down, R::Refusing);
        }
        if !instance.known() {
            return self.say(State::Unknown, R::NotProbedYet);
        }
        let role = match wanted {
            WantedRole::Writer => self.as_writer(name, view),
            WantedRole::Reader => self.as_reader(name, view),
            WantedRole::Any => self.by_silence(name, view),
        };
        if role.state == State::Up { self.by_logins(name, view, role) } else { role }
    }

    fn as_writer(&self, name: &InstanceName, view: &InstanceView) -> Verdict {
        use VerdictReason as R;
        if view.role != Some(Role::Writer) {
            return self.out_of_role(view, R::NotWriter);
        }
        let claims: Vec<_> = self.claims().collect();
        let superseded = claims
            .iter()
            .any(|(_, other)| other.last_proof > view.last_proof && !older_timeline(other, view));
        match view.status {
            Status::Usable if view.proved() => {}
            Status::Silent(misses) if superseded && misses >= self.rules.liveness_misses => {
                return self.say(State::Down, R::Superseded);
            }
            Status::Silent(_) => return self.say(State::Up, R::SilentKept),
            _ if superseded => return self.out_of_role(view, R::Superseded),
            _ => return self.known_or_proved(view),
        }
        // An old writer that comes back while the new one stalls is still the old one.
        let newer_but_silent = self.instances.values().map(Instance::view).any(|other| {
            other.role == Some(Role::Writer)
                && matches!(other.status, Status::Silent(_))
                && other.last_proof.is_some_and(|proof| self.now.since(proof) <= freshness::NEWER_TIMELINE)
                && older_timeline(view, other)
        });
        if newer_but_silent {
            return self.say(State::Down, R::StaleWriter);
        }
        if claims.len() > 1 {
            // The last known good counts only while it is one of those that claim it, and new
            // sessions can go there: one that is gone gives no reason to refuse the others.
            let last = self.last_writer.filter(|last| claims.iter().any(|(name, _)| name == last));
            return match (higher_timeline(&claims), last) {
                (Some(winner), _) if winner == name => self.say(State::Up, R::Proved),
                (Some(_), _) => self.say(State::Down, R::StaleWriter),
                (None, Some(last)) if last != name && self.open(last) => self.say(State::Down, R::Conflict),
                (None, _) => self.say(State::Up, R::ConflictKept),
            };
        }
        self.known_or_proved(view)
    }

    fn as_reader(&self, name: &InstanceName, view: &InstanceView) -> Verdict {
        use VerdictReason as R;
        if view.role == Some(Role::Writer) {
            let mut substitutes = self.substitutes(name, view);
            return if substitutes.any(|other| other.role == Some(Role::Reader) && !self.lags(other)) {
                self.out_of_role(view, R::NotReader)
            } else {
                self.say(State::Up, R::LastResort)
            };
        }
        if self.lags(view) && self.substitutes(name, view).any(|other| !self.lags(other)) {
            return self.say(State::Down, R::Lagging);
        }
        self.by_silence(name, view)
    }

    fn by_silence(&self, name: &InstanceName, view: &InstanceView) -> Verdict {
        use VerdictReason as R;
        match view.status {
            Status::Silent(misses)
                if misses >= self.rules.liveness_misses && self.substitutes(name, view).next().is_some() =>
            {
                self.say(State::Down, R::Silent)
            }
            _ => self.known_or_proved(view),
        }
    }

    fn by_logins(&self, name: &InstanceName, view: &InstanceView, otherwise: Verdict) -> Verdict {
        use VerdictReason as R;
        let Some(since) = view.auth_refused_since else { return self.by_block(name, view, otherwise) };
        if !view.auth_refused_twice {
            // The agent has no token, its own trouble or that of AWS; or one login was refused
            // that the next may follow.
            return self.say(State::Up, R::AuthIllKept);
        }
        match self.rules.on_auth_failure {
            OnAuthFailure::Keep => self.say(State::Up, R::AuthIllKept),
            OnAuthFailure::Down => self.say(State::Down, R::AuthRefused),
            OnAuthFailure::Auto if self.sibling_accepts(name, since) => {
                self.say(State::Drain, R::AuthRefused)
            }
            OnAuthFailure::Auto => self.say(State::Up, R::AuthIllKept),
        }
    }

    /// A blocked address is drained at most, while a sibling takes logins from there, and
    /// never answered down: the proxy's clients may come from another address, and the
    /// server is well.
    fn by_block(&self, name: &InstanceName, view: &InstanceView, otherwise: Verdict) -> Verdict {
        use VerdictReason as R;
        let Some(since) = view.host_blocked_since else { return otherwise };
        if self.rules.on_auth_failure != OnAuthFailure::Keep && self.sibling_accepts(name, since) {
            self.say(State::Drain, R::HostBlocked)
        } else {
            self.say(State::Up, R::HostBlockedKept)
        }
    }

    /// Whether a sibling has let the agent in since then.
    fn sibling_accepts(&self, name: &InstanceName, since: Time) -> bool {
        self.instances.iter().any(|(other, sibling)| {
            other != name
                && sibling.view().accepts_logins(self.now)
                && sibling.view().last_login > Some(since)
        })
    }

    /// Old statements never empty a backend: when no server is left for new sessions, those that
    /// are out only for a role they stated some time ago come back.
    fn spare_the_last(&self, verdicts: &mut [Verdict]) {
        use VerdictReason as R;
        let mut left = self.members.iter().zip(verdicts.iter()).filter(|(member, _)| !member.drained);
        if left.any(|(_, verdict)| verdict.state != State::Down) {
            return;
        }
        for (member, verdict) in self.members.iter().zip(verdicts.iter_mut()) {
            let fresh = self.instances.get(member.name).is_some_and(|instance| {
                instance.view().last_proof.is_some_and(|proof| self.now.since(proof) <= freshness::ROLE)
            });
            if matches!(verdict.reason, R::NotWriter | R::StaleWriter | R::Conflict) && !fresh {
                *verdict = self.say(State::Up, R::LastResort);
            }
        }
    }

    /// Who claims to be the writer and answers.
    fn claims(&self) -> impl Iterator<Item = (&InstanceName, &InstanceView)> {
        self.instances
            .iter()
            .map(|(name, instance)| (name, instance.view()))
            .filter(|(_, view)| view.role == Some(Role::Writer) && view.usable() && view.proved())
    }

    /// Other members that could take this one's new sessions: they answer, are not drained, and
    /// accept logins, unless this one refuses them too.
    ///
    /// These rules never empty a backend. Of the members that answer and are not drained, the best
    /// one stays: one that accepts logins if any does, and among those a reader that does not lag,
    /// else the writer, else a reader that lags.
    fn substitutes(&self, name: &InstanceName, view: &InstanceView) -> impl Iterator<Item = &InstanceView> {
        // Where refused logins take a server down, one that has met them is about to go.
        let alike = view.refuses_logins() && self.rules.on_auth_failure != OnAuthFailure::Down;
        self.members
            .iter()
            .filter(move |member| member.name != name && !member.drained)
            .filter_map(|member| self.instances.get(member.name))
            .map(Instance::view)
            .filter(move |other| other.usable() && (alike || !other.refuses_logins()))
    }

    /// Whether the proxy sends new sessions to this instance, for all that is set there.
    fn open(&self, name: &InstanceName) -> bool {
        self.members.iter().any(|member| member.name == name && !member.drained)
    }

    fn lags(&self, view: &InstanceView) -> bool {
        matches!((view.lag, self.rules.max_lag), (Some(lag), Some(bound)) if lag > bound)
    }

    fn known_or_proved(&self, view: &InstanceView) -> Verdict {
        self.say(
            State::Up,
            match view.status {
                Status::Usable if view.proved() => VerdictReason::Proved,
                Status::Silent(_) => VerdictReason::SilentKept,
                Status::Usable | Status::Unknown | Status::Refusing => VerdictReason::LastKnown,
            },
        )
    }

    /// Down for its role. What only an earlier agent has seen may have changed since, and
    /// takes nothing away.
    fn out_of_role(&self, view: &InstanceView, reason: VerdictReason) -> Verdict {
        if view.proved() {
            self.say(State::Down, reason)
        } else {
            self.say(State::Unknown, VerdictReason::NotProbedYet)
        }
    }

    fn say(&self, state: State, reason: VerdictReason) -> Verdict {
        Verdict { state, reason, since: self.now }
    }
}

/// Whether the first is on a timeline that the second has left behind.
fn older_timeline(one: &InstanceView, other: &InstanceView) -> bool {
    matches!((one.timeline, other.timeline), (Some(one), Some(other)) if one < other)
}

/// The one claim on the highest timeline, if there is exactly one. Where one of
/// them does not tell its timeline, nothing can be compared.
fn higher_timeline<'a>(claims: &[(&'a InstanceName, &InstanceView)]) -> Option<&'a InstanceName> {
    let timelines: Option<Vec<u32>> = claims.iter().map(|(_, view)| view.timeline).collect();
    let best = timelines?.into_iter().max()?;
    let mut winners = claims.iter().filter(|(_, view)| view.timeline == Some(best));
    match (winners.next(), winners.next()) {
        (Some((winner, _)), None) => Some(winner),
        _ => None,
    }
}
