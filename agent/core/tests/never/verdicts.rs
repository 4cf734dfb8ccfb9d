//! Verdicts: nothing is taken away for not knowing, nor for the sake of one that cannot serve.

use agent_core::{desired::AgentHealth, health::Admission, plan::AdminFlags};

use super::*;

/// Faults that prove nothing about an instance for its clients.
fn proves_nothing() -> impl Strategy<Value = FaultKind> {
    use FaultKind as K;
    prop::sample::select(vec![
        K::NameNotResolved,
        K::Unreachable,
        K::TimedOut,
        K::Disconnected,
        K::TlsNotOffered,
        K::TlsFailed,
        K::CertificateInvalid,
        K::NoToken,
        K::LoginRefused,
        K::OverBudget,
        K::TooManyConnections,
        K::HostBlocked,
        K::PermissionDenied,
        K::DatabaseError,
        K::Protocol,
    ])
}

proptest! {
    #![proptest_config(cases(256))]

    /// Nothing that an agent fails to do itself, in any order and number, takes the
    /// writer down, or the last reader, or leaves a backend without a server.
    #[test]
    fn down_is_never_said_for_not_knowing(
        events in prop::collection::vec(
            (0_usize..3, prop::option::weighted(0.7, proves_nothing()), 1_u64..20_000), 1..80),
    ) {
        let mut rig = Rig::new(policy());
        for (index, fault, wait) in events {
            rig.wait(millis(wait));
            let result = match fault { Some(kind) => Err(kind), None => Ok(index != 0) };
            rig.tell(["a", "b", "c"][index], result);
            let fleet = rig.fleet();
            let verdict = |backend: &str, name: &str| fleet.servers[&support::server(backend, name)];
            prop_assert_ne!(verdict("write", "a").state, State::Down, "{:?}", verdict("write", "a"));
            let readers = ["a", "b", "c"].map(|name| verdict("read", name));
            prop_assert!(readers.iter().any(|reader| reader.state != State::Down));
            // The agent-check answer is never worse.
            let said = rig.agent_check(&support::server("write", "a"), &fleet);
            prop_assert!(!matches!(said.health, Some(AgentHealth::Down(_))));
        }
    }

    /// Whatever is observed, a server that is down names evidence that was given.
    #[test]
    fn each_down_has_its_evidence(
        events in prop::collection::vec(
            (0_usize..3, prop_oneof![
                2 => any::<bool>().prop_map(Ok),
                1 => proves_nothing().prop_map(Err),
                1 => Just(Err(FaultKind::ConnectionRefused)),
            ], 1_u64..3_000), 1..60),
    ) {
        let mut rig = Rig::new(policy());
        let mut refused = [0_u32; 3];
        let mut silent = [0_u32; 3];
        let mut in_recovery = [false, true, true];
        for (index, result, wait) in events {
            rig.wait(millis(wait));
            rig.tell(["a", "b", "c"][index], result);
            let quiet = matches!(
                result,
                Err(FaultKind::Unreachable | FaultKind::TimedOut | FaultKind::Disconnected)
            );
            match result {
                Ok(recovery) => {
                    in_recovery[index] = recovery;
                    (refused[index], silent[index]) = (0, 0);
                }
                Err(FaultKind::ConnectionRefused) => refused[index] += 1,
                Err(_) if quiet => silent[index] += 1,
                Err(FaultKind::NameNotResolved | FaultKind::NoToken | FaultKind::OverBudget) => {}
                Err(_) => refused[index] = 0,
            }
            let fleet = rig.fleet();
            for (member, name) in ["a", "b", "c"].into_iter().enumerate() {
                let writer = fleet.servers[&support::server("write", name)];
                let conflict = (0..3).filter(|other| !in_recovery[*other]).count() > 1;
                let evidence = refused[member] > 0 || in_recovery[member] || conflict;
                prop_assert!(writer.state != State::Down || evidence, "write/{name}: {writer:?}");
                let reader = fleet.servers[&support::server("read", name)];
                let evidence = refused[member] > 0 || !in_recovery[member] || silent[member] >= 3;
                prop_assert!(reader.state != State::Down || evidence, "read/{name}: {reader:?}");
            }
        }
    }

    /// Whatever is observed and whatever operators set: while a server of the read backend could take
    /// new sessions, one that is open at the proxy is not down. This holds without a fallback, where
    /// an empty backend would close clients at once.
    #[test]
    fn no_verdict_takes_away_the_last_server_that_could_serve(
        events in prop::collection::vec((0_usize..3, event(), 1_u64..6_000), 1..80),
    ) {
        let mut rig = Rig::new(policy());
        let mut said = [Said::default(); 3];
        for (index, event, wait) in events {
            rig.wait(millis(wait));
            happen(&mut rig, &mut said, index, event);
            let fleet = rig.fleet();
            let admissions = rig.planner.drains().admissions();
            let open: Vec<&str> = NAMES
                .into_iter()
                .filter(|name| admissions[&support::server("read", name)] == Admission::Open)
                .collect();
            let up = |name: &str| fleet.servers[&support::server("read", name)].state != State::Down;
            prop_assert!(
                open.is_empty() || open.iter().any(|name| up(name)),
                "{:?}", fleet.servers
            );
        }
    }

    /// Whatever is observed and whatever operators set, two servers of a writer backend are never said
    /// to be up, and one that was last heard as a reader never is.
    #[test]
    fn at_most_one_server_takes_writes(
        events in prop::collection::vec((0_usize..3, event(), 1_u64..6_000), 1..80),
    ) {
        let mut rig = Rig::new(policy());
        let mut said = [Said::default(); 3];
        for (index, event, wait) in events {
            rig.wait(millis(wait));
            happen(&mut rig, &mut said, index, event);
            let fleet = rig.fleet();
            let up: Vec<usize> = (0..3)
                .filter(|one| fleet.servers[&support::server("write", NAMES[*one])].state == State::Up)
                .collect();
            prop_assert!(up.len() <= 1, "{:?}", fleet.servers);
            prop_assert!(up.iter().all(|one| !said[*one].reader), "{:?}", fleet.servers);
        }
    }
}

