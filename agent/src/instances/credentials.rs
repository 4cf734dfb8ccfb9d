//! Whether clients can get AWS credentials.
//!
//! The client of a retired session can only log in again if it can sign a token. The agent depends on
//! the same AWS services: while it gets no credentials, no session is closed. Credentials are requested
//! only while a session may have to be closed, so an idle agent makes no requests to AWS.

use std::{pin::pin, time::Duration};

use agent_aws::CredentialChain;
use tokio::time::timeout;

use crate::{messages::Input, shared::Shared};

/// The interval for providers on this host (IMDS, ECS), which expect frequent requests.
const LOCAL: Duration = Duration::from_secs(2);

/// The interval for other providers: each request is a call of STS or SSO, whose rate limit the whole
/// account shares, or starts a process. Also after a failure: more requests would keep an exhausted
/// rate limit exhausted.
const REMOTE: Duration = Duration::from_secs(30);

/// A request that takes longer counts as a failure until it is answered.
const SLOW: Duration = Duration::from_secs(1);

pub async fn run(chain: CredentialChain, shared: Shared) {
    let mut snapshot = shared.snapshot.clone();
    let mut well = true;
    loop {
        // The first session to be closed finds a result no older than the interval.
        if well && snapshot.wait_for(|now| now.watch.closing).await.is_err() {
            return std::future::pending().await;
        }
        let mut answer = pin!(chain.verify());
        let prompt = timeout(SLOW, &mut answer).await;
        if prompt.is_err() {
            shared.send(Input::Credentials(false)).await;
        }
        well = match prompt {
            Ok(answer) => answer.is_ok(),
            Err(_) => answer.await.is_ok(),
        };
        shared.send(Input::Credentials(well)).await;
        tokio::time::sleep(interval(chain.status().provider.as_deref())).await;
    }
}

/// `provider` is a name that the AWS SDK gives.
fn interval(provider: Option<&str>) -> Duration {
    match provider {
        Some("IMDSv2" | "EcsContainer") => LOCAL,
        _ => REMOTE,
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

    /// Requests to a provider in two minutes without sessions to close, in two with some, and in two
    /// without again.
    async fn calls(provider: &'static str) -> [u32; 3] {
        let calls = Arc::new(AtomicU32::new(0));
        let chain =
            CredentialChain::from_provider(Provider(provider, calls.clone()), ChainOptions::default());
        let clock = Clock::start();
        let (decider, mut inputs) = mpsc::channel(1_024);
        let (publish, snapshot) = watch::channel(Arc::new(Snapshot::empty(clock.now())));
        let shared = Shared::new(clock, Arc::default(), &Policy::default(), snapshot, decider);
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
    async fn credentials_are_requested_only_while_sessions_may_be_closed_and_rarely_from_remote_providers() {
        for (provider, asked) in [("IMDSv2", 50..=60), ("EcsContainer", 50..=60), ("WebIdentityToken", 4..=5)]
        {
            let [before, meanwhile, after] = calls(provider).await;
            assert_eq!(before, 0, "{provider}");
            assert!(asked.contains(&meanwhile), "{provider}: {meanwhile}");
            assert!(after <= 1, "{provider}: {after}");
        }
    }
}
