//! What the clients do, and the one rule about them: none stays long past its limit.

use super::*;

impl Run {
    pub(super) fn connect(&mut self, client: usize) {
        let away = self.aws_away.is_some();
        if self.world.clients[client].gone || self.world.session_of(client).is_some() {
            return;
        }
        // Who cannot sign cannot log in; the socket is closed either way.
        let result = if away { Err(false) } else { self.world.connect(client) };
        match result {
            Ok(()) => {
                let life = self.world.clients[client].life;
                let think = self.think(client);
                self.after(think, Event::Begin(client, life));
            }
            Err(nowhere) => {
                let (now, backend) = (self.world.now, self.world.clients[client].backend);
                if nowhere && now.since(self.world.trouble) > RECOVERY {
                    self.break_rule(&format!("a client of {backend} was refused although all is well"));
                }
                let noticed = now.since(self.world.hand) > NOTICED && now.since(self.world.shaken) > RECOVERY;
                if nowhere && noticed && self.world.could_serve(backend) {
                    self.break_rule(&format!("a client of {backend} was refused for what persons set"));
                }
                let wait = self.world.random.millis(100, 1_000);
                self.after(wait, Event::Connect(client));
            }
        }
    }

    pub(super) fn think(&mut self, client: usize) -> Duration {
        let random = &mut self.world.random;
        match self.world.clients[client].kind {
            Kind::Restless => random.millis(1, 50),
            Kind::Sleeper => random.seconds(10, 50),
            Kind::Holder => random.millis(500, 3_000),
            _ if random.chance(80) => random.millis(100, 900),
            _ => random.millis(900, 4_000),
        }
    }

    pub(super) fn begin(&mut self, client: usize, life: u64) {
        if self.world.clients[client].life != life || self.silent(client) {
            if self.world.clients[client].life == life {
                self.after(SECOND, Event::Begin(client, life));
            }
            return;
        }
        self.overdue(client);
        let Some(session) = self.world.session_of(client) else {
            // It looks at its socket before it begins, as a pool does.
            let wait = self.world.random.millis(1, 20);
            return self.after(wait, Event::Connect(client));
        };
        session.doing = Doing::Transaction;
        let random = &mut self.world.random;
        let lasts = match self.world.clients[client].kind {
            Kind::Holder => random.seconds(3, 60),
            _ => random.millis(2, 40),
        };
        self.after(lasts, Event::End(client, life));
    }

    pub(super) fn end_of_transaction(&mut self, client: usize, life: u64) {
        if self.world.clients[client].life != life {
            return;
        }
        if self.silent(client) {
            return self.after(SECOND, Event::End(client, life));
        }
        let now = self.world.now;
        match self.world.session_of(client) {
            Some(session) => {
                session.doing = Doing::Idle(now);
                let think = self.think(client);
                self.after(think, Event::Begin(client, life));
            }
            None => self.after(Duration::from_millis(20), Event::Connect(client)),
        }
    }

    pub(super) fn silent(&mut self, client: usize) -> bool {
        let session = self.world.clients[client].session;
        session.is_some_and(|(index, _)| self.world.instances[index].condition == Condition::Silent)
    }

    /// A session past its limit by more than five seconds, that has just paused
    /// long enough to be closed while all was well, should not be there.
    pub(super) fn overdue(&mut self, client: usize) {
        let (now, kind) = (self.world.now, self.world.clients[client].kind);
        let acting = self
            .agent
            .as_ref()
            .is_some_and(|agent| agent.planner.policy().mode == Mode::Retire && !agent.planner.paused());
        let calm = now.since(self.world.trouble) > RECOVERY && acting;
        if !calm || kind.left_alone() {
            return;
        }
        let trouble = self.world.trouble;
        let Some(session) = self.world.session_of(client).cloned() else { return };
        let Doing::Idle(since) = session.doing else { return };
        let past = session.begin + limit_of(&self.policy, &session.key);
        let asked = self.policy.quiet_min + Duration::from_millis(100) + SLACK;
        let paused_past = now.since(since.max(past).max(trouble + RECOVERY));
        if now < past + Duration::from_secs(5) || paused_past < asked {
            return;
        }
        let Some((index, _)) = self.world.clients[client].session else { return };
        let id = (instance_id(index), session.key);
        let held = self.agent.as_ref().and_then(|agent| agent.held.get(&id)).copied();
        if !matches!(held, Some(HoldReason::OverBudget | HoldReason::Breaker)) {
            let age = now.since(session.begin);
            let ledger = self.agent.as_ref().map(|agent| &agent.ledger);
            let seen = ledger.and_then(|ledger| {
                let row = ledger.sessions_of(&id.0).find(|row| row.row.key == session.key)?;
                Some((now.since(row.seen), row.row.activity))
            });
            self.break_rule(&format!(
                "{kind:?} of age {age:?} has paused {paused_past:?}, held {held:?}, seen {seen:?}"
            ));
        }
    }
}
