//! Clients that insert single rows without a transaction of their own.
//!
//! Worst placed of all: a row whose INSERT was not acknowledged may be there or not, and a
//! client that tries again would write it twice. So they never do, and remember it.

use super::{Think, client::Client, tally::Phase};

pub(super) async fn run(mut client: Client, think: Think) {
    let mut number = 0_u64;
    while let Some(mut session) = client.log_in().await {
        loop {
            client.pause(think).await;
            if client.is_to_stop() {
                return session.close().await;
            }
            if let Some(ending) = session.is_closed().await {
                client.ended(Phase::LookBeforeInsert, &ending, &session);
                break;
            }
            number += 1;
            let insert =
                format!("INSERT INTO load_rows VALUES ({}, {}, {number})", client.shared.run, client.id);
            match session.execute(&insert).await {
                Ok(()) => client.shared.tally().inserted += 1,
                Err(ending) => {
                    client.shared.tally().unsure_rows.push((client.id, number));
                    client.ended(Phase::Insert, &ending, &session);
                    break;
                }
            }
        }
    }
}
