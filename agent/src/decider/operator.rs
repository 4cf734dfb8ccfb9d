//! Requests from the control socket.

use std::sync::atomic::Ordering;

use agent_core::{
    InstanceId, ServerId, Time,
    plan::{DrainReason, Progress, Requested},
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    Running, sessions,
    waits::{Effect, Wait, not_drained},
};
use crate::{
    clock::unix_seconds,
    events::{DrainForced, DrainHeld, Event, PauseChanged, WriterChosen},
    messages::{Asked, Failure, Request},
    state::pause::Pause,
};

impl Running {
    /// Takes a request, unless its client no longer waits. It is answered now, or when its effect is seen.
    pub(super) async fn request(&mut self, asked: Asked, now: Time) {
        let Asked { request, reply, by, taken } = asked;
        if Instant::now() > by || reply.is_closed() {
            return;
        }
        taken.store(true, Ordering::Release);
        match self.answer(request, now).await {
            Ok((answer, Some(effect))) => self.waits.push(Wait { reply, since: now, answer, effect }),
            Ok((answer, None)) => self.answers.push((reply, Ok(answer))),
            Err(failure) => self.answers.push((reply, Err(failure))),
        }
    }

    async fn answer(&mut self, request: Request, now: Time) -> Result<(Value, Option<Effect>), Failure> {
        match request {
            Request::Sessions => {
                let policy = self.decider.planner.policy();
                Ok((sessions::json(now, &self.decider.ledger, policy, &self.holds), None))
            }
            Request::Pause { reason, by } => {
                self.decider.planner.pause();
                self.decider.health.release(true);
                let answer =
                    self.set_pause(Some(Pause { since: unix_seconds(), reason, by: by.clone() }), by).await?;
                Ok((answer, Some(Effect::Paused)))
            }
            Request::Resume { by } => {
                let groups = self.decider.planner.breaker().open().count();
                let was_paused = self.decider.pause.is_some() || groups > 0;
                // Closes that were refused are tried again, paused or not.
                self.decider.planner.resume();
                self.decider.health.release(false);
                if was_paused {
                    self.set_pause(None, by).await?;
                }
                Ok((json!({"paused": false, "was_paused": was_paused}), None))
            }
            Request::Drain { server, lasts, empty, force } => {
                let server = self.find(&server)?;
                let until = lasts.map(|lasts| now + lasts);
                self.drain(&server, Requested { until, empty, force }, now).await?;
                let mut answer = json!({"draining": server.to_string()});
                if force {
                    let left = self.left_beside(&server);
                    DrainForced { server: &server, left }.emit(&self.decider.shared.metrics);
                    answer = json!({"draining": server.to_string(), "others_left": left});
                }
                Ok((answer, Some(Effect::Drained(server))))
            }
            Request::Writer { database, instance } => {
                let id = InstanceId::new(&database, &instance);
                if !self.decider.health.choose_writer(&id) {
                    let known: Vec<String> = self.fleet.instances.keys().map(ToString::to_string).collect();
                    let error = format!("no instance {id}; there are {}", known.join(", "));
                    return Err(Failure::Refused(error));
                }
                WriterChosen { instance: &id, by_peer: false }.emit(&self.decider.shared.metrics);
                let agents = self.peers_of(&id.database);
                let answer = json!({"writer": id.to_string(), "other_agents": agents});
                self.words.insert(id.database.clone(), (id, now));
                Ok((answer, None))
            }
            Request::Undrain { server } => {
                let server = server.map(|server| self.find(&server)).transpose()?;
                let drains = self.decider.planner.drains();
                let left: Vec<ServerId> = match &server {
                    Some(server) if drains.progress(server) == Progress::NotDrained => {
                        let error = format!(
                            "{server} is not drained by the agent; a drain that was set in HAProxy itself ends \
                             there: `set server {server} state ready`"
                        );
                        return Err(Failure::Refused(error));
                    }
                    Some(server) => vec![server.clone()],
                    None => drains.own().cloned().collect(),
                };
                for command in self.decider.planner.release_drains(server.as_ref(), now) {
                    self.carry_out(command).await;
                }
                Ok((json!({"undraining": left.len()}), Some(Effect::Undrained(left))))
            }
        }
    }

    async fn drain(&mut self, server: &ServerId, requested: Requested, now: Time) -> Result<(), Failure> {
        if !self.decider.routes.reaches(server) {
            let error = format!("{server} is not drained: no Envoy takes endpoints from the agent now");
            return Err(Failure::Refused(error));
        }
        self.causes.remove(server);
        match self.decider.planner.request_drain(server, requested, &self.fleet, now) {
            // A drain of the agent's own becomes the operator's, on record too.
            Ok(true) => {
                let reason = DrainReason::Operator.to_string();
                self.record(server, reason).await.map_err(|error| {
                    Failure::Refused(format!("{server} is drained, but only until a restart: {error}"))
                })
            }
            Ok(false) => Ok(()),
            Err(reason) => {
                DrainHeld { server, reason }.emit(&self.decider.shared.metrics);
                Err(not_drained(server, reason))
            }
        }
    }

    async fn set_pause(&mut self, pause: Option<Pause>, by: Option<String>) -> Result<Value, Failure> {
        let file = self.decider.files.pause.clone();
        let copy = pause.clone();
        let stored = self.decider.files.disk.write(move || file.store(copy.as_ref())).await;
        let reason = pause.as_ref().map_or("", |pause| &*pause.reason);
        PauseChanged { paused: pause.is_some(), reason, by: by.as_deref() }
            .emit(&self.decider.shared.metrics);
        self.decider.pause = pause;
        let paused = self.decider.pause.is_some();
        match stored {
            Ok(()) => Ok(json!({"paused": paused})),
            Err(error) => Err(Failure::Refused(format!("in force now, but not after a restart: {error}"))),
        }
    }

    /// The other servers of the backend whose verdict is up and that are not drained by the agent.
    fn left_beside(&self, server: &ServerId) -> usize {
        let drains = self.decider.planner.drains();
        let others = self.fleet.verdicts().iter().filter(|(other, verdict)| {
            let same = other.proxy == server.proxy && other.backend == server.backend && *other != server;
            same && verdict.usable() && drains.progress(other) == Progress::NotDrained
        });
        others.count()
    }

    fn find(&self, name: &str) -> Result<ServerId, Failure> {
        let servers = &self.fleet.servers;
        servers.keys().find(|server| server.to_string() == name).cloned().ok_or_else(|| {
            let known: Vec<String> = servers.keys().map(ToString::to_string).collect();
            Failure::Refused(format!("no server `{name}`; there are {}", known.join(", ")))
        })
    }
}
