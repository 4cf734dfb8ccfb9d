//! The drain of each server, from wanted to taken back.
//!
//! The proxy keeps one admin state and does not say who set it. So a drain is
//! recorded before it is sent, sent only until the proxy shows it, and ended
//! only while the proxy still shows exactly that. Whatever else appears there is
//! a person's, and the agent lets go.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use serde::Serialize;

use super::{AdminFlags, AdminWord, Command, DrainReason, HoldReason, Mode, Policy, UndrainReason};
use crate::{
    ServerId, Time,
    freshness::SOURCE_LOST,
    health::{Fleet, ServerConfig, State, Verdict},
};

/// A drain the proxy has not shown after this is taken back.
const TAKES: Duration = Duration::from_secs(10);

/// A commanded drain of which nothing is heard may still be sent for this long.
/// Executors give up well before it.
const OUTSTANDING: Duration = Duration::from_secs(30);

/// Between two tries to take a drain back.
const RETRY: Duration = Duration::from_secs(1);

/// A cohort is more than one session.
const COHORT: usize = 2;

/// Without sight of the proxy, `ready` is answered this often and no more: it
/// has been read by then, and a person's drain that follows must stay.
const BLIND_READY: u32 = 3;

/// Where a server's drain stands.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DrainPhase {
    /// None of the agent's.
    #[default]
    Idle,
    /// Commanded: being recorded and sent.
    Sending {
        /// Since when.
        since: Time,
        /// Why.
        reason: DrainReason,
    },
    /// Recorded and sent.
    Held {
        /// Since when.
        since: Time,
        /// Why.
        reason: DrainReason,
        /// Whether the proxy's own table has shown it.
        confirmed: bool,
        /// Whether only agent-check answers can carry it.
        by_answer: bool,
    },
    /// Being taken back.
    Undoing {
        /// Since when.
        since: Time,
        /// When the runtime API was last asked.
        asked: Option<Time>,
        /// Agent-check answers that carried `ready`.
        delivered: u32,
    },
}

/// How many of a server's sessions are due, of how many.
#[derive(Copy, Clone, Debug, Default)]
pub(super) struct Cohort {
    pub(super) due: usize,
    pub(super) all: usize,
}

/// The drains of all servers.
#[derive(Debug)]
pub struct Drains {
    slots: BTreeMap<ServerId, Slot>,
}

#[derive(Debug)]
struct Slot {
    /// Whether any drain but an operator's may be begun: see [`ServerConfig`].
    commandable: bool,
    phase: DrainPhase,
    flags: Option<(Time, AdminFlags)>,
    /// A new drain for due sessions may not begin before this.
    not_before: Option<Time>,
    /// One could not be sent: none is tried before this, whatever it is for.
    unsent: Option<Time>,
    /// An operator asked for it, and has not taken that back.
    operator: bool,
    /// A commanded drain of which nothing has been heard yet: it may still be sent.
    outstanding: Option<Time>,
    /// The drain went by agent-check answers, which may be read late.
    by_answer: bool,
    /// Taken over from a former agent, and not yet compared with the proxy's table.
    adopted: bool,
    /// The proxy has taken the end of the drain: there is nothing left but the record.
    ended: bool,
}

impl Drains {
    pub(super) fn new(servers: &[ServerConfig]) -> Self {
        let slot = |server: &ServerConfig| Slot {
            commandable: server.commandable,
            phase: DrainPhase::Idle,
            flags: None,
            not_before: None,
            unsent: None,
            operator: false,
            outstanding: None,
            by_answer: false,
            adopted: false,
            ended: false,
        };
        Self { slots: servers.iter().map(|server| (server.id.clone(), slot(server))).collect() }
    }

    /// Where each server's drain stands.
    pub fn phases(&self) -> impl Iterator<Item = (&ServerId, DrainPhase)> {
        self.slots.iter().map(|(server, slot)| (server, slot.phase))
    }

    /// The admin flags last seen of a server.
    pub fn flags(&self, server: &ServerId) -> Option<AdminFlags> {
        self.slots.get(server).and_then(|slot| slot.flags).map(|(_, flags)| flags)
    }

