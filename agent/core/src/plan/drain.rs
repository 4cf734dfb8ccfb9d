//! The drain of each server, from its command to its end.
//!
//! HAProxy keeps one admin state and does not say who set it. So a drain is recorded before it is
//! sent, repeated only until the proxy shows it, and taken back only while the proxy still shows
//! exactly that. Any other admin state is an operator's, and the agent lets go.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use super::{
    AdminWord, Carrier, Command, DrainPhase, DrainReason, DrainSent, HoldReason, Left, Mode, Policy,
    Requested, Shown, UndrainReason,
};
use crate::{
    InstanceId, ProxyIndex, ServerId, Time,
    freshness::SOURCE_LOST,
    health::{Fleet, ServerConfig, State, Verdict},
    peers::{Agreement, Peers},
};

/// A drain that the proxy has not shown after this is taken back. It may still be on its
/// way, and must not take effect after the reason for it has gone.
const TAKES: Duration = Duration::from_secs(10);

/// A command to drain that is still unanswered may take effect for this long, so a table without
/// the drain does not end the taking back. Executors drop a command after ten seconds; the rest is
/// for a process that was suspended in between.
const OUTSTANDING: Duration = Duration::from_secs(30);

/// Between two tries to take a drain back.
const RETRY: Duration = Duration::from_secs(1);

/// Other agents that are not seen by then are not seen at all: a look takes milliseconds.
const AGREED: Duration = Duration::from_secs(5);

/// A cohort is more than one session.
const COHORT: usize = 2;

/// If the admin state is unreadable, `ready` is sent at most three times: one of them has been read
/// by then, and an operator's drain that follows must not be undone.
const BLIND_READY: u32 = 3;

/// How many of a server's sessions are due, of how many.
#[derive(Copy, Clone, Debug, Default)]
pub(super) struct Cohort {
    pub(super) due: usize,
    pub(super) all: usize,
}

/// What a tick decides by.
pub(super) struct Scene<'a> {
    pub(super) now: Time,
    pub(super) fleet: &'a Fleet,
    pub(super) cohorts: &'a HashMap<ServerId, Cohort>,
    pub(super) policy: &'a Policy,
    pub(super) peers: &'a Peers,
    pub(super) paused: bool,
}

/// What a tick decides.
#[derive(Default)]
pub(super) struct Ticked {
    pub(super) commands: Vec<Command>,
    pub(super) holds: Vec<(ServerId, HoldReason)>,
    /// Instances that are drained, or about to be.
    pub(super) marks: BTreeSet<InstanceId>,
    /// Instances whose locks have to be read before a drain can begin.
    pub(super) meet: BTreeSet<InstanceId>,
}

/// The drains of all servers.
#[derive(Debug)]
pub struct Drains {
    pub(super) slots: BTreeMap<ServerId, Slot>,
}

#[derive(Debug)]
pub(super) struct Slot {
    /// Whether any drain but an operator's may be begun: see [`ServerConfig`].
    pub(super) commandable: bool,
    instance: InstanceId,
    pub(super) phase: DrainPhase,
    /// What the proxy showed last, and when it was asked.
    pub(super) shown: Option<(Time, Shown)>,
    /// No drain for due sessions before this.
    not_before: Option<Time>,
    /// The last drain could not be sent: none of any kind before this.
    retry_at: Option<Time>,
    /// Since when the agent's mark is wanted at the instance for a drain that is about to begin.
    marking: Option<Time>,
    /// The drain that an operator asked for, until it is ended by an operator or its time is up.
    pub(super) operator: Option<Requested>,
}

impl Drains {
    pub(super) fn new(servers: &[ServerConfig]) -> Self {
        let slot = |server: &ServerConfig| Slot {
            commandable: server.commandable,
            instance: server.instance.clone(),
            phase: DrainPhase::Idle,
            shown: None,
            not_before: None,
            retry_at: None,
            marking: None,
            operator: None,
        };
        Self { slots: servers.iter().map(|server| (server.id.clone(), slot(server))).collect() }
    }

    /// Where each server's drain stands.
    pub fn phases(&self) -> impl Iterator<Item = (&ServerId, DrainPhase)> {
        self.slots.iter().map(|(server, slot)| (server, slot.phase))
    }

    /// What the proxy showed last of a server.
    pub(super) fn shown(&self, server: &ServerId) -> Option<Shown> {
        self.slots.get(server).and_then(|slot| slot.shown).map(|(_, shown)| shown)
    }

