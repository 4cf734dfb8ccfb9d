//! Requests from the control socket.

use agent_core::{InstanceId, ServerId, Time, plan::HoldReason};

use super::{Running, sessions};
use crate::{
    clock::unix_seconds,
    events::{DrainHeld, Event, PauseChanged, WriterChosen},
    messages::Request,
    state::pause::Pause,
};

impl Running {
    pub(super) async fn answer(&mut self, request: Request, now: Time) -> Result<serde_json::Value, String> {
        match request {
            Request::Sessions => {
                let policy = self.decider.planner.policy();
                Ok(sessions::json(now, &self.decider.ledger, policy, &self.holds))
            }
            Request::Pause { reason } => {
                self.decider.planner.pause();
                self.decider.health.release(true);
                self.set_pause(Some(Pause { since: unix_seconds(), reason })).await
            }
            Request::Resume => {
                self.decider.planner.resume();
                self.decider.health.release(false);
                self.set_pause(None).await
            }
            Request::Drain { server } => {
                let server = self.find(&server)?;
                if !self.decider.routes.reaches(&server) {
                    return Err(format!(
                        "{server} is not drained: no Envoy takes endpoints from the agent now"
                    ));
                }
                self.decider
                    .planner
                    .request_drain(&server, &self.fleet, now)
                    .map(|()| serde_json::json!({"draining": server.to_string()}))
                    .map_err(|reason| {
                        DrainHeld { server: &server, reason }.emit(&self.decider.shared.metrics);
                        format!("{server} is not drained: {}", words(reason))
                    })
            }
            Request::Writer { database, instance } => {
                let id = InstanceId::new(&database, &instance);
                if !self.decider.health.choose_writer(&id) {
                    let known: Vec<String> = self.fleet.instances.keys().map(ToString::to_string).collect();
                    return Err(format!("no instance {id}; there are {}", known.join(", ")));
                }
                WriterChosen { instance: &id }.emit(&self.decider.shared.metrics);
                Ok(serde_json::json!({"writer": id.to_string()}))
            }
            Request::Undrain { server } => {
                let server = server.map(|server| self.find(&server)).transpose()?;
                let commands = self.decider.planner.release_drains(server.as_ref(), now);
                let count = commands.len();
                for command in commands {
                    self.carry_out(command).await;
                }
                Ok(serde_json::json!({"undraining": count}))
            }
        }
    }

    pub(super) async fn set_pause(&mut self, pause: Option<Pause>) -> Result<serde_json::Value, String> {
        let file = self.decider.files.pause.clone();
        let copy = pause.clone();
        let stored = self.decider.files.disk.write(move || file.store(copy.as_ref())).await;
        let reason = pause.as_ref().map_or("", |pause| &*pause.reason);
        PauseChanged { paused: pause.is_some(), reason }.emit(&self.decider.shared.metrics);
        self.decider.pause = pause;
        let paused = self.decider.pause.is_some();
        match stored {
            Ok(()) => Ok(serde_json::json!({"paused": paused})),
            Err(error) => Err(format!("in force now, but not after a restart: {error}")),
        }
    }

    pub(super) fn find(&self, name: &str) -> Result<ServerId, String> {
        let servers = &self.fleet.servers;
        servers.keys().find(|server| server.to_string() == name).cloned().ok_or_else(|| {
            let known: Vec<String> = servers.keys().map(ToString::to_string).collect();
            format!("no server `{name}`; there are {}", known.join(", "))
        })
    }
}

/// Why a server is not drained, for the operator who requested it.
fn words(reason: HoldReason) -> &'static str {
    match reason {
        HoldReason::CapacityFloor => "too few other servers would be left",
        HoldReason::AdminState => "it has an admin state set by an operator",
        HoldReason::SourceStale => "the proxy's runtime socket does not answer",
        HoldReason::NotJoined => "it is not configured",
        _ => "not now",
    }
}
