//! From verdicts to what Envoy's health checks are answered, where endpoints stand in its file.
//!
//! A check fails on evidence alone. But of several endpoints one is the writer, and Envoy takes
//! every one that passes: there, what has proved nothing does not pass. Beside a proved writer it
//! fails, as endpoint discovery says it; without one it gets no answer, so that Envoy falls
//! back to the name that RDS keeps, as it would without an agent.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use agent_core::{
    ServerId, Time,
    health::{Fleet, ServerConfig, State, VerdictReason, WantedRole},
};
use envoy::eds::Health;

use super::{
    checks::{Checked, Endpoint, Unknown},
    endpoints::Addresses,
};

/// Pictures are made every second. One that comes so much later means that the agent stood still.
const STOOD_STILL: Duration = Duration::from_secs(5);

/// Since when the agent has seen everything that happened: since its start, or since it stood still.
#[derive(Copy, Clone, Debug)]
pub struct Awake {
    since: Time,
    last: Option<Time>,
}

// === impl Awake ===

impl Default for Awake {
    fn default() -> Self {
        Self { since: Time::AGENT_START, last: None }
    }
}

impl Awake {
    /// Takes in the next picture.
    pub fn look(&mut self, fleet: &Fleet) {
        if self.last.is_some_and(|last| fleet.at.since(last) >= STOOD_STILL) {
            self.since = fleet.at;
        }
        self.last = Some(fleet.at);
    }

    /// Whether a server may take sessions by what was seen before, or by what a former agent noted.
    pub fn is_unsure(self, servers: &[ServerConfig], fleet: &Fleet) -> bool {
        servers.iter().any(|server| {
            matches!(verdict(server, fleet).0, State::Up | State::Drain) && !self.has_seen(server, fleet)
        })
    }

    /// Whether the instance of a server has answered since.
    fn has_seen(self, server: &ServerConfig, fleet: &Fleet) -> bool {
        let view = fleet.instances.get(&server.instance);
        view.is_some_and(|view| view.last_proof.is_some_and(|proof| proof >= self.since))
    }
}

/// What health checks of these servers are answered.
pub fn checked(
    servers: &[ServerConfig],
    fleet: &Fleet,
    awake: Awake,
    drained: &BTreeSet<ServerId>,
    addresses: &Addresses,
) -> Checked {
    let mut clusters: BTreeMap<&str, Vec<&ServerConfig>> = BTreeMap::new();
    for server in servers {
        clusters.entry(&server.id.backend).or_default().push(server);
    }
    let endpoints = |(name, members): (&str, Vec<&ServerConfig>)| {
        let writer_of_several =
            members.len() > 1 && members.iter().any(|server| server.wanted == WantedRole::Writer);
        let state = |server: &ServerConfig| match verdict(server, fleet) {
            (state, _) if !writer_of_several => state,
            // RDS's name knows better than a last resort.
            (_, VerdictReason::LastResort) => State::Unknown,
            (State::Up | State::Drain, _) if !awake.has_seen(server, fleet) => State::Unknown,
            (state, _) => state,
        };
        let proved = members.iter().any(|server| state(server) == State::Up);
        let endpoint = |server: &&ServerConfig| {
            let addresses = addresses.get(&server.instance).into_iter().flatten();
            Endpoint {
                name: server.id.server.to_string(),
                addresses: addresses.map(ToString::to_string).collect(),
                health: match state(server) {
                    State::Down => Some(Health::Unhealthy),
                    // There is one writer, and it is another.
                    State::Unknown if writer_of_several && proved => Some(Health::Unhealthy),
                    State::Unknown if writer_of_several => None,
                    _ if drained.contains(&server.id) => Some(Health::Draining),
                    State::Drain => Some(Health::Degraded),
                    State::Up => Some(Health::Healthy),
                    State::Unknown => None,
                },
                unknown: if writer_of_several { Unknown::Waits } else { Unknown::Passes },
            }
        };
        (name.to_owned(), members.iter().map(endpoint).collect())
    };
    clusters.into_iter().map(endpoints).collect()
}

fn verdict(server: &ServerConfig, fleet: &Fleet) -> (State, VerdictReason) {
    let nothing = (State::Unknown, VerdictReason::NotProbedYet);
    fleet.servers.get(&server.id).map_or(nothing, |verdict| (verdict.state, verdict.reason))
}

#[cfg(test)]
mod tests {
    use agent_core::{
        InstanceId,
        health::{FleetConfig, Health as Fold, HealthRules, Observation, Remembered, Role, RoleFacts},
    };

    use proptest::prelude::*;

    use super::*;

    const NAMES: [&str; 3] = ["a", "b", "c"];

    /// Instances `a`, `b`, `c` in one cluster, and what has been observed of them.
    struct Case {
        servers: Vec<ServerConfig>,
        fold: Fold,
        awake: Awake,
        drained: BTreeSet<ServerId>,
    }

