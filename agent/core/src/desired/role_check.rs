//! Health over HTTP, by instance and role.

use crate::{
    InstanceId,
    freshness::Freshness,
    health::{Fleet, Role, State, WantedRole},
};

/// Whether the check of an instance in the fleet passes. It fails on positive and current evidence.
///
/// Of several instances that may be the writer, a load balancer would send writes to each that passes. So
/// there the check of an unproved one fails too, unless it is the only one that is remembered as writer. A
/// snapshot that is too old is such a memory.
pub fn role_check(fleet: &Fleet, id: &InstanceId, wanted: WantedRole, freshness: Freshness) -> bool {
    let state = |id: &InstanceId| {
        let verdict = fleet.by_role.get(&(id.clone(), wanted));
        verdict.map_or(State::Unknown, |verdict| verdict.state)
    };
    let stuck = freshness == Freshness::Stuck;
    match state(id) {
        State::Down if stuck => wanted != WantedRole::Writer || may_be_writer(fleet, id),
        State::Down => false,
        State::Up | State::Drain => true,
        State::Unknown if wanted == WantedRole::Writer => {
            let another = of_database(fleet, id).any(|(other, _)| other != id && state(other) == State::Up);
            !another && may_be_writer(fleet, id)
        }
        State::Unknown => true,
    }
}

/// Whether this instance, and no other, may be the writer by what was last known.
fn may_be_writer(fleet: &Fleet, id: &InstanceId) -> bool {
    let only = |may: fn(Option<Role>) -> bool| {
        let mut candidates = of_database(fleet, id).filter(|(_, role)| may(*role));
        candidates.next().is_some_and(|(candidate, _)| candidate == id) && candidates.next().is_none()
    };
    only(|role| role == Some(Role::Writer)) || only(|role| role != Some(Role::Reader))
}

/// The instances of the same database, and their last known roles.
fn of_database<'a>(
    fleet: &'a Fleet,
    id: &'a InstanceId,
) -> impl Iterator<Item = (&'a InstanceId, Option<Role>)> {
    let members = fleet.instances.iter().filter(|(other, _)| other.database == id.database);
    members.map(|(other, view)| (other, view.role))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        Fault, FaultKind, Phase, Time,
        health::{FleetConfig, Health, HealthRules, Observation, Remembered, RoleFacts, Routing},
    };

    const AT: Time = Time::AGENT_START;

    /// Instances `a` to `c` of which `names` are configured, and what is remembered of them.
    fn health(names: &[&str], remembered: &[(&str, Role)]) -> Health {
        let instances = names.iter().map(|name| (InstanceId::new("orders", name), HealthRules::default()));
        let remembered = remembered.iter().map(|(name, role)| Remembered {
            database: "orders".into(),
            instance: (*name).into(),
            role: *role,
            timeline: None,
            last_writer: *role == Role::Writer,
            another_database: false,
        });
        let config =
            FleetConfig { instances: instances.collect(), servers: Vec::new(), routing: Routing::default() };
        Health::new(config, &remembered.collect::<Vec<_>>())
    }

    fn observe(health: &mut Health, name: &str, result: Result<bool, FaultKind>, seconds: f64) {
        let result = result
            .map(|writer| RoleFacts {
                in_recovery: !writer,
                read_only: false,
                follows_source: false,
                timeline: None,
                lag: None,
                agents: 1,
            })
            .map_err(|kind| Fault::new(Phase::Tcp, kind, "made up"));
        let at = AT + Duration::from_secs_f64(seconds);
        health.observe(&Observation { instance: InstanceId::new("orders", name), at, login: true, result });
    }

    fn passes(health: &mut Health, wanted: WantedRole, seconds: u64, freshness: Freshness) -> Vec<String> {
        let fleet = health.fleet(AT + Duration::from_secs(seconds));
        let passing = fleet.instances.keys().filter(|id| role_check(&fleet, id, wanted, freshness));
        passing.map(|id| id.instance.to_string()).collect()
    }

    #[test]
    fn a_remembered_reader_is_not_the_writer_and_of_several_unknown_instances_none_is() {
        use Role::{Reader, Writer};
        for (names, remembered, expected) in [
            (&["a", "b"][..], &[("a", Writer), ("b", Reader)][..], &["a"][..]),
            (&["a", "b"], &[("b", Reader)], &["a"]),
            (&["a", "b"], &[], &[]),
            (&["a", "b", "c"], &[("c", Reader)], &[]),
            (&["a", "b"], &[("a", Reader), ("b", Reader)], &[]),
            (&["a"], &[], &["a"]),
        ] {
            let mut health = health(names, remembered);
            let passing = passes(&mut health, WantedRole::Writer, 1, Freshness::Fresh);
            assert_eq!(passing, expected, "{names:?} {remembered:?}");
            assert_eq!(passes(&mut health, WantedRole::Any, 1, Freshness::Fresh), names);
        }
    }

    #[test]
    fn the_last_known_writer_passes_when_its_answer_or_the_snapshot_is_too_old() {
        let mut health = health(&["a", "b"], &[]);
        observe(&mut health, "a", Ok(true), 0.0);
        observe(&mut health, "b", Ok(false), 0.0);
        for seconds in [1, 3_600] {
            assert_eq!(passes(&mut health, WantedRole::Writer, seconds, Freshness::Fresh), ["a"]);
        }
        for seconds in [3_600.0, 3_601.0] {
            observe(&mut health, "a", Err(FaultKind::ConnectionRefused), seconds);
        }
        let none: [&str; 0] = [];
        assert_eq!(passes(&mut health, WantedRole::Writer, 3_602, Freshness::Fresh), none);
        assert_eq!(passes(&mut health, WantedRole::Writer, 3_602, Freshness::Stuck), ["a"]);
    }

    #[test]
    fn beside_a_proved_writer_an_unknown_instance_is_not_the_writer() {
        let mut health = health(&["a", "b"], &[]);
        observe(&mut health, "b", Ok(true), 0.0);
        assert_eq!(passes(&mut health, WantedRole::Writer, 1, Freshness::Fresh), ["b"]);
        assert_eq!(passes(&mut health, WantedRole::Reader, 1, Freshness::Fresh), ["a", "b"]);
    }
}
