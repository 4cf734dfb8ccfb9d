//! The snapshot that everybody reads, and the metrics that follow it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use agent_core::{
    InstanceId, ServerId, Time,
    desired::{AgentHealth, agent_check},
    health::{AddressState, Fleet, Role, Verdict},
    plan::{AdminWord, DrainPhase, Drains, Plan},
    session::Join,
};
use haproxy::agent_check::{Admin, Health as HealthWord, Reply};

use super::Running;
use crate::{
    metrics::labels::{OfBackend, OfHold, OfInstance, OfRole, Word},
    snapshot::{Line, SessionsView, Snapshot, Watch},
};

/// How often the oldest session is looked for.
const OLDEST: Duration = Duration::from_secs(1);

/// The agent-check answer of each server.
pub(super) fn lines(fleet: &Fleet, drains: &Drains, now: Time) -> HashMap<String, Line> {
    let line = |server: &ServerId, verdict: &Verdict| {
        let desired = agent_check(Some(verdict), drains.word(server, now));
        let reply = Reply {
            admin: desired.admin.map(|word| match word {
                AdminWord::Drain => Admin::Drain,
                AdminWord::Ready => Admin::Ready,
            }),
            health: desired.health.map(|health| match health {
                AgentHealth::Up => HealthWord::Up,
                AgentHealth::Down(reason) => HealthWord::Down(reason.to_string()),
            }),
        };
        Line { server: server.clone(), text: reply.line(), admin: desired.admin }
    };
    fleet.servers.iter().map(|(server, verdict)| (server.to_string(), line(server, verdict))).collect()
}

/// The number of servers of each backend whose verdict is up.
pub(super) fn usable_servers(fleet: &Fleet) -> BTreeMap<&str, i64> {
    let mut usable = BTreeMap::new();
    for (server, verdict) in fleet.verdicts() {
        *usable.entry(&*server.backend).or_insert(0) += i64::from(verdict.usable());
    }
    usable
}

fn by_name<T: Clone>(all: &BTreeMap<InstanceId, T>) -> BTreeMap<String, T> {
    all.iter().map(|(instance, one)| (instance.to_string(), one.clone())).collect()
}

impl Running {
    pub(super) fn publish(&mut self, now: Time, plan: &Plan) {
        let view = self.sessions_view(now, plan);
        let planner = &self.decider.planner;
        let lines = lines(&self.fleet, planner.drains(), now);
        if *self.lines != lines {
            self.lines = Arc::new(lines);
        }
        self.count(&view, plan);
        let cadence = self
            .fleet
            .instances
            .keys()
            .map(|instance| (instance.clone(), self.decider.health.cadence(instance)))
            .collect();
        let drains = planner
            .drains()
            .phases()
            .filter(|(_, phase)| *phase != DrainPhase::Idle)
            .map(|(server, phase)| (server.to_string(), phase))
            .collect();
        let until = planner
            .drains()
            .phases()
            .filter_map(|(server, _)| Some((server.to_string(), planner.drains().requested(server)?.until?)));
        let snapshot = Snapshot {
            until: until.collect(),
            tables: self.tables.clone(),
            setup: self.decider.setup.clone(),
            at: now,
            fleet: self.fleet.clone(),
            lines: self.lines.clone(),
            logins: self.logins.clone(),
            lost: self.lost.clone(),
            peers: by_name(planner.peers().seen()),
            peers_lost: by_name(planner.peers().lost()),
            disagreements: self.disagreements.clone(),
            rights: self.rights.clone(),
            drains,
            sessions: view,
            paused: self.decider.pause.clone(),
            paused_groups: planner
                .breaker()
                .open()
                .map(|(group, _)| format!("{} {} {}", group.user, group.application, group.network))
                .collect(),
            watch: Watch {
                focus: Arc::new(plan.focus.clone()),
                poll: plan.poll.clone(),
                sweep: plan.sweep.clone(),
                probe: plan.probe.clone(),
                closing: plan.closing,
                cadence: Arc::new(cadence),
                dialled: Arc::new(self.dialled()),
                outgoing: self.outgoing.clone(),
                meetings: Arc::new(self.meetings(plan)),
            },
        };
        self.decider.publish.send_replace(Arc::new(snapshot));
    }

