//! The decider: folds what tasks tell it, plans, publishes, and hands out
//! commands. It waits for nothing but its inputs and the next moment of its plan.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use agent_core::{
    InstanceId, ServerId, Time,
    health::{Fleet, Health, InstanceView, Remembered, State, Verdict},
    plan::{
        AdminWord, CloseVia, Command, DrainPhase, Hold, Outcome, Plan, Planner, Retire, Retired, Subject,
    },
    session::{Join, Ledger, Seen},
};
use agent_database::{LoginReport, Rights};
use haproxy::agent_check::{Admin, Health as HealthWord, Reply};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    Input, Shared, proxy,
    snapshot::{Line, SessionsView, Snapshot, Watch},
};
use crate::{
    clock::unix_seconds,
    control,
    events::{
        Conflict, DrainBegun, DrainEnded, DrainForgotten, DrainHeld, DrainNotRecorded, Episodes, Event,
        GroupPaused, InstanceChanged, PauseChanged, StateFailed, VerdictChanged,
    },
    state::{
        memory::MemoryFile,
        pause::{Pause, PauseFile},
        records::{DrainRecord, DrainRecords},
    },
};

/// Inputs are taken in together for this long, so that a burst is one plan.
const GATHER: Duration = Duration::from_millis(5);

/// What is remembered of instances is written at most this often.
const REMEMBER: Duration = Duration::from_secs(10);

/// How long a state file may take to be written.
const DISK: Duration = Duration::from_secs(3);

/// How often the oldest session is looked for.
const OLDEST: Duration = Duration::from_secs(1);

/// The files of the state directory.
#[derive(Clone, Debug)]
pub struct Files {
    /// Drains.
    pub records: DrainRecords,
    /// Instances.
    pub memory: MemoryFile,
    /// The operator's pause.
    pub pause: PauseFile,
}

/// Where commands go.
#[derive(Debug, Default)]
pub struct Routes {
    /// The session task of each instance.
    pub instances: HashMap<InstanceId, mpsc::Sender<Retire>>,
    /// The task of each proxy, and the socket that its records name.
    pub proxies: HashMap<usize, (mpsc::Sender<proxy::Command>, String)>,
}

/// Everything the decider is made of.
pub struct Decider {
    /// The health of all instances.
    pub health: Health,
    /// All sessions.
    pub ledger: Ledger,
    /// The planner.
    pub planner: Planner,
    /// Where commands go.
    pub routes: Routes,
    /// What all tasks share.
    pub shared: Shared,
    /// The snapshot that everybody reads.
    pub publish: watch::Sender<Arc<Snapshot>>,
    /// The state directory.
    pub files: Files,
    /// The agent's own drains, as on disk.
    pub records: Vec<(ServerId, DrainRecord)>,
    /// Records of proxies or servers that are no longer configured: kept for `undrain --own`.
    pub strays: Vec<DrainRecord>,
    /// The operator's pause.
    pub pause: Option<Pause>,
    /// What was last written about instances.
    pub remembered: Vec<Remembered>,
}

/// What changes while it runs.
struct Running {
    decider: Decider,
    fleet: Arc<Fleet>,
    lines: Arc<HashMap<String, Line>>,
    logins: Arc<BTreeMap<String, LoginReport>>,
    rights: Arc<BTreeMap<String, Rights>>,
    in_flight: HashMap<u64, Retire>,
    retired: u64,
    remembered_at: Option<Time>,
    episodes: Episodes,
    /// What the last plan held.
    holds: Vec<Hold>,
    /// When the oldest joined session began, as last looked for.
    oldest: Option<Time>,
    oldest_at: Option<Time>,
}

impl Decider {
    /// Decides until told to stop. Returns with its drains still held: who stops
    /// it takes them back, or leaves them to the next one.
    pub async fn run(
        self,
        mut inputs: mpsc::Receiver<Input>,
        stop: CancellationToken,
    ) -> (Self, mpsc::Receiver<Input>) {
        let now = self.shared.clock.now();
        let mut running = Running {
            fleet: Arc::new(Snapshot::empty(now).fleet.as_ref().clone()),
            lines: Arc::default(),
            logins: Arc::default(),
            rights: Arc::default(),
            in_flight: HashMap::new(),
            retired: 0,
            remembered_at: None,
            episodes: Episodes::default(),
            holds: Vec::new(),
            oldest: None,
            oldest_at: None,
            decider: self,
        };
        for (server, _) in &running.decider.records {
            running.decider.planner.adopt(server, now);
        }
        if running.decider.pause.is_some() {
            running.decider.planner.pause();
        }
        let mut wake = running.tick().await;
        loop {
            let clock = running.decider.shared.clock;
            let input = tokio::select! {
                () = stop.cancelled() => return (running.decider, inputs),
                input = inputs.recv() => input,
                () = sleep_until(clock.instant(wake)) => None,
            };
            if let Some(input) = input {
                running.take_in(input).await;
                tokio::time::sleep(GATHER).await;
                while let Ok(input) = inputs.try_recv() {
                    running.take_in(input).await;
                }
            }
            wake = running.tick().await;
        }
    }
}

