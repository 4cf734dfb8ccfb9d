//! The connection table of one instance, on a kept connection: read all of it
//! now and then, a few rows of it very often, and close sessions in between.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use agent_core::{
    Fault, FaultKind, InstanceId,
    plan::{How, Outcome, Retire, Retired},
    session::{ActivityRow, BackendKey},
};
use agent_database::{Method, RetireOutcome, RetireTarget, Rights, Scope, Session};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::door::Door;
use crate::{
    events::{CloseFailed, Event, Retired as RetiredEvent, RightsMissing},
    messages::{CloseOrder, Input},
    shared::{Backoff, Shared, jittered},
};

/// How often watched sessions are looked at.
const FOCUS: Duration = Duration::from_millis(100);

/// How often all are looked at while some may have to be closed.
const BUSY: Duration = Duration::from_secs(1);

/// A close that was decided longer ago than this is not tried: its session may well be at work
/// again, and where a try takes long, others are quiet meanwhile. Nor is one from before a
/// pause of this process, or of an operator's.
const WAITED: Duration = Duration::from_millis(500);

/// What the operator chose about one instance's sessions.
#[derive(Clone, Debug)]
pub struct Config {
    /// How often all sessions are looked at while none may have to be closed.
    pub interval: Duration,
    /// How sessions are closed; `None` takes what the rights allow, the fewest first.
    pub method: Option<Method>,
    /// Whether sessions are closed at all: missing rights are told then.
    pub closing: bool,
}

/// Follows one instance's sessions for ever.
pub async fn run(door: Arc<Door>, config: Config, mut commands: mpsc::Receiver<CloseOrder>) {
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(10));
    let mut told = None;
    loop {
        if let Ok(session) = door.login().await {
            backoff.reset();
            let mut table = Table {
                door: &door,
                config: &config,
                session,
                method: None,
                method_for_any_user: None,
                told: &mut told,
            };
            let fault = table.follow(&mut commands).await;
            tracing::debug!(instance = %door.instance(), %fault, "activity connection lost");
            // One that fails at once, again and again, must not use up the login budget.
            tokio::time::sleep(jittered(BUSY)).await;
            continue;
        }
        let wait = Instant::now() + backoff.wait();
        // Nothing is closed meanwhile, and nobody waits for it.
        while let Ok(Some(order)) = tokio::time::timeout_at(wait, commands.recv()).await {
            answer(&door.shared, &order.command, Retired::Failed).await;
        }
        sleep_until(wait).await;
    }
}

struct Table<'a> {
    door: &'a Door,
    config: &'a Config,
    session: Box<dyn Session>,
    /// How sessions of users who log in by IAM are closed.
    method: Option<Method>,
    /// The same for users that the operator named.
    method_for_any_user: Option<Method>,
    /// The rights that were told last, over all connections.
    told: &'a mut Option<Rights>,
}

