//! Reads the connection table of one instance on a kept connection, and closes sessions there.
//!
//! - [`schedule`]: what is done next.
//! - [`meeting`]: the locks of other agents.

mod meeting;
mod schedule;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use agent_core::{
    Fault, FaultKind, InstanceId,
    health::Source,
    plan::{Close, Retire, Retired},
    session::{ActivityRow, BackendKey},
};
use agent_database::{Method, RetireOutcome, RetireTarget, Rights, Scope, Session};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use meeting::Meeting;
use schedule::{Action, CLOSING, Demand, Schedule};

use super::door::Door;
use crate::{
    events::{CloseFailed, Episodes, Event, Retired as RetiredEvent, RightsMissing},
    messages::{CloseOrder, Input},
    shared::{Backoff, jittered, part_of},
};

/// A close that was decided longer ago than this is dropped: its session may be at work again, and
/// where a try takes long, other sessions are quiet now. This also drops closes from before the
/// process was stopped (SIGSTOP, a suspended VM) or an operator paused the agent.
const VALID: Duration = Duration::from_millis(500);

/// Many agents log in again within this, so that none is long without the connection table.
const SPREAD: Duration = Duration::from_secs(20);

#[derive(Clone, Debug)]
pub struct Config {
    /// The interval between lists of all sessions while none may have to be closed.
    pub interval: Duration,
    /// The interval between probes of the agent, and of others as far as it knows.
    pub probe_interval: Duration,
    /// How sessions are closed; `None` is the first method that the agent's rights allow.
    pub method: Option<Method>,
    /// Whether sessions are closed at all. Only then are missing rights reported.
    pub closing: bool,
}

/// Runs until it is dropped.
pub async fn run(door: Arc<Door>, config: Config, mut commands: mpsc::Receiver<CloseOrder>) {
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(10));
    let (mut reported, mut failures) = (None, Episodes::default());
    // A reload ends sessions, and their permits with them.
    door.shared.budget.lock().share(door.instance(), None);
    loop {
        if let Ok(session) = door.login().await {
            backoff.reset();
            let mut table = Table {
                door: &door,
                config: &config,
                session,
                method: None,
                method_for_any_user: None,
                reported: &mut reported,
                failures: &mut failures,
            };
            let mut meeting = Meeting::new(config.probe_interval, Instant::now());
            let fault = table.follow(&mut commands, &mut meeting).await;
            let peers = meeting.end(&door, &fault).await;
            door.source(Source::Sessions, Some(&fault)).await;
            // A connection that fails repeatedly must not use up the login budget, nor those of many agents
            // that a server loses at once.
            let budget = door.shared.budget.lock().per_second().max(1);
            let spread = part_of(Duration::from_secs(u64::from(peers / budget)).min(SPREAD));
            tokio::time::sleep(jittered(CLOSING) + spread).await;
            continue;
        }
        let wait = Instant::now() + backoff.wait();
        // Closes that arrive meanwhile are not tried.
        while let Ok(Some(order)) = tokio::time::timeout_at(wait, commands.recv()).await {
            door.shared.close_ended(&order.command, Retired::Busy).await;
        }
        sleep_until(wait).await;
    }
}

struct Table<'a> {
    door: &'a Door,
    config: &'a Config,
    session: Box<dyn Session>,
    /// How sessions of IAM users are closed.
    method: Option<Method>,
    /// How sessions of other users are closed, where the operator names users.
    method_for_any_user: Option<Method>,
    /// The rights reported last, across connections.
    reported: &'a mut Option<Rights>,
    /// The last failure of each session that could not be closed, across connections.
    failures: &'a mut Episodes,
}

