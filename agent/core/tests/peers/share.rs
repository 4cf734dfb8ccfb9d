//! The login budget of one instance, shared by many agents through numbered permits: a simulation in steps of
//! 50 ms with the agents' own rules. Permits are taken and released as the database would; a close makes a client
//! log in at once; each agent probes, and logs in before it closes, as the real one does.
//!
//! `cargo nextest run -p agent-core --run-ignored only --no-capture the_table` prints the table of
//! docs/MANY_AGENTS.md.

use std::{collections::BTreeSet, time::Duration};

use agent_core::{
    InstanceId, Time,
    freshness::{LOGIN_PROOF, LOGIN_RENEWAL},
    peers::{Look, Marks, Turn, shared_permits},
    plan::{Budget, Purpose, Shared, Ticket},
};

const STEP: Duration = Duration::from_millis(50);
const PROBE: Duration = Duration::from_secs(30);
const MAX_AGE: Duration = Duration::from_secs(14 * 60);
const WINDOW: Duration = Duration::from_secs(4 * 60);
/// A login or a close takes this long.
const TAKES: Duration = Duration::from_millis(100);

/// Made up and always the same: xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    fn part(&mut self, of: Duration) -> Duration {
        Duration::from_millis(self.below(u64::try_from(of.as_millis()).unwrap().max(1)))
    }

    fn jittered(&mut self, of: Duration) -> Duration {
        of.mul_f64(0.8) + self.part(of.mul_f64(0.4))
    }
}

struct Agent {
    budget: Budget,
    turn: Turn,
    look: Look,
    permits: BTreeSet<u32>,
    waits: bool,
    next_look: Time,
    next_try: Time,
    next_probe: Time,
    last_login: Option<Time>,
    under_way: Vec<(Time, Ticket)>,
    /// When each session may be closed at the earliest, sorted.
    due: Vec<Time>,
    closed: u32,
    latest: Duration,
}

struct World {
    now: Time,
    random: Random,
    agents: Vec<Agent>,
    holders: Vec<Option<usize>>,
    logins: Vec<u32>,
    own_logins: u64,
    looks: u64,
    instance: InstanceId,
}

#[derive(Debug)]
struct Seen {
    most_logins: u32,
    closes_per_s: f64,
    own_logins_per_s: f64,
    looks_per_s: f64,
    starving: usize,
    latest: Duration,
}

impl World {
    fn new(agents: u32, sessions: u32, login_budget: u32) -> Self {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let now = Time::AGENT_START;
        let each = sessions / agents;
        let agent = |random: &mut Random| {
            let mut due: Vec<Time> = (0..each).map(|_| now + random.part(MAX_AGE)).collect();
            due.sort();
            Agent {
                budget: Budget::new(login_budget),
                turn: Turn::default(),
                look: Look { peers: agents - 1, ..Look::default() },
                permits: BTreeSet::new(),
                waits: false,
                next_look: now + random.part(Duration::from_secs(1)),
                next_try: now,
                next_probe: now + random.part(PROBE),
                last_login: None,
                under_way: Vec::new(),
                due,
                closed: 0,
                latest: Duration::ZERO,
            }
        };
        let agents: Vec<Agent> = (0..agents).map(|_| agent(&mut random)).collect();
        let of = shared_permits(login_budget, u32::try_from(agents.len()).unwrap(), PROBE);
        Self {
            now,
            random,
            agents,
            holders: vec![None; of as usize],
            logins: Vec::new(),
            own_logins: 0,
            looks: 0,
            instance: InstanceId::new("orders", "a"),
        }
    }

    fn run(mut self, lasts: Duration) -> Seen {
        let end = self.now + lasts;
        while self.now < end {
            self.now = self.now + STEP;
            let waiting = self.agents.iter().filter(|agent| agent.waits).count();
            // Whoever is first in a step has no advantage over time.
            let first = self.random.below(self.agents.len() as u64) as usize;
            for index in (first..self.agents.len()).chain(0..first) {
                self.step(index, waiting);
            }
        }
        let seconds = lasts.as_secs_f64();
        let starving = self.agents.iter().filter(|agent| agent.closed == 0).count();
        Seen {
            most_logins: self.logins.iter().copied().max().unwrap_or(0),
            closes_per_s: self.agents.iter().map(|agent| f64::from(agent.closed)).sum::<f64>() / seconds,
            own_logins_per_s: self.own_logins as f64 / seconds,
            looks_per_s: self.looks as f64 / seconds,
            starving,
            latest: self.agents.iter().map(|agent| agent.latest).max().unwrap(),
        }
    }

    fn count(&mut self) {
        let second = self.now.since(Time::AGENT_START).as_secs() as usize;
        self.logins.resize(self.logins.len().max(second + 1), 0);
        self.logins[second] += 1;
    }

