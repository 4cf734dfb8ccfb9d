//! Two agents, each beside a proxy of its own, want to drain the two readers of a database: one each. Marks at the
//! database and answers on their way are simulated; the steps of both come in any order.

use std::collections::{BTreeSet, VecDeque};

use agent_core::{
    Fault, FaultKind, InstanceId, Phase, ServerId, Time,
    peers::{Look, Marks},
    plan::{
        AdminFlags, Command, DrainPhase, DrainSent, HoldReason, Mode, Outcome, Policy, Progress, Requested,
    },
};
use proptest::prelude::*;

use crate::support::{Rig, drains, held_server, instance, millis, policy, secs, server, undrains};

/// The readers, and which of them each agent wants to drain.
const READERS: [&str; 2] = ["b", "c"];

struct Agent {
    rig: Rig,
    wanted: BTreeSet<InstanceId>,
    drained: bool,
    /// Looks on their way: the instance, when it was asked, what it showed.
    answers: VecDeque<(InstanceId, Time, Look)>,
}

struct Race {
    agents: [Agent; 2],
    /// The marks that each agent holds at the database.
    marks: [BTreeSet<InstanceId>; 2],
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Plan,
    Ask(usize),
    Answer,
    /// The session with an instance ends, and the agent notices.
    Lose(usize),
}

impl Race {
    fn new(policy: &Policy) -> Self {
        let agent = |own: &str| {
            let mut rig = Rig::new(policy.clone());
            for _ in 0..4 {
                rig.client("read", own, secs(700));
            }
            rig.look();
            Agent { rig, wanted: BTreeSet::new(), drained: false, answers: VecDeque::new() }
        };
        Self { agents: READERS.map(agent), marks: [BTreeSet::new(), BTreeSet::new()] }
    }

    fn step(&mut self, index: usize, step: Step) {
        for agent in &mut self.agents {
            agent.rig.wait(millis(3));
        }
        let agent = &mut self.agents[index];
        let own = server("read", READERS[index]);
        match step {
            Step::Plan => {
                agent.rig.probe();
                agent.rig.poll();
                for config in crate::support::servers() {
                    let drain = agent.drained && config.id == own;
                    agent.rig.set_flags(&config.id, AdminFlags { drain, ..AdminFlags::default() });
                }
                agent.rig.sweep();
                let plan = agent.rig.plan_once();
                agent.wanted.clone_from(&plan.marks);
                if drains(&plan).contains(&&own) {
                    agent.drained = true;
                    let sent = Outcome::Drain { server: own.clone(), sent: DrainSent::Sent };
                    agent.rig.planner.outcome(agent.rig.now, &sent);
                }
                if undrains(&plan).contains(&&own) {
                    agent.drained = false;
                    let ended = Outcome::Undrain { server: own, taken: true };
                    agent.rig.planner.outcome(agent.rig.now, &ended);
                }
            }
            Step::Ask(place) => {
                let id = instance(READERS[place]);
                let own = agent.wanted.contains(&id);
                let answer = (id.clone(), agent.rig.now);
                if own {
                    self.marks[index].insert(id.clone());
                } else {
                    self.marks[index].remove(&id);
                }
                let drains = u32::from(self.marks[1 - index].contains(&id));
                let own = Marks { drain: own, ..Marks::default() };
                let look = Look { own, peers: 1, drains, ..Look::default() };
                self.agents[index].answers.push_back((answer.0, answer.1, look));
            }
            Step::Answer => {
                if let Some((id, asked, look)) = agent.answers.pop_front() {
                    let at = agent.rig.now;
                    agent.rig.planner.observe_peers(&id, asked, at, Ok(look));
                }
            }
            Step::Lose(place) => {
                let id = instance(READERS[place]);
                self.marks[index].remove(&id);
                agent.answers.retain(|(of, ..)| *of != id);
                let fault = Fault::new(Phase::Query, FaultKind::Disconnected, "for the test");
                let at = agent.rig.now;
                agent.rig.planner.observe_peers(&id, at, at, Err(fault));
            }
        }
    }

    fn both(&self) -> bool {
        self.agents.iter().all(|agent| agent.drained)
    }
}

fn draining() -> Policy {
    Policy { mode: Mode::Drain, ..policy() }
}

fn steps(losses: bool) -> impl Strategy<Value = Vec<(usize, Step)>> {
    let step = prop_oneof![
        3 => Just(Step::Plan),
        3 => (0..2_usize).prop_map(Step::Ask),
        4 => Just(Step::Answer),
        u32::from(losses) => (0..2_usize).prop_map(Step::Lose),
    ];
    prop::collection::vec((0..2_usize, step), 1..120)
}