    /// Takes over a drain that a former agent recorded: it is taken back.
    pub(super) fn adopt(&mut self, server: &ServerId, policy: &Policy, now: Time) {
        if let Some(slot) = self.slots.get_mut(server) {
            slot.adopted = true;
            slot.not_before = Some(now + policy.max_age);
            slot.phase = DrainPhase::Undoing { since: now, asked: None, delivered: 0 };
        }
    }

    /// The proxy's own word on a server's admin flags.
    pub(super) fn observe(
        &mut self,
        server: &ServerId,
        at: Time,
        flags: AdminFlags,
        policy: &Policy,
    ) -> Option<Command> {
        let slot = self.slots.get_mut(server)?;
        if slot.flags.is_some_and(|(last, _)| at < last) {
            return None;
        }
        slot.flags = Some((at, flags));
        slot.adopted = false;
        let own = flags.drain && !flags.maint;
        match &mut slot.phase {
            // An answer from before the drain was sent says nothing about it.
            DrainPhase::Held { since, confirmed, .. } if at >= *since => {
                if own {
                    *confirmed = true;
                    return None;
                }
                if !*confirmed && !flags.maint {
                    return None;
                }
                // A person has undone it, or put the server into maintenance.
                slot.operator = false;
                slot.not_before = Some(at + policy.max_age);
            }
            DrainPhase::Undoing { since, .. } if at >= *since => {
                let may_come = slot.outstanding.is_some_and(|sent| at.since(sent) <= OUTSTANDING);
                if own && !slot.ended || !own && !flags.maint && may_come {
                    return None;
                }
            }
            _ => return None,
        }
        slot.rest();
        Some(Command::Forget { server: server.clone() })
    }

    /// A drain was recorded and sent, or not.
    pub(super) fn sent(&mut self, server: &ServerId, result: Result<(), bool>, now: Time) {
        let Some(slot) = self.slots.get_mut(server) else { return };
        slot.outstanding = None;
        slot.by_answer = result == Err(true);
        slot.phase = match (slot.phase, result) {
            (DrainPhase::Sending { reason, .. }, Ok(())) => {
                DrainPhase::Held { since: now, reason, confirmed: true, by_answer: false }
            }
            (DrainPhase::Sending { reason, .. }, Err(true)) => {
                DrainPhase::Held { since: now, reason, confirmed: false, by_answer: true }
            }
            (DrainPhase::Sending { .. }, Err(false)) => {
                slot.unsent = Some(now + RETRY * 10);
                DrainPhase::Idle
            }
            // Given up meanwhile, and sent after all: what the proxy showed before says nothing.
            (DrainPhase::Idle | DrainPhase::Undoing { .. }, Ok(()) | Err(true)) => {
                slot.ended = false;
                DrainPhase::Undoing { since: now, asked: None, delivered: 0 }
            }
            (phase, _) => phase,
        };
    }

    /// The end of a drain was sent, or not. What the proxy has taken is over: a
    /// drain that shows up after it is a person's.
    pub(super) fn ended(&mut self, server: &ServerId, taken: bool) {
        let Some(slot) = self.slots.get_mut(server) else { return };
        if matches!(slot.phase, DrainPhase::Undoing { .. }) && !slot.by_answer && slot.outstanding.is_none() {
            slot.ended |= taken;
        }
    }

    /// An agent-check answer with an admin word was read by the proxy.
    pub(super) fn delivered(&mut self, server: &ServerId, word: AdminWord) {
        let phase = self.slots.get_mut(server).map(|slot| &mut slot.phase);
        if let (Some(DrainPhase::Undoing { delivered, .. }), AdminWord::Ready) = (phase, word) {
            *delivered += 1;
        }
    }

    /// The operator's own drain. Refused with the reason when it cannot be.
    pub(super) fn request(
        &mut self,
        server: &ServerId,
        fleet: &Fleet,
        policy: &Policy,
        now: Time,
    ) -> Result<(), HoldReason> {
        let slot = self.slots.get(server).ok_or(HoldReason::NotJoined)?;
        if slot.phase == DrainPhase::Idle
            && let Some(reason) = self.obstacle(server, slot, fleet, policy, now)
        {
            return Err(reason);
        }
        if let Some(slot) = self.slots.get_mut(server) {
            slot.operator = true;
        }
        Ok(())
    }