impl Running {
    /// Folds one input. Nothing is decided here.
    async fn take_in(&mut self, input: Input) {
        let now = self.decider.shared.clock.now();
        match input {
            Input::Health(observation) => self.decider.health.observe(&observation),
            Input::Login(instance, report) => {
                Arc::make_mut(&mut self.logins).insert(instance.to_string(), *report);
            }
            Input::Rights(instance, rights) => {
                Arc::make_mut(&mut self.rights).insert(instance.to_string(), *rights);
            }
            Input::Activity { instance, at, only, rows } => {
                let seen = only.as_deref().map_or(Seen::All, Seen::Only);
                self.decider.ledger.observe_activity(&instance, at, seen, rows);
            }
            Input::Swept { proxy, at, sessions } => self.decider.ledger.observe_proxy(proxy, at, sessions),
            Input::Admin { proxy, at, flags } => {
                self.decider.ledger.proxy_alive(proxy, at);
                for (server, flags) in flags {
                    if let Some(command) = self.decider.planner.observe_admin(&server, at, flags) {
                        self.carry_out(command).await;
                    }
                }
            }
            Input::Outcome(outcome) => {
                if let Outcome::Retire { id, retired, .. } = &outcome {
                    self.in_flight.remove(id);
                    self.retired += u64::from(*retired == Retired::Closed);
                }
                if let Outcome::Drain { server, sent: Err(false) } = &outcome {
                    self.forget(server).await;
                }
                self.decider.planner.outcome(now, &outcome);
            }
            Input::Delivered(server, word) => self.decider.planner.delivered(&server, word),
            Input::Credentials(well) => self.decider.planner.observe_credentials(well),
            Input::Request(request, reply) => {
                // A peer that has gone away wants no answer.
                let _ = reply.send(self.answer(request, now).await);
            }
        }
    }

    /// Decides, publishes, commands. Returns when to do it again at the latest.
    async fn tick(&mut self) -> Time {
        let now = self.decider.shared.clock.now();
        let fleet = self.decider.health.fleet(now);
        self.tell_changes(&fleet);
        self.fleet = Arc::new(fleet);
        let began = Instant::now();
        let plan = {
            let budget = self.decider.shared.budget.lock();
            self.decider.planner.plan(now, &self.decider.ledger, &self.fleet, &budget)
        };
        let metrics = self.decider.shared.metrics.clone();
        metrics.plan_seconds.observe(began.elapsed().as_secs_f64());
        for group in self.decider.planner.take_paused_groups() {
            GroupPaused { group: &group }.emit(&metrics);
        }
        self.tell_holds(&plan);
        self.publish(now, &plan);
        let Plan { commands, holds, next_wake: wake, .. } = plan;
        self.holds = holds;
        for command in commands {
            self.carry_out(command).await;
        }
        self.remember(now).await;
        wake
    }

    async fn carry_out(&mut self, command: Command) {
        match command {
            Command::Retire(retire) => self.retire(*retire),
            Command::Drain { server, reason } => {
                // On record before the proxy hears of it.
                let sent = match self.record(&server, reason.to_string()).await {
                    Ok(()) => {
                        DrainBegun { server: &server, reason }.emit(&self.decider.shared.metrics);
                        self.to_proxy(&server, proxy::Command::Drain(server.clone()))
                    }
                    Err(error) => {
                        DrainNotRecorded { server: &server, error }.emit(&self.decider.shared.metrics);
                        false
                    }
                };
                if !sent {
                    self.forget(&server).await;
                    let outcome = Outcome::Drain { server, sent: Err(false) };
                    self.decider.planner.outcome(self.decider.shared.clock.now(), &outcome);
                }
            }
            Command::Undrain { server, reason } => {
                if self.episodes.begins(&format!("undrain {server}"), "") {
                    DrainEnded { server: &server, reason }.emit(&self.decider.shared.metrics);
                }
                self.to_proxy(&server, proxy::Command::Undrain(server.clone()));
            }
            Command::Forget { server } => {
                self.episodes.ends(&format!("undrain {server}"));
                DrainForgotten { server: &server }.emit(&self.decider.shared.metrics);
                self.forget(&server).await;
            }
        }
    }

