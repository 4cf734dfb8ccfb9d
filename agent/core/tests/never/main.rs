//! What the agent never does: each item of the list, against arbitrary sessions,
//! fleets and histories. The checks are written from what was fed in, not from
//! what the planner reports.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod drains;
#[path = "../support/mod.rs"]
mod support;
mod verdicts;

use std::time::Duration;

use agent_core::{
    FaultKind, ServerId,
    health::{Fleet, State},
    plan::{Busy, Close, CloseVia, Command, DrainSent, Exempt, Mode, Outcome, Plan, Policy, Scope},
    session::{Activity, LastStatement},
};
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};
use support::{
    Client, Listed, Rig,
    haproxy::{Admin, Hand},
    millis, policy, retires, secs, servers,
};

/// So many cases, or as many as `PROPTEST_CASES` says.
fn cases(usual: u32) -> Config {
    let asked = Config::default();
    let cases = if asked.cases == 256 { usual } else { asked.cases };
    // A failing case is printed in its smallest form; no file is left behind.
    Config { cases, failure_persistence: None, ..asked }
}

// === sessions ===

/// One session, and what is wrong with it.
#[derive(Clone, Debug)]
struct Some1 {
    place: usize,
    age: Duration,
    activity: Activity,
    oddity: Oddity,
    listed: Listed,
}

/// Mostly nothing: most sessions have to be such that they could go.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Oddity {
    None,
    PasswordUser,
    Superuser,
    Replication,
    Listening,
    LastStatementHidden,
    AdvisoryLock,
    LocksHidden,
    ExemptUser,
    ExemptDatabase,
    ExemptApplication,
    ExemptNetwork,
    NoAddress,
    OtherPort,
}

const PLACES: [(&str, &str); 4] = [("write", "a"), ("write", "b"), ("read", "b"), ("read", "c")];

fn a_session() -> impl Strategy<Value = Some1> {
    use Oddity as O;
    let activity = prop_oneof![
        6 => (0_u64..3_000).prop_map(|idle| Activity::Idle(millis(idle))),
        1 => Just(Activity::InTransaction),
        1 => Just(Activity::Running),
        1 => Just(Activity::Unknown),
    ];
    let oddity = prop_oneof![
        20 => Just(O::None),
        10 => prop::sample::select(vec![
            O::PasswordUser, O::Superuser, O::Replication, O::Listening, O::LastStatementHidden,
            O::AdvisoryLock, O::LocksHidden, O::ExemptUser, O::ExemptDatabase, O::ExemptApplication,
            O::ExemptNetwork, O::NoAddress, O::OtherPort,
        ]),
    ];
    let listed = prop_oneof![
        10 => Just(Listed::Once),
        1 => Just(Listed::Never),
        1 => Just(Listed::Twice),
        1 => (0_u64..12_000).prop_map(|off| Listed::Off(millis(off))),
    ];
    (0..PLACES.len(), 500_u64..1_400, activity, oddity, listed).prop_map(
        |(place, age, activity, oddity, listed)| Some1 { place, age: secs(age), activity, oddity, listed },
    )
}

/// Everything around the sessions.
#[derive(Clone, Debug)]
struct Around {
    policy: Policy,
    paused: bool,
    credentials: bool,
    /// The last login on each of a, b, c.
    logins: [Option<FaultKind>; 3],
    /// How old the last answers of the sources are when the plan is made.
    polled_ago: Duration,
    proxy_ago: Duration,
    /// How long before all that the logins were.
    login_ago: Duration,
    /// A plan is made before that time passes, and this long before the last.
    frozen: Option<Duration>,
}