    /// Takes the drain of one server back, or of all.
    pub(super) fn release(&mut self, server: Option<&ServerId>, policy: &Policy, now: Time) -> Vec<Command> {
        let mut commands = Vec::new();
        for (id, slot) in &mut self.slots {
            if server.is_none_or(|server| server == id) {
                slot.operator = false;
                commands.extend(slot.undo(id, UndrainReason::Operator, policy, now));
            }
        }
        commands
    }

    /// What an agent-check answer has to say about the admin state: only what
    /// the runtime API cannot.
    pub fn word(&self, server: &ServerId, now: Time) -> Option<AdminWord> {
        let slot = self.slots.get(server)?;
        if slot.ended {
            return None;
        }
        let sight = slot.flags.filter(|(at, _)| now.since(*at) <= SOURCE_LOST).map(|(_, flags)| flags);
        match (slot.phase, sight) {
            (DrainPhase::Held { confirmed: false, by_answer: true, .. }, Some(flags)) if flags.clear() => {
                Some(AdminWord::Drain)
            }
            // The API has had its chance and did not do it.
            (DrainPhase::Undoing { since, .. }, Some(flags))
                if flags.drain && !flags.maint && now.since(since) > 2 * RETRY =>
            {
                Some(AdminWord::Ready)
            }
            (DrainPhase::Undoing { since, delivered, .. }, None)
                if delivered < BLIND_READY && now.since(since) > SOURCE_LOST && !slot.adopted =>
            {
                Some(AdminWord::Ready)
            }
            _ => None,
        }
    }

