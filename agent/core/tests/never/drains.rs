//! Drains: arbitrary stories of a proxy, a person and the agent, and what must hold in each.

use super::*;

/// What happens to a proxy's servers, and what the agent sees of it.
#[derive(Clone, Debug)]
enum Happens {
    /// Time passes; probes, polls and sweeps work, and a plan is carried out.
    Passes(u64),
    /// As before, but the proxy's socket is dead.
    SocketDead(u64),
    /// The agent is killed, and a new one starts from its record.
    Restart,
    /// A person: on which server, what.
    Person(usize, Hand),
    /// An instance refuses connections, refuses logins, or is well.
    Instance(usize, Option<FaultKind>),
    /// Outcomes get lost, or not.
    OutcomesLost(bool),
    /// The runtime API may not change anything: only answers can.
    ReadOnlySocket(bool),
    /// The agent is paused, or resumed.
    Pause(bool),
    /// Due sessions on the readers appear, or go.
    Due(bool),
}

fn happens() -> impl Strategy<Value = Happens> {
    use Happens as H;
    prop_oneof![
        8 => (1_u64..8).prop_map(H::Passes),
        2 => (1_u64..14).prop_map(H::SocketDead),
        1 => Just(H::Restart),
        3 => (0_usize..6, prop::sample::select(vec![Hand::Drain, Hand::Maint, Hand::Ready]))
            .prop_map(|(server, hand)| H::Person(server, hand)),
        2 => (0_usize..3, prop::option::of(prop::sample::select(vec![
            FaultKind::ConnectionRefused, FaultKind::LoginRefused,
        ]))).prop_map(|(instance, fault)| H::Instance(instance, fault)),
        1 => any::<bool>().prop_map(H::OutcomesLost),
        1 => any::<bool>().prop_map(H::ReadOnlySocket),
        1 => any::<bool>().prop_map(H::Pause),
        2 => any::<bool>().prop_map(H::Due),
    ]
}

struct Story {
    rig: Rig,
    proxy: Admin,
    records: Vec<ServerId>,
    faults: [Option<FaultKind>; 3],
    lose: bool,
    due: bool,
    paused: bool,
    drained: usize,
}

impl Story {
    fn new() -> Self {
        let rig = Rig::new(Policy { mode: Mode::Drain, ..policy() });
        Self {
            rig,
            proxy: Admin::new(servers().into_iter().map(|config| config.id)),
            records: Vec::new(),
            faults: [None; 3],
            lose: false,
            due: true,
            paused: false,
            drained: 0,
        }
    }

    /// A tenth of a second.
    fn step(&mut self, socket: bool) {
        let rig = &mut self.rig;
        rig.wait(millis(100));
        rig.clients.clear();
        if self.due {
            for name in ["b", "c"] {
                rig.client("read", name, secs(700));
            }
        }
        for (name, fault) in ["a", "b", "c"].into_iter().zip(self.faults) {
            rig.tell(name, fault.map_or(Ok(name != "a"), Err));
        }
        rig.poll();
        let mut commands = Vec::new();
        if socket {
            rig.sweep();
            for (server, truth) in &self.proxy.truth {
                commands.extend(rig.planner.observe_admin(server, rig.now, truth.flags));
            }
        }
        let plan = rig.plan();
        let fleet = rig.fleet();
        commands.extend(plan.commands);
        for command in commands {
            self.carry_out(command, socket, &fleet);
        }
        // An agent check of each server.
        for config in servers() {
            let word = self.rig.agent_check(&config.id, &fleet).admin;
            self.proxy.answer(&config.id, word);
            if let Some(word) = word {
                self.rig.planner.delivered(&config.id, word);
            }
        }
    }

    fn check_floor(&mut self, server: &ServerId, fleet: &Fleet) {
        self.drained += 1;
        let others = self
            .proxy
            .truth
            .iter()
            .filter(|(id, truth)| {
                id.backend == server.backend
                    && *id != server
                    && fleet.servers[*id].state == State::Up
                    && truth.flags.clear()
                    && !truth.agents
            })
            .count();
        if others == 0 || others * 2 < others + 1 {
            self.proxy.broken.push(format!("{server} drained with {others} others left"));
        }
    }