proptest! {
    /// 256 races by default, more with `make fuzz`.
    #[test]
    fn two_agents_never_drain_the_last_two_servers_together(steps in steps(false)) {
        let mut race = Race::new(&draining());
        for (index, step) in steps {
            race.step(index, step);
            prop_assert!(!race.both());
        }
    }

    /// A lost session takes the mark with it before the drain is lifted; the agent lifts it in its next plan.
    #[test]
    fn a_lost_mark_lifts_the_drain(steps in steps(true)) {
        let mut race = Race::new(&draining());
        for (index, step) in steps {
            race.step(index, step);
            if let Step::Lose(place) = step && place == index {
                race.step(index, Step::Plan);
                prop_assert!(!race.agents[index].drained);
            }
        }
    }

    /// The same for operators, who are refused.
    #[test]
    fn two_operators_never_drain_the_last_two_servers_together(steps in steps(false)) {
        let mut race = Race::new(&Policy { mode: Mode::Observe, ..policy() });
        for (index, step) in steps {
            let own = server("read", READERS[index]);
            let rig = &mut race.agents[index].rig;
            if rig.planner.drains().progress(&own) == Progress::NotDrained {
                let fleet = rig.fleet();
                let now = rig.now;
                let _ = rig.planner.request_drain(&own, Requested::default(), &fleet, now);
            }
            race.step(index, step);
            prop_assert!(!race.both());
        }
    }
}

#[test]
fn one_of_two_agents_drains_if_the_other_does_not_want_to() {
    let mut race = Race::new(&draining());
    for _ in 0..3 {
        for step in [Step::Plan, Step::Ask(0), Step::Answer, Step::Ask(1), Step::Answer] {
            race.step(0, step);
        }
    }
    assert!(race.agents[0].drained);
    // The other one sees it before it sets a mark of its own, and says why it waits.
    for step in [Step::Ask(0), Step::Answer, Step::Ask(1), Step::Answer] {
        race.step(1, step);
    }
    let rig = &mut race.agents[1].rig;
    rig.look();
    let plan = rig.plan_once();
    let own = server("read", READERS[1]);
    assert_eq!(held_server(&plan, &own), Some(HoldReason::PeerDrains));
    assert!(plan.marks.is_empty(), "{:?}", plan.marks);
}

#[test]
fn without_the_locks_no_server_is_drained_for_due_sessions_and_an_operator_may() {
    let (b, mut rig) = (server("read", "b"), Rig::new(draining()));
    for _ in 0..4 {
        rig.client("read", "b", secs(700));
    }
    rig.unmet.insert(instance("c"));
    let plan = rig.pass(secs(7));
    assert_eq!(held_server(&plan, &b), Some(HoldReason::PeersUnseen));
    assert!(drains(&plan).is_empty());
    let fleet = rig.fleet();
    rig.planner.request_drain(&b, Requested::default(), &fleet, rig.now).unwrap();
    assert_eq!(drains(&rig.plan()), [&b]);
}

#[test]
fn a_server_that_another_agent_drains_is_no_capacity_for_a_drain_in_force() {
    let (b, mut rig) = (server("read", "b"), Rig::new(Policy { mode: Mode::Observe, ..policy() }));
    rig.look();
    for force in [true, false] {
        let fleet = rig.fleet();
        let requested = Requested { force, ..Requested::default() };
        rig.planner.request_drain(&b, requested, &fleet, rig.now).unwrap();
        assert_eq!(drains(&rig.plan()), [&b]);
        rig.planner.outcome(rig.now, &Outcome::Drain { server: b.clone(), sent: DrainSent::Sent });
        rig.set_flags(&b, AdminFlags { drain: true, ..AdminFlags::default() });
        rig.peer_drains.insert(instance("c"));
        assert!(undrains(&rig.plan()).is_empty(), "the peer may give way");
        let ended = (0..6).any(|_| {
            rig.wait(secs(1));
            rig.probe();
            rig.set_flags(&b, AdminFlags { drain: true, ..AdminFlags::default() });
            !undrains(&rig.plan()).is_empty()
        });
        assert_eq!(ended, !force, "it does not");
        rig.peer_drains.clear();
        rig.planner.release_drains(Some(&b), rig.now);
        rig.planner.outcome(rig.now, &Outcome::Undrain { server: b.clone(), taken: true });
        rig.wait(millis(100));
        rig.look();
        rig.plan();
        let phase = rig.planner.drains().phases().find(|(id, _)| **id == b).unwrap().1;
        assert_eq!(phase, DrainPhase::Idle);
        let commands: Vec<ServerId> = rig.plan().commands.iter().filter_map(drained).collect();
        assert!(commands.is_empty());
    }
}

fn drained(command: &Command) -> Option<ServerId> {
    match command {
        Command::Drain { server, .. } => Some(server.clone()),
        _ => None,
    }
}
