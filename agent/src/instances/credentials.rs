//! Whether a client could get credentials now.
//!
//! A retired session logs in again only if its client can still sign. The agent
//! sees the same AWS: while that is away, nobody is sent to it. Asked only while a
//! session may have to be closed, so an idle agent costs AWS nothing.

use std::{pin::pin, time::Duration};

use agent_aws::CredentialChain;
use tokio::time::timeout;

use crate::{messages::Input, shared::Shared};

/// Between two questions to an endpoint on this host, which is made for being asked often.
const NEAR: Duration = Duration::from_secs(2);

/// Between two questions to anybody else: each is a call of STS or SSO, where a whole account
/// shares one limit, or a process. One who fails is not asked more often either: a limit that
/// is used up would stay so.
const FAR: Duration = Duration::from_secs(30);

/// An answer that takes longer is none so far: nobody is sent there meanwhile.
const SLOW: Duration = Duration::from_secs(1);

/// Looks for ever.
pub async fn run(chain: CredentialChain, shared: Shared) {
    let mut snapshot = shared.snapshot.clone();
    let mut well = true;
    loop {
        // The first one to be closed finds an answer that is no older than the interval.
        if well && snapshot.wait_for(|now| now.watch.closing).await.is_err() {
            return std::future::pending().await;
        }
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
        tokio::time::sleep(interval(chain.status().provider.as_deref())).await;
    }
}

/// How far apart questions are. Names are the SDK's.
fn interval(provider: Option<&str>) -> Duration {
    match provider {
        Some("IMDSv2" | "EcsContainer") => NEAR,
        _ => FAR,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicU32, Ordering},
        },
        time::SystemTime,
    };

    use agent_aws::ChainOptions;
    use agent_core::plan::Policy;
    use aws_credential_types::{
        Credentials,
        provider::{ProvideCredentials, future},
    };
    use tokio::{
        sync::{mpsc, watch},
        time::advance,
    };

    use super::*;
    use crate::{
        clock::Clock,
        shared::{Errands, SharedBudget},
        snapshot::{Snapshot, Watch},
    };

    /// Temporary credentials under a provider's name, and how often they were asked for.
    #[derive(Debug)]
    struct Provider(&'static str, Arc<AtomicU32>);

    impl ProvideCredentials for Provider {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            self.1.fetch_add(1, Ordering::Relaxed);
            let expiry = SystemTime::now() + Duration::from_secs(3_600);
            future::ProvideCredentials::ready(Ok(Credentials::new("id", "key", None, Some(expiry), self.0)))
        }
    }

    /// Calls of a provider in two minutes without anything to close, in two with it, and
    /// in two without it again.
    async fn calls(provider: &'static str) -> [u32; 3] {
        let calls = Arc::new(AtomicU32::new(0));
        let chain =
            CredentialChain::from_provider(Provider(provider, calls.clone()), ChainOptions::default());
        let clock = Clock::start();
        let (decider, mut inputs) = mpsc::channel(1_024);
        let (publish, snapshot) = watch::channel(Arc::new(Snapshot::empty(clock.now())));
        let shared = Shared {
            clock,
            metrics: Arc::default(),
            budget: SharedBudget::new(&Policy::default()),
            snapshot,
            decider,
            probe_now: Arc::default(),
            errands: Errands::default(),
        };
        let task = tokio::spawn(run(chain, shared));
        let mut counts = [0; 3];
        for (count, closing) in counts.iter_mut().zip([false, true, false]) {
            publish.send_modify(|now| Arc::make_mut(now).watch = Watch { closing, ..Watch::default() });
            for _ in 0..1_200 {
                advance(Duration::from_millis(100)).await;
                tokio::task::yield_now().await;
            }
            *count = calls.swap(0, Ordering::Relaxed);
        }
        task.abort();
        while let Ok(input) = inputs.try_recv() {
            assert!(matches!(input, Input::Credentials(true)), "{input:?}");
        }
        counts
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_asked_while_nothing_may_be_closed_and_others_than_this_host_rarely() {
        for (provider, asked) in [("IMDSv2", 50..=60), ("EcsContainer", 50..=60), ("WebIdentityToken", 4..=5)]
        {
            let [before, meanwhile, after] = calls(provider).await;
            assert_eq!(before, 0, "{provider}");
            assert!(asked.contains(&meanwhile), "{provider}: {meanwhile}");
            assert!(after <= 1, "{provider}: {after}");
        }
    }
}
