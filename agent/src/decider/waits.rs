//! Requests whose effect is awaited: an operator is answered when the proxy shows it, or with the cause.
//!
//! A drain that has not taken effect by then, or whose client has gone, is withdrawn: it never takes effect
//! later.

use std::time::Duration;

use agent_core::{
    ServerId, Time,
    freshness::SOURCE_LOST,
    health::VerdictReason,
    plan::{HoldReason, Progress, Subject},
};
use tokio::sync::oneshot;

use super::Running;
use crate::messages::{Answer, Failure};

/// Longer than HAProxy may take for one command (5 s), and than a drain that was not confirmed is
/// repeated (10 s).
const PATIENCE: Duration = Duration::from_secs(15);

/// The same for a server to come up: HAProxy's own check may keep it DOWN.
const UP: Duration = Duration::from_secs(5);

/// A request that was taken.
pub(super) struct Wait {
    pub(super) reply: oneshot::Sender<Answer>,
    pub(super) since: Time,
    pub(super) answer: serde_json::Value,
    pub(super) effect: Effect,
}

#[derive(Clone, Debug)]
pub(super) enum Effect {
    Drained(ServerId),
    /// The proxies show no drain of these servers.
    Undrained(Vec<ServerId>),
    /// No drain of the agent's own is left, and the servers that it kept DOWN are up.
    Paused,
}

/// How far an effect has come.
enum Seen {
    Done,
    Waits,
    Failed(Failure),
}

impl Running {
    /// Answers those whose effect is there, or will not come.
    pub(super) async fn settle_waits(&mut self, now: Time) {
        for wait in std::mem::take(&mut self.waits) {
            let late = now.since(wait.since) > PATIENCE;
            let seen = match &wait.effect {
                Effect::Drained(server) => self.drain_seen(server, late),
                Effect::Undrained(servers) => self.undrain_seen(servers, late),
                Effect::Paused => self.pause_seen(now, now.since(wait.since) > UP, late),
            };
            let gone = wait.reply.is_closed();
            let over = matches!(seen, Seen::Failed(_)) || gone && matches!(seen, Seen::Waits);
            if let Effect::Drained(server) = &wait.effect
                && over
            {
                for command in self.decider.planner.release_drains(Some(server), now) {
                    self.carry_out(command).await;
                }
            }
            match seen {
                Seen::Waits if gone => {}
                Seen::Waits => self.waits.push(wait),
                Seen::Done => self.answers.push((wait.reply, Ok(wait.answer))),
                Seen::Failed(failure) => self.answers.push((wait.reply, Err(failure))),
            }
        }
    }

    fn drain_seen(&self, server: &ServerId, late: bool) -> Seen {
        let cause = self.causes.get(server);
        let obstacle = self.holds.iter().find(|hold| hold.subject == Subject::Server(server.clone()));
        match self.decider.planner.drains().progress(server) {
            Progress::Drained => Seen::Done,
            Progress::NotDrained => {
                let cause = cause.map_or("the drain was ended meanwhile", String::as_str);
                Seen::Failed(Failure::Refused(format!("{server} is not drained: {cause}")))
            }
            Progress::Underway => match (cause, obstacle) {
                (Some(cause), _) => {
                    Seen::Failed(Failure::Refused(format!("{server} is not drained: {cause}")))
                }
                (None, Some(hold)) => Seen::Failed(not_drained(server, hold.reason)),
                (None, None) if late => Seen::Failed(Failure::Unchecked(format!(
                    "{server} is not drained: the proxy did not show the drain in time; it is taken back"
                ))),
                (None, None) => Seen::Waits,
            },
        }
    }

    fn undrain_seen(&self, servers: &[ServerId], late: bool) -> Seen {
        let drains = self.decider.planner.drains();
        let left: Vec<String> = servers
            .iter()
            .filter(|server| drains.progress(server) != Progress::NotDrained)
            .map(ToString::to_string)
            .collect();
        if left.is_empty() {
            Seen::Done
        } else if late {
            Seen::Failed(Failure::Unchecked(format!(
                "still drained: {}; the proxy does not answer or did not show the end of the drain; the agent keeps trying",
                left.join(", ")
            )))
        } else {
            Seen::Waits
        }
    }

    fn pause_seen(&self, now: Time, up: bool, late: bool) -> Seen {
        let drained: Vec<String> = self.decider.planner.drains().own().map(ToString::to_string).collect();
        let released = self
            .fleet
            .servers
            .iter()
            .filter(|(server, verdict)| {
                verdict.reason == VerdictReason::Released && !self.decider.health.is_up(server)
            })
            .map(|(server, _)| server);
        let down: Vec<&ServerId> = released.collect();
        if drained.is_empty() && (down.is_empty() || up && self.proxies_answer(&down, now)) {
            return Seen::Done;
        }
        if !late {
            return Seen::Waits;
        }
        let down = down.iter().map(ToString::to_string);
        let left: Vec<String> = drained.into_iter().chain(down).collect();
        Seen::Failed(Failure::Unchecked(format!(
            "paused, but the proxy does not answer: still drained or DOWN: {}; the agent keeps trying",
            left.join(", ")
        )))
    }

    /// Whether the proxies of these servers have answered lately: then HAProxy's own check keeps them DOWN.
    fn proxies_answer(&self, servers: &[&ServerId], now: Time) -> bool {
        servers.iter().all(|server| {
            let seen = self.decider.ledger.proxy_seen(server.proxy);
            seen.is_some_and(|seen| now.since(seen) <= SOURCE_LOST)
        })
    }
}

/// Why a server is not drained, for the operator who requested it.
pub(super) fn not_drained(server: &ServerId, reason: HoldReason) -> Failure {
    let error = format!("{server} is not drained: {}", words(reason));
    if reason == HoldReason::SourceStale { Failure::Unchecked(error) } else { Failure::Refused(error) }
}

fn words(reason: HoldReason) -> &'static str {
    match reason {
        HoldReason::CapacityFloor => "too few other servers would be left; `--force` drains it anyway",
        HoldReason::AdminState => "it has an admin state set by an operator",
        HoldReason::SourceStale => "the proxy's runtime socket does not answer",
        HoldReason::PeerDrains => {
            "another agent drains another server of the database, and too few would be left; `--force` drains it \
             anyway"
        }
        HoldReason::PeersUnseen => {
            "it is not known whether another agent drains another server of the database; `--force` drains it anyway"
        }
        HoldReason::NotJoined => "it is not configured",
        _ => "not now",
    }
}
