//! Drains that an operator asks the agent for: begun, ended, and taken over from an earlier agent.
//!
//! The agent's own drains end with the agent; these do not. They end when an operator ends them, here or at
//! the proxy, when their time is up, and while too few other servers are left.

use super::{
    Carrier, Command, DrainPhase, DrainReason, Drains, HoldReason, Policy, Requested, UndrainReason,
    drain::{Scene, Slot},
};
use crate::{ServerId, Time, health::Fleet, peers::Peers};

/// The state of a drain that an operator asked for, or of its end.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The proxy shows it.
    Drained,
    /// The proxy shows none, and none is on its way.
    NotDrained,
    Underway,
}

impl Slot {
    /// Whether the operator asked for the drain whatever is left.
    pub(super) fn forced(&self) -> bool {
        self.operator.is_some_and(|requested| requested.force)
    }

    pub(super) fn expired(&self, now: Time) -> bool {
        self.operator.is_some_and(|requested| requested.until.is_some_and(|until| now >= until))
    }
}

impl Drains {
    /// A drain by an operator. Refused with the reason if it cannot begin. A drain of the agent's own
    /// becomes the operator's; then its record has to be written anew, which is the result.
    pub(super) fn request(
        &mut self,
        server: &ServerId,
        requested: Requested,
        fleet: &Fleet,
        peers: &Peers,
        policy: &Policy,
        now: Time,
    ) -> Result<bool, HoldReason> {
        let slot = self.slots.get(server).ok_or(HoldReason::NotJoined)?;
        if slot.phase == DrainPhase::Idle
            && let Some(reason) =
                self.obstacle(server, slot, &Scene::only(now, fleet, policy, peers), requested.force)
        {
            return Err(reason);
        }
        let Some(slot) = self.slots.get_mut(server) else { return Err(HoldReason::NotJoined) };
        slot.operator = Some(requested);
        if let DrainPhase::Held { reason, .. } | DrainPhase::Sending { reason, .. } = &mut slot.phase {
            *reason = DrainReason::Operator;
            return Ok(true);
        }
        Ok(false)
    }

    /// Takes over an operator's drain that an earlier agent recorded. HAProxy keeps it, and if its table does
    /// not show it, an operator ended it meanwhile. An Envoy has to be sent it again.
    pub(super) fn adopt_operators(
        &mut self,
        server: &ServerId,
        requested: Requested,
        policy: &Policy,
        now: Time,
    ) {
        let Some(slot) = self.slots.get_mut(server) else { return };
        slot.operator = Some(requested);
        if slot.commandable {
            slot.phase =
                DrainPhase::Held { since: now, reason: DrainReason::Operator, carrier: Carrier::Command };
        } else {
            self.adopt(server, policy, now);
        }
    }

    /// Ends the drain of one server, the agent's or an operator's, or all of the agent's own.
    pub(super) fn release(&mut self, server: Option<&ServerId>, policy: &Policy, now: Time) -> Vec<Command> {
        let mut commands = Vec::new();
        for (id, slot) in &mut self.slots {
            let wanted = match server {
                Some(server) => server == id,
                None => slot.operator.is_none(),
            };
            if wanted {
                slot.operator = None;
                commands.extend(slot.undo(id, UndrainReason::Operator, policy, now));
            }
        }
        commands
    }

    /// What an operator asked for, and has not ended.
    pub fn requested(&self, server: &ServerId) -> Option<Requested> {
        self.slots.get(server).and_then(|slot| slot.operator)
    }

    /// Whether the drain of a server has taken effect, by the proxy's own table.
    pub fn progress(&self, server: &ServerId) -> Progress {
        match self.slots.get(server) {
            None => Progress::NotDrained,
            Some(Slot { phase: DrainPhase::Idle, operator: None, .. }) => Progress::NotDrained,
            Some(Slot { phase: DrainPhase::Held { carrier, .. }, shown: Some((_, shown)), .. })
                if carrier.shown() && shown.own_drain() =>
            {
                Progress::Drained
            }
            Some(_) => Progress::Underway,
        }
    }

    /// Servers whose sessions an operator wants retired now.
    pub(super) fn emptying(&self) -> impl Iterator<Item = &ServerId> {
        let drained = |slot: &Slot| matches!(slot.phase, DrainPhase::Held { .. });
        let empty = |slot: &Slot| slot.operator.is_some_and(|requested| requested.empty);
        self.slots.iter().filter(move |(_, slot)| drained(slot) && empty(slot)).map(|(server, _)| server)
    }

    /// The agent's own drains that are not over.
    pub fn own(&self) -> impl Iterator<Item = &ServerId> {
        let own = |slot: &Slot| slot.phase != DrainPhase::Idle && slot.operator.is_none();
        self.slots.iter().filter(move |(_, slot)| own(slot)).map(|(server, _)| server)
    }
}
