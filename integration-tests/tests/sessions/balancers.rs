//! Five balancers in front of one server, whose connections have the same port: only their
//! addresses tell them apart.

use std::{collections::VecDeque, net::Ipv4Addr, sync::Arc, time::Duration};

use integration_tests::{
    process::{free_port_on, wait_for},
    scene::{PATIENCE, Scene, Setting},
    standin::{Engine, Options, StandIn},
};

use crate::{
    client::{Client, Login, retired},
    view::{held, sessions},
};

/// Where they connect from.
const BALANCERS: [Ipv4Addr; 5] = [
    Ipv4Addr::new(127, 0, 0, 11),
    Ipv4Addr::new(127, 0, 0, 12),
    Ipv4Addr::new(127, 0, 0, 13),
    Ipv4Addr::new(127, 0, 0, 14),
    Ipv4Addr::new(127, 0, 0, 15),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_balancers_with_the_same_port_never_touch_one_anothers_sessions() {
    let settings = vec![("skip_name_resolve".to_owned(), "ON".to_owned())];
    let options = Options { settings, ..Options::default() };
    each_closes_its_own(options, |balancer, port| format!("{balancer}:{port}")).await;
}

/// The worst that name resolution can do: the process list shows all five sessions alike.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_balancers_with_the_same_port_and_the_same_name_never_do_either() {
    let names = BALANCERS.map(|balancer| (balancer, "balancer.internal".to_owned())).to_vec();
    let options = Options { names, ..Options::default() };
    each_closes_its_own(options, |_, port| format!("balancer.internal:{port}")).await;
}

/// Each agent in turn may close; `host` is what the server shows of a balancer's session.
async fn each_closes_its_own(options: Options, host: impl Fn(Ipv4Addr, u16) -> String) {
    let options = Options { engine: Engine::Mariadb, replicas: 0, ..options };
    let standin = Arc::new(StandIn::start(options).await.unwrap());
    let port = free_port_on(&BALANCERS.map(Into::into)).unwrap();
    let setting = |balancer: Ipv4Addr, mode: &str| Setting {
        server_words: format!("source {balancer}:{port}"),
        // That one port is for the client.
        agent_inter: Duration::from_hours(1),
        sessions: format!("{{mode: {mode}, max_age: 5s}}"),
        ..Setting::default()
    };
    let mut scenes = Vec::new();
    let mut clients = VecDeque::new();
    for balancer in BALANCERS {
        let scene = Scene::around(Arc::clone(&standin), setting(balancer, "observe")).await.unwrap();
        clients.push_back(Login::through(&scene).open(&scene).await);
        scenes.push(scene);
    }
    let shown = "SELECT HOST FROM information_schema.PROCESSLIST WHERE USER = 'app' ORDER BY ID";
    let shown = standin.execute_sql("a", shown).await.unwrap();
    assert_eq!(shown, BALANCERS.map(|balancer| vec![Some(host(balancer, port))]));

    for (scene, client) in scenes.iter().zip(&clients) {
        wait_for("all five to be seen, and its own to be known", PATIENCE, async || {
            let rows = sessions(scene).await;
            let apps = rows.iter().filter(|row| row.user == "app").count();
            let own: Vec<u64> = rows.iter().filter(|row| row.join == "joined").map(|row| row.pid).collect();
            if apps == 5 && own == [client.pid] { Ok(()) } else { Err(format!("{rows:?}")) }
        })
        .await
        .unwrap();
    }
    for (scene, balancer) in scenes.iter().zip(BALANCERS) {
        let config = scene.agent.config_for(&standin, &scene.proxy, &setting(balancer, "retire"));
        scene.agent.write_config(&config).unwrap();
        let own = clients.pop_front().unwrap();
        let pid = own.pid;
        assert_eq!(own.closed().await.as_deref(), retired(Engine::Mariadb));
        for others in &clients {
            held(scene, others, "not_joined", 1.0).await;
        }
        // Its client may know before the agent has said so.
        let closed = wait_for("the close to be logged", PATIENCE, async || {
            let closed = closed_by(scene);
            if closed.is_empty() { Err("none yet") } else { Ok(closed) }
        });
        assert_eq!(closed.await.unwrap(), [pid]);
        assert!(clients.iter().all(Client::is_open));
    }
    for scene in scenes {
        assert_eq!(closed_by(&scene).len(), 1, "{}", scene.agent.log());
        scene.clear().await.unwrap();
    }
    Arc::into_inner(standin).unwrap().shutdown().await.unwrap();
}

/// The sessions that an agent says it has closed.
fn closed_by(scene: &Scene) -> Vec<u64> {
    let events = scene.agent.events();
    let closed = events.iter().filter(|event| event["message"] == "session retired");
    closed.map(|event| event["pid"].as_u64().unwrap()).collect()
}
