//! Clients: an open loop of attempts by a schedule. Each is a connection of its own and one short transaction;
//! nothing is tried again but by the proxy.

use std::time::Duration;

use agent_core::{
    Time,
    health::{Connects, Role},
};

use super::{Arm, Event, RATE};
use crate::{
    haproxy::backend,
    outcome::Outcome,
    proxy::{Next, Pick, Proxy, mix},
    random::Random,
    world::{Condition, Refuses},
};

const SLOW: Duration = Duration::from_secs(5);
const LOGIN: Duration = Duration::from_secs(10);
const TRANSACTION: Duration = Duration::from_secs(10);
const LOGIN_TAKES: Duration = Duration::from_millis(15);
/// `timeout connect`, `connect_timeout`.
const CONNECT: Duration = Duration::from_secs(5);
/// How often what hangs is looked at again.
const AGAIN: Duration = Duration::from_millis(100);

pub(super) struct Attempt {
    pub(super) arrives: Time,
    pub(super) outcome: Option<Outcome>,
    pub(super) role: Role,
    /// What the client does before COMMIT.
    thinks: Duration,
    tries: u32,
    /// The server of the last try.
    last: Option<usize>,
    proxy_epoch: u32,
    stage: Stage,
}

#[derive(Copy, Clone, Debug)]
enum Stage {
    /// The proxy chooses a server.
    Waits,
    /// The last connection was refused, or not answered; the proxy counts it when it tries again.
    Refused,
    Connects {
        server: usize,
        since: Time,
    },
    LogsIn {
        server: usize,
        epoch: u32,
    },
    Transaction {
        server: usize,
        epoch: u32,
        since: Time,
    },
}

pub(super) fn schedule(seed: u64, start: Time, length: Duration) -> Vec<Attempt> {
    let mut random = Random::new(seed ^ 0xc11e);
    let attempts = length.as_secs() * RATE;
    let attempt = |number: u64| Attempt {
        arrives: start + Duration::from_micros(number * 1_000_000 / RATE) + random.millis(0, 120),
        outcome: None,
        role: if random.chance(50) { Role::Writer } else { Role::Reader },
        thinks: if random.chance(25) { random.millis(100, 400) } else { Duration::from_millis(2) },
        tries: 0,
        last: None,
        proxy_epoch: 0,
        stage: Stage::Waits,
    };
    (0..attempts).map(attempt).collect()
}