    fn step(&mut self, index: usize, waiting: usize) {
        let (now, id) = (self.now, self.instance.clone());
        let agent = &mut self.agents[index];
        while let Some((_, ticket)) = agent.under_way.pop_if(|(end, _)| *end <= now) {
            agent.budget.finish(ticket, now);
        }
        let wanted = u32::try_from(agent.due.partition_point(|due| *due <= now)).unwrap();
        let probe = now >= agent.next_probe;
        let holds = !agent.permits.is_empty();
        let proof = agent.last_login.map(|at| now.since(at));
        let free = agent.budget.free(&id, Purpose::Close, now) > 0;
        let renew = wanted > 0 && holds && free && proof.is_none_or(|age| age > LOGIN_RENEWAL);
        if (probe || renew)
            && agent.under_way.is_empty()
            && let Some(ticket) = agent.budget.try_begin(&id, Purpose::Login, now)
        {
            agent.under_way.push((now + TAKES, ticket));
            agent.last_login = Some(now + TAKES);
            agent.next_probe = now + self.random.jittered(PROBE);
            self.own_logins += 1;
            self.count();
        }
        let agent = &mut self.agents[index];
        let proved = agent.last_login.is_some_and(|at| at <= now && now.since(at) <= LOGIN_PROOF);
        if wanted > 0
            && proved
            && let Some(ticket) = agent.budget.try_begin(&id, Purpose::Close, now)
        {
            agent.under_way.insert(0, (now + TAKES, ticket));
            let due = agent.due.remove(0);
            agent.latest = agent.latest.max(now.since(due));
            agent.closed += 1;
            // The client is back at once, with a new session.
            let next = now + MAX_AGE - WINDOW + self.random.part(WINDOW / 4);
            let at = agent.due.partition_point(|due| *due <= next);
            agent.due.insert(at, next);
            self.count();
        }
        let agent = &self.agents[index];
        let held = u32::try_from(agent.permits.len()).unwrap();
        let tries = wanted > held && now >= agent.next_try;
        if tries || now >= agent.next_look {
            self.meet(index, wanted, waiting);
        }
    }

    /// As the agent's session task does it.
    fn meet(&mut self, index: usize, wanted: u32, waiting: usize) {
        let (now, id) = (self.now, self.instance.clone());
        let of = u32::try_from(self.holders.len()).unwrap();
        let first = self.random.below(u64::from(of)) as u32;
        self.looks += 1;
        let agent = &mut self.agents[index];
        let held = u32::try_from(agent.permits.len()).unwrap();
        let permits = agent.turn.permits(now, wanted, &agent.look, of);
        let peers = agent.look.peers;
        agent.budget.share(&id, Some(Shared { permits: permits.min(held), peers }));
        let in_use = agent.budget.counted(&id, Purpose::Close, now).min(held);
        agent.waits = held == 0 && permits > 0;
        while agent.permits.len() as u32 > permits.max(in_use) {
            let number = agent.permits.pop_last().unwrap();
            self.holders[number as usize] = None;
        }
        for number in (first..of).chain(0..first) {
            if (agent.permits.len() as u32) < permits && self.holders[number as usize].is_none() {
                self.holders[number as usize] = Some(index);
                agent.permits.insert(number);
            }
        }
        let held = u32::try_from(agent.permits.len()).unwrap();
        let own = Marks { waits: agent.waits, ..Marks::default() };
        let waiting = u32::try_from(waiting.saturating_sub(usize::from(agent.waits))).unwrap();
        agent.look = Look { own, permits: held, peers, waiting, ..Look::default() };
        agent.budget.share(&id, Some(Shared { permits: held.min(permits), peers }));
        agent.next_try = now + self.random.jittered(agent.look.retry());
        agent.next_look = now + self.random.jittered(agent.look.interval());
        if agent.waits && held > 0 {
            agent.next_look = now + STEP;
        } else if held > permits {
            agent.next_look = agent.next_look.min(now + Duration::from_millis(1_200));
        }
    }
}

#[test]
fn a_thousand_agents_with_a_hundred_thousand_sessions_stay_within_the_budget_and_none_starves() {
    let seen = World::new(1_000, 100_000, 300).run(Duration::from_secs(15 * 60));
    assert!(seen.most_logins <= 330, "{seen:?}");
    assert_eq!(seen.starving, 0, "{seen:?}");
    assert!(seen.latest <= WINDOW, "closed before their limit: {seen:?}");
}

#[test]
fn a_few_agents_use_the_whole_budget_if_they_need_it() {
    for agents in [1, 2, 5, 20] {
        // More than can be closed.
        let seen = World::new(agents, 10_000, 5).run(Duration::from_secs(300));
        assert!(seen.most_logins <= 5, "{agents}: {seen:?}");
        assert!(seen.closes_per_s >= 1.0, "{agents}: {seen:?}");
        assert_eq!(seen.starving, 0, "{agents}: {seen:?}");
    }
}

#[test]
#[ignore = "it prints the table of docs/MANY_AGENTS.md"]
fn the_table_of_agents() {
    println!(
        "| agents | sessions | login_budget | most logins in a second | closes/s | own logins/s | looks/s | latest |"
    );
    for (agents, sessions, budget) in [
        (1, 1_000, 5),
        (2, 2_000, 5),
        (5, 2_000, 5),
        (20, 2_000, 5),
        (20, 10_000, 20),
        (100, 10_000, 25),
        (1_000, 100_000, 200),
        (1_000, 100_000, 300),
    ] {
        let seen = World::new(agents, sessions, budget).run(Duration::from_secs(20 * 60));
        println!(
            "| {agents} | {sessions} | {budget} | {} | {:.1} | {:.1} | {:.0} | {:.0} s |",
            seen.most_logins,
            seen.closes_per_s,
            seen.own_logins_per_s,
            seen.looks_per_s,
            seen.latest.as_secs_f64()
        );
    }
}
