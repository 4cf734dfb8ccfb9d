//! Clients that run transactions: the ones that a retirement must not break.

use std::time::{Duration, Instant};

use super::{Ending, Think, client::Client, session::Session, statements, tally::Phase};

/// How such a client works.
#[derive(Clone, Copy)]
pub(super) struct Habits {
    pub think: Think,
    pub retry_begin: bool,
    pub writes: bool,
}

pub(super) async fn run(mut client: Client, habits: Habits) {
    let mut begun = false;
    while let Some(mut session) = client.log_in().await {
        if habits.writes && !begun {
            // Its row has to be there before the first transaction. A session that ends here was
            // neither in one nor looked at before one: it tells nothing of how well it was closed.
            let own_row = statements::own_row(session.engine(), client.shared.run, client.id);
            if let Err(ending) = session.execute(&own_row).await {
                client.ended(Phase::Preparation, &ending, &session);
                continue;
            }
            begun = true;
        }
        loop {
            client.pause(habits.think).await;
            if client.is_to_stop() {
                return session.close().await;
            }
            if let Some(ending) = session.is_closed().await {
                client.ended(Phase::Look, &ending, &session);
                break;
            }
            match transaction(&mut client, &mut session, habits).await {
                Ok(waited) => {
                    let writer = habits.writes.then_some(client.id);
                    client.shared.tally().committed(writer, waited);
                }
                Err((phase, ending)) => {
                    client.ended(phase, &ending, &session);
                    break;
                }
            }
        }
    }
}

/// One transaction; how long its statements took.
async fn transaction(
    client: &mut Client,
    session: &mut Session,
    habits: Habits,
) -> Result<Duration, (Phase, Ending)> {
    let mine = format!("run = {} AND client = {}", client.shared.run, client.id);
    let select = format!("SELECT done FROM load_counters WHERE {mine}");
    let update = format!("UPDATE load_counters SET done = done + 1 WHERE {mine}");
    let work = if habits.writes { &update } else { &select };
    let inside = |ending| (Phase::Inside, ending);

    let began = Instant::now();
    begin(client, session, habits).await.map_err(|ending| (Phase::Begin, ending))?;
    session.execute(work).await.map_err(inside)?;
    let before_the_pause = began.elapsed();
    client.pause(habits.think).await;
    let resumed = Instant::now();
    session.execute(&select).await.map_err(inside)?;
    session.execute("COMMIT").await.map_err(|ending| (Phase::Commit, ending))?;
    Ok(before_the_pause + resumed.elapsed())
}

async fn begin(client: &mut Client, session: &mut Session, habits: Habits) -> Result<(), Ending> {
    let begin = statements::begin(session.engine(), habits.writes);
    let failed = match session.execute(begin).await {
        Err(ending) if habits.retry_begin && ending.is_retirement() => ending,
        done => return done,
    };
    // To the end even when the load is to stop: a retry that was given up proves nothing.
    let mut another = client.log_in_at_last().await;
    another.execute(begin).await?;
    client.ended(Phase::RetriedBegin, &failed, session);
    *session = another;
    Ok(())
}
