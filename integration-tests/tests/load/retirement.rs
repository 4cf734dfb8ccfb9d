//! The agent closes sessions of clients that count what breaks. How often, `make bench` judges.

use integration_tests::{
    load::{Load, Think, Work},
    process::wait_for,
    scene::{PATIENCE, Proxy, Scene, Setting},
    standin::{Options, busiest_second},
};
use jiff::Timestamp;

use crate::MIXED;

/// Closes and own logins of the agent in any second.
const BUDGET: usize = 20;

mod long {
    use integration_tests::{
        envoy::Envoy,
        haproxy::Haproxy,
        length::number,
        standin::{Engine, Options},
    };

    use super::run;

    /// How many closes clients meet.
    fn closes() -> u64 {
        number("RDS_LB_CLOSES", 50, 150)
    }

    fn mariadb() -> Options {
        Options { engine: Engine::Mariadb, ..Options::default() }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn postgresql_sessions_are_closed_between_two_transactions() {
        run::<Haproxy>(Options::default(), "", "", closes()).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn postgresql_sessions_are_closed_between_two_transactions_behind_envoy() {
        run::<Envoy>(Options::default(), "", "", closes()).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn mariadb_sessions_are_closed_between_two_transactions() {
        run::<Haproxy>(mariadb(), "", "", closes()).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn mariadb_sessions_are_closed_between_two_transactions_behind_envoy() {
        run::<Envoy>(mariadb(), "", "", closes()).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn mariadb_sessions_are_closed_between_two_transactions_without_performance_schema() {
        let options = Options { performance_schema: false, ..mariadb() };
        // `innodb_trx` asks for a second of quiet, and allows at most one close a second.
        run::<Haproxy>(options, "    open_transactions: innodb_trx\n", ", quiet_min: 1s", closes() / 3).await;
    }
}

/// Until clients with transactions have met `enough` closes.
async fn run<P: Proxy>(options: Options, database: &str, more: &str, enough: u64) {
    let scene = Scene::<P>::with(Setting {
        standin: Options { replicas: 0, ..options },
        sessions: format!("{{mode: retire, max_age: 5s, login_budget: {BUDGET}{more}}}"),
        database: database.to_owned(),
        ..Setting::default()
    })
    .await
    .unwrap();
    let load = Load::new(scene.writer("app").unwrap(), 5).await.unwrap();
    load.add(MIXED, 25);
    load.add(Work::Autocommit { think: Think::Mixed }, 5);
    load.all_in(PATIENCE).await.unwrap();
    // How many a second depends on the machine, so the deadline is for each one.
    let mut met = 0;
    while met < enough {
        met = wait_for("another retirement", PATIENCE, async || match load.report() {
            report if report.retirements() > met => Ok(report.retirements()),
            same => Err(format!("{same:?}; {}", scene.agent.state().await.unwrap()["state"]["sessions"])),
        })
        .await
        .unwrap();
    }
    let report = load.stop().await.unwrap();
    let verified = load.verify(&scene.writer("app").unwrap()).await.unwrap();
    println!(
        "{} retirements in {:.0} s: at BEGIN {}, inside {}, at COMMIT {}; {:?}",
        report.retirements(),
        report.seconds,
        report.broken_at_begin,
        report.broken_inside,
        report.broken_at_commit,
        report.causes,
    );
    // Blind closes would break far more than a tenth inside a transaction. A close can also lose a race against
    // BEGIN; how often depends on the speed of the machine, so `make bench` judges that.
    assert!(report.broken_inside * 10 <= report.retirements(), "{report:?}");
    assert_eq!(report.broken_at_commit, 0, "{report:?}");
    assert!(verified.is_exact(), "{verified:?}");

    let events = scene.agent.events();
    let closes = events.iter().filter(|event| event["message"] == "session retired");
    let closes = closes.map(|event| event["timestamp"].as_str().unwrap().parse::<Timestamp>().unwrap());
    let logins = scene.standin.journal().attempts();
    let own = logins.iter().filter(|login| login.user == "lb_agent").map(|login| login.at);
    let mut both: Vec<Timestamp> = closes.chain(own).collect();
    both.sort();
    assert!(both.len() as u64 >= enough && busiest_second(both) <= BUDGET);
    drop(load);
    scene.clear().await.unwrap();
}
