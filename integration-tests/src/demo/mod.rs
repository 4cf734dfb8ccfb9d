//! The demo: the main job on real servers, live, in about a minute.
//!
//! - [`picture`]: what is going on at one moment, asked from the agent and the clients.
//! - [`screen`]: a table that is redrawn in a terminal, or plain lines.
//! - [`summary`]: what it all came to, as text and as JSON.

mod picture;
mod screen;
mod summary;

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, interval, sleep};

use crate::{
    load::{Load, Think, Work},
    process::wait_for,
    scene::{Agent, PATIENCE, Proxy, Scene, Setting},
    standin::{Engine, Options, StandIn},
};
use picture::Picture;
use screen::Screen;
pub use summary::Summary;

/// How old a session may get in the demo.
const MAX_AGE: Duration = Duration::from_secs(15);

/// The limits of sessions differ by this share of it, both ways.
const JITTER: f64 = 0.10;

pub const LENGTH: Duration = Duration::from_secs(60);

/// How long the holder keeps its transaction open: well past the limit.
const HELD: Duration = Duration::from_secs(35);

/// Closes and logins of the agent on one instance in any second.
const BUDGET: u32 = 5;

/// A demo that failed.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// Everything that the demo has started. Dropping it stops and removes all of it.
pub struct Demo<P> {
    // Before the scene, whose servers its clients use.
    load: Load,
    scene: Scene<P>,
    screen: Screen,
}

impl<P: Proxy> Demo<P> {
    /// Starts everything, the clients last.
    pub async fn begin(engine: Engine) -> Result<Self, Error> {
        let mut screen = Screen::new();
        let kind = match engine {
            Engine::Postgresql => "PostgreSQL",
            Engine::Mariadb => "MariaDB",
        };
        screen.say(&format!(
            "starting a {kind} writer and two replicas that take only genuine IAM tokens, {}, and the agent",
            P::NAME
        ));
        let setting = Setting {
            standin: Options { engine, replicas: 2, ..Options::default() },
            sessions: format!("{{mode: retire, max_age: {}s, login_budget: {BUDGET}}}", MAX_AGE.as_secs()),
            ..Setting::default()
        };
        let scene = Scene::<P>::with(setting).await?;
        screen.say(&format!(
            "{0} routes by what the agent has proved; clients log in with tokens, through {0}",
            P::NAME
        ));
        let load = clients(&scene).await?;
        Ok(Self { load, scene, screen })
    }

    /// Lets the clients work for so long, and shows it.
    pub async fn run(&mut self, length: Duration) -> Result<Summary, Error> {
        let Self { load, scene, screen } = self;
        let end = Instant::now() + length;
        let mut beat = interval(Duration::from_millis(500));
        let mut seen = summary::Seen::default();
        while Instant::now() < end {
            beat.tick().await;
            let picture = Picture::take(scene, load).await;
            seen.look(&picture);
            screen.show(&picture, end.saturating_duration_since(Instant::now()));
        }
        let report = load.stop().await?;
        let verified = load.verify(&scene.writer("app")?).await?;
        let summary = Summary::of(scene, &report, &verified, seen);
        screen.end();
        screen.say(&summary.to_string());
        Ok(summary)
    }

    /// How to use what runs: each line can be pasted into another terminal as it is.
    pub fn instructions(&self) -> Result<String, Error> {
        let Self { scene, .. } = self;
        let standin: &Arc<StandIn> = &scene.standin;
        let known = standin.summary()?;
        // What finds the credentials goes with the command that needs them.
        let environment: Vec<String> =
            standin.environment().iter().map(|(name, value)| format!("{name}='{value}'")).collect();
        let endpoint = standin.cluster_endpoint();
        let agent = Agent::binary();
        let token = format!(
            "env {} '{}' token --endpoint {endpoint}:{} --user app --region {}",
            environment.join(" "),
            agent.display(),
            known.port,
            known.region
        );
        let client = known.command_line(endpoint, scene.proxy.dial("write"), "app", &token);
        Ok(format!(
            "everything stays up until Ctrl-C\n\n# a session through {}\n{client}\n\n# what the agent knows\n\
             '{}' sessions --control '{}'\ncurl -s http://{}/state",
            P::NAME,
            agent.display(),
            scene.agent.control().display(),
            scene.agent.http(),
        ))
    }

    /// Stops and removes everything.
    pub async fn end(self) -> Result<(), Error> {
        let Self { load, scene, .. } = self;
        drop(load);
        Ok(scene.clear().await?)
    }
}

/// The limit of the oldest a session may get before it is past it for sure.
fn limit() -> Duration {
    MAX_AGE.mul_f64(1.0 + JITTER)
}

/// Clients of every kind. They come little by little: their logins are no flood.
async fn clients<P: Proxy>(scene: &Scene<P>) -> Result<Load, Error> {
    let writer = scene.writer("app")?;
    let readers = scene.readers("app2")?;
    let load = Load::new(writer, 7).await?;
    on_replicas(&scene.standin).await?;
    load.add(Work::Hold { open_for: HELD }, 1);
    for _ in 0..4 {
        load.add(Work::Transactions { think: Think::Mixed, retry_begin: false }, 3);
        load.add(Work::Autocommit { think: Think::Mixed }, 1);
        load.add_to(&readers, Work::Reads { think: Think::Mixed }, 2);
        sleep(Duration::from_millis(600)).await;
    }
    load.add(Work::Transactions { think: Think::Busy, retry_begin: false }, 2);
    load.add(locked(scene.standin.engine()), 1);
    load.all_in(PATIENCE).await?;
    Ok(load)
}

/// A session that is held for what it is: it has something that a new one would not have.
fn locked(engine: Engine) -> Work {
    match engine {
        Engine::Postgresql => Work::Listen,
        Engine::Mariadb => Work::AdvisoryLock,
    }
}

/// Waits until the tables that the load has made have come to the replicas.
async fn on_replicas(standin: &StandIn) -> Result<(), Error> {
    for server in standin.servers() {
        wait_for("the tables on the replicas", PATIENCE, async || {
            let made = match standin.engine() {
                Engine::Postgresql => "SELECT count(to_regclass('load_counters'))",
                Engine::Mariadb => {
                    "SELECT count(*) FROM information_schema.tables WHERE table_name = 'load_counters'"
                }
            };
            match standin.value(server.name(), made).await {
                Ok(count) if count == "1" => Ok(()),
                Ok(count) => Err(count),
                Err(error) => Err(error.to_string()),
            }
        })
        .await?;
    }
    Ok(())
}