    /// Takes over a drain that an earlier agent recorded: it is taken back.
    pub(super) fn adopt(&mut self, server: &ServerId, policy: &Policy, now: Time) {
        if let Some(slot) = self.slots.get_mut(server) {
            slot.not_before = Some(now + policy.max_age);
            slot.phase = DrainPhase::undoing(now, None, Left::Adopted);
        }
    }

    /// What the proxy itself shows of a server, asked for at `at`.
    pub(super) fn observe(
        &mut self,
        server: &ServerId,
        at: Time,
        shown: Shown,
        policy: &Policy,
    ) -> Option<Command> {
        let slot = self.slots.get_mut(server)?;
        if slot.shown.is_some_and(|(last, _)| at < last) {
            return None;
        }
        slot.shown = Some((at, shown));
        if let DrainPhase::Undoing { left: left @ Left::Adopted, .. } = &mut slot.phase {
            *left = Left::ByCommand;
        }
        let (own, maint) = (shown.own_drain(), shown.maint());
        match &mut slot.phase {
            // An answer from before the drain was sent says nothing about it.
            DrainPhase::Held { since, carrier, .. } if at >= *since => {
                if own {
                    if let Carrier::Answers { shown } = carrier {
                        *shown = true;
                    }
                    return None;
                }
                if !carrier.shown() && !maint {
                    return None;
                }
                // An operator has undone it, or put the server into maintenance.
                slot.operator = None;
                slot.not_before = Some(at + policy.max_age);
            }
            DrainPhase::Undoing { since, left, .. } if at >= *since => {
                let may_come = matches!(left, Left::Unanswered { sent } if at.since(*sent) <= OUTSTANDING);
                if own && *left != Left::Record || !own && !maint && may_come {
                    return None;
                }
            }
            _ => return None,
        }
        slot.phase = DrainPhase::Idle;
        Some(Command::Forget { server: server.clone() })
    }

    /// The proxy is another process since its table before `at`: what was set there is gone, or comes back from its
    /// server state file, and nobody has ended a drain. An operator's is set again; an agent's own is over.
    pub(super) fn proxy_restarted(&mut self, proxy: ProxyIndex, at: Time) {
        for slot in self.slots.iter_mut().filter(|(id, _)| id.proxy == proxy).map(|(_, slot)| slot) {
            if let (DrainPhase::Held { since, carrier, .. }, Some(_)) = (&mut slot.phase, slot.operator) {
                (*since, *carrier) = (at, Carrier::Answers { shown: false });
            }
        }
    }

    /// What became of the command to drain.
    pub(super) fn sent(&mut self, server: &ServerId, sent: DrainSent, now: Time) {
        let Some(slot) = self.slots.get_mut(server) else { return };
        let (carrier, left) = match sent {
            DrainSent::Sent => (Carrier::Command, Left::ByCommand),
            DrainSent::Unclear => (Carrier::Answers { shown: false }, Left::ByAnswers),
            DrainSent::NotSent => {
                match &mut slot.phase {
                    DrainPhase::Sending { .. } => {
                        slot.retry_at = Some(now + RETRY * 10);
                        slot.phase = DrainPhase::Idle;
                    }
                    DrainPhase::Undoing { left: left @ Left::Unanswered { .. }, .. } => {
                        *left = Left::ByCommand;
                    }
                    _ => {}
                }
                return;
            }
        };
        slot.phase = match slot.phase {
            DrainPhase::Sending { reason, .. } => DrainPhase::Held { since: now, reason, carrier },
            // Given up meanwhile, and sent after all: what the proxy showed before says nothing.
            DrainPhase::Idle | DrainPhase::Undoing { .. } => DrainPhase::undoing(now, None, left),
            held @ DrainPhase::Held { .. } => held,
        };
    }

    /// Whether the proxy took the end of a drain. If so it is over, and a drain that shows up later
    /// is an operator's; unless the drain itself may still arrive.
    pub(super) fn ended(&mut self, server: &ServerId, taken: bool) {
        let Some(slot) = self.slots.get_mut(server) else { return };
        if taken
            && let DrainPhase::Undoing { left: left @ (Left::ByCommand | Left::Adopted), .. } =
                &mut slot.phase
        {
            *left = Left::Record;
        }
    }

    /// An agent-check answer with an admin word was read by the proxy.
    pub(super) fn delivered(&mut self, server: &ServerId, word: AdminWord) {
        let phase = self.slots.get_mut(server).map(|slot| &mut slot.phase);
        if let (Some(DrainPhase::Undoing { delivered, .. }), AdminWord::Ready) = (phase, word) {
            *delivered += 1;
        }
    }

