//! What people ask on the control socket.

use agent_core::{ServerId, Time};

use super::Running;
use crate::{
    api::control,
    clock::unix_seconds,
    events::{DrainHeld, Event, PauseChanged},
    messages::Request,
    state::pause::Pause,
};

impl Running {
    pub(super) async fn answer(&mut self, request: Request, now: Time) -> Result<serde_json::Value, String> {
        match request {
            Request::Sessions => {
                let policy = self.decider.planner.policy();
                Ok(control::sessions(now, &self.decider.ledger, policy, &self.holds))
            }
            Request::Pause { reason } => {
                self.decider.planner.pause();
                self.set_pause(Some(Pause { since: unix_seconds(), reason })).await
            }
            Request::Resume => {
                self.decider.planner.resume();
                self.set_pause(None).await
            }
            Request::Drain { server } => {
                let server = self.find(&server)?;
                self.heard_of(&server)?;
                self.decider
                    .planner
                    .request_drain(&server, &self.fleet, now)
                    .map(|()| serde_json::json!({"draining": server.to_string()}))
                    .map_err(|reason| {
                        DrainHeld { server: &server, reason }.emit(&self.decider.shared.metrics);
                        format!("{server} is not drained: {}", control::words(reason))
                    })
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

    /// An Envoy hears of a drain with its endpoints, or not at all.
    fn heard_of(&self, server: &ServerId) -> Result<(), String> {
        let envoys = &self.decider.shared.envoys;
        let name = self.decider.routes.proxies.get(&server.proxy).map(|(_, name)| name.as_str());
        let deaf = envoys
            .told()
            .borrow()
            .node_of(name.unwrap_or_default())
            .is_some_and(|node| !envoys.connected(node));
        if deaf {
            return Err(format!("{server} is not drained: no Envoy takes endpoints from the agent now"));
        }
        Ok(())
    }

    pub(super) fn find(&self, name: &str) -> Result<ServerId, String> {
        let servers = &self.fleet.servers;
        servers.keys().find(|server| server.to_string() == name).cloned().ok_or_else(|| {
            let known: Vec<String> = servers.keys().map(ToString::to_string).collect();
            format!("no server `{name}`; there are {}", known.join(", "))
        })
    }
}