    fn retire(&mut self, retire: Retire) {
        let sent = match retire.via {
            CloseVia::Database => self
                .decider
                .routes
                .instances
                .get(&retire.instance)
                .is_some_and(|route| route.try_send(retire.clone()).is_ok()),
            CloseVia::Proxy => {
                let server = retire.proxy.server.clone();
                self.to_proxy(&server, proxy::Command::Close(Box::new(retire.clone()), Instant::now()))
            }
        };
        if sent {
            self.in_flight.insert(retire.id, retire);
            return;
        }
        let outcome = Outcome::Retire {
            id: retire.id,
            instance: retire.instance,
            key: retire.key,
            retired: Retired::Failed,
        };
        self.decider.planner.outcome(self.decider.shared.clock.now(), &outcome);
    }

    /// Never waits: a proxy that does not take commands gets none.
    fn to_proxy(&self, server: &ServerId, command: proxy::Command) -> bool {
        self.decider
            .routes
            .proxies
            .get(&server.proxy)
            .is_some_and(|(route, _)| route.try_send(command).is_ok())
    }

    // === state files ===

    async fn record(&mut self, server: &ServerId, reason: String) -> Result<(), String> {
        let socket = self.decider.routes.proxies.get(&server.proxy).map(|(_, socket)| socket.clone());
        let record = DrainRecord {
            socket: socket.unwrap_or_default(),
            backend: server.backend.to_string(),
            server: server.server.to_string(),
            reason,
            since: unix_seconds(),
        };
        self.decider.records.retain(|(known, _)| known != server);
        self.decider.records.push((server.clone(), record));
        self.store_records().await
    }

    async fn forget(&mut self, server: &ServerId) {
        let before = self.decider.records.len();
        self.decider.records.retain(|(known, _)| known != server);
        if self.decider.records.len() == before {
            return;
        }
        if let Err(error) = self.store_records().await {
            let consequence = "a drain that is over stays on record and may be taken back once more";
            StateFailed { consequence, error }.emit(&self.decider.shared.metrics);
        }
    }

    async fn store_records(&self) -> Result<(), String> {
        let file = self.decider.files.records.clone();
        let own = self.decider.records.iter().map(|(_, record)| record.clone());
        let records: Vec<DrainRecord> = own.chain(self.decider.strays.iter().cloned()).collect();
        blocking(move || file.store(&records)).await
    }

    async fn remember(&mut self, now: Time) {
        if self.remembered_at.is_some_and(|at| now.since(at) < REMEMBER) {
            return;
        }
        self.remembered_at = Some(now);
        let remembered = self.decider.health.remember();
        if remembered == self.decider.remembered {
            return;
        }
        let file = self.decider.files.memory.clone();
        let copy = remembered.clone();
        match blocking(move || file.store(&copy)).await {
            Ok(()) => {
                self.decider.remembered = remembered;
                self.episodes.ends("memory");
            }
            Err(error) => {
                if self.episodes.begins("memory", &error) {
                    let consequence = "a restart will answer neutrally until its first probes";
                    StateFailed { consequence, error }.emit(&self.decider.shared.metrics);
                }
            }
        }
    }

    // === the operator ===

    async fn answer(&mut self, request: control::Request, now: Time) -> Result<serde_json::Value, String> {
        use control::Request;
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

    async fn set_pause(&mut self, pause: Option<Pause>) -> Result<serde_json::Value, String> {
        let file = self.decider.files.pause.clone();
        let copy = pause.clone();
        let stored = blocking(move || file.store(copy.as_ref())).await;
        let reason = pause.as_ref().map_or("", |pause| &*pause.reason);
        PauseChanged { paused: pause.is_some(), reason }.emit(&self.decider.shared.metrics);
        self.decider.pause = pause;
        let paused = self.decider.pause.is_some();
        match stored {
            Ok(()) => Ok(serde_json::json!({"paused": paused})),
            Err(error) => Err(format!("in force now, but not after a restart: {error}")),
        }
    }

    fn find(&self, name: &str) -> Result<ServerId, String> {
        let servers = &self.fleet.servers;
        servers.keys().find(|server| server.to_string() == name).cloned().ok_or_else(|| {
            let known: Vec<String> = servers.keys().map(ToString::to_string).collect();
            format!("no server `{name}`; there are {}", known.join(", "))
        })
    }

    // === telling ===

    fn tell_changes(&self, fleet: &Fleet) {
        let metrics = &self.decider.shared.metrics;
        for (instance, view) in &fleet.instances {
            let before = self.fleet.instances.get(instance);
            if before.is_none_or(|before| differs(before, view)) {
                InstanceChanged { instance, before, now: view }.emit(metrics);
            }
            if view.conflict && before.is_none_or(|before| !before.conflict) {
                Conflict { instance }.emit(metrics);
            }
        }
        for (server, verdict) in &fleet.servers {
            let before = self.fleet.servers.get(server).copied();
            if before != Some(*verdict) {
                VerdictChanged { server, before, now: *verdict }.emit(metrics);
            }
            // The next check says the same, up to `agent-inter` later.
            if before.is_some_and(|before| takes_sessions(before) != takes_sessions(*verdict))
                && let Some(up) = takes_sessions(*verdict)
            {
                self.to_proxy(server, proxy::Command::Agent(server.clone(), up));
            }
        }
    }

    fn tell_holds(&mut self, plan: &Plan) {
        for hold in &plan.holds {
            if let Subject::Server(server) = &hold.subject
                && self.episodes.begins(&format!("hold {server}"), &format!("{:?}", hold.reason))
            {
                DrainHeld { server, reason: hold.reason }.emit(&self.decider.shared.metrics);
            }
        }
    }

    fn publish(&mut self, now: Time, plan: &Plan) {
        let view = self.sessions_view(now, plan);
        let planner = &self.decider.planner;
        let mut lines = HashMap::with_capacity(self.fleet.servers.len());
        for server in self.fleet.servers.keys() {
            let desired = planner.desired(server, &self.fleet, now);
            let reply = Reply {
                admin: desired.admin.map(|word| match word {
                    AdminWord::Drain => Admin::Drain,
                    AdminWord::Ready => Admin::Ready,
                }),
                health: desired.health.map(|health| match health {
                    Ok(()) => HealthWord::Up,
                    Err(reason) => HealthWord::Down(reason),
                }),
            };
            let line = Line { server: server.clone(), text: reply.line(), admin: desired.admin };
            lines.insert(server.to_string(), line);
        }
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
        let snapshot = Snapshot {
            at: now,
            fleet: self.fleet.clone(),
            lines: self.lines.clone(),
            logins: self.logins.clone(),
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
                due: plan.due > 0,
                cadence: Arc::new(cadence),
            },
        };
        self.decider.publish.send_replace(Arc::new(snapshot));
    }