    /// What an agent-check answer has to say about the admin state: only what
    /// the runtime API cannot.
    pub fn word(&self, server: &ServerId, now: Time) -> Option<AdminWord> {
        let slot = self.slots.get(server)?;
        let sight = slot.shown.filter(|(at, _)| now.since(*at) <= SOURCE_LOST).map(|(_, shown)| shown);
        match (slot.phase, sight) {
            (DrainPhase::Undoing { left: Left::Record, .. }, _) => None,
            (DrainPhase::Held { carrier: Carrier::Answers { shown: false }, .. }, Some(shown))
                if shown.clear() =>
            {
                Some(AdminWord::Drain)
            }
            // The API has had its chance and did not do it.
            (DrainPhase::Undoing { since, .. }, Some(shown))
                if shown.own_drain() && now.since(since) > 2 * RETRY =>
            {
                Some(AdminWord::Ready)
            }
            (DrainPhase::Undoing { since, delivered, left, .. }, None)
                if delivered < BLIND_READY && now.since(since) > SOURCE_LOST && left != Left::Adopted =>
            {
                Some(AdminWord::Ready)
            }
            _ => None,
        }
    }

    /// Other servers of the same backend that are not known to be out. A drain that an operator asked for
    /// ends only on evidence that too few are left: after a restart nothing is known yet.
    fn others_left(&self, server: &ServerId, scene: &Scene<'_>) -> usize {
        let Scene { now, fleet, peers, .. } = *scene;
        let out = |id: &ServerId, slot: &Slot| {
            fleet.servers.get(id).is_some_and(|verdict| matches!(verdict.state, State::Down | State::Drain))
                || slot.phase != DrainPhase::Idle
                || slot.shown.is_some_and(|(_, shown)| !shown.clear())
                || peers.drained_lastingly(&slot.instance, now)
        };
        let others = self.slots.iter().filter(|(id, _)| *id != server && same_backend(id, server));
        others.filter(|(id, slot)| !out(id, slot)).count()
    }

    /// One tick: begins, goes on with and ends drains.
    pub(super) fn tick(&mut self, scene: &Scene<'_>) -> Ticked {
        let now = scene.now;
        for slot in self.slots.values_mut() {
            if slot.expired(now) && slot.phase == DrainPhase::Idle {
                slot.operator = None;
            }
        }
        let mut ticked = Ticked { commands: self.go_on(scene), ..Ticked::default() };
        let servers: Vec<ServerId> = self.slots.keys().cloned().collect();
        for server in servers {
            let Some(slot) = self.slots.get(&server).filter(|slot| slot.phase == DrainPhase::Idle) else {
                continue;
            };
            let begins = match slot.wanted(&server, scene) {
                Some(reason) => self.begins(&server, slot, reason, scene, &mut ticked).then_some(reason),
                None => None,
            };
            let Some(slot) = self.slots.get_mut(&server) else { continue };
            let waits = ticked.meet.contains(&slot.instance);
            if let Some(reason) = begins {
                slot.phase = DrainPhase::Sending { since: now, reason };
                slot.marking = None;
                ticked.commands.push(Command::Drain { server, reason });
            } else if waits {
                slot.marking.get_or_insert(now);
            } else {
                slot.marking = None;
            }
        }
        let marked = |slot: &&Slot| slot.phase != DrainPhase::Idle || slot.marking.is_some();
        ticked.marks = self.slots.values().filter(marked).map(|slot| slot.instance.clone()).collect();
        ticked
    }

    /// Whether the drain of a server begins now. If not, it is held, or the locks of other agents are read first.
    fn begins(
        &self,
        server: &ServerId,
        slot: &Slot,
        reason: DrainReason,
        scene: &Scene<'_>,
        ticked: &mut Ticked,
    ) -> bool {
        let now = scene.now;
        let lately = reason == DrainReason::SessionsDue && slot.not_before.is_some_and(|at| now < at);
        let obstacle = if lately {
            Some(HoldReason::DrainedLately)
        } else {
            self.obstacle(server, slot, scene, slot.forced())
        };
        let hold = match obstacle {
            Some(obstacle) => obstacle,
            // Clients are refused: a mark would come too late, or not at all.
            None if reason == DrainReason::AuthRefused || slot.forced() => return true,
            None => {
                let siblings: BTreeSet<&InstanceId> =
                    self.usable(server, scene, Some(now)).filter(|other| **other != slot.instance).collect();
                let since = slot.marking.unwrap_or(now);
                match scene.peers.agreement(&slot.instance, siblings.iter().copied(), since) {
                    Agreement::Given => return true,
                    // An operator drains also what the agent has no session on.
                    Agreement::Lost if reason == DrainReason::Operator => return true,
                    Agreement::Unseen if reason == DrainReason::Operator && now.since(since) > AGREED => {
                        return true;
                    }
                    Agreement::Awaited | Agreement::Unseen | Agreement::Lost => {}
                }
                ticked.meet.extend(siblings.into_iter().cloned());
                ticked.meet.insert(slot.instance.clone());
                if now.since(since) <= AGREED {
                    return false;
                }
                HoldReason::PeersUnseen
            }
        };
        ticked.holds.push((server.clone(), hold));
        false
    }