fn around() -> impl Strategy<Value = Around> {
    let mode = prop_oneof![1 => Just(Mode::Observe), 1 => Just(Mode::Drain), 6 => Just(Mode::Retire)];
    let scope = prop_oneof![4 => Just(Scope::Iam), 1 => Just(Scope::Users(vec!["app".into()]))];
    let busy = prop_oneof![Just(Busy::Hold), Just(Busy::Catch)];
    let via = prop_oneof![Just(CloseVia::Database), Just(CloseVia::Proxy)];
    let force = prop_oneof![3 => Just(None), 1 => (0_u64..300).prop_map(|after| Some(secs(after)))];
    let policy = (mode, scope, busy, via, force, 0_u32..12, 0.0_f64..0.3).prop_map(
        |(mode, scope, busy, close_via, force_after, login_budget, jitter)| Policy {
            mode,
            scope,
            busy,
            close_via,
            force_after,
            login_budget,
            jitter,
            exempt: Exempt {
                users: vec!["backup".into()],
                databases: vec!["audit".into()],
                applications: vec!["report*".into()],
                networks: vec!["198.51.100.0/24".parse().expect("a network")],
            },
            ..policy()
        },
    );
    let login = || {
        prop_oneof![
            12 => Just(None),
            1 => prop::sample::select(vec![
                FaultKind::LoginRefused, FaultKind::NoToken, FaultKind::TimedOut, FaultKind::CertificateInvalid,
                FaultKind::TooManyConnections, FaultKind::NameNotResolved, FaultKind::ConnectionRefused,
                FaultKind::HostBlocked,
            ]).prop_map(Some),
        ]
    };
    let ago = || prop_oneof![4 => Just(0_u64), 1 => 0_u64..9_000].prop_map(millis);
    let frozen = prop_oneof![6 => Just(None), 1 => (1_u64..90).prop_map(|long| Some(secs(long)))];
    let login_ago = prop_oneof![20 => Just(0_u64), 1 => 0_u64..20_000].prop_map(millis);
    let rarely = || prop::bool::weighted(0.08);
    (policy, rarely(), rarely(), [login(), login(), login()], ago(), ago(), login_ago, frozen).prop_map(
        |(policy, paused, no_credentials, logins, polled_ago, proxy_ago, login_ago, frozen)| Around {
            policy,
            paused,
            credentials: !no_credentials,
            logins,
            polled_ago,
            proxy_ago,
            login_ago,
            frozen,
        },
    )
}

impl Some1 {
    fn join(&self, rig: &mut Rig) {
        let (backend, name) = PLACES[self.place];
        let index = rig.client(backend, name, self.age);
        let now = rig.now;
        let client = &mut rig.clients[index];
        client.listed = self.listed;
        client.row.activity = self.activity;
        if let Activity::Idle(idle) = self.activity {
            client.idle_since = now - idle;
        }
        match self.oddity {
            Oddity::None => {}
            Oddity::PasswordUser => client.row.iam_user = false,
            Oddity::Superuser => client.row.superuser = true,
            Oddity::Replication => client.row.client_backend = false,
            Oddity::Listening => client.row.last_statement = LastStatement::Listening,
            Oddity::LastStatementHidden => client.row.last_statement = LastStatement::Unknown,
            Oddity::AdvisoryLock => client.row.advisory_lock = Some(true),
            Oddity::LocksHidden => client.row.advisory_lock = None,
            Oddity::ExemptUser => client.row.user = "backup".into(),
            Oddity::ExemptDatabase => client.row.database_name = "audit".into(),
            Oddity::ExemptApplication => client.row.application = "report-nightly".into(),
            Oddity::ExemptNetwork => client.proxy.source = "198.51.100.7:4000".parse().ok(),
            Oddity::NoAddress => client.row.client = None,
            Oddity::OtherPort => client.row.client = Some("10.0.0.9:9".parse().expect("an address")),
        }
    }
}

