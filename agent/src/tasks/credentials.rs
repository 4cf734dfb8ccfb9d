//! Whether a client could get credentials now.
//!
//! A retired session logs in again only if its client can still sign. The agent
//! sees the same AWS: while that is away, nobody is sent to it. Asked only while
//! something is due, so an idle agent costs AWS nothing.

use std::time::Duration;

use agent_aws::CredentialChain;

use super::{Input, Shared};

/// How often it is looked at.
const INTERVAL: Duration = Duration::from_secs(3);

/// Looks for ever.
pub async fn run(chain: CredentialChain, shared: Shared) {
    let mut well = true;
    loop {
        if shared.snapshot.borrow().watch.due || !well {
            well = chain.verify().await.is_ok();
            shared.tell(Input::Credentials(well)).await;
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