    fn go_on(&mut self, scene: &Scene<'_>) -> Vec<Command> {
        let Scene { now, fleet, cohorts, policy, peers, paused } = *scene;
        let mut commands = Vec::new();
        let ids: Vec<ServerId> = self.slots.keys().cloned().collect();
        for id in ids {
            let others = self.usable(&id, scene, None).count();
            let others_left = self.others_left(&id, scene);
            let Some(slot) = self.slots.get_mut(&id) else { continue };
            let forced = slot.forced();
            match slot.phase {
                DrainPhase::Held { since, reason, carrier } => {
                    let due = cohorts.get(&id).is_some_and(|cohort| cohort.due > 0);
                    let over = match reason {
                        DrainReason::Operator if slot.expired(now) => Some(UndrainReason::Deadline),
                        // Another server failed meanwhile: this one is needed.
                        DrainReason::Operator if !forced && below_floor(others_left, policy) => {
                            Some(UndrainReason::CapacityFloor)
                        }
                        DrainReason::Operator if carrier.shown() => None,
                        _ if !forced && below_floor(others, policy) => Some(UndrainReason::CapacityFloor),
                        _ if !carrier.shown() && now.since(since) > TAKES => Some(UndrainReason::NotTaken),
                        DrainReason::Operator => None,
                        _ if paused => Some(UndrainReason::Ending),
                        DrainReason::AuthRefused => {
                            let refused =
                                fleet.servers.get(&id).map(|verdict| verdict.state) == Some(State::Drain);
                            (!refused).then_some(UndrainReason::Done)
                        }
                        DrainReason::SessionsDue if !due => Some(UndrainReason::Done),
                        DrainReason::SessionsDue if !peers.marked(&slot.instance, now) => {
                            Some(UndrainReason::Unmarked)
                        }
                        DrainReason::SessionsDue if policy.mode == Mode::Observe => {
                            Some(UndrainReason::Ending)
                        }
                        DrainReason::SessionsDue => {
                            (now.since(since) > policy.drain_deadline).then_some(UndrainReason::Deadline)
                        }
                    };
                    if slot.expired(now) {
                        slot.operator = None;
                    }
                    if let Some(why) = over {
                        commands.extend(slot.undo(&id, why, policy, now));
                    }
                }
                // The executor's answer is lost: it may have been sent.
                DrainPhase::Sending { since, .. } if now.since(since) > TAKES => {
                    commands.extend(slot.undo(&id, UndrainReason::NotTaken, policy, now));
                }
                DrainPhase::Undoing { left: Left::Record, .. } => {
                    slot.phase = DrainPhase::Idle;
                    commands.push(Command::Forget { server: id });
                }
                DrainPhase::Undoing { since, asked, delivered, left } => {
                    if asked.is_none_or(|asked| now.since(asked) >= RETRY) {
                        slot.phase = DrainPhase::Undoing { since, asked: Some(now), delivered, left };
                        commands.push(Command::Undrain { server: id, reason: UndrainReason::Ending });
                    }
                }
                DrainPhase::Idle | DrainPhase::Sending { .. } => {}
            }
        }
        commands
    }

    /// Why a drain of this server may not begin.
    pub(super) fn obstacle(
        &self,
        server: &ServerId,
        slot: &Slot,
        scene: &Scene<'_>,
        force: bool,
    ) -> Option<HoldReason> {
        let now = scene.now;
        if slot.retry_at.is_some_and(|again| now < again) {
            return Some(HoldReason::SourceStale);
        }
        match slot.shown {
            Some((at, _)) if now.since(at) > SOURCE_LOST => return Some(HoldReason::SourceStale),
            None => return Some(HoldReason::SourceStale),
            Some((_, shown)) if !shown.clear() => return Some(HoldReason::AdminState),
            Some(_) => {}
        }
        if force {
            return None;
        }
        let mut same = self.slots.iter().filter(|(id, _)| same_backend(id, server));
        if same.any(|(id, slot)| id != server && slot.phase != DrainPhase::Idle) {
            return Some(HoldReason::CapacityFloor);
        }
        let others = self.usable(server, scene, Some(now)).count();
        if !below_floor(others, scene.policy) {
            return None;
        }
        let here = Scene { peers: &Peers::default(), ..*scene };
        let by_peers = !below_floor(self.usable(server, &here, Some(now)).count(), scene.policy);
        Some(if by_peers { HoldReason::PeerDrains } else { HoldReason::CapacityFloor })
    }

