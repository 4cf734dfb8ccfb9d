//! How soon a session goes that held a transaction open past its limit, once it has committed.
//!
//! The clients' own clocks: from the answer to COMMIT until the end of the session is read.

use std::time::Duration;

use serde_json::json;

use super::{Bar, Error, Measurement, Report};
use crate::{
    load::{Load, Work},
    process::wait_for,
    scene::{PATIENCE, Scene, Setting},
    standin::{Engine, Options},
};

/// Each with a transaction at a time.
const CLIENTS: usize = 8;

/// Longer than any session's limit, at a `max_age` of 5 s.
const HELD: Duration = Duration::from_secs(7);

const MOST_S: f64 = 2.0;

pub(super) async fn run(quick: bool, report: &mut Report) -> Result<(), Error> {
    let enough = if quick { CLIENTS } else { CLIENTS * 5 };
    for (name, engine) in
        [("commit_to_close", Engine::Postgresql), ("commit_to_close_mariadb", Engine::Mariadb)]
    {
        let mut took = measure(engine, enough).await?;
        took.sort_by(f64::total_cmp);
        let at = |index: usize| took.get(index).copied().unwrap_or_default();
        let (median, most) = (at(took.len() / 2), at(took.len().saturating_sub(1)));
        let measurement = Measurement::new(name, most, "s")
            .bar(Bar::default().at_most("seconds after a COMMIT", most, MOST_S))
            .details(&json!({"sessions": took.len(), "p50_s": median, "max_s": most}))
            .note(format!("the longest of {} sessions, p50 {median:.2} s", took.len()));
        report.tell(&measurement)?;
    }
    Ok(())
}

/// The seconds that so many sessions lived on after their COMMIT.
async fn measure(engine: Engine, enough: usize) -> Result<Vec<f64>, Error> {
    let scene = Scene::set(Setting {
        standin: Options { engine, replicas: 0, ..Options::default() },
        // A budget that none of them has to wait for.
        sessions: "{mode: retire, max_age: 5s, login_budget: 20}".into(),
        ..Setting::default()
    })
    .await?;
    let load = Load::new(scene.writer("app")?, 1).await?;
    load.add(Work::Hold { open_for: HELD }, CLIENTS);
    let lived = || -> Vec<f64> {
        let sessions = load.report().steady;
        sessions.iter().filter_map(|session| Some(session.closed_s? - session.committed_s?)).collect()
    };
    let closed = wait_for("sessions to go", PATIENCE * 3, async || match lived() {
        took if took.len() >= enough => Ok(took),
        few => Err(format!("{} of {enough}", few.len())),
    });
    let took = closed.await?;
    load.stop().await?;
    let broken = load.report().broken_inside + load.report().broken_at_commit;
    drop(load);
    scene.clear().await?;
    if broken > 0 {
        return Err(Error::Unexpected(format!("{broken} transactions were cut")));
    }
    Ok(took)
}