    /// The addresses to log in at because proxies dial them. One that is another instance's is proved by that
    /// instance's logins.
    fn dialled(&self) -> BTreeMap<InstanceId, BTreeSet<SocketAddr>> {
        let mut dialled: BTreeMap<InstanceId, BTreeSet<SocketAddr>> = BTreeMap::new();
        for view in self.fleet.addresses.values().filter(|view| view.state != AddressState::OtherInstance) {
            dialled.entry(view.instance.clone()).or_default().insert(view.dialled);
        }
        dialled
    }

    pub(super) fn sessions_view(&mut self, now: Time, plan: &Plan) -> SessionsView {
        let mut holds = BTreeMap::new();
        for hold in &plan.holds {
            *holds.entry(hold.reason).or_insert(0) += 1;
        }
        if self.oldest_at.is_none_or(|at| now.since(at) >= OLDEST) {
            let sessions = self.decider.ledger.sessions();
            let joined = sessions.filter(|session| matches!(session.join, Join::Joined(_)));
            let mut outgoing: BTreeMap<InstanceId, BTreeSet<IpAddr>> = BTreeMap::new();
            self.oldest = None;
            for session in joined {
                self.oldest = Some(self.oldest.map_or(session.begin, |oldest| oldest.min(session.begin)));
                if session.row.iam_user {
                    self.decider.health.observe_client_login(session.instance, session.begin);
                }
                let Some(client) = session.row.client else { continue };
                match outgoing.get_mut(session.instance) {
                    Some(addresses) => addresses.insert(client.ip().to_canonical()),
                    None => outgoing
                        .entry(session.instance.clone())
                        .or_default()
                        .insert(client.ip().to_canonical()),
                };
            }
            self.outgoing = Arc::new(outgoing);
            self.oldest_at = Some(now);
        }
        let oldest = self.oldest.map(|begin| now.since(begin));
        SessionsView {
            known: plan.sessions,
            due: plan.due,
            oldest_s: oldest.unwrap_or_default().as_secs_f64(),
            retired: self.retired,
            dropped: self.decider.ledger.dropped(),
            shortages: plan.shortages.clone(),
            holds,
        }
    }

    pub(super) fn count(&self, view: &SessionsView, plan: &Plan) {
        let metrics = &self.decider.shared.metrics;
        metrics.sessions.set(i64::try_from(view.known).unwrap_or(i64::MAX));
        metrics.due.set(i64::try_from(plan.due).unwrap_or(i64::MAX));
        metrics.oldest_session_seconds.set(view.oldest_s);
        metrics.holds.clear();
        for (reason, count) in &view.holds {
            let labels = OfHold { reason: Word::of(reason) };
            metrics.holds.get_or_create(&labels).set(i64::try_from(*count).unwrap_or(i64::MAX));
        }
        let drains = self.decider.planner.drains().phases().filter(|(_, phase)| *phase != DrainPhase::Idle);
        metrics.drains.set(i64::try_from(drains.count()).unwrap_or(i64::MAX));
        for (id, instance) in &self.fleet.instances {
            let OfInstance { database, instance: name } = id.into();
            for role in [Role::Writer, Role::Reader] {
                let labels =
                    OfRole { database: database.clone(), instance: name.clone(), role: Word::of(&role) };
                metrics.instance_role.get_or_create(&labels).set((instance.role == Some(role)).into());
            }
            match instance.lag {
                Some(lag) => {
                    metrics.instance_lag_seconds.get_or_create(&id.into()).set(lag.as_secs_f64());
                }
                None => drop(metrics.instance_lag_seconds.remove(&id.into())),
            }
        }
        for (backend, usable) in usable_servers(&self.fleet) {
            let labels = OfBackend { backend: backend.to_owned() };
            metrics.usable_servers.get_or_create(&labels).set(usable);
        }
        self.count_peers();
        let groups = self.decider.planner.breaker().open().count();
        metrics.paused_groups.set(i64::try_from(groups).unwrap_or(i64::MAX));
    }
}
