//! The rules: from the facts of a database's instances to verdicts.
//!
//! Pure and total: every combination of facts has a verdict, and every `Down`
//! names the evidence for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    AddressState, HealthRules, InstanceView, LoginTrouble, OnAuthFailure, ReaderFallback, Refusal, Role,
    State, Status, Verdict, VerdictReason, WantedRole, instance::Instance,
};
use crate::{InstanceName, Time, freshness};

/// Clients of a pool that is in use try again within this, and the proxy counts a refused try a second
/// later.
const CLIENTS_TRY: Duration = Duration::from_secs(3);

/// Whether a proxy sends new sessions to a server, by everything an operator can set there:
/// admin state, weight, disabled agent.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum Admission {
    /// It does, if the server is healthy.
    Open,
    /// It does not: drained, in maintenance, or of weight 0.
    Closed,
    /// The proxy's state cannot be read.
    #[default]
    Unseen,
}

/// A server of the backend that is judged.
#[derive(Copy, Clone)]
pub(super) struct Member<'a> {
    /// The instance behind the address that the proxy dials.
    pub(super) name: &'a InstanceName,
    pub(super) admission: Admission,
    pub(super) address: AddressState,
}

/// The instances of one database, and the backend that is judged.
pub(super) struct Siblings<'a> {
    pub(super) instances: &'a BTreeMap<InstanceName, Instance>,
    pub(super) members: &'a [Member<'a>],
    pub(super) last_writer: Option<&'a InstanceName>,
    /// Former writers that have not shown since that they follow the new one.
    pub(super) deposed: &'a BTreeSet<InstanceName>,
    /// Writers of [another database](Self::is_another_database).
    pub(super) others: &'a BTreeSet<InstanceName>,
    /// Whether clients without a usable server wait or go elsewhere: a `backup` server, or an aggregate
    /// cluster.
    pub(super) fallback: bool,
    pub(super) rules: &'a HealthRules,
    pub(super) now: Time,
}

