//! A drain, a maintenance or a weight that an operator sets by hand stays as it is, whatever happens
//! to the agent.
//!
//! `RDS_LB_ROUNDS` says how many random rounds are played (40 in `make test`, 200 in
//! `make test-long`), `RDS_LB_SEED` which.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

#[path = "support/watch.rs"]
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use fastrand::Rng;
use integration_tests::{
    load::{Load, Work},
    process::{Signal, wait_for},
    scene::{PATIENCE, Scene, Setting},
    standin::Options,
};
use watch::FDRAIN;

const FMAINT: u8 = 1;

/// Not `orders_read/b`: that is left to the agent to drain.
const SERVERS: [&str; 5] =
    ["orders_write/a", "orders_write/b", "orders_read/a", "orders_read/c", "orders_read/d"];

/// What an operator has set of a server: administrative bits, weight.
type Wish = (u8, u32);

/// All servers, as HAProxy has them.
async fn servers(scene: &Scene) -> BTreeMap<String, Wish> {
    let table = scene.proxy.cli("show servers state").await.unwrap();
    let rows = table.lines().map(|row| row.split(' ').collect::<Vec<_>>());
    let wish = |row: &[&str]| Some((row.get(6)?.parse().ok()?, row.get(7)?.parse().ok()?));
    rows.filter_map(|row| Some((format!("{}/{}", row.get(1)?, row.get(3)?), wish(&row)?))).collect()
}

/// The servers that the agent has on record: it holds a drain there, or is about to.
fn on_record(scene: &Scene) -> BTreeSet<String> {
    let text = std::fs::read_to_string(scene.agent.state_dir().join("drains.json")).unwrap_or_default();
    let records: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap_or_default();
    let word = |record: &serde_json::Value, key: &str| record[key].as_str().unwrap_or_default().to_owned();
    records.iter().map(|record| format!("{}/{}", word(record, "backend"), word(record, "server"))).collect()
}

struct Game {
    scene: Scene,
    random: Rng,
    /// What operators have set.
    wishes: BTreeMap<String, Wish>,
    config: String,
    runs: bool,
    frozen: bool,
    refused: bool,
    counts: BTreeMap<&'static str, u32>,
}

impl Game {
    /// An operator changes a server on which the agent holds no drain.
    async fn operator(&mut self) {
        let server = SERVERS[self.random.usize(..SERVERS.len())];
        if on_record(&self.scene).contains(server) {
            return;
        }
        let weight = self.wishes.get(server).map_or(1, |wish| wish.1);
        let bits = self.wishes.get(server).map_or(0, |wish| wish.0);
        let (words, wish) = match self.random.u8(..5) {
            0 => ("state drain".to_owned(), (FDRAIN, weight)),
            1 => ("state maint".to_owned(), (FMAINT, weight)),
            2 => ("state ready".to_owned(), (0, weight)),
            _ => {
                let weight = self.random.u32(1..200);
                (format!("weight {weight}"), (bits, weight))
            }
        };
        let said = self.scene.proxy.cli(&format!("set server {server} {words}")).await.unwrap();
        assert_eq!(said.trim(), "", "{server} {words}");
        if on_record(&self.scene).contains(server) {
            // The agent was first. Then the drain is not the operator's alone: begin again.
            self.note("met the agent");
            self.scene.proxy.cli(&format!("set server {server} state ready")).await.unwrap();
            self.wishes.remove(server);
            let gone =
                async || if on_record(&self.scene).contains(server) { Err("on record") } else { Ok(()) };
            if self.runs {
                wait_for("the agent to let go", PATIENCE, gone).await.unwrap();
            }
            return;
        }
        self.wishes.insert(server.to_owned(), wish);
        self.note("operator");
    }

