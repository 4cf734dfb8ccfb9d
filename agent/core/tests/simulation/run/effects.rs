//! What reaches the database and the proxy, and what becomes of it there.

use super::*;

impl Run {
    pub(super) fn reaches(&mut self, incarnation: u32, reach: Reach) {
        let now = self.world.now;
        let mut wait = self.latency();
        let lost = self.lossy && self.world.random.chance(40);
        let input = match reach {
            Reach::Login(index, ticket, probe) => {
                self.counts.own_logins += 1;
                self.load[index].push(now);
                let mut result = self.world.role(index, true);
                if self.aws_away.is_some_and(|since| now.since(since) > Duration::from_secs(20)) {
                    result = Err(own(FaultKind::NoToken));
                } else if lost || self.world.instances[index].condition == Condition::Silent {
                    result = Err(own(FaultKind::TimedOut));
                    wait = SECOND;
                }
                Input::Health { index, login: true, ticket: Some(ticket), result, probe }
            }
            Reach::Role(index) => {
                let mut result = self.world.role(index, false);
                if lost || self.world.instances[index].condition == Condition::Silent {
                    result = Err(own(FaultKind::TimedOut));
                    wait = SECOND;
                }
                Input::Health { index, login: false, ticket: None, result, probe: false }
            }
            Reach::Rows(index, at, only) => {
                let rows = self.world.rows(index, only.as_deref()).filter(|_| !lost);
                if rows.is_none() {
                    wait = SECOND;
                }
                Input::Rows { index, at, only, rows }
            }
            Reach::Flags(at) => {
                let truth = &self.world.admin.truth;
                let flags = truth.iter().map(|(server, truth)| (server.clone(), truth.flags)).collect();
                Input::Flags { at, flags: (!self.socket_dead).then_some(flags) }
            }
            Reach::Sweep(at) => {
                let sessions = (!self.socket_dead).then(|| self.world.sweep());
                Input::Swept { at, sessions }
            }
            Reach::Close(retire, ticket) => {
                let retired = self.close(&retire);
                Input::Closed { retire, ticket, retired }
            }
            Reach::Drain(server) => {
                let sent = if self.socket_dead { DrainSent::NotSent } else { self.drain(&server) };
                Input::Outcome(Outcome::Drain { server, sent })
            }
            Reach::Undrain(server) => {
                let taken = !self.socket_dead && self.world.admin.undrain(&server);
                Input::Outcome(Outcome::Undrain { server, taken })
            }
        };
        self.after(wait, Event::Agent(incarnation, Step::Arrives(input)));
    }

    pub(super) fn drain(&mut self, server: &ServerId) -> DrainSent {
        let others = self.world.selectable(&server.backend).iter().filter(|other| *other != server).count();
        let calm = self.world.now.since(self.world.trouble) > RECOVERY;
        // While the world is changing, only what the agent could know counts.
        if others == 0 && calm {
            self.break_rule(&format!("{server} was drained, the last one"));
        }
        self.counts.drains += 1;
        self.world.admin.drain(server)
    }

    pub(super) fn close(&mut self, retire: &Retire) -> Retired {
        let now = self.world.now;
        let (index, _) = self.world.config(&retire.proxy.server);
        if self.world.instances[index].condition != Condition::Well {
            return Retired::Failed;
        }
        let Some(session) = self.find(index, &retire.key).cloned() else { return Retired::Gone };
        let quiet = match (session.doing, retire.how) {
            (Doing::Idle(since), Close::Quiet(asked) | Close::QuietByProxy(asked)) => {
                now.since(since) >= asked
            }
            (Doing::Idle(_), Close::Catch) => true,
            (Doing::Transaction, Close::Quiet(_) | Close::QuietByProxy(_) | Close::Catch) => false,
            (_, Close::Force) => {
                self.break_rule("a session was forced without the operator's word");
                true
            }
        };
        if !quiet {
            self.counts.refused_closes += 1;
            return Retired::Busy;
        }
        let frozen = self.frozen.is_some_and(|since| now.since(since) > SECOND * 2);
        let away = self.aws_away.is_some_and(|since| now.since(since) > SECOND * 5);
        if frozen || away {
            self.break_rule(&format!("closed while frozen {frozen} or while AWS is away {away}"));
        }
        self.counts.closes += 1;
        self.load[index].push(now);
        self.world.instances[index].sessions.remove(&retire.key.pid);
        let client = session.client;
        if self.world.clients[client].kind == Kind::Fragile {
            self.world.clients[client].gone = true;
        } else {
            let back = self.world.random.millis(1, 1_500);
            self.after(back, Event::Connect(client));
        }
        Retired::Closed
    }
}