/// Sets everything up, looks, lets time pass, and plans.
fn situation(around: &Around, sessions: &[Some1]) -> (Rig, Plan) {
    let mut rig = Rig::new(around.policy.clone());
    for session in sessions {
        session.join(&mut rig);
    }
    for (name, result) in ["a", "b", "c"].into_iter().zip(around.logins) {
        if let Some(kind) = result {
            // Twice, so that what can prove an instance down does.
            rig.tell(name, Err(kind));
            rig.wait(millis(300));
            rig.tell(name, Err(kind));
        }
    }
    rig.wait(around.login_ago);
    if around.paused {
        rig.planner.pause();
    }
    rig.planner.observe_credentials(around.credentials);
    rig.look();
    if let Some(frozen) = around.frozen {
        // A plan that saw nothing due: only its moment counts.
        let empty = agent_core::session::Ledger::new(&servers());
        let fleet = rig.fleet();
        let now = rig.now;
        rig.planner.plan(now, &empty, &fleet, &rig.budget);
        rig.wait(frozen);
    }
    // The later source answers now.
    let (first, second) = (around.polled_ago.max(around.proxy_ago), around.polled_ago.min(around.proxy_ago));
    if around.frozen.is_none() {
        rig.look();
        rig.wait(first.saturating_sub(second));
        if around.polled_ago < around.proxy_ago {
            rig.poll();
        } else {
            rig.sweep();
        }
        rig.wait(second);
    }
    let plan = rig.plan();
    (rig, plan)
}

/// Why this session must not be closed like this; written from what was fed in.
fn forbidden(
    rig: &Rig,
    around: &Around,
    session: &Some1,
    client: &Client,
    how: Close,
) -> Option<&'static str> {
    let policy = &around.policy;
    let age = rig.now.since(client.begin);
    let idle = match client.row.activity {
        Activity::Idle(_) => Some(rig.now.since(client.idle_since)),
        _ => None,
    };
    let iam_only = policy.scope == Scope::Iam;
    let off = if let Listed::Off(by) = session.listed { by } else { Duration::ZERO };
    let backend = PLACES[session.place].0;
    // The writer takes reads only when no reader can; it may be the one to come back to.
    let (members, takers): (&[usize], &[usize]) =
        if backend == "write" { (&[0], &[0]) } else { (&[1, 2], &[0, 1, 2]) };
    let shortest = policy.max_age.mul_f64(1.0 - policy.jitter);
    let longest = policy.max_age.mul_f64(1.0 + policy.jitter);
    let checks = [
        (policy.mode != Mode::Retire, "the mode closes nothing"),
        (around.paused, "the agent is paused"),
        (!around.credentials, "credentials cannot be loaded"),
        (age < shortest.saturating_sub(policy.window()), "it is not due"),
        (matches!(session.oddity, Oddity::PasswordUser) && iam_only, "its user does not log in by IAM"),
        (matches!(session.oddity, Oddity::ExemptUser), "its user is exempt"),
        (matches!(session.oddity, Oddity::ExemptDatabase), "its database is exempt"),
        (matches!(session.oddity, Oddity::ExemptApplication), "its application is exempt"),
        (matches!(session.oddity, Oddity::ExemptNetwork), "its network is exempt"),
        (matches!(session.oddity, Oddity::Superuser), "it is a superuser's"),
        (matches!(session.oddity, Oddity::Replication), "it is replication"),
        (matches!(session.oddity, Oddity::Listening), "it listens"),
        (matches!(session.oddity, Oddity::AdvisoryLock), "it holds an advisory lock"),
        (
            matches!(session.oddity, Oddity::LastStatementHidden | Oddity::LocksHidden)
                || session.activity == Activity::Unknown,
            "the database does not show all of it",
        ),
        (matches!(session.oddity, Oddity::NoAddress | Oddity::OtherPort), "no proxy has its address"),
        (session.listed == Listed::Never, "no proxy lists it"),
        (session.listed == Listed::Twice, "two claim it"),
        (off > secs(5), "the ages disagree"),
        (around.frozen.is_some_and(|long| long > secs(5)), "the agent was frozen"),
        (around.polled_ago > millis(500), "the look is old"),
        (around.proxy_ago > secs(5), "the proxy has not answered"),
        (rig.now.since(support::begin()) > secs(10), "the logins are long ago"),
        (takers.iter().all(|taker| around.logins[*taker].is_some()), "no login works there"),
        (
            members.iter().any(|member| {
                matches!(
                    around.logins[*member],
                    Some(FaultKind::LoginRefused | FaultKind::NoToken | FaultKind::HostBlocked)
                )
            }),
            "logins are refused there",
        ),
        (
            match how {
                Close::Quiet(asked) | Close::QuietByProxy(asked) => {
                    idle.is_none_or(|idle| idle < asked) || asked < policy.quiet_min
                }
                Close::Catch => policy.busy != Busy::Catch || age < shortest,
                Close::Force => policy.force_after.is_none_or(|after| age < shortest + after),
            },
            "it is not quiet, and no rule exempts it",
        ),
        (
            matches!(how, Close::Quiet(asked) | Close::QuietByProxy(asked) if asked < policy.quiet)
                && age < shortest.saturating_sub(policy.window() / 2).min(longest),
            "less quiet than the first half asks for",
        ),
    ];
    checks.iter().find(|(broken, _)| *broken).map(|(_, why)| *why)
}

