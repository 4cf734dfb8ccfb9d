//! Envoy's active health checks: which endpoints pass while the agent knows little.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use agent_core::{
    InstanceId, ProxyIndex, ServerId, Time,
    desired::{Awake, Check, EndpointHealth, Member, WhileUnknown, checks},
    freshness::STOOD_STILL,
    health::{
        Fleet, FleetConfig, Health, HealthRules, Observation, Remembered, Role, RoleFacts, ServerConfig,
        WantedRole,
    },
};
use proptest::prelude::*;

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Instances `a`, `b`, `c` in one cluster, and what has been observed of them.
struct Case {
    servers: Vec<ServerConfig>,
    fold: Health,
    awake: Awake,
    drained: BTreeSet<ServerId>,
}

impl Case {
    fn new(wanted: WantedRole, names: &[&str], remembered_writer: Option<&str>) -> Self {
        let instance = |name: &&str| InstanceId::new("orders", name);
        let server = |name: &&str| ServerConfig {
            id: ServerId::new(ProxyIndex(0), "w", name),
            instance: instance(name),
            wanted,
            commandable: false,
        };
        let servers: Vec<ServerConfig> = names.iter().map(server).collect();
        let instances = names.iter().map(|name| (instance(name), HealthRules::default())).collect();
        let remembered = |writer: &str| {
            let one = |name: &&str| Remembered {
                database: "orders".into(),
                instance: (*name).into(),
                role: if *name == writer { Role::Writer } else { Role::Reader },
                timeline: None,
                last_writer: false,
                another_database: false,
            };
            names.iter().map(one).collect::<Vec<_>>()
        };
        let remembered = remembered_writer.map(remembered).unwrap_or_default();
        let fold = Health::new(
            FleetConfig { instances, servers: servers.clone(), ..FleetConfig::default() },
            &remembered,
        );
        Self { servers, fold, awake: Awake::default(), drained: BTreeSet::new() }
    }

    fn answers(&mut self, name: &str, second: u64, writer: bool) {
        let facts = RoleFacts {
            in_recovery: !writer,
            read_only: false,
            follows_source: false,
            timeline: None,
            lag: None,
            agents: 1,
        };
        self.fold.observe(&Observation {
            instance: InstanceId::new("orders", name),
            at: at(second),
            login: true,
            result: Ok(facts),
        });
    }

    /// What is known of each endpoint at this second.
    fn known(&mut self, second: u64) -> Vec<Option<EndpointHealth>> {
        let fleet = self.fold.fleet(at(second));
        self.awake.look(&fleet);
        self.checks(&fleet).into_iter().map(|check| check.health).collect()
    }

    fn checks(&self, fleet: &Fleet) -> Vec<Check> {
        let member = |server| Member {
            server,
            verdict: fleet.servers.get(&server.id),
            drained: self.drained.contains(&server.id),
            resolved: false,
        };
        let members: Vec<Member<'_>> = self.servers.iter().map(member).collect();
        checks(&members, fleet, self.awake)
    }
}

fn at(second: u64) -> Time {
    Time::since_start(Duration::from_secs(second))
}

const UP: Option<EndpointHealth> = Some(EndpointHealth::Healthy);
const DOWN: Option<EndpointHealth> = Some(EndpointHealth::Unhealthy);

#[test]
fn of_several_possible_writers_none_passes_before_it_is_proved() {
    let mut case = Case::new(WantedRole::Writer, &NAMES, None);
    assert_eq!(case.known(0), [None, None, None]);
    case.answers("b", 1, false);
    assert_eq!(case.known(1), [None, DOWN, None], "the third may be a replica as well");
    case.answers("a", 2, true);
    assert_eq!(case.known(2), [UP, DOWN, DOWN], "there is one writer");
}

#[test]
fn a_remembered_writer_does_not_pass() {
    let mut case = Case::new(WantedRole::Writer, &NAMES, Some("a"));
    assert_eq!(case.known(0), [None; 3]);
    case.answers("b", 1, true);
    assert_eq!(case.known(1)[..2], [None; 2], "the remembered writer is asked first");
    case.answers("a", 2, false);
    assert_eq!(case.known(2)[..2], [DOWN, UP]);
}

#[test]
fn after_a_pause_of_the_process_the_writer_is_proved_again_first() {
    let mut case = Case::new(WantedRole::Writer, &NAMES, None);
    for (name, writer) in [("a", true), ("b", false), ("c", false)] {
        case.answers(name, 1, writer);
    }
    for second in 1..10 {
        assert_eq!(case.known(second), [UP, DOWN, DOWN], "without new evidence nothing changes");
    }
    assert_eq!(case.known(130)[0], None, "another may be the writer by now");
    case.answers("a", 131, true);
    assert_eq!(case.known(131), [UP, DOWN, DOWN]);
}

#[test]
fn readers_and_a_single_writer_pass_while_nothing_is_known() {
    for (wanted, names) in
        [(WantedRole::Reader, &NAMES[..]), (WantedRole::Any, &NAMES), (WantedRole::Writer, &NAMES[..1])]
    {
        let mut case = Case::new(wanted, names, None);
        let fleet = case.fold.fleet(at(0));
        for check in case.checks(&fleet) {
            assert_eq!(check, Check { health: None, while_unknown: WhileUnknown::Passes }, "{wanted:?}");
        }
    }
}

#[test]
fn a_drained_endpoint_is_draining_unless_it_is_down() {
    let mut case = Case::new(WantedRole::Reader, &NAMES, None);
    case.drained =
        BTreeSet::from([ServerId::new(ProxyIndex(0), "w", "b"), ServerId::new(ProxyIndex(0), "w", "c")]);
    case.answers("a", 1, true);
    case.answers("b", 1, false);
    assert_eq!(case.known(1), [DOWN, Some(EndpointHealth::Draining), Some(EndpointHealth::Draining)]);
}

proptest! {
    /// For any remembered writer, any answers and any pauses in between.
    #[test]
    fn one_of_several_writers_passes_only_if_proved_since_the_last_pause(
        remembered in prop::option::of(0..3_usize),
        story in prop::collection::vec((0..20_u64, prop::option::of((0..3_usize, any::<bool>()))), 1..30),
    ) {
        let mut case = Case::new(WantedRole::Writer, &NAMES, remembered.map(|writer| NAMES[writer]));
        let mut second = 0;
        let mut said: BTreeMap<usize, bool> = BTreeMap::new();
        case.known(second);
        for (pause, answer) in story {
            second += pause;
            if pause >= STOOD_STILL.as_secs() {
                said.clear();
            }
            if let Some((place, writer)) = answer {
                case.answers(NAMES[place], second, writer);
                said.insert(place, writer);
            }
            for (place, health) in case.known(second).into_iter().enumerate() {
                if health.is_some() && health != DOWN {
                    prop_assert!(said.get(&place) == Some(&true), "{place} at {second}");
                }
            }
        }
    }
}
