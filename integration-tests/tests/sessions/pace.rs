//! How many sessions are closed at once. How soon, `make bench` judges.

use std::{fs, time::Instant};

use integration_tests::{
    load::{Load, Think, Work},
    on_each_engine,
    process::wait_for,
    scene::{PATIENCE, Scene, Setting},
    standin::{Engine, Options, busiest_second},
};
use jiff::Timestamp;

use crate::view::{Row, sessions};

on_each_engine!(a_small_budget_is_kept_and_those_that_wait_for_it_are_held);

async fn a_small_budget_is_kept_and_those_that_wait_for_it_are_held(engine: Engine) {
    let seen_over_budget = run(engine, 5, 16, 8, 80).await;
    assert!(seen_over_budget > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_larger_budget_is_kept_too() {
    run(Engine::Postgresql, 20, 40, 20, 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_never_pause_are_held_and_with_busy_catch_they_are_caught() {
    let setting = Setting {
        standin: Options { replicas: 0, ..Options::default() },
        sessions: "{mode: retire, max_age: 5s}".into(),
        ..Setting::default()
    };
    let scene = Scene::set(setting.clone()).await.unwrap();
    let load = Load::new(scene.writer("app").unwrap(), 3).await.unwrap();
    load.add(Work::Transactions { think: Think::Busy, retry_begin: false }, 4);
    load.all_in(PATIENCE).await.unwrap();
    wait_for("all four to be held as never quiet, well past their limit", PATIENCE, async || {
        let rows = sessions(&scene).await;
        let never = |row: &&Row| row.hold.as_deref() == Some("never_quiet") && row.overdue_s() > 3.0;
        match rows.iter().filter(never).count() {
            4 => Ok(()),
            _ => Err(format!("{rows:?}")),
        }
    })
    .await
    .unwrap();
    // A machine that stands still gives the busiest client a pause: one may have gone by then.
    let before = load.report().retirements();

    let caught = Setting { sessions: "{mode: retire, max_age: 5s, busy: catch}".into(), ..setting };
    let config = scene.agent.config_for(&scene.standin, &scene.proxy, &caught);
    scene.agent.write_config(&config).unwrap();
    wait_for("twelve to be caught", PATIENCE, async || match load.report().retirements() - before {
        12.. => Ok(()),
        few => Err(format!("{few}; {:?}", sessions(&scene).await)),
    })
    .await
    .unwrap();
    let report = load.stop().await.unwrap();
    println!(
        "caught {}: clean {}, at BEGIN {}, inside {}, at COMMIT {}",
        report.retirements(),
        report.clean_retirements,
        report.broken_at_begin,
        report.broken_inside,
        report.broken_at_commit
    );
    assert!(load.verify(&scene.writer("app").unwrap()).await.unwrap().is_exact());
    drop(load);
    scene.clear().await.unwrap();
}

/// Clients that are idle and clients that work, until so many sessions were closed. How often a session was seen
/// waiting for the budget. How long sessions live on past their limit, `make bench` judges.
async fn run(engine: Engine, budget: usize, idle: usize, working: usize, enough: usize) -> usize {
    let sessions_section = format!("{{mode: retire, max_age: 8s, login_budget: {budget}}}");
    let scene = Scene::set(Setting {
        standin: Options { engine, replicas: 0, ..Options::default() },
        sessions: sessions_section,
        ..Setting::default()
    })
    .await
    .unwrap();
    let app = scene.writer("app").unwrap();
    let load = Load::new(app.clone(), 4).await.unwrap();
    load.add(Work::Idle, idle);
    load.add(Work::Transactions { think: Think::Mixed, retry_begin: false }, working);
    load.all_in(PATIENCE).await.unwrap();
    let mut seen_over_budget = 0;
    let began = Instant::now();
    while closed(&scene).len() < enough {
        let rows = sessions(&scene).await;
        assert!(began.elapsed() < PATIENCE * 2, "{} closes; {rows:?}", closed(&scene).len());
        let waits = |row: &&Row| row.user == "app" && row.hold.as_deref() == Some("over_budget");
        seen_over_budget += rows.iter().filter(waits).count();
    }
    load.stop().await.unwrap();
    let closed = closed(&scene);
    let own = scene.standin.journal().attempts();
    let own = own.iter().filter(|login| login.user == "lb_agent").map(|login| login.at);
    let mut both: Vec<Timestamp> = own.chain(closed.iter().copied()).map(to_the_millisecond).collect();
    both.sort();
    let busiest = busiest_second(both);
    println!(
        "{engine:?}, budget {budget}: {} closes in {:.1} s, busiest second {busiest} with own logins",
        closed.len(),
        began.elapsed().as_secs_f64(),
    );
    assert!(busiest <= budget, "{busiest} in one second");
    assert!(load.verify(&app).await.unwrap().is_exact());
    drop(load);
    scene.clear().await.unwrap();
    seen_over_budget
}

/// When sessions were closed: by the database's own log, or by the agent's where the database
/// writes none of it.
fn closed(scene: &Scene) -> Vec<Timestamp> {
    match scene.standin.engine() {
        Engine::Postgresql => closed_by_its_log(scene),
        Engine::Mariadb => {
            let events = scene.agent.events();
            let closed = events.iter().filter(|event| event["message"] == "session retired");
            closed.map(|event| event["timestamp"].as_str().unwrap().parse().unwrap()).collect()
        }
    }
}

fn closed_by_its_log(scene: &Scene) -> Vec<Timestamp> {
    let log = fs::read_to_string(scene.standin.folder().join("log/a-postgres.log")).unwrap();
    let lines =
        log.lines().filter(|line| line.contains("terminating connection due to administrator command"));
    lines
        .map(|line| {
            let mut words = line.split(' ');
            let (day, time) = (words.next().unwrap(), words.next().unwrap());
            format!("{day}T{time}Z").parse().unwrap()
        })
        .collect()
}

/// As the database's log has it.
fn to_the_millisecond(moment: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(moment.as_millisecond()).unwrap()
}