fn check_closes(around: &Around, sessions: &[Some1]) -> Result<usize, TestCaseError> {
    let (rig, plan) = situation(around, sessions);
    let closes = retires(&plan);
    for retire in &closes {
        let index = rig.clients.iter().position(|client| client.row.key == retire.key).expect("a session");
        let (session, client) = (&sessions[index], &rig.clients[index]);
        let why = forbidden(&rig, around, session, client, retire.how);
        prop_assert_eq!(why, None, "{:?} of {:?}", retire, session);
        prop_assert_eq!(&retire.instance, &client.instance);
        prop_assert_eq!(Some(retire.client), client.row.client);
        prop_assert_eq!(&retire.user, &client.row.user);
        prop_assert_eq!(&retire.proxy.key, &client.proxy.key);
        prop_assert_eq!(retire.iam_only, around.policy.scope == Scope::Iam);
    }
    for name in ["a", "b", "c"] {
        let of = closes.iter().filter(|retire| &*retire.instance.instance.to_string() == name).count();
        prop_assert!(of <= around.policy.login_budget.saturating_sub(1) as usize);
    }
    let mut keys: Vec<_> = closes.iter().map(|retire| retire.key).collect();
    keys.dedup();
    prop_assert_eq!(keys.len(), closes.len());
    // Whatever is due and does not go is held, with a reason.
    let due = rig.clients.iter().filter(|client| rig.now.since(client.begin) >= secs(14 * 60 * 13 / 10));
    for client in due {
        let goes = closes.iter().any(|retire| retire.key == client.row.key);
        let holds = support::held(&plan, client).is_some();
        prop_assert!(goes != holds, "neither closed nor held: {:?}", client.row.key);
    }
    Ok(closes.len())
}

proptest! {
    #![proptest_config(cases(1_000))]

    #[test]
    fn no_session_is_closed_that_must_not_be(
        around in around(),
        sessions in prop::collection::vec(a_session(), 0..16),
    ) {
        check_closes(&around, &sessions)?;
    }
}

#[test]
fn arbitrary_situations_do_close_sessions() {
    let mut runner = TestRunner::deterministic();
    let strategy = (around(), prop::collection::vec(a_session(), 0..16));
    let mut closes = 0;
    let mut situations = 0;
    for _ in 0..400 {
        let (around, sessions) = strategy.new_tree(&mut runner).expect("a case").current();
        let of_case = check_closes(&around, &sessions).expect("no broken rule");
        closes += of_case;
        situations += usize::from(of_case > 0);
    }
    assert!(situations > 80 && closes > 200, "{closes} closes in {situations} of 400: they prove too little");
}