    /// The instances of other servers of the same backend that new sessions can go to for all that is
    /// known; where a drain is to begin, for all that is known now. What another agent drains is none of them; to a
    /// drain in force one that begins now gives way. If both did, neither would drain.
    fn usable<'a>(
        &'a self,
        server: &'a ServerId,
        scene: &'a Scene<'_>,
        now: Option<Time>,
    ) -> impl Iterator<Item = &'a InstanceId> {
        let fresh = move |at: Time| now.is_none_or(|now| now.since(at) <= SOURCE_LOST);
        self.slots
            .iter()
            .filter(move |(id, _)| *id != server && same_backend(id, server))
            .filter(move |(id, slot)| {
                scene.fleet.servers.get(id).is_some_and(Verdict::usable)
                    && slot.phase == DrainPhase::Idle
                    && slot.shown.is_some_and(|(at, shown)| shown.clear() && fresh(at))
                    && !match now {
                        Some(_) => scene.peers.drained(&slot.instance),
                        None => scene.peers.drained_lastingly(&slot.instance, scene.now),
                    }
            })
            .map(|(_, slot)| &slot.instance)
    }
}

impl<'a> Scene<'a> {
    /// For a question between two ticks, without sessions.
    pub(super) fn only(now: Time, fleet: &'a Fleet, policy: &'a Policy, peers: &'a Peers) -> Self {
        static NONE: std::sync::LazyLock<HashMap<ServerId, Cohort>> = std::sync::LazyLock::new(HashMap::new);
        Self { now, fleet, cohorts: &NONE, policy, peers, paused: false }
    }
}

impl Slot {
    /// Why this server should be drained, if it should.
    fn wanted(&self, id: &ServerId, scene: &Scene<'_>) -> Option<DrainReason> {
        let Scene { fleet, cohorts, policy, paused, .. } = *scene;
        if self.operator.is_some() {
            return Some(DrainReason::Operator);
        }
        if paused || !self.commandable {
            return None;
        }
        if fleet.servers.get(id).map(|verdict| verdict.state) == Some(State::Drain) {
            return Some(DrainReason::AuthRefused);
        }
        // Where no new sessions go anyway there is nothing to gain.
        if !fleet.servers.get(id).is_some_and(Verdict::usable) {
            return None;
        }
        let cohort = cohorts.get(id).copied().unwrap_or_default();
        let enough = match policy.mode {
            Mode::Observe => false,
            Mode::Drain => cohort.due > 0,
            Mode::Retire => {
                cohort.due >= COHORT && cohort.due as f64 >= cohort.all as f64 * policy.drain_share
            }
        };
        enough.then_some(DrainReason::SessionsDue)
    }

    pub(super) fn undo(
        &mut self,
        id: &ServerId,
        reason: UndrainReason,
        policy: &Policy,
        now: Time,
    ) -> Option<Command> {
        let (not_before, left) = match self.phase {
            DrainPhase::Idle | DrainPhase::Undoing { .. } => return None,
            DrainPhase::Sending { since, .. } => (now + RETRY * 10, Left::Unanswered { sent: since }),
            DrainPhase::Held { since, carrier: Carrier::Command, .. } => {
                (since + policy.max_age, Left::ByCommand)
            }
            DrainPhase::Held { since, carrier: Carrier::Answers { .. }, .. } => {
                (since + policy.max_age, Left::ByAnswers)
            }
        };
        self.not_before = self.not_before.max(Some(not_before));
        self.phase = DrainPhase::undoing(now, Some(now), left);
        Some(Command::Undrain { server: id.clone(), reason })
    }
}

/// Whether too few servers are left to new sessions while one is drained.
fn below_floor(others: usize, policy: &Policy) -> bool {
    let stay = ((others + 1) as f64 * policy.capacity_floor).ceil().max(1.0);
    (others as f64) < stay
}

fn same_backend(one: &ServerId, other: &ServerId) -> bool {
    one.proxy == other.proxy && one.backend == other.backend
}
