//! Five agents share the login budget of one instance.

use std::collections::BTreeMap;

use integration_tests::{
    load::{Load, Think, Work},
    process::wait_for,
    scene::{PATIENCE, Setting},
    standin::{Engine, Options, busiest_second},
};
use jiff::Timestamp;

use super::{agents_seen, clear, hosts};

const BUDGET: usize = 10;

/// More than 5 * 14 clients can be closed within their age of 5 s.
const CLIENTS: usize = 14;

mod long {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn five_agents_share_one_login_budget_on_postgresql() {
        run(Engine::Postgresql).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn five_agents_share_one_login_budget_on_mariadb() {
        run(Engine::Mariadb).await;
    }
}

async fn run(engine: Engine) {
    let enough = integration_tests::length::number("RDS_LB_CLOSES", 100, 600);
    let setting = Setting {
        sessions: format!("{{mode: retire, max_age: 5s, login_budget: {BUDGET}}}"),
        ..Setting::default()
    };
    let standin = Options { engine, replicas: 0, ..Options::default() };
    let (standin, mut scenes) = hosts(5, standin, setting).await;
    let mut loads = Vec::new();
    for scene in &scenes {
        let load = Load::new(scene.writer("app").unwrap(), 7).await.unwrap();
        load.add(Work::Transactions { think: Think::Mixed, retry_begin: true }, CLIENTS);
        load.all_in(PATIENCE).await.unwrap();
        loads.push(load);
    }
    // What follows are only logins after closes, and the agents' own.
    let began = Timestamp::now();
    let mut met = 0;
    while met < enough {
        met = wait_for("another retirement", PATIENCE, async || {
            let now = loads.iter().map(|load| load.report().retirements()).sum::<u64>();
            if now > met {
                Ok(now)
            } else {
                Err(scenes[0].agent.state().await.unwrap()["state"]["peers"].to_string())
            }
        })
        .await
        .unwrap();
    }
    let each: Vec<u64> = loads.iter().map(|load| load.report().retirements()).collect();
    let lasted = Timestamp::now().duration_since(began).as_secs_f64();
    let logins = standin.journal().attempts_since(began);
    let mut seconds: BTreeMap<i64, usize> = BTreeMap::new();
    for login in &logins {
        *seconds.entry(login.at.as_second()).or_default() += 1;
    }
    let own = logins.iter().filter(|login| login.user == "lb_agent").count();
    let most = seconds.values().copied().max().unwrap();
    println!(
        "{engine:?}: {met} retirements in {lasted:.0} s, by agent {each:?}; {} logins, {own} of them the agents'; \
         at most {most} in a second",
        logins.len()
    );
    // When clients come back is theirs and the machine's; what agents do in one second is the promise.
    let closes = scenes.iter().flat_map(|scene| scene.agent.events());
    let closes = closes.filter(|event| event["message"] == "session retired");
    let closes = closes.map(|event| event["timestamp"].as_str().unwrap().parse::<Timestamp>().unwrap());
    let own = logins.iter().filter(|login| login.user == "lb_agent").map(|login| login.at);
    let mut both: Vec<Timestamp> = closes.chain(own).filter(|at| *at >= began).collect();
    both.sort();
    let busiest = busiest_second(both);
    assert!(busiest * 10 <= BUDGET * 11, "{busiest}; logins in each second: {seconds:?}");
    assert!(each.iter().all(|retired| *retired > 0), "no agent starves: {each:?}");
    // It cannot keep up, and says so.
    for scene in &scenes {
        let events = scene.agent.events();
        let small = events.iter().find(|event| event["message"].as_str().unwrap().contains("login_budget"));
        assert!(small.is_some(), "{}", scene.agent.log());
    }

    let mut gone = scenes.pop().unwrap();
    gone.agent.kill();
    agents_seen(&scenes, "a", 4).await;
    let before = loads[0].report().retirements();
    wait_for("retirements without the killed agent", PATIENCE, async || {
        if loads[0].report().retirements() > before + 2 { Ok(()) } else { Err("none".to_owned()) }
    })
    .await
    .unwrap();
    scenes.push(gone);
    for load in loads {
        load.stop().await.unwrap();
    }
    clear(standin, scenes).await;
}