    fn sessions_view(&mut self, now: Time, plan: &Plan) -> SessionsView {
        let mut holds = BTreeMap::new();
        for hold in &plan.holds {
            *holds.entry(hold.reason).or_insert(0) += 1;
        }
        if self.oldest_at.is_none_or(|at| now.since(at) >= OLDEST) {
            let sessions = self.decider.ledger.sessions();
            let joined = sessions.filter(|session| matches!(session.join, Join::Joined(_)));
            self.oldest = joined.map(|session| session.begin).min();
            self.oldest_at = Some(now);
        }
        let oldest = self.oldest.map(|begin| now.since(begin));
        SessionsView {
            known: plan.sessions,
            due: plan.due,
            oldest_s: oldest.unwrap_or_default().as_secs_f64(),
            retired: self.retired,
            dropped: self.decider.ledger.dropped(),
            holds,
        }
    }

    fn count(&self, view: &SessionsView, plan: &Plan) {
        let metrics = &self.decider.shared.metrics;
        metrics.sessions.set(i64::try_from(view.known).unwrap_or(i64::MAX));
        metrics.due.set(i64::try_from(plan.due).unwrap_or(i64::MAX));
        metrics.oldest_session_seconds.set(view.oldest_s);
        metrics.holds.clear();
        for (reason, count) in &view.holds {
            let labels = vec![("reason", snake(reason))];
            metrics.holds.get_or_create(&labels).set(i64::try_from(*count).unwrap_or(i64::MAX));
        }
        let drains = self.decider.planner.drains().phases().filter(|(_, phase)| *phase != DrainPhase::Idle);
        metrics.drains.set(i64::try_from(drains.count()).unwrap_or(i64::MAX));
        let groups = self.decider.planner.breaker().open().count();
        metrics.paused_groups.set(i64::try_from(groups).unwrap_or(i64::MAX));
    }
}

/// What is worth a line: not every answer's time.
fn differs(before: &InstanceView, now: &InstanceView) -> bool {
    before.role != now.role
        || std::mem::discriminant(&before.status) != std::mem::discriminant(&now.status)
        || before.auth_refused_since.is_some() != now.auth_refused_since.is_some()
}

/// Whether a verdict lets sessions in; `None` changes nothing.
fn takes_sessions(verdict: Verdict) -> Option<bool> {
    match verdict.state {
        State::Up | State::Drain => Some(true),
        State::Down => Some(false),
        State::Unknown => None,
    }
}

/// An enum's name as JSON has it.
fn snake(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| Some(value.as_str()?.to_owned())).unwrap_or_default()
}

/// Work on files, off the decider's thread. A disk that hangs must not hang the verdicts.
async fn blocking<E: std::fmt::Display + Send + 'static>(
    work: impl FnOnce() -> Result<(), E> + Send + 'static,
) -> Result<(), String> {
    let task = tokio::task::spawn_blocking(move || work().map_err(|error| error.to_string()));
    match tokio::time::timeout(DISK, task).await {
        Ok(Ok(result)) => result,
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("the disk did not answer within {DISK:?}")),
    }
}