    fn note(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    async fn control(&mut self, words: &[&str]) {
        let control = self.scene.agent.control();
        let arguments = [words, &["--control", control.to_str().unwrap()]].concat();
        // What it may not drain, it refuses.
        self.scene.agent.command(&arguments).await.unwrap();
    }

    /// Something happens to the agent, or to what it looks at.
    async fn event(&mut self) {
        if !self.runs {
            self.note("start");
            self.scene.agent.start().await.unwrap();
            self.runs = true;
            return;
        }
        match self.random.u8(..12) {
            0 | 1 => {
                self.note("kill -9");
                self.scene.agent.kill();
                self.runs = false;
            }
            2 => {
                self.note("SIGTERM");
                self.scene.agent.stop().await.unwrap();
                self.runs = false;
            }
            3 | 4 => {
                self.note("another configuration");
                let mode = ["drain", "observe", "retire"][self.random.usize(..3)];
                let deadline = ["1s", "2s", "10m"][self.random.usize(..3)];
                let sessions = format!("sessions: {{mode: {mode}, max_age: 5s, drain_deadline: {deadline}}}");
                let lines = self.config.lines().map(|line| {
                    if line.starts_with("sessions:") { sessions.clone() } else { line.to_owned() }
                });
                let config: Vec<String> = lines.collect();
                self.scene.agent.write_config(&(config.join("\n") + "\n")).unwrap();
                self.scene.agent.signal(Signal::HUP).unwrap();
            }
            5 | 6 => {
                self.note("drain command");
                let server = ["orders_read/b", "orders_read/c", "orders_read/d"][self.random.usize(..3)];
                self.control(&["drain", server]).await;
            }
            7 => {
                self.note("undrain command");
                self.control(&["undrain", "--own"]).await;
            }
            8 | 9 => {
                self.note("refused logins, or not");
                self.refused = !self.refused;
                if self.refused {
                    self.scene.standin.refuse_tokens(Some("b"), Some("lb_agent")).unwrap();
                } else {
                    self.scene.standin.accept_tokens();
                }
            }
            10 => {
                self.note("frozen replica, or not");
                self.frozen = !self.frozen;
                if self.frozen {
                    self.scene.standin.freeze("c").await.unwrap();
                } else {
                    self.scene.standin.thaw("c").await.unwrap();
                }
            }
            _ => self.note("nothing"),
        }
    }

    async fn compare(&self, round: u64) {
        let now = servers(&self.scene).await;
        for (server, wish) in &self.wishes {
            let recorded = on_record(&self.scene).contains(server);
            // Where the operator took everything back, the agent may drain.
            let agents = recorded && wish.0 == 0 && now[server] == (FDRAIN, wish.1);
            assert!(
                now[server] == *wish || agents,
                "round {round}: {server} is {:?}, an operator made it {wish:?}\n{}",
                now[server],
                self.scene.agent.log()
            );
        }
    }
}

mod long {
    use integration_tests::length::number;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_an_operator_sets_survives_everything() {
        super::play(number("RDS_LB_ROUNDS", 40, 200), number("RDS_LB_SEED", 1, 1)).await;
    }
}

async fn play(rounds: u64, seed: u64) {
    let setting = Setting {
        standin: Options { replicas: 3, ..Options::default() },
        agent_inter: Duration::from_millis(100),
        sessions: "{mode: drain, max_age: 5s, drain_deadline: 1s}".into(),
        database: "    probe_interval: 1s\n".into(),
        ..Setting::default()
    };
    let scene = Scene::set(setting).await.unwrap();
    scene.up("orders_read", &["b", "c", "d"]).await.unwrap();
    let load = Load::new(scene.writer("app").unwrap(), 1).await.unwrap();
    load.add_to(&scene.readers("app").unwrap(), Work::Idle, 9);
    load.all_in(PATIENCE).await.unwrap();
    let watch = watch::Watch::begin(scene.proxy.admin_socket());

    let config = std::fs::read_to_string(scene.agent.config_file()).unwrap();
    let (runs, frozen, refused) = (true, false, false);
    let random = Rng::with_seed(seed);
    let (wishes, counts) = (BTreeMap::new(), BTreeMap::new());
    let mut game = Game { scene, random, wishes, config, runs, frozen, refused, counts };
    let began = Instant::now();
    for round in 0..rounds {
        if game.random.bool() {
            game.operator().await;
        }
        game.event().await;
        // Some checks go by: how many is part of the game.
        let checks = Duration::from_millis(game.random.u64(..500));
        tokio::time::sleep(checks).await;
        game.compare(round).await;
    }
    println!("{rounds} rounds of seed {seed} in {:.0} s: {:?}", began.elapsed().as_secs_f64(), game.counts);

    if !game.runs {
        game.scene.agent.start().await.unwrap();
    }
    // Drains by the command outlive the agent.
    for server in ["orders_read/b", "orders_read/c", "orders_read/d"] {
        game.control(&["undrain", server]).await;
    }
    game.scene.agent.stop().await.unwrap();
    let now = servers(&game.scene).await;
    for (server, is) in now {
        assert_eq!(is, game.wishes.get(&server).copied().unwrap_or((0, 1)), "{server} after the agent's end");
    }
    let agents = watch.stop().await.drains("orders_read/b");
    println!("drains of orders_read/b, all of them the agent's: {agents}");
    assert!(agents > 0, "the agent has to drain something, or nothing was tried");

    game.scene.standin.accept_tokens();
    if game.frozen {
        game.scene.standin.thaw("c").await.unwrap();
    }
    load.stop().await.unwrap();
    drop(load);
    game.scene.clear().await.unwrap();
}