impl Arm<'_> {
    pub(super) fn client(&mut self, index: usize) {
        let attempt = &self.attempts[index];
        if attempt.outcome.is_some() {
            return;
        }
        if attempt.tries == 0 {
            self.attempts[index].proxy_epoch = self.proxy_epoch;
        } else if attempt.proxy_epoch != self.proxy_epoch {
            let inside = matches!(attempt.stage, Stage::Transaction { .. });
            return self.ends(index, if inside { Outcome::Cut } else { Outcome::Failed });
        }
        if self.proxy_down {
            return self.ends(index, Outcome::Failed);
        }
        let attempt = &self.attempts[index];
        let gave_up = self.now.since(attempt.arrives) >= LOGIN;
        match attempt.stage {
            Stage::Transaction { server, epoch, since } => self.transaction(index, server, epoch, since),
            stage if gave_up => {
                self.count(index, |connects| {
                    connects.aborted += u64::from(!matches!(stage, Stage::LogsIn { .. }));
                });
                self.ends(index, Outcome::Failed);
            }
            Stage::Waits => self.chooses(index),
            Stage::Refused => {
                self.count(index, |connects| connects.failed += 1);
                self.chooses(index);
            }
            Stage::Connects { server, since } => self.connects(index, server, since),
            Stage::LogsIn { server, epoch } => self.logs_in(index, server, epoch),
        }
    }

    fn ends(&mut self, index: usize, outcome: Outcome) {
        let attempt = &mut self.attempts[index];
        attempt.outcome = Some(outcome);
        if outcome != Outcome::Ok {
            let attempt = &self.attempts[index];
            let (role, last, tries) = (attempt.role, attempt.last, attempt.tries);
            let arrived = attempt.arrives.since(Time::AGENT_START).as_secs_f64();
            self.note(|| {
                format!(
                    "client {index} of {arrived:.3} ({role:?}, {tries} tries, last {last:?}): {outcome:?}"
                )
            });
        }
    }

    fn count(&mut self, index: usize, count: impl FnOnce(&mut Connects)) {
        let (role, last) = (self.attempts[index].role, self.attempts[index].last);
        if let (Proxy::Haproxy(haproxy), Some(server)) = (&mut self.proxy, last)
            && let Some(entry) = haproxy.backends[backend(role)].get_mut(server)
        {
            count(&mut entry.connects);
        }
    }

    fn draw(&self, index: usize) -> u64 {
        let number = u64::try_from(index).unwrap_or(0);
        mix(self.script.seed ^ number << 8 ^ u64::from(self.attempts[index].tries))
    }

    fn chooses(&mut self, index: usize) {
        let draw = self.draw(index);
        let attempt = &self.attempts[index];
        let sticks = matches!(&self.proxy, Proxy::Haproxy(haproxy) if haproxy.sticks());
        let pick = match attempt.last.filter(|_| sticks) {
            Some(server) => Pick::Server(server),
            None => self.proxy.pick(attempt.role, draw, attempt.last, self.now),
        };
        let attempt = &mut self.attempts[index];
        attempt.tries += 1;
        match pick {
            Pick::Nobody => self.ends(index, Outcome::Failed),
            Pick::Room => {
                attempt.last = None;
                self.fails(index, true);
            }
            Pick::Server(server) => {
                attempt.last = Some(server);
                self.count(index, |connects| connects.begun += 1);
                self.connects(index, server, self.now);
            }
        }
    }

    fn connects(&mut self, index: usize, server: usize, since: Time) {
        let epoch = self.world.servers[server].epoch;
        match self.world.servers[server].condition {
            Condition::Drops if self.now.since(since) >= CONNECT => self.fails(index, false),
            Condition::Drops => {
                self.attempts[index].stage = Stage::Connects { server, since };
                // The first packet is sent again after 1, 3 and 7 s.
                let waits = [1, 3].map(Duration::from_secs).into_iter().chain([CONNECT]);
                let next = waits.map(|wait| since + wait).find(|at| *at > self.now);
                self.at(next.unwrap_or(self.now), Event::Client(index));
            }
            Condition::Refuses => self.fails(index, true),
            _ => {
                self.attempts[index].stage = Stage::LogsIn { server, epoch };
                self.after(LOGIN_TAKES, Event::Client(index));
            }
        }
    }

    fn fails(&mut self, index: usize, answered: bool) {
        let (draw, attempt) = (self.draw(index), &self.attempts[index]);
        match self.proxy.after_failure(attempt.role, attempt.tries, draw, answered) {
            Next::GiveUp => {
                self.count(index, |connects| connects.failed += 1);
                self.ends(index, Outcome::Failed);
            }
            Next::After(wait) => {
                self.attempts[index].stage = Stage::Refused;
                self.after(wait, Event::Client(index));
            }
        }
    }

    fn logs_in(&mut self, index: usize, server: usize, epoch: u32) {
        let there = &self.world.servers[server];
        if there.epoch != epoch {
            return self.ends(index, Outcome::Failed);
        }
        match there.condition {
            Condition::TurnsAway | Condition::Full | Condition::Refuses => self.ends(index, Outcome::Failed),
            Condition::Frozen | Condition::LoginsHang | Condition::Drops => {
                self.after(AGAIN, Event::Client(index));
            }
            Condition::Runs if matches!(there.refuses, Refuses::Application | Refuses::All) => {
                self.ends(index, Outcome::Failed);
            }
            Condition::Runs if self.attempts[index].role == Role::Writer && !there.claims => {
                self.ends(index, Outcome::WrongRole);
            }
            Condition::Runs => {
                self.logged_in(server);
                self.attempts[index].stage = Stage::Transaction { server, epoch, since: self.now };
                self.after(self.attempts[index].thinks, Event::Client(index));
            }
        }
    }

    fn transaction(&mut self, index: usize, server: usize, epoch: u32, since: Time) {
        let there = &self.world.servers[server];
        let hangs = matches!(there.condition, Condition::Frozen | Condition::Drops);
        let writes = self.attempts[index].role == Role::Writer;
        if there.epoch != epoch || writes && !there.claims || hangs && self.now.since(since) >= TRANSACTION {
            return self.ends(index, Outcome::Cut);
        }
        if hangs {
            return self.after(AGAIN, Event::Client(index));
        }
        let slow = self.now.since(self.attempts[index].arrives) > SLOW;
        let outcome = match () {
            () if writes && server != self.world.writer => Outcome::WrongWriter,
            () if slow => Outcome::Slow,
            () => Outcome::Ok,
        };
        self.ends(index, outcome);
    }
}