const NAMES: [&str; 3] = ["a", "b", "c"];

fn happen(rig: &mut Rig, said: &mut [Said; 3], index: usize, event: Event) {
    let name = NAMES[index];
    match event {
        Event::Tell(result) => {
            rig.tell(name, result);
            if let Ok(in_recovery) = result {
                said[index].reader = in_recovery;
            }
        }
        Event::Person(backend, flags) => {
            rig.planner.observe_admin(&support::server(backend, name), rig.now, flags);
        }
    }
}

/// Something that happens to an instance or to one of its servers.
#[derive(Copy, Clone, Debug)]
enum Event {
    Tell(Result<bool, FaultKind>),
    Person(&'static str, AdminFlags),
}

fn event() -> impl Strategy<Value = Event> {
    let hand = prop_oneof![
        Just(AdminFlags::default()),
        Just(AdminFlags { drain: true, ..AdminFlags::default() }),
        Just(AdminFlags { maint: true, ..AdminFlags::default() }),
    ];
    prop_oneof![
        3 => prop::bool::weighted(0.7).prop_map(|in_recovery| Event::Tell(Ok(in_recovery))),
        4 => proves_nothing().prop_map(|kind| Event::Tell(Err(kind))),
        1 => Just(Event::Tell(Err(FaultKind::ConnectionRefused))),
        2 => (prop::sample::select(vec!["write", "read"]), hand)
            .prop_map(|(backend, flags)| Event::Person(backend, flags)),
    ]
}

/// An instance's last statement of its role.
#[derive(Copy, Clone, Debug, Default)]
struct Said {
    reader: bool,
}