impl Table<'_> {
    async fn follow(&mut self, commands: &mut mpsc::Receiver<CloseOrder>, meeting: &mut Meeting) -> Fault {
        if let Err(fault) = self.read_rights().await {
            return fault;
        }
        let mut snapshot = self.door.shared.snapshot.clone();
        let mut schedule = Schedule::new(self.config.interval, part_of(self.config.interval), Instant::now());
        let mut queue: VecDeque<CloseOrder> = VecDeque::new();
        loop {
            while let Ok(order) = commands.try_recv() {
                queue.push_back(order);
            }
            let (watched, closing, wanted) = {
                let now = snapshot.borrow_and_update();
                if now.watch.poll.contains(self.door.instance()) {
                    schedule.list_soon();
                }
                let watched = now.watch.focus.get(self.door.instance()).cloned().unwrap_or_default();
                let wanted = now.watch.meetings.get(self.door.instance()).copied().unwrap_or_default();
                (watched, now.watch.closing, wanted)
            };
            let demand = Demand {
                watched: !watched.is_empty(),
                closing,
                quick_close: queue.iter().any(is_quick),
                catch: queue.iter().any(|order| !is_quick(order)),
            };
            let now = Instant::now();
            let mut result = Ok(());
            let meet_at = meeting.next(wanted);
            if now >= meet_at {
                if let Err(fault) = meeting.meet(self.door, &mut *self.session, wanted).await {
                    return self.leave(fault, queue).await;
                }
                continue;
            }
            match schedule.next(now, demand) {
                Action::QuickClose => self.try_next(&mut queue, is_quick).await,
                Action::Catch => self.try_next(&mut queue, |order| !is_quick(order)).await,
                Action::ListAll => {
                    result = self.look(None).await;
                    schedule.listed(now, Instant::now(), closing);
                }
                Action::LookAtWatched => {
                    result = self.look(Some(watched)).await;
                    schedule.looked(Instant::now());
                }
                Action::WaitUntil(next) => tokio::select! {
                    order = commands.recv() => match order {
                        Some(order) => queue.push_back(order),
                        None => std::future::pending().await,
                    },
                    () = sleep_until(next.min(meet_at)) => {}
                    changed = snapshot.changed(), if watched.is_empty() => {
                        if changed.is_err() {
                            std::future::pending::<()>().await;
                        }
                    }
                },
            }
            if let Some(fault) = result.err().or_else(|| self.session.fault().cloned()) {
                return self.leave(fault, queue).await;
            }
        }
    }

    /// Tries the first queued close of a kind.
    async fn try_next(&mut self, queue: &mut VecDeque<CloseOrder>, kind: impl Fn(&CloseOrder) -> bool) {
        if let Some(order) = queue.iter().position(kind).and_then(|index| queue.remove(index)) {
            self.try_close(order).await;
        }
    }

    async fn leave(&mut self, fault: Fault, waiting: VecDeque<CloseOrder>) -> Fault {
        for CloseOrder { command, .. } in waiting {
            // It was not tried.
            self.door.shared.close_ended(&command, Retired::Busy).await;
        }
        fault
    }

    async fn try_close(&mut self, CloseOrder { command, decided }: CloseOrder) {
        if decided.elapsed() > VALID {
            self.door.shared.close_ended(&command, Retired::Busy).await;
        } else {
            self.close(command).await;
        }
    }

    /// Reads the agent's rights on the instance. Missing ones are reported once.
    async fn read_rights(&mut self) -> Result<(), Fault> {
        let rights = self.session.rights().await?;
        self.method = self.config.method.or(rights.method());
        let chosen = self.config.method.filter(|method| *method != Method::Function);
        self.method_for_any_user = chosen.or(rights.method_for_any_user());
        if self.reported.as_ref() != Some(&rights) {
            let metrics = &self.door.shared.metrics;
            let instance = self.door.instance().to_string();
            for advice in rights.advice(self.config.closing) {
                RightsMissing { instance: instance.clone(), advice }.emit(metrics);
            }
            *self.reported = Some(rights.clone());
        }
        self.door.shared.send(Input::Rights(self.door.instance().clone(), Box::new(rights))).await;
        Ok(())
    }

    async fn look(&mut self, only: Option<Vec<BackendKey>>) -> Result<(), Fault> {
        let at = self.door.shared.clock.now();
        let scope = only.as_deref().map_or(Scope::All, Scope::Only);
        let mut rows = self.session.activity(scope).await?;
        self.door.source(Source::Sessions, None).await;
        // Connections of agents are not sessions. Where the server does not show application names, the
        // user alone identifies them.
        let own = &self.door.target;
        let is_agent_name =
            |row: &ActivityRow| row.application == own.application_name || row.application.is_empty();
        rows.retain(|row| row.user != own.user || !is_agent_name(row));
        let instance: InstanceId = self.door.instance().clone();
        self.door.shared.send(Input::Activity { instance, at, only, rows }).await;
        Ok(())
    }

    fn method_of(&self, command: &Retire) -> Option<Method> {
        if command.iam_only { self.method } else { self.method_for_any_user }
    }

    async fn close(&mut self, command: Retire) {
        if self.method_of(&command).is_none() {
            // The missing right may have been granted meanwhile. A failure ends the connection.
            let _ = self.read_rights().await;
        }
        let shared = &self.door.shared;
        let Some(method) = self.method_of(&command) else {
            return shared.close_ended(&command, Retired::Denied).await;
        };
        let _in_progress = shared.ongoing.begin().await;
        let Some(permit) = shared.permit(&command.instance, command.purpose) else {
            return shared.close_ended(&command, Retired::OverBudget).await;
        };
        let target = RetireTarget {
            key: command.key,
            client: command.client,
            user: command.user.clone(),
            any_user: !command.iam_only,
        };
        shared.close_begins(&command);
        let began = Instant::now();
        let outcome = match command.how {
            Close::Quiet(quiet) => self.session.retire(&target, method, quiet).await,
            Close::Catch => self.session.catch(&target, method).await,
            // The proxy's: they are not sent here.
            Close::QuietByProxy(_) | Close::Force => RetireOutcome::NotIdle,
        };
        let retired = result_of(&outcome);
        if let RetireOutcome::Failed(fault) = &outcome {
            let error = fault.to_string();
            let news = self.failures.begins(&command.key.pid.to_string(), &error);
            CloseFailed { command: &command, error, news }.emit(&shared.metrics);
        }
        match retired {
            Retired::Closed | Retired::Failed => drop(permit),
            _ => permit.cancel(),
        }
        RetiredEvent { command: &command, result: retired, took: began.elapsed() }.emit(&shared.metrics);
        shared.close_ended(&command, retired).await;
        if retired == Retired::Denied {
            // The right was revoked: another method may be allowed, or the missing right is reported.
            let _ = self.read_rights().await;
        }
    }
}

/// Whether a close is one statement. A catch waits for its session to become idle.
fn is_quick(order: &CloseOrder) -> bool {
    !matches!(order.command.how, Close::Catch)
}

fn result_of(outcome: &RetireOutcome) -> Retired {
    match outcome {
        RetireOutcome::Closed => Retired::Closed,
        RetireOutcome::Gone => Retired::Gone,
        RetireOutcome::NotIdle
        | RetireOutcome::NotQuiet(_)
        | RetireOutcome::NeverIdle
        | RetireOutcome::AdvisoryLock
        | RetireOutcome::Listening => Retired::Busy,
        RetireOutcome::Changed | RetireOutcome::NotAllowed => Retired::Changed,
        RetireOutcome::Failed(fault) if fault.kind == FaultKind::PermissionDenied => Retired::Denied,
        RetireOutcome::Failed(_) => Retired::Failed,
    }
}
