//! The journal of failed sessions, once a second: sessions that ended with their server, and failures that were counted.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::shared::Shared;

const ROUND: Duration = Duration::from_secs(1);

/// For ever.
pub async fn run(shared: Shared) {
    let mut rounds = interval(ROUND);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        let fleet = shared.snapshot.borrow().fleet.clone();
        shared.hand_offs.round(shared.clock.now(), &fleet, &shared.metrics);
    }
}
