//! Clients whose session only has to be there: idle ones, listeners, holders.
//!
//! Each session is reported on its own, since what counts is which of them was closed, and
//! when. A client whose session was closed logs in again, as a pool fills itself up.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::{Ending, SteadySession, Work, client::Client, session::Session, statements, tally::Phase};

pub(super) async fn run(mut client: Client, work: Work) {
    while let Some(mut session) = client.log_in().await {
        let entry = enter(&client, work, &session);
        let Err((phase, ending)) = live(&client, work, &mut session, entry).await else {
            return session.close().await;
        };
        client.ended(phase, &ending, &session);
        let closed = client.seconds(Instant::now());
        let mut tally = client.shared.tally();
        if let Some(entry) = tally.steady.get_mut(entry) {
            entry.closed_s = Some(closed);
            entry.ending = Some(ending);
            entry.in_transaction = phase != Phase::Steady;
        }
    }
}

/// Its place in the list of sessions.
fn enter(client: &Client, work: Work, session: &Session) -> usize {
    let opened_s = client.seconds(session.opened());
    let mut tally = client.shared.tally();
    tally.steady.push(SteadySession {
        work: work.word(),
        client: client.id,
        backend: session.backend(),
        opened_s,
        committed_s: None,
        closed_s: None,
        ending: None,
        in_transaction: false,
    });
    tally.steady.len() - 1
}

/// Until the load is to stop. An end of the session by anything else is the error.
async fn live(
    client: &Client,
    work: Work,
    session: &mut Session,
    entry: usize,
) -> Result<(), (Phase, Ending)> {
    match work {
        Work::Hold { open_for } => hold(client, session, open_for, entry).await?,
        Work::Listen => session.execute("LISTEN load").await.map_err(steady)?,
        Work::AdvisoryLock => {
            let lock = statements::user_lock(session.engine(), client.id);
            session.execute(&lock).await.map_err(steady)?;
        }
        _ => session.execute("SELECT 1").await.map_err(steady)?,
    }
    match client.shared.stop.run_until_cancelled(session.closed()).await {
        Some(ending) => Err(steady(ending)),
        None => Ok(()),
    }
}

fn steady(ending: Ending) -> (Phase, Ending) {
    (Phase::Steady, ending)
}

async fn hold(
    client: &Client,
    session: &mut Session,
    open_for: Duration,
    entry: usize,
) -> Result<(), (Phase, Ending)> {
    let (run, id) = (client.shared.run, client.id);
    let inside = |ending| (Phase::Inside, ending);
    let own_row = statements::own_row(session.engine(), run, id);
    session.execute(&own_row).await.map_err(steady)?;

    let began = Instant::now();
    session.execute("BEGIN").await.map_err(|ending| (Phase::Begin, ending))?;
    let update = format!("UPDATE load_counters SET done = done + 1 WHERE run = {run} AND client = {id}");
    session.execute(&update).await.map_err(inside)?;
    let waited = began.elapsed();
    tokio::select! {
        () = sleep(open_for) => {}
        () = client.shared.stop.cancelled() => {}
        ending = session.closed() => return Err(inside(ending)),
    }
    let resumed = Instant::now();
    session.execute("COMMIT").await.map_err(|ending| (Phase::Commit, ending))?;
    let committed = client.seconds(Instant::now());
    let mut tally = client.shared.tally();
    tally.committed(Some(id), waited + resumed.elapsed());
    if let Some(entry) = tally.steady.get_mut(entry) {
        entry.committed_s = Some(committed);
    }
    Ok(())
}