impl Table<'_> {
    async fn follow(&mut self, commands: &mut mpsc::Receiver<CloseOrder>) -> Fault {
        if let Err(fault) = self.learn().await {
            return fault;
        }
        let mut snapshot = self.door.shared.snapshot.clone();
        let mut all_at = Instant::now();
        let mut listed = all_at;
        let mut focus_at = Instant::now();
        let mut waiting: VecDeque<CloseOrder> = VecDeque::new();
        loop {
            let (focus, closing, again) = {
                let now = snapshot.borrow_and_update();
                let focus = now.watch.focus.get(self.door.instance()).cloned().unwrap_or_default();
                (focus, now.watch.closing, now.watch.poll.contains(self.door.instance()))
            };
            if again {
                all_at = all_at.min(listed + BUSY);
            }
            let now = Instant::now();
            // Where each close takes long, looks must not wait for all of them.
            let overdue = now >= focus_at + FOCUS && !focus.is_empty();
            let result = if !overdue && let Some(quiet) = take_quiet(&mut waiting) {
                self.try_close(quiet).await;
                Ok(())
            } else if now >= all_at {
                listed = now;
                let looked = self.look(None).await;
                // From its end: a slow server is not looked at without a rest.
                let now = Instant::now();
                all_at = now + if closing { self.config.interval.min(BUSY) } else { self.config.interval };
                focus_at = now + FOCUS;
                looked
            } else if now >= focus_at && !focus.is_empty() {
                let looked = self.look(Some(focus.clone())).await;
                focus_at = Instant::now() + FOCUS;
                looked
            } else if let Some(catch) = waiting.pop_front() {
                // A catch takes its time: many in a row would hide the pauses of all others.
                self.try_close(catch).await;
                Ok(())
            } else {
                Ok(())
            };
            if let Err(fault) = result {
                return self.leave(fault, waiting).await;
            }
            if let Some(fault) = self.session.fault() {
                let fault = fault.clone();
                return self.leave(fault, waiting).await;
            }
            while let Ok(order) = commands.try_recv() {
                waiting.push_back(order);
            }
            if !waiting.is_empty() {
                continue;
            }
            let next = if focus.is_empty() { all_at } else { all_at.min(focus_at) };
            let next = if closing { next.min(Instant::now() + BUSY) } else { next };
            tokio::select! {
                order = commands.recv() => match order {
                    Some(order) => waiting.push_back(order),
                    None => std::future::pending().await,
                },
                () = sleep_until(next) => {}
                changed = snapshot.changed(), if focus.is_empty() => {
                    if changed.is_err() {
                        std::future::pending::<()>().await;
                    }
                }
            }
        }
    }

    async fn leave(&mut self, fault: Fault, waiting: VecDeque<CloseOrder>) -> Fault {
        for CloseOrder { command, .. } in waiting {
            answer(&self.door.shared, &command, Retired::Failed).await;
        }
        fault
    }

    /// Closes a session, unless that was decided too long ago.
    async fn try_close(&mut self, CloseOrder { command, decided }: CloseOrder) {
        if decided.elapsed() > WAITED {
            answer(&self.door.shared, &command, Retired::Busy).await;
        } else {
            self.close(command).await;
        }
    }

    /// Asks what may be done here. What is missing is told once.
    async fn learn(&mut self) -> Result<(), Fault> {
        let rights = self.session.rights().await?;
        self.method = self.config.method.or(rights.method());
        let chosen = self.config.method.filter(|method| *method != Method::Function);
        self.method_for_any_user = chosen.or(rights.method_for_any_user());
        if self.told.as_ref() != Some(&rights) {
            let metrics = &self.door.shared.metrics;
            let instance = self.door.instance().to_string();
            for advice in rights.advice(self.config.closing) {
                RightsMissing { instance: instance.clone(), advice }.emit(metrics);
            }
            *self.told = Some(rights.clone());
        }
        self.door.shared.tell(Input::Rights(self.door.instance().clone(), Box::new(rights))).await;
        Ok(())
    }

    async fn look(&mut self, only: Option<Vec<BackendKey>>) -> Result<(), Fault> {
        let at = self.door.shared.clock.now();
        let scope = only.as_deref().map_or(Scope::All, Scope::Only);
        let mut rows = self.session.activity(scope).await?;
        // Agents' own connections are nobody's sessions. Where the server does not show what
        // they call themselves, their user tells.
        let own = &self.door.target;
        let named = |row: &ActivityRow| row.application == own.application_name || row.application.is_empty();
        rows.retain(|row| row.user != own.user || !named(row));
        let instance: InstanceId = self.door.instance().clone();
        self.door.shared.tell(Input::Activity { instance, at, only, rows }).await;
        Ok(())
    }

    fn method_of(&self, command: &Retire) -> Option<Method> {
        if command.iam_only { self.method } else { self.method_for_any_user }
    }

    async fn close(&mut self, command: Retire) {
        if self.method_of(&command).is_none() {
            // The missing right may have been granted meanwhile. A failure ends this connection.
            let _ = self.learn().await;
        }
        let shared = &self.door.shared;
        let Some(method) = self.method_of(&command) else {
            return answer(shared, &command, Retired::Denied).await;
        };
        let _errand = shared.errands.begin().await;
        let Some(place) = shared.place(&command.instance, command.purpose) else {
            return answer(shared, &command, Retired::OverBudget).await;
        };
        let target = RetireTarget {
            key: command.key,
            client: command.client,
            user: command.user.clone(),
            any_user: !command.iam_only,
        };
        let began = Instant::now();
        let outcome = match command.how {
            How::Quiet(quiet) => self.session.retire(&target, method, quiet).await,
            How::Catch(_) => self.session.catch(&target, method).await,
            // The proxy's: the database closes nothing that is busy.
            How::Force => RetireOutcome::NotIdle,
        };
        let retired = meaning(&outcome);
        if let RetireOutcome::Failed(fault) = &outcome {
            CloseFailed { command: &command, error: fault.to_string() }.emit(&shared.metrics);
        }
        match retired {
            Retired::Closed | Retired::Failed => drop(place),
            _ => place.cancel(),
        }
        RetiredEvent { command: &command, result: retired, took: began.elapsed() }.emit(&shared.metrics);
        answer(shared, &command, retired).await;
        if retired == Retired::Denied {
            // It was allowed once: there may be another way, or something to tell.
            let _ = self.learn().await;
        }
    }
}

/// The next close that is a matter of one statement. Its session is quiet now, and may not be
/// for long.
fn take_quiet(waiting: &mut VecDeque<CloseOrder>) -> Option<CloseOrder> {
    let place = waiting.iter().position(|waiting| !matches!(waiting.command.how, How::Catch(_)))?;
    waiting.remove(place)
}

fn meaning(outcome: &RetireOutcome) -> Retired {
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

/// Tells the decider what became of a close.
pub async fn answer(shared: &Shared, command: &Retire, retired: Retired) {
    let outcome =
        Outcome::Retire { id: command.id, instance: command.instance.clone(), key: command.key, retired };
    shared.tell(Input::Outcome(outcome)).await;
}