    /// One tick: begins, goes on with and ends drains.
    pub(super) fn tick(
        &mut self,
        now: Time,
        fleet: &Fleet,
        cohorts: &HashMap<ServerId, Cohort>,
        policy: &Policy,
        paused: bool,
    ) -> (Vec<Command>, Vec<(ServerId, HoldReason)>) {
        let mut commands = self.go_on(now, fleet, cohorts, policy, paused);
        let mut holds = Vec::new();
        let wanted: Vec<(ServerId, DrainReason)> = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.phase == DrainPhase::Idle)
            .filter_map(|(id, slot)| Some((id.clone(), slot.wanted(id, fleet, cohorts, policy, paused)?)))
            .collect();
        for (server, reason) in wanted {
            let Some(slot) = self.slots.get(&server) else { continue };
            let lately = reason == DrainReason::SessionsDue && slot.not_before.is_some_and(|at| now < at);
            let obstacle = if lately {
                Some(HoldReason::DrainedLately)
            } else {
                self.obstacle(&server, slot, fleet, policy, now)
            };
            if let Some(reason) = obstacle {
                holds.push((server, reason));
                continue;
            }
            if let Some(slot) = self.slots.get_mut(&server) {
                slot.phase = DrainPhase::Sending { since: now, reason };
                slot.outstanding = Some(now);
                commands.push(Command::Drain { server, reason });
            }
        }
        (commands, holds)
    }

    fn go_on(
        &mut self,
        now: Time,
        fleet: &Fleet,
        cohorts: &HashMap<ServerId, Cohort>,
        policy: &Policy,
        paused: bool,
    ) -> Vec<Command> {
        let mut commands = Vec::new();
        let ids: Vec<ServerId> = self.slots.keys().cloned().collect();
        for id in ids {
            let others = self.others_usable(&id, fleet, None);
            let Some(slot) = self.slots.get_mut(&id) else { continue };
            match slot.phase {
                DrainPhase::Held { since, reason, confirmed, .. } => {
                    let due = cohorts.get(&id).is_some_and(|cohort| cohort.due > 0);
                    let over = match reason {
                        // Another server failed meanwhile: this one is needed.
                        _ if below_floor(others, policy) => Some(UndrainReason::CapacityFloor),
                        _ if !confirmed && now.since(since) > TAKES => Some(UndrainReason::NotTaken),
                        DrainReason::Operator => None,
                        _ if paused => Some(UndrainReason::Ending),
                        DrainReason::AuthRefused => {
                            let refused =
                                fleet.servers.get(&id).map(|verdict| verdict.state) == Some(State::Drain);
                            (!refused).then_some(UndrainReason::Done)
                        }
                        DrainReason::SessionsDue if !due => Some(UndrainReason::Done),
                        DrainReason::SessionsDue if policy.mode == Mode::Observe => {
                            Some(UndrainReason::Ending)
                        }
                        DrainReason::SessionsDue => {
                            (now.since(since) > policy.drain_deadline).then_some(UndrainReason::Deadline)
                        }
                    };
                    if let Some(why) = over {
                        commands.extend(slot.undo(&id, why, policy, now));
                    }
                }
                // The executor's answer is lost: it may have been sent.
                DrainPhase::Sending { since, .. } if now.since(since) > TAKES => {
                    commands.extend(slot.undo(&id, UndrainReason::NotTaken, policy, now));
                }
                DrainPhase::Undoing { .. } if slot.ended => {
                    slot.rest();
                    commands.push(Command::Forget { server: id });
                }
                DrainPhase::Undoing { since, asked, delivered } => {
                    if asked.is_none_or(|asked| now.since(asked) >= RETRY) {
                        slot.phase = DrainPhase::Undoing { since, asked: Some(now), delivered };
                        commands.push(Command::Undrain { server: id, reason: UndrainReason::Ending });
                    }
                }
                DrainPhase::Idle | DrainPhase::Sending { .. } => {}
            }
        }
        commands
    }

    /// Why a drain of this server may not begin.
    fn obstacle(
        &self,
        server: &ServerId,
        slot: &Slot,
        fleet: &Fleet,
        policy: &Policy,
        now: Time,
    ) -> Option<HoldReason> {
        if slot.unsent.is_some_and(|again| now < again) {
            return Some(HoldReason::SourceStale);
        }
        match slot.flags {
            Some((at, _)) if now.since(at) > SOURCE_LOST => return Some(HoldReason::SourceStale),
            None => return Some(HoldReason::SourceStale),
            Some((_, flags)) if !flags.clear() => return Some(HoldReason::AdminState),
            Some(_) => {}
        }
        let mut same = self.slots.iter().filter(|(id, _)| same_backend(id, server));
        if same.any(|(id, slot)| id != server && slot.phase != DrainPhase::Idle) {
            return Some(HoldReason::CapacityFloor);
        }
        let others = self.others_usable(server, fleet, Some(now));
        below_floor(others, policy).then_some(HoldReason::CapacityFloor)
    }

    /// Other servers of the same backend that new sessions can go to for all that is
    /// known; where a drain is to begin, for all that is known now.
    fn others_usable(&self, server: &ServerId, fleet: &Fleet, now: Option<Time>) -> usize {
        let fresh = |at: Time| now.is_none_or(|now| now.since(at) <= SOURCE_LOST);
        self.slots
            .iter()
            .filter(|(id, _)| *id != server && same_backend(id, server))
            .filter(|(id, slot)| {
                fleet.servers.get(id).is_some_and(Verdict::usable)
                    && slot.phase == DrainPhase::Idle
                    && slot.flags.is_some_and(|(at, flags)| flags.clear() && fresh(at))
            })
            .count()
    }
}

impl Slot {
    /// Why this server should be drained, if it should.
    fn wanted(
        &self,
        id: &ServerId,
        fleet: &Fleet,
        cohorts: &HashMap<ServerId, Cohort>,
        policy: &Policy,
        paused: bool,
    ) -> Option<DrainReason> {
        if self.operator {
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

    /// Nothing of the agent's is left on it.
    fn rest(&mut self) {
        self.phase = DrainPhase::Idle;
        self.ended = false;
        self.by_answer = false;
        self.adopted = false;
        self.outstanding = None;
    }

    fn undo(&mut self, id: &ServerId, reason: UndrainReason, policy: &Policy, now: Time) -> Option<Command> {
        let not_before = match self.phase {
            DrainPhase::Idle | DrainPhase::Undoing { .. } => return None,
            DrainPhase::Sending { .. } => now + RETRY * 10,
            DrainPhase::Held { since, .. } => since + policy.max_age,
        };
        self.not_before = self.not_before.max(Some(not_before));
        self.phase = DrainPhase::Undoing { since: now, asked: Some(now), delivered: 0 };
        self.ended = false;
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
