//! Changes and holds as events.

use agent_core::{
    ServerId,
    desired::{AgentHealth, agent_check},
    health::{Fleet, InstanceView, Refusal, Verdict},
    plan::{DrainPhase, Plan, Subject},
};

use super::Running;
use crate::{
    events::{
        AddressDiffers, BudgetTooSmall, Conflict, DrainBegun, DrainHeld, Event, InstanceChanged,
        RefusedAlone, VerdictChanged,
    },
    metrics::labels::Word,
    proxies::haproxy::orders,
};

impl Running {
    pub(super) fn tell_changes(&self, fleet: &Fleet) {
        let metrics = &self.decider.shared.metrics;
        for (instance, view) in &fleet.instances {
            let before = self.fleet.instances.get(instance);
            if before.is_none_or(|before| differs(before, view)) {
                InstanceChanged { instance, before, now: view }.emit(metrics);
            }
            let alone = |view: &InstanceView| view.refusal == Some(Refusal::ServedForClients);
            if alone(view) && !before.is_some_and(alone) {
                RefusedAlone { instance }.emit(metrics);
            }
            if view.conflict && before.is_none_or(|before| !before.conflict) {
                Conflict { instance }.emit(metrics);
            }
        }
        for (server, view) in &fleet.addresses {
            let before = self.fleet.addresses.get(server);
            if before != Some(view) {
                let news = before.is_none_or(|before| {
                    before.state != view.state || before.fault.is_some() != view.fault.is_some()
                });
                AddressDiffers { server, view, news }.emit(metrics);
            }
        }
        for server in self.fleet.addresses.keys().filter(|server| !fleet.addresses.contains_key(server)) {
            metrics.address_proved.get_or_create(&server.into()).set(1);
        }
        let observed = !fleet.observed.is_empty();
        for (server, verdict) in fleet.verdicts() {
            let before = self.fleet.verdicts().get(server).copied();
            if before != Some(*verdict) {
                VerdictChanged { server, before, now: *verdict, observed }.emit(metrics);
            }
        }
        for (server, verdict) in &fleet.servers {
            let before = self.fleet.servers.get(server).copied();
            // The next check says the same, up to `agent-inter` later.
            let changed = before.is_some_and(|before| takes_sessions(&before) != takes_sessions(verdict));
            if changed && let Some(up) = takes_sessions(verdict) {
                // An Envoy gets it with its endpoints.
                self.decider.routes.haproxy(server, orders::Command::Agent(server.clone(), up));
            }
        }
    }

    /// A commanded drain was sent.
    pub(super) fn tell_begun(&self, server: &ServerId) {
        let mut phases = self.decider.planner.drains().phases();
        if let Some((_, DrainPhase::Sending { reason, .. })) = phases.find(|(known, _)| *known == server) {
            DrainBegun { server, reason }.emit(&self.decider.shared.metrics);
        }
    }

    /// Reports each instance whose budget is too small once, until it is enough.
    pub(super) fn tell_shortages(&mut self, plan: &Plan) {
        for shortage in &plan.shortages {
            if !self.short.contains(&shortage.instance) {
                BudgetTooSmall { shortage }.emit(&self.decider.shared.metrics);
            }
        }
        self.short = plan.shortages.iter().map(|shortage| shortage.instance.clone()).collect();
    }

    pub(super) fn tell_holds(&mut self, plan: &Plan) {
        for hold in &plan.holds {
            if let Subject::Server(server) = &hold.subject
                && self.episodes.begins(&format!("hold {server}"), &Word::of(&hold.reason).to_string())
            {
                DrainHeld { server, reason: hold.reason }.emit(&self.decider.shared.metrics);
            }
        }
    }
}

/// What is worth a line: not every answer's time.
fn differs(before: &InstanceView, now: &InstanceView) -> bool {
    before.role != now.role
        || std::mem::discriminant(&before.status) != std::mem::discriminant(&now.status)
        || before.auth_refused_since.is_some() != now.auth_refused_since.is_some()
        || before.host_blocked_since.is_some() != now.host_blocked_since.is_some()
}

/// Whether a verdict lets sessions in; `None` changes nothing.
fn takes_sessions(verdict: &Verdict) -> Option<bool> {
    agent_check(Some(verdict), None).health.map(|health| health == AgentHealth::Up)
}
