//! The time that a plan takes: most sessions young, as on any day, and all of them due, as
//! when the limit was just lowered. Sessions are spread over a writer and two readers.

use std::{
    hint::black_box,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use agent_core::{
    InstanceId, ProxyIndex, ServerId, Time,
    health::{Fleet, FleetConfig, Health, HealthRules, Observation, RoleFacts, ServerConfig, WantedRole},
    plan::{AdminFlags, Budget, Mode, Planner, Policy},
    session::{
        Activity, ActivityRow, Age, BackendKey, HaproxySessionKey, LastStatement, Ledger, ProxySession,
        ProxySessionKey, Seen,
    },
};

use super::{Error, Measurement, Report};

const INSTANCES: [&str; 3] = ["a", "b", "c"];

/// Ages of the two pictures.
const YOUNG: Duration = Duration::from_secs(60);
const DUE: Duration = Duration::from_secs(13 * 60);

pub(super) fn run(quick: bool, report: &mut Report) -> Result<(), Error> {
    for sessions in [10_000, 100_000] {
        for (word, age) in [("young", YOUNG), ("due", DUE)] {
            let (median, worst, due) = measure(sessions, age, if quick { 15 } else { 100 });
            let measurement =
                Measurement::new(format!("planner_{sessions}_{word}"), median.as_secs_f64() * 1e3, "ms/plan");
            let worst = worst.as_secs_f64() * 1e3;
            report.tell(&measurement.note(format!("{due} due; the longest took {worst:.2} ms")))?;
        }
    }
    Ok(())
}

/// The median and the longest time of a plan, and how many sessions it found due.
fn measure(sessions: usize, age: Duration, plans: usize) -> (Duration, Duration, usize) {
    let mut now = Time::AGENT_START + Duration::from_secs(100_000);
    let servers = servers();
    let fleet = fleet(&servers, now);
    let ledger = ledger(&servers, sessions, age, now);
    let policy = Policy { mode: Mode::Retire, login_budget: 20, ..Policy::default() };
    let budget = Budget::new(policy.login_budget);
    let mut planner = Planner::new(policy, &servers);
    for server in &servers {
        planner.observe_admin(&server.id, now, AdminFlags::default());
    }
    let mut times = Vec::with_capacity(plans);
    let mut due = 0;
    for _ in 0..plans {
        // Sources stay fresh enough all the time.
        now = now + Duration::from_millis(1);
        let began = Instant::now();
        let plan = black_box(planner.plan(now, black_box(&ledger), &fleet, &budget));
        times.push(began.elapsed());
        due = plan.due;
    }
    times.sort_unstable();
    let at = |index: usize| times.get(index).copied().unwrap_or_default();
    (at(plans / 2), at(plans.saturating_sub(1)), due)
}

fn instance(name: &str) -> InstanceId {
    InstanceId::new("orders", name)
}

fn servers() -> Vec<ServerConfig> {
    let backends = [("write", WantedRole::Writer), ("read", WantedRole::Reader)];
    let pairs = backends.iter().flat_map(|backend| INSTANCES.iter().map(move |name| (backend, *name)));
    pairs
        .map(|((backend, wanted), name)| ServerConfig {
            id: ServerId::new(ProxyIndex(0), backend, name),
            instance: instance(name),
            wanted: *wanted,
            commandable: true,
        })
        .collect()
}

/// All well; `a` is the writer.
fn fleet(servers: &[ServerConfig], now: Time) -> Fleet {
    let instances = INSTANCES.iter().map(|name| (instance(name), HealthRules::default())).collect();
    let mut health =
        Health::new(FleetConfig { instances, servers: servers.to_vec(), ..FleetConfig::default() }, &[]);
    for name in INSTANCES {
        let in_recovery = name != "a";
        let facts = RoleFacts {
            in_recovery,
            read_only: false,
            follows_source: false,
            timeline: None,
            lag: None,
            agents: 1,
        };
        health.observe(&Observation { instance: instance(name), at: now, login: true, result: Ok(facts) });
    }
    health.fleet(now)
}

fn ledger(servers: &[ServerConfig], sessions: usize, age: Duration, now: Time) -> Ledger {
    let mut ledger = Ledger::new(servers);
    let mut shown = Vec::with_capacity(sessions);
    for (index, name) in INSTANCES.iter().enumerate() {
        let backend = if index == 0 { "write" } else { "read" };
        let mut rows = Vec::with_capacity(sessions / INSTANCES.len() + 1);
        for number in (index..sessions).step_by(INSTANCES.len()) {
            let (row, session) = session(number, ServerId::new(ProxyIndex(0), backend, name), age);
            rows.push(row);
            shown.push(session);
        }
        ledger.observe_activity(&instance(name), now, Seen::All, rows);
    }
    ledger.observe_proxy(ProxyIndex(0), now, shown);
    ledger.proxy_alive(ProxyIndex(0), now);
    ledger
}

/// One session as both sides show it: of one of fifty applications, quiet.
fn session(number: usize, server: ServerId, age: Duration) -> (ActivityRow, ProxySession) {
    let pid = number as u64 + 1;
    let started_us = i64::try_from(number).unwrap_or(i64::MAX / 1_000) * 1_000;
    // 60,000 ports of one address, then of the next.
    let address = |network: u8| {
        #[allow(clippy::cast_possible_truncation, reason = "two sessions at most have the same host")]
        let (host, port) = ((number / 60_000) as u8, (number % 60_000) as u16 + 2_000);
        SocketAddr::from((Ipv4Addr::new(10, 0, network, host), port))
    };
    let row = ActivityRow {
        key: BackendKey { pid, started_us },
        client: Some(address(1)),
        user: "app".into(),
        iam_user: true,
        database_name: "orders".into(),
        application: format!("shop-{}", number % 50).into(),
        client_backend: true,
        superuser: false,
        age: Age::Exactly(age),
        activity: Activity::Idle(Duration::from_secs(10)),
        last_statement: LastStatement::Other,
        advisory_lock: Some(false),
    };
    let session = ProxySession {
        key: ProxySessionKey::Haproxy(HaproxySessionKey {
            worker: 1,
            pointer: format!("0x{pid:x}").into(),
            id: pid,
            accepted: "then".into(),
        }),
        server,
        source: Some(address(2)),
        outgoing: address(1),
        peer: SocketAddr::from((Ipv4Addr::new(10, 0, 3, 1), 5_432)),
        age,
        old_worker: false,
    };
    (row, session)
}