    impl Case {
        fn new(wanted: WantedRole, names: &[&str], remembered_writer: Option<&str>) -> Self {
            let instance = |name: &&str| InstanceId::new("orders", name);
            let server = |name: &&str| ServerConfig {
                id: ServerId::new(0, "w", name),
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
                };
                names.iter().map(one).collect::<Vec<_>>()
            };
            let remembered = remembered_writer.map(remembered).unwrap_or_default();
            let fold = Fold::new(FleetConfig { instances, servers: servers.clone() }, &remembered);
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

        /// What checks of each are told at this second.
        fn told(&mut self, second: u64) -> Vec<Option<Health>> {
            let fleet = self.fold.fleet(at(second));
            self.awake.look(&fleet);
            let addresses = Addresses::new();
            let checked = checked(&self.servers, &fleet, self.awake, &self.drained, &addresses);
            checked["w"].iter().map(|endpoint| endpoint.health).collect()
        }
    }

    fn at(second: u64) -> Time {
        Time::since_start(Duration::from_secs(second))
    }

    const UP: Option<Health> = Some(Health::Healthy);
    const DOWN: Option<Health> = Some(Health::Unhealthy);

    #[test]
    fn of_several_that_may_be_the_writer_none_passes_before_it_has_proved_it() {
        let mut case = Case::new(WantedRole::Writer, &NAMES, None);
        assert_eq!(case.told(0), [None, None, None]);
        case.answers("b", 1, false);
        assert_eq!(case.told(1), [None, DOWN, None], "the third may be a replica as well");
        case.answers("a", 2, true);
        assert_eq!(case.told(2), [UP, DOWN, DOWN], "there is one writer");
    }

    #[test]
    fn what_a_former_agent_noted_is_no_proof() {
        let mut case = Case::new(WantedRole::Writer, &NAMES, Some("a"));
        assert_eq!(case.told(0), [None; 3]);
        case.answers("b", 1, true);
        assert_eq!(case.told(1)[1], UP);
        assert_ne!(case.told(1)[0], UP, "it was the writer before");
    }

    #[test]
    fn what_was_proved_before_the_agent_stood_still_is_proved_again_first() {
        let mut case = Case::new(WantedRole::Writer, &NAMES, None);
        for (name, writer) in [("a", true), ("b", false), ("c", false)] {
            case.answers(name, 1, writer);
        }
        for second in 1..10 {
            assert_eq!(
                case.told(second),
                [UP, DOWN, DOWN],
                "nobody has asked for a while, which is no matter"
            );
        }
        assert_eq!(case.told(130)[0], None, "another may be the writer by now");
        case.answers("a", 131, true);
        assert_eq!(case.told(131), [UP, DOWN, DOWN]);
    }

    #[test]
    fn readers_and_a_lone_writer_pass_while_nothing_is_known() {
        for (wanted, names) in
            [(WantedRole::Reader, &NAMES[..]), (WantedRole::Any, &NAMES), (WantedRole::Writer, &NAMES[..1])]
        {
            let mut case = Case::new(wanted, names, None);
            let fleet = case.fold.fleet(at(0));
            let checked = checked(&case.servers, &fleet, case.awake, &case.drained, &Addresses::new());
            for endpoint in &checked["w"] {
                assert_eq!((endpoint.health, endpoint.unknown), (None, Unknown::Passes), "{wanted:?}");
            }
        }
    }

    #[test]
    fn a_drain_is_told_of_what_is_known_to_be_up() {
        let mut case = Case::new(WantedRole::Reader, &NAMES, None);
        case.drained = BTreeSet::from([ServerId::new(0, "w", "b"), ServerId::new(0, "w", "c")]);
        case.answers("a", 1, true);
        case.answers("b", 1, false);
        assert_eq!(case.told(1), [DOWN, Some(Health::Draining), Some(Health::Draining)]);
    }

    proptest! {
        /// Whatever was noted, whoever answers and however long the agent stands still in between.
        #[test]
        fn who_passes_as_one_of_several_writers_has_said_so_since_the_agent_is_awake(
            noted in prop::option::of(0..3_usize),
            story in prop::collection::vec((0..20_u64, prop::option::of((0..3_usize, any::<bool>()))), 1..30),
        ) {
            let mut case = Case::new(WantedRole::Writer, &NAMES, noted.map(|writer| NAMES[writer]));
            let mut second = 0;
            let mut said: BTreeMap<usize, bool> = BTreeMap::new();
            case.told(second);
            for (pause, answer) in story {
                second += pause;
                if pause >= STOOD_STILL.as_secs() {
                    said.clear();
                }
                if let Some((place, writer)) = answer {
                    case.answers(NAMES[place], second, writer);
                    said.insert(place, writer);
                }
                for (place, health) in case.told(second).into_iter().enumerate() {
                    if health.is_some() && health != DOWN {
                        prop_assert!(said.get(&place) == Some(&true), "{place} at {second}");
                    }
                }
            }
        }
    }
}
