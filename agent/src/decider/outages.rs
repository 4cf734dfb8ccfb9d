//! Conditions that last, each reported when it begins and when it ends.

use std::{collections::BTreeMap, time::Duration};

use agent_core::{
    DatabaseName, InstanceId, Time,
    health::{Fleet, InstanceView, Role, State, Verdict},
    plan::{HoldReason, Plan, Subject},
};

use super::{Running, publish::usable_servers};
use crate::{
    events::{
        AllLoginsRefused, Event, LoginsAcceptedAgain, NoUsableServer, ServerUsableAgain, SessionsUnjoined,
        WriterMoved,
    },
    metrics::labels::Word,
};

/// A session that is due is compared with the proxies' sessions again and again. If that has not matched it
/// for this long, it will not.
const UNJOINED: Duration = Duration::from_secs(120);

impl Running {
    pub(super) fn tell_outages(&mut self, fleet: &Fleet) {
        let metrics = self.decider.shared.metrics.clone();
        for (backend, usable) in usable_servers(fleet) {
            let subject = format!("usable {backend}");
            if usable > 0 {
                if self.episodes.ends(&subject) {
                    ServerUsableAgain { backend }.emit(&metrics);
                }
            } else if let Some(servers) = out(fleet, backend)
                && self.episodes.begins(&subject, "")
            {
                NoUsableServer { backend, servers: &servers }.emit(&metrics);
            }
        }
        for (database, writer) in writers(fleet) {
            match self.writers.get(&database) {
                Some(before) if *before == writer => continue,
                Some(before) => WriterMoved { from: before, to: &writer }.emit(&metrics),
                None => {}
            }
            self.writers.insert(database, writer);
        }
        for (database, refused) in refused(fleet) {
            let subject = format!("refused {database}");
            let database = database.as_str();
            if refused && self.episodes.begins(&subject, "") {
                AllLoginsRefused { database }.emit(&metrics);
            } else if !refused && self.episodes.ends(&subject) {
                LoginsAcceptedAgain { database }.emit(&metrics);
            }
        }
    }

    /// Sessions that are due and match no session of a proxy.
    pub(super) fn tell_unjoined(&mut self, plan: &Plan, now: Time) {
        let mut unjoined: BTreeMap<&InstanceId, usize> = BTreeMap::new();
        for hold in plan.holds.iter().filter(|hold| hold.reason == HoldReason::NotJoined) {
            if let Subject::Session { instance, .. } = &hold.subject
                && now.since(hold.since) >= UNJOINED
            {
                *unjoined.entry(instance).or_default() += 1;
            }
        }
        for instance in self.fleet.instances.keys() {
            let subject = format!("unjoined {instance}");
            // Where other agents are, most sessions are those of their proxies.
            if self.decider.planner.peers().look(instance).is_some_and(|look| look.peers > 0) {
                self.episodes.ends(&subject);
                continue;
            }
            match unjoined.get(instance) {
                Some(sessions) if self.episodes.begins(&subject, "") => {
                    SessionsUnjoined { instance, sessions: *sessions }.emit(&self.decider.shared.metrics);
                }
                Some(_) => {}
                None => drop(self.episodes.ends(&subject)),
            }
        }
    }
}

/// The servers of a backend with their reasons, if something is known against one of them. While nothing
/// is known of any, the proxy decides.
fn out(fleet: &Fleet, backend: &str) -> Option<String> {
    let servers = || fleet.verdicts().iter().filter(|(server, _)| &*server.backend == backend);
    let against = |verdict: &Verdict| matches!(verdict.state, State::Down | State::Drain);
    servers().any(|(_, verdict)| against(verdict)).then(|| {
        let named =
            servers().map(|(server, verdict)| format!("{} {}", server.server, Word::of(&verdict.reason)));
        named.collect::<Vec<_>>().join(", ")
    })
}

/// The one instance of each database that answers as the writer.
fn writers(fleet: &Fleet) -> BTreeMap<DatabaseName, InstanceId> {
    let answers = |view: &InstanceView| view.role == Some(Role::Writer) && view.usable() && !view.conflict;
    let mut writers: BTreeMap<DatabaseName, Vec<&InstanceId>> = BTreeMap::new();
    for (id, _) in fleet.instances.iter().filter(|(_, view)| answers(view)) {
        writers.entry(id.database.clone()).or_default().push(id);
    }
    let single = |(database, ids): (DatabaseName, Vec<&InstanceId>)| match ids[..] {
        [id] => Some((database, id.clone())),
        _ => None,
    };
    writers.into_iter().filter_map(single).collect()
}

/// Whether all instances of each database refuse the agent's logins themselves.
fn refused(fleet: &Fleet) -> BTreeMap<DatabaseName, bool> {
    let mut all = BTreeMap::new();
    for (id, view) in &fleet.instances {
        let refused = view.auth_refused_since.is_some() && view.auth_refused_by_database;
        *all.entry(id.database.clone()).or_insert(true) &= refused;
    }
    all
}

#[cfg(test)]
mod tests {
    use agent_core::{
        Fault, FaultKind, Phase,
        health::{FleetConfig, Health, HealthRules, Observation, RoleFacts},
    };

    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn fleet(observations: &[(&str, Result<bool, FaultKind>)]) -> Fleet {
        let instances = ["a", "b"].map(|name| (InstanceId::new("orders", name), HealthRules::default()));
        let config = FleetConfig { instances: instances.into(), ..FleetConfig::default() };
        let mut health = Health::new(config, &[]);
        let now = Time::since_start(NOW);
        for (instance, result) in observations {
            let result = match result {
                Ok(writer) => Ok(RoleFacts {
                    in_recovery: !writer,
                    read_only: false,
                    follows_source: false,
                    timeline: Some(1),
                    lag: None,
                    agents: 1,
                }),
                Err(kind) => Err(Fault::new(Phase::Login, *kind, "made up")),
            };
            let instance = InstanceId::new("orders", instance);
            health.observe(&Observation { instance, at: now, login: true, result });
        }
        health.fleet(now)
    }

    #[test]
    fn the_writer_is_the_one_instance_that_answers_as_the_writer() {
        let orders = DatabaseName::from("orders");
        let one = writers(&fleet(&[("a", Ok(true)), ("b", Ok(false))]));
        assert_eq!(one.get(&orders), Some(&InstanceId::new("orders", "a")));
        assert!(writers(&fleet(&[("a", Ok(true)), ("b", Ok(true))])).is_empty(), "two claim it");
        assert!(writers(&fleet(&[("b", Ok(false))])).is_empty());
    }

    #[test]
    fn logins_are_refused_only_if_every_instance_refuses_them() {
        let is_refused = |fleet: &Fleet| refused(fleet).values().all(|refused| *refused);
        let refusal = Err(FaultKind::LoginRefused);
        assert!(is_refused(&fleet(&[("a", refusal), ("b", refusal)])));
        assert!(!is_refused(&fleet(&[("a", refusal), ("b", Ok(false))])));
        let no_token = Err(FaultKind::NoToken);
        assert!(!is_refused(&fleet(&[("a", no_token), ("b", no_token)])), "no database has said so");
    }
}