    fn carry_out(&mut self, command: Command, socket: bool, fleet: &Fleet) {
        let now = self.rig.now;
        let outcome = match command {
            Command::Drain { server, .. } => {
                if socket {
                    self.check_floor(&server, fleet);
                }
                self.records.push(server.clone());
                let sent = if socket { self.proxy.drain(&server) } else { DrainSent::NotSent };
                if sent == DrainSent::NotSent {
                    self.records.retain(|record| *record != server);
                }
                Some(Outcome::Drain { server, sent })
            }
            Command::Undrain { server, .. } => {
                let taken = socket && self.proxy.undrain(&server);
                Some(Outcome::Undrain { server, taken })
            }
            Command::Forget { server } => {
                self.records.retain(|record| *record != server);
                self.proxy.forget(&server);
                None
            }
            Command::Retire(_) => None,
        };
        // One that was not sent is known to the agent itself, at once.
        let unsent = matches!(outcome, Some(Outcome::Drain { sent: DrainSent::NotSent, .. }));
        if let Some(outcome) = outcome.filter(|_| !self.lose || unsent) {
            self.rig.planner.outcome(now, &outcome);
        }
    }

    fn happens(&mut self, event: &Happens) {
        match event {
            Happens::Passes(seconds) => (0..seconds * 10).for_each(|_| self.step(true)),
            Happens::SocketDead(seconds) => (0..seconds * 10).for_each(|_| self.step(false)),
            Happens::Restart => {
                let policy = self.rig.planner.policy().clone();
                self.rig.planner = agent_core::plan::Planner::new(policy, &servers());
                for server in &self.records {
                    self.rig.planner.adopt(server, self.rig.now);
                }
                if self.paused {
                    self.rig.planner.pause();
                }
            }
            Happens::Person(index, hand) => {
                let server = self.proxy.truth.keys().nth(*index).expect("a server").clone();
                self.proxy.person(&server, *hand);
            }
            Happens::Instance(index, fault) => self.faults[*index] = *fault,
            Happens::OutcomesLost(lost) => self.lose = *lost,
            Happens::ReadOnlySocket(read_only) => self.proxy.read_only = *read_only,
            Happens::Pause(paused) => {
                self.paused = *paused;
                if *paused { self.rig.planner.pause() } else { self.rig.planner.resume() }
            }
            Happens::Due(due) => self.due = *due,
        }
    }

    /// Everything is well again, and nothing is due: what is left of the agent's?
    fn settle(&mut self) -> Vec<String> {
        self.faults = [None; 3];
        self.lose = false;
        self.due = false;
        for _ in 0..500 {
            self.step(true);
        }
        let mut left = std::mem::take(&mut self.proxy.broken);
        for (server, truth) in &self.proxy.truth {
            if truth.flags.drain && !truth.persons {
                left.push(format!("{server} is still drained: {truth:?}"));
            }
        }
        left.extend(self.records.iter().map(|server| format!("{server} is still on record")));
        left
    }
}

proptest! {
    #![proptest_config(cases(50))]

    /// Whatever happens: never below the floor, never over an operator's state, and in
    /// the end no drain and no record of the agent's is left.
    #[test]
    fn drains_keep_the_floor_and_the_persons_state_and_are_always_undone(
        events in prop::collection::vec(happens(), 1..40),
    ) {
        let mut story = Story::new();
        for event in &events {
            story.happens(event);
        }
        prop_assert_eq!(story.settle(), Vec::<String>::new());
    }
}

#[test]
fn arbitrary_stories_do_drain() {
    let mut runner = TestRunner::new_with_rng(
        Config::default(),
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    let strategy = prop::collection::vec(happens(), 1..40);
    let mut drained = 0;
    for _ in 0..40 {
        let mut story = Story::new();
        for event in &strategy.new_tree(&mut runner).expect("a case").current() {
            story.happens(event);
        }
        drained += usize::from(story.drained > 0);
    }
    assert!(drained > 20, "{drained} of 40 stories drained anything");
}