/// Which instance is the writer, by all claims together.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Writer<'a> {
    /// No instance claims it.
    Unclaimed,
    /// This one, and no other claims it.
    Proved(&'a InstanceName),
    /// This one, although another claims it too.
    Contested(&'a InstanceName),
    /// The claim on the highest timeline; the last writer no longer claims it.
    Newest(&'a InstanceName),
    /// Several claim it and nothing tells which is right.
    Undecided,
}

impl<'a> Writer<'a> {
    pub(super) fn name(self) -> Option<&'a InstanceName> {
        match self {
            Self::Proved(name) | Self::Contested(name) | Self::Newest(name) => Some(name),
            Self::Unclaimed | Self::Undecided => None,
        }
    }

    /// Whether an operator has to know of it.
    pub(super) fn conflict(self) -> bool {
        matches!(self, Self::Contested(_) | Self::Undecided)
    }
}

impl<'a> Siblings<'a> {
    /// The verdicts of the members, in order.
    ///
    /// A server that proves itself unfit is down whatever the others are. One that is only worse than
    /// another (silent, lagging, the writer among readers) goes only if another member [can take
    /// its sessions](Self::alternatives).
    pub(super) fn judge(&self, wanted: WantedRole, before: &[Option<Verdict>]) -> Vec<Verdict> {
        let writer = self.writer();
        let mut verdicts: Vec<Verdict> =
            self.members.iter().map(|member| self.by_role(member.name, wanted, writer)).collect();
        let by_role = verdicts.clone();
        for (member, verdict) in self.members.iter().zip(&mut verdicts) {
            if verdict.state == State::Up && !refusal_doubted(verdict) {
                *verdict = self.by_logins(member, *verdict, &by_role);
            }
        }
        for (member, verdict) in self.members.iter().zip(&mut verdicts) {
            *verdict = self.by_address(member, wanted, *verdict);
        }
        self.keep_one_unconfirmed(&mut verdicts, before);
        if !self.fallback {
            self.keep_one(&mut verdicts, wanted, writer, before);
        }
        verdicts
    }

    /// Which instance is the writer.
    ///
    /// Two instances that both claim it need not be one database: on plain RDS a promoted read replica
    /// is another one, on a higher timeline. So the last writer stays the writer while it claims so
    /// itself; timelines decide only once it no longer does, and only between claims that are not of
    /// [another database](Self::is_another_database). Sending some sessions to each would split the data, so
    /// where nothing decides, nothing changes.
    pub(super) fn writer(&self) -> Writer<'a> {
        let claims = self.claims();
        // After a restart the last writer has to be asked before another can take its role. One that lives and only
        // refuses the agent's logins has not answered, for as long as the role of a living one is believed.
        let early = self.now.since(Time::AGENT_START) <= self.rules.trouble_lasts();
        let unheard = |name: &InstanceName| {
            self.instances.get(name).is_some_and(|last| !last.asked() || early && !last.answered_or_gone())
        };
        match claims.as_slice() {
            [] => Writer::Unclaimed,
            _ if self.last_writer.is_some_and(unheard) => Writer::Undecided,
            [(name, _)] => Writer::Proved(name),
            _ => match self.last_writer {
                Some(last) if claims.iter().any(|(name, _)| *name == last) && self.admits(last) => {
                    Writer::Contested(last)
                }
                Some(_) => highest_timeline(&claims).map_or(Writer::Undecided, Writer::Newest),
                None => Writer::Undecided,
            },
        }
    }

    /// The verdict by role, from the instance's own facts and its siblings'.
    fn by_role(&self, name: &InstanceName, wanted: WantedRole, writer: Writer<'_>) -> Verdict {
        use VerdictReason as R;
        let Some(instance) = self.instances.get(name) else {
            return self.verdict(State::Unknown, R::NotProbedYet);
        };
        let view = instance.view();
        if view.status == Status::Refusing && !self.doubts_refusal(instance) {
            return self.verdict(State::Down, R::Refusing);
        }
        if !instance.known() {
            return self.verdict(State::Unknown, R::NotProbedYet);
        }
        if view.proved() && !self.role_is_fresh(view) {
            let silence = self.by_silence(name, view);
            return match (wanted, writer.name()) {
                (WantedRole::Writer, Some(other)) if other != name => {
                    self.verdict(State::Down, R::Superseded)
                }
                (WantedRole::Reader, _) if silence.state == State::Down => silence,
                (WantedRole::Any, _) => silence,
                _ => self.verdict(State::Unknown, R::RoleUnproved),
            };
        }
        match wanted {
            WantedRole::Writer => self.as_writer(name, view, writer),
            WantedRole::Reader => self.as_reader(name, view),
            WantedRole::Any => self.by_silence(name, view),
        }
    }

    fn as_writer(&self, name: &InstanceName, view: &InstanceView, writer: Writer<'_>) -> Verdict {
        use VerdictReason as R;
        if view.role != Some(Role::Writer) {
            return self.out_of_role(view, R::NotWriter);
        }
        if self.is_another_database(name) {
            return self.verdict(State::Down, R::Conflict);
        }
        // While nothing answers, only the last writer is kept, or the only instance that can be it.
        let another_may_be = self.last_writer != Some(name)
            && self
                .instances
                .iter()
                .any(|(other, instance)| other != name && instance.view().role == Some(Role::Writer));
        if !view.proved() {
            let may_be = writer == Writer::Unclaimed && !another_may_be;
            return if may_be {
                self.known_or_proved(view)
            } else {
                self.verdict(State::Unknown, R::NotProbedYet)
            };
        }
        if self.outranked(name, view) {
            return self.verdict(State::Down, R::StaleWriter);
        }
        match writer {
            Writer::Contested(winner) if winner == name => self.verdict(State::Up, R::ConflictKept),
            Writer::Contested(_) => self.verdict(State::Down, R::Conflict),
            Writer::Proved(winner) | Writer::Newest(winner) if winner == name => self.known_or_proved(view),
            Writer::Newest(_) if view.usable() => self.verdict(State::Down, R::StaleWriter),
            // It was silent too briefly to lose its claim, or it is not the writer any more.
            Writer::Proved(_) | Writer::Newest(_) => self.verdict(State::Down, R::Superseded),
            Writer::Undecided => self.verdict(State::Unknown, R::Undecided),
            // It has not answered as a reader since another took its place.
            Writer::Unclaimed if another_may_be && self.deposed.contains(name) => {
                self.verdict(State::Down, R::Superseded)
            }
            Writer::Unclaimed if another_may_be => self.verdict(State::Unknown, R::Undecided),
            Writer::Unclaimed => self.known_or_proved(view),
        }
    }

    fn as_reader(&self, name: &InstanceName, view: &InstanceView) -> Verdict {
        use VerdictReason as R;
        if view.role == Some(Role::Writer) {
            if self.rules.reader_fallback == ReaderFallback::None {
                return self.out_of_role(view, R::NotReader);
            }
            let readers = self.alternatives(name, view, |other| {
                other.role == Some(Role::Reader)
                    && (other.steady || other.refusal == Some(Refusal::ServedForClients))
                    && !other.lagging
                    && self.role_is_fresh(other)
            });
            return match readers {
                Admission::Open => self.out_of_role(view, R::NotReader),
                Admission::Unseen => self.verdict(State::Unknown, R::ReadersUnseen),
                // One that hangs helps nobody while another answers: an old writer beside the new one, or beside
                // readers that only refuse the agent's logins.
                // After a restart the readers have to be asked first.
                Admission::Closed if self.readers_unasked(name) => {
                    self.verdict(State::Unknown, R::ReadersUnseen)
                }
                Admission::Closed if self.is_silent(view) && self.another_answers(name) => {
                    self.verdict(State::Down, R::Silent)
                }
                Admission::Closed => self.verdict(State::Up, R::WriterServesReads),
            };
        }
        if view.lagging
            && self.alternatives(name, view, |other| other.usable() && !other.lagging) == Admission::Open
        {
            return self.verdict(State::Down, R::Lagging);
        }
        self.by_silence(name, view)
    }

    fn by_silence(&self, name: &InstanceName, view: &InstanceView) -> Verdict {
        if self.is_silent(view) && self.alternatives(name, view, InstanceView::usable) == Admission::Open {
            self.verdict(State::Down, VerdictReason::Silent)
        } else {
            self.known_or_proved(view)
        }
    }

    fn is_silent(&self, view: &InstanceView) -> bool {
        matches!(view.status, Status::Silent(misses) if misses >= self.rules.liveness_misses)
    }

    /// Whether the agent only remembers another member as a reader, and has neither an answer of it nor met
    /// a dead server there.
    fn readers_unasked(&self, name: &InstanceName) -> bool {
        let early = self.now.since(Time::AGENT_START) <= self.rules.trouble_lasts();
        early
            && self.members.iter().filter(|member| member.name != name).any(|member| {
                self.instances.get(member.name).is_some_and(|instance| {
                    instance.view().role == Some(Role::Reader)
                        && member.admission != Admission::Closed
                        && !instance.answered_or_gone()
                })
            })
    }

    /// Whether another member answers, by its own address, and is open at the proxy.
    fn another_answers(&self, name: &InstanceName) -> bool {
        self.members.iter().filter(|member| member.name != name).any(|member| {
            member.admission == Admission::Open
                && matches!(member.address, AddressState::Proved | AddressState::OtherInstance)
                && self.instances.get(member.name).is_some_and(|instance| instance.view().usable())
        })
    }

    /// The verdict by the address that the proxy dials. The facts of an instance say nothing of an address that
    /// is not proved to be its own.
    fn by_address(&self, member: &Member<'_>, wanted: WantedRole, verdict: Verdict) -> Verdict {
        if verdict.state == State::Down {
            return verdict;
        }
        let view = self.instances.get(member.name).map(Instance::view);
        let unproved = self.verdict(State::Unknown, VerdictReason::AddressUnproved);
        match (member.address, view) {
            (AddressState::Proved | AddressState::OtherInstance, _) => verdict,
            (AddressState::Dead, Some(view))
                if wanted != WantedRole::Writer
                    && self.alternatives(member.name, view, InstanceView::usable) == Admission::Open =>
            {
                self.verdict(State::Down, VerdictReason::AddressDead)
            }
            (AddressState::Unproved | AddressState::Dead, _) => unproved,
        }
    }

    /// Whether the agent's refused connections need not be the clients'. The clients' own prove it soon where
    /// there are any. Where there are none, only an instance that answers the agent meanwhile speaks for
    /// the agent's path.
    fn doubts_refusal(&self, instance: &Instance) -> bool {
        match instance.view().refusal {
            Some(Refusal::ServedForClients) => true,
            Some(Refusal::Unconfirmed) => {
                let waits = instance.refused_since().is_some_and(|since| self.now.since(since) < CLIENTS_TRY);
                let any =
                    |fit: fn(&InstanceView) -> bool| self.instances.values().any(|other| fit(other.view()));
                waits
                    || !any(InstanceView::usable)
                    || any(|other| other.refusal == Some(Refusal::ServedForClients))
            }
            Some(Refusal::Unseen | Refusal::Confirmed) | None => false,
        }
    }

    /// Keeps one server of a backend in which all that are up refuse the agent: two that refuse clients
    /// too use up all tries of a client within milliseconds.
    fn keep_one_unconfirmed(&self, verdicts: &mut [Verdict], before: &[Option<Verdict>]) {
        let unconfirmed = |member: &Member<'_>| {
            let view = self.instances.get(member.name).map(Instance::view);
            view.is_some_and(|view| view.refusal == Some(Refusal::Unconfirmed))
        };
        let up = self.members.iter().zip(verdicts.iter()).enumerate();
        let up = up.filter(|(_, (_, verdict))| verdict.state == State::Up);
        if up.clone().any(|(_, (member, _))| !unconfirmed(member) && member.admission != Admission::Closed) {
            return;
        }
        let kept =
            up.filter(|(_, (member, _))| unconfirmed(member)).max_by_key(|(index, (member, verdict))| {
                let before = before.get(*index).copied().flatten();
                (
                    member.admission != Admission::Closed,
                    verdict.reason == VerdictReason::RefusalUnconfirmed,
                    before.is_some_and(|before| before.reason == VerdictReason::RefusalUnconfirmed),
                    self.instances.get(member.name).and_then(|instance| instance.view().last_proof),
                )
            });
        let Some(kept) = kept.map(|(index, _)| index) else { return };
        for (index, (member, verdict)) in self.members.iter().zip(verdicts.iter_mut()).enumerate() {
            if index != kept && verdict.state == State::Up && unconfirmed(member) {
                *verdict = self.verdict(State::Down, VerdictReason::Refusing);
            }
        }
    }

    /// The verdict by logins, for a server that may take sessions by its role.
    ///
    /// Open sessions prove nothing about new ones, nor the other way round. A server whose logins fail
    /// is drained, and only while another member is fit by its role, is open at the proxy, and accepted
    /// a login between two failures here: then neither IAM nor the agent is to blame.
    fn by_logins(&self, member: &Member<'_>, verdict: Verdict, by_role: &[Verdict]) -> Verdict {
        use VerdictReason as R;
        let Some(view) = self.instances.get(member.name).map(Instance::view) else { return verdict };
        let Some(trouble) = view.login_trouble else { return verdict };
        let (kept, reason) = match trouble.kind {
            LoginTrouble::NoToken => return self.verdict(State::Up, R::AuthIllKept),
            LoginTrouble::Refused => (R::AuthIllKept, R::AuthRefused),
            LoginTrouble::Blocked => (R::HostBlockedKept, R::HostBlocked),
            LoginTrouble::Failing => (verdict.reason, R::LoginsFail),
        };
        let client_since = view.last_client_login.is_some_and(|login| login > trouble.last);
        if !trouble.lasting || client_since {
            return self.verdict(State::Up, kept);
        }
        match self.rules.on_auth_failure {
            OnAuthFailure::Keep => self.verdict(State::Up, kept),
            OnAuthFailure::Down if trouble.kind == LoginTrouble::Refused => self.verdict(State::Down, reason),
            // Where the agent has never logged in, its grants or its policy are the likelier cause.
            _ if trouble.kind == LoginTrouble::Refused && view.last_login.is_none() => {
                self.verdict(State::Up, kept)
            }
            _ if trouble.sibling_accepted && self.another_accepts(member, by_role) => {
                self.verdict(State::Drain, reason)
            }
            _ => self.verdict(State::Up, kept),
        }
    }

    /// Whether another member that may take the sessions accepts logins now.
    fn another_accepts(&self, than: &Member<'_>, by_role: &[Verdict]) -> bool {
        self.members.iter().zip(by_role).any(|(member, verdict)| {
            let view = self.instances.get(member.name).map(Instance::view);
            member.name != than.name
                && verdict.state == State::Up
                && member.admission == Admission::Open
                && matches!(member.address, AddressState::Proved | AddressState::OtherInstance)
                && view.is_some_and(|view| view.accepts_logins(self.now))
        })
    }

    /// Keeps exactly one server of a backend that has no fallback and would be empty.
    ///
    /// One that refuses is retried for as long as `retries` last; two that refuse use up all tries
    /// within milliseconds. A server that has proved another role is never kept.
    fn keep_one(
        &self,
        verdicts: &mut [Verdict],
        wanted: WantedRole,
        writer: Writer<'_>,
        before: &[Option<Verdict>],
    ) {
        use VerdictReason as R;
        let mut left = self.members.iter().zip(verdicts.iter());
        if left.any(|(member, verdict)| member.admission != Admission::Closed && verdict.state != State::Down)
        {
            return;
        }
        // While none claims it, the last writer: an operator may have closed it at the proxy.
        let writer = writer.name().or(self.last_writer);
        let candidates = self.members.iter().zip(verdicts.iter_mut()).enumerate();
        let fit = candidates.filter_map(|(index, (member, verdict))| {
            let view = self.instances.get(member.name).map(Instance::view);
            let role = view.and_then(|view| view.role);
            let may_write = role != Some(Role::Reader) && writer.is_none_or(|writer| writer == member.name);
            let fit = member.admission != Admission::Closed
                && matches!(verdict.reason, R::Refusing | R::Silent | R::Lagging | R::AuthRefused)
                && (wanted != WantedRole::Writer || may_write);
            let kept_before = before.get(index).copied().flatten();
            let rank = (
                self.last_writer == Some(member.name) && wanted == WantedRole::Writer,
                kept_before.is_some_and(|verdict| verdict.reason == R::OnlyServerKept),
                view.and_then(|view| view.last_proof),
            );
            fit.then_some((rank, verdict))
        });
        if let Some((_, kept)) = fit.max_by_key(|(rank, _)| *rank) {
            *kept = self.verdict(State::Up, R::OnlyServerKept);
        }
    }

    /// The instances that claim to be the writer, by a fresh answer. One missed answer loses no claim.
    fn claims(&self) -> Vec<(&'a InstanceName, &'a InstanceView)> {
        let mut claims: Vec<_> = self
            .instances
            .iter()
            .map(|(name, instance)| (name, instance.view()))
            .filter(|(name, view)| {
                let answers = match view.status {
                    Status::Usable => true,
                    Status::Silent(misses) => misses < self.rules.liveness_misses,
                    Status::Unknown | Status::Refusing => false,
                };
                answers
                    && view.role == Some(Role::Writer)
                    && view.proved()
                    && self.role_is_fresh(view)
                    && !self.outranked(name, view)
            })
            .collect();
        if !claims.iter().any(|(name, _)| self.last_writer == Some(*name)) {
            claims.retain(|(name, _)| !self.is_another_database(name));
        }
        // An instance that follows a source is no writer beside one that follows none.
        if claims.iter().any(|(_, view)| !view.follows_source) {
            claims.retain(|(_, view)| !view.follows_source);
        }
        claims
    }

    /// Whether an instance claims to be the writer of another database: the last writer went on as a writer
    /// beside it. A failover stops the old writer before the new one begins; a promoted read replica does not.
    /// So it takes no writes while the last writer is away, until that one answers as a reader, or an operator
    /// chooses.
    fn is_another_database(&self, name: &InstanceName) -> bool {
        let last = self.last_writer.filter(|last| *last != name).and_then(|last| self.instances.get(last));
        last.is_some_and(|last| last.view().role == Some(Role::Writer)) && self.others.contains(name)
    }

    /// Whether a newer writer is only silent: then an old one that comes back is still the old one. Not so
    /// the last writer, which no other has followed.
    fn outranked(&self, name: &InstanceName, view: &InstanceView) -> bool {
        self.last_writer != Some(name)
            && self.instances.iter().any(|(other_name, other)| {
                let other = other.view();
                other_name != name
                    && other.role == Some(Role::Writer)
                    && matches!(other.status, Status::Silent(_))
                    && other
                        .last_proof
                        .is_some_and(|proof| self.now.since(proof) <= freshness::NEWER_TIMELINE)
                    && (older_timeline(view, other)
                        || (self.deposed.contains(name) && self.last_writer == Some(other_name)))
            })
    }

    /// Whether other members can take this one's new sessions, by the best of them: `Open` if one that
    /// is `fit` and accepts logins is open at the proxy.
    ///
    /// Siblings that refuse logins do not count, unless this one refuses them too.
    fn alternatives(
        &self,
        name: &InstanceName,
        view: &InstanceView,
        fit: impl Fn(&InstanceView) -> bool,
    ) -> Admission {
        // Where refused logins take a server down, one that refuses is about to go.
        let alike = view.refuses_logins() && self.rules.on_auth_failure != OnAuthFailure::Down;
        let mut best = Admission::Closed;
        for member in self.members.iter().filter(|member| member.name != name) {
            let Some(other) = self.instances.get(member.name).map(Instance::view) else { continue };
            if !fit(other) || (other.refuses_logins() && !alike) {
                continue;
            }
            match member.admission {
                _ if member.address == AddressState::Dead => {}
                // Clients may be served there or not.
                Admission::Open if member.address == AddressState::Unproved => best = Admission::Unseen,
                Admission::Open => return Admission::Open,
                Admission::Unseen => best = Admission::Unseen,
                Admission::Closed => {}
            }
        }
        best
    }

    /// Whether new sessions can go to the writer, where it is a member.
    fn admits(&self, name: &InstanceName) -> bool {
        self.members.iter().any(|member| member.name == name && member.admission != Admission::Closed)
    }

    /// Whether the instance's last answer is young enough to say what its role is now.
    fn role_is_fresh(&self, view: &InstanceView) -> bool {
        view.last_proof.is_some_and(|proof| self.now.since(proof) <= self.rules.trouble_lasts())
    }

    fn known_or_proved(&self, view: &InstanceView) -> Verdict {
        self.verdict(
            State::Up,
            match view.status {
                Status::Usable if view.proved() => VerdictReason::Proved,
                Status::Silent(_) => VerdictReason::SilentKept,
                Status::Unknown if view.proved() => VerdictReason::NothingAgainst,
                Status::Refusing if view.refusal == Some(Refusal::ServedForClients) => {
                    VerdictReason::ServedForClients
                }
                Status::Refusing => VerdictReason::RefusalUnconfirmed,
                Status::Usable | Status::Unknown => VerdictReason::LastKnown,
            },
        )
    }

    /// Down for its role. What only an earlier agent has seen may have changed since, and takes
    /// nothing away.
    fn out_of_role(&self, view: &InstanceView, reason: VerdictReason) -> Verdict {
        if view.proved() {
            self.verdict(State::Down, reason)
        } else {
            self.verdict(State::Unknown, VerdictReason::NotProbedYet)
        }
    }

    fn verdict(&self, state: State, reason: VerdictReason) -> Verdict {
        Verdict { state, reason, since: self.now }
    }
}

/// Whether a server is up although it refuses the agent.
fn refusal_doubted(verdict: &Verdict) -> bool {
    matches!(verdict.reason, VerdictReason::RefusalUnconfirmed | VerdictReason::ServedForClients)
}

/// Whether the first is on a timeline that the second has left behind.
fn older_timeline(one: &InstanceView, other: &InstanceView) -> bool {
    matches!((one.timeline, other.timeline), (Some(one), Some(other)) if one < other)
}

/// The one claim on the highest timeline, if there is exactly one. Where one of
/// them does not show its timeline, nothing can be compared.
fn highest_timeline<'a>(claims: &[(&'a InstanceName, &InstanceView)]) -> Option<&'a InstanceName> {
    let timelines: Option<Vec<u32>> = claims.iter().map(|(_, view)| view.timeline).collect();
    let best = timelines?.into_iter().max()?;
    let mut winners = claims.iter().filter(|(_, view)| view.timeline == Some(best));
    match (winners.next(), winners.next()) {
        (Some((winner, _)), None) => Some(winner),
        _ => None,
    }
}
