//! Whether a client could get credentials now.
//!
//! A retired session logs in again only if its client can still sign. The agent
//! sees the same AWS: while that is away, nobody is sent to it. Asked only while
//! something is due, so an idle agent costs AWS nothing.

use std::{pin::pin, time::Duration};

use agent_aws::CredentialChain;
use tokio::time::timeout;

use super::{Input, Shared};

/// How often it is looked at.
const INTERVAL: Duration = Duration::from_secs(2);

/// An answer that takes longer is none so far: nobody is sent there meanwhile.
const SLOW: Duration = Duration::from_secs(1);

/// Looks for ever.
pub async fn run(chain: CredentialChain, shared: Shared) {
    let mut well = true;
    loop {
        if shared.snapshot.borrow().watch.due || !well {
            let mut answer = pin!(chain.verify());
            let prompt = timeout(SLOW, &mut answer).await;
            if prompt.is_err() {
                shared.tell(Input::Credentials(false)).await;
            }
            well = match prompt {
                Ok(answer) => answer.is_ok(),
                Err(_) => answer.await.is_ok(),
            };
            shared.tell(Input::Credentials(well)).await;
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
