//! A source over providers of every temper, on a clock that tokio drives.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a test")]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

use agent_aws::{
    ChainOptions, CredentialChain, CredentialsError, Proof, Region, Target, TokenError, TokenSource,
    WallClock,
};
use aws_credential_types::{
    Credentials,
    provider::{self, ProvideCredentials, error::CredentialsError as SdkError, future},
};
use tokio::time::{Instant, advance, sleep, timeout};

/// What the provider does when asked.
#[derive(Clone, Copy, Debug)]
enum Temper {
    /// Gives the credentials of now.
    Gives,
    Fails,
    Hangs,
    /// Gives what has expired.
    Stale,
}

/// Credentials that live `life`, and are replaced `overlap` before their end.
#[derive(Clone, Debug)]
struct Provider(Arc<World>);

#[derive(Debug)]
struct World {
    clock: WallClock,
    start: SystemTime,
    life: Duration,
    overlap: Duration,
    temper: Mutex<Temper>,
    takes: Duration,
    /// When it was asked.
    asks: Mutex<Vec<Instant>>,
    /// Changes the keys without changing their end.
    edition: AtomicU32,
}

impl Provider {
    fn new(life: u64, overlap: u64) -> Self {
        Self::slow(life, overlap, Duration::from_millis(20))
    }

    fn slow(life: u64, overlap: u64, takes: Duration) -> Self {
        let (start, zero) = (SystemTime::now(), Instant::now());
        Self(Arc::new(World {
            clock: WallClock::from_fn(move || start + zero.elapsed()),
            start,
            life: Duration::from_secs(life),
            overlap: Duration::from_secs(overlap),
            temper: Mutex::new(Temper::Gives),
            takes,
            asks: Mutex::default(),
            edition: AtomicU32::new(0),
        }))
    }

    fn now(&self) -> SystemTime {
        self.0.clock.now()
    }

    fn set(&self, temper: Temper) {
        *self.0.temper.lock().expect("lock") = temper;
    }

    fn asks(&self) -> Vec<Instant> {
        self.0.asks.lock().expect("lock").clone()
    }

    fn asked(&self) -> usize {
        self.asks().len()
    }

    fn chain(&self) -> CredentialChain {
        let options = ChainOptions { clock: self.0.clock.clone(), ..ChainOptions::default() };
        CredentialChain::from_provider(self.clone(), options)
    }

    async fn answer(&self) -> provider::Result {
        self.0.asks.lock().expect("lock").push(Instant::now());
        sleep(self.0.takes).await;
        let temper = *self.0.temper.lock().expect("lock");
        match temper {
            Temper::Gives => Ok(self.credentials()),
            Temper::Fails => Err(SdkError::provider_error("503 Service Unavailable")),
            Temper::Hangs => std::future::pending().await,
            Temper::Stale => Ok(Credentials::new(
                "AKID",
                "secret",
                None,
                Some(self.now() - Duration::from_secs(7)),
                "stale",
            )),
        }
    }

    fn credentials(&self) -> Credentials {
        let period = self.0.life.saturating_sub(self.0.overlap).as_secs();
        let number = self.now().duration_since(self.0.start).expect("forward").as_secs() / period;
        let expiry = self.0.start + Duration::from_secs(number * period) + self.0.life;
        let key = format!("AKID{number}E{}", self.0.edition.load(Ordering::Relaxed));
        Credentials::new(key, "secret", Some("session".into()), Some(expiry), "made up")
    }
}

impl ProvideCredentials for Provider {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.answer())
    }
}

fn target(user: &str) -> Target {
    let region = Region::parse("eu-west-1").expect("region");
    Target::new("orders.abc123.eu-west-1.rds.amazonaws.com", 5432, user, region).expect("target")
}

/// Waits until `met`, by steps of made-up time, for at most `most`.
async fn until(what: &str, most: Duration, met: impl Fn() -> bool) {
    let wait = async {
        while !met() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(most, wait).await.unwrap_or_else(|_| panic!("{what} within {most:?}"));
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn ten_rotations_of_one_minute_credentials_never_return_a_token_close_to_its_expiry() {
    // As late as an endpoint may be: new credentials 15 s before the end of the old.
    let provider = Provider::new(60, 15);
    let source = TokenSource::start(provider.chain(), target("app"));
    let mut ends = Vec::new();
    for _ in 0..4500 {
        let token = source.token().await.expect("a token, always");
        let left = token.expires_at().duration_since(provider.now()).expect("alive");
        assert!(left > Duration::from_secs(9), "only {left:?} left");
        if ends.last() != Some(&token.expires_at()) {
            ends.push(token.expires_at());
        }
        sleep(Duration::from_millis(100)).await;
    }
    assert!(ends.len() >= 10, "{} credentials in 450 s", ends.len());
    assert!(ends.is_sorted());
    // Loaded again and again from 40 s on, but not in a hurry.
    assert!(provider.asked() < 100, "{} loads", provider.asked());
}

#[tokio::test(start_paused = true)]
async fn no_attempt_fails_when_new_credentials_are_available_in_time() {
    for life in [6, 60, 600, 3600] {
        let provider = Provider::new(life, life / 2);
        let source = TokenSource::start(provider.chain(), target("app"));
        source.token().await.expect("token");
        sleep(Duration::from_secs(life * 5)).await;
        let status = source.status();
        assert_eq!((status.failures, status.last_failure), (0, None), "credentials of {life} s");
        assert!(status.refreshes >= 5, "{} refreshes", status.refreshes);
        assert!(provider.asked() as u64 <= status.refreshes);
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_of_full_life_is_renewed_in_the_background_at_two_thirds() {
    let provider = Provider::new(36_000, 600);
    let source = TokenSource::start(provider.chain(), target("app"));
    let first = source.token().await.expect("token");
    assert_eq!(first.expires_at().duration_since(first.signed_at()).expect("life"), Duration::from_secs(900));
    sleep(Duration::from_secs(590)).await;
    assert!(source.candidate().is_none());
    until("a candidate", Duration::from_secs(15), || source.candidate().is_some()).await;
    assert!(Arc::ptr_eq(&source.token().await.expect("token"), &first), "the old one is served on");
    let second = source.candidate().expect("candidate");
    source.report(&second, Proof::Accepted);
    assert!(Arc::ptr_eq(&source.token().await.expect("token"), &second));
    let status = source.status();
    assert!(status.served.as_ref().is_some_and(|token| token.proved), "{status:?}");
    assert_eq!((status.refreshes, status.failures, status.refusals), (2, 0, 0));
    assert_eq!(provider.asked(), 1, "credentials of ten hours were loaded once");
}

#[tokio::test(start_paused = true)]
async fn a_hundred_callers_and_ten_sources_share_one_load() {
    let provider = Provider::slow(3600, 600, Duration::from_secs(2));
    let chain = provider.chain();
    let sources: Vec<_> =
        (0..10).map(|n| TokenSource::start(chain.clone(), target(&format!("user{n}")))).collect();
    let callers: Vec<_> = (0..100)
        .map(|n| {
            let source = sources[n % 10].clone();
            tokio::spawn(async move { source.token().await.map(|token| token.expose_secret().to_owned()) })
        })
        .collect();
    let mut secrets = std::collections::BTreeSet::new();
    for caller in callers {
        secrets.insert(caller.await.expect("caller").expect("token"));
    }
    assert_eq!(secrets.len(), 10, "one signing a source");
    assert_eq!(provider.asked(), 1);
    assert!(sources.iter().all(|source| source.status().refreshes == 1));
}

#[tokio::test(start_paused = true)]
async fn a_silent_endpoint_delays_no_caller_while_a_token_is_valid() {
    let provider = Provider::new(60, 30);
    let source = TokenSource::start(provider.chain(), target("app"));
    source.token().await.expect("the first");
    provider.set(Temper::Hangs);
    let start = Instant::now();
    let mut served = Duration::ZERO;
    loop {
        let asked = Instant::now();
        match source.token().await {
            Ok(token) => {
                assert_eq!(asked.elapsed(), Duration::ZERO, "a good token at once");
                assert!(token.expires_in(provider.now()) > Duration::from_secs(9));
                served = start.elapsed();
            }
            Err(error) => {
                assert!(
                    asked.elapsed() <= Duration::from_secs(6),
                    "an error in bounded time: {:?}",
                    asked.elapsed()
                );
                assert!(error.to_string().contains("did not come within 5.0 s"), "{error}");
                break;
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
    assert!((49.0..51.0).contains(&served.as_secs_f64()), "served for {served:?}");
    assert!(source.status().served.is_none());
    provider.set(Temper::Gives);
    until("recovery", Duration::from_secs(40), || source.status().served.is_some()).await;
}

#[tokio::test(start_paused = true)]
async fn a_failing_endpoint_leaves_the_old_token_until_30_seconds_before_its_end() {
    let provider = Provider::new(3600, 600);
    let source = TokenSource::start(provider.chain(), target("app"));
    let first = source.token().await.expect("the first");
    // Credentials of an hour would last; what is renewed now fails from 2700 s on.
    sleep(Duration::from_secs(2600)).await;
    provider.set(Temper::Fails);
    let mut last = first;
    let error = loop {
        match source.token().await {
            Ok(token) => last = token,
            Err(error) => break error,
        }
        sleep(Duration::from_millis(200)).await;
    };
    let left = last.expires_in(provider.now());
    assert!((29.0..=30.5).contains(&left.as_secs_f64()), "{left:?} left when it was given up");
    let end = last.expires_at().duration_since(provider.0.start).expect("later");
    assert_eq!(end, Duration::from_secs(3600), "the old credentials were signed with to their end");
    assert!(matches!(error, TokenError::Credentials { .. } | TokenError::NotRenewed { .. }), "{error}");
    let status = source.status();
    assert!(status.failures > 3 && status.failures_in_a_row > 3, "{status:?}");
    assert!(status.last_failure.expect("failure").message.contains("503 Service Unavailable"));
    // Errors come at once between the attempts, and the attempts are bounded.
    let (asked, start) = (provider.asked(), Instant::now());
    for _ in 0..1000 {
        assert!(source.token().await.is_err());
        advance(Duration::from_millis(10)).await;
    }
    assert!(provider.asked() - asked <= 5, "{} loads in {:?}", provider.asked() - asked, start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn credentials_renewed_only_at_their_expiry_leave_a_gap_and_no_late_login() {
    let provider = Provider::new(60, 0);
    let source = TokenSource::start(provider.chain(), target("app"));
    let mut without = 0;
    for _ in 0..3000 {
        match source.token().await {
            Ok(token) => {
                // A sixth of what was left of the minute when the credentials were first seen.
                assert!(token.expires_in(provider.now()) > Duration::from_secs(8), "{:?}", source.status());
            }
            Err(error) => {
                without += 1;
                assert!(error.to_string().contains("and the chain has no newer ones"), "{error}");
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
    // Ten seconds of each minute, and the wait for the next attempt.
    assert!((450..700).contains(&without), "{without} of 3000");
}

#[tokio::test(start_paused = true)]
async fn ten_sources_in_an_outage_load_at_most_once_a_second() {
    let provider = Provider::new(3600, 600);
    provider.set(Temper::Fails);
    let chain = provider.chain();
    let sources: Vec<_> =
        (0..10).map(|n| TokenSource::start(chain.clone(), target(&format!("user{n}")))).collect();
    sleep(MINUTE * 5).await;
    let asks = provider.asks();
    assert!(asks.len() > 20, "{} loads: every source goes on trying", asks.len());
    assert!(asks.windows(2).all(|pair| pair[1] - pair[0] >= Duration::from_secs(1)));
    provider.set(Temper::Gives);
    until("recovery", MINUTE, || sources.iter().all(|source| source.status().served.is_some())).await;
}

#[tokio::test(start_paused = true)]
async fn expired_credentials_are_an_error_and_never_used() {
    let provider = Provider::new(3600, 600);
    provider.set(Temper::Stale);
    let source = TokenSource::start(provider.chain(), target("app"));
    let error = source.token().await.expect_err("expired");
    assert!(
        matches!(&error, TokenError::Credentials { cause: CredentialsError::Expired { provider, .. }, .. } if provider == "stale"),
        "{error}"
    );
    assert!(error.to_string().contains("expired 7.0 s ago"), "{error}");
    assert!(error.to_string().contains("app@orders"), "{error}");
    provider.set(Temper::Gives);
    until("recovery", MINUTE, || source.status().served.is_some()).await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_causes_a_new_load() {
    let provider = Provider::new(36_000, 600);
    let source = TokenSource::start(provider.chain(), target("app"));
    let first = source.token().await.expect("token");
    sleep(MINUTE).await;
    // The session was revoked: same expiry, other keys.
    provider.0.edition.store(1, Ordering::Relaxed);
    for _ in 0..20 {
        source.report(&first, Proof::Refused);
    }
    until("a candidate", Duration::from_secs(10), || source.candidate().is_some()).await;
    let second = source.candidate().expect("candidate");
    assert!(second.expose_secret().contains("AKID0E1"));
    assert_eq!(provider.asked(), 2, "twenty refusals, one load");
    assert!(Arc::ptr_eq(&source.token().await.expect("token"), &first), "the old one stays until then");
    source.report(&second, Proof::Accepted);
    source.report(&first, Proof::Refused);
    assert!(Arc::ptr_eq(&source.token().await.expect("token"), &second));
    assert_eq!(source.status().refusals, 20, "reports about a replaced token are ignored");
}

#[tokio::test(start_paused = true)]
async fn a_database_that_refuses_every_token_causes_few_loads() {
    let provider = Provider::new(36_000, 600);
    let source = TokenSource::start(provider.chain(), target("app"));
    let end = Instant::now() + Duration::from_secs(600);
    while Instant::now() < end {
        let token = match source.candidate() {
            Some(token) => token,
            None => source.token().await.expect("a token to try with"),
        };
        source.report(&token, Proof::Refused);
        sleep(Duration::from_millis(100)).await;
    }
    assert!(provider.asked() < 30, "{} loads in ten minutes", provider.asked());
}

#[tokio::test(start_paused = true)]
async fn verifying_the_chain_loads_even_while_credentials_are_valid() {
    let provider = Provider::new(36_000, 600);
    let chain = provider.chain();
    let source = TokenSource::start(chain.clone(), target("app"));
    source.token().await.expect("token");
    for (temper, well) in
        [(Temper::Gives, true), (Temper::Fails, false), (Temper::Hangs, false), (Temper::Gives, true)]
    {
        // A load that hangs is given up after 30 s; until then it is the answer.
        sleep(Duration::from_secs(30)).await;
        provider.set(temper);
        let (asked, start) = (provider.asked(), Instant::now());
        assert_eq!(chain.verify().await.is_ok(), well, "{temper:?}");
        assert_eq!(provider.asked(), asked + 1);
        assert!(start.elapsed() <= Duration::from_secs(5), "{temper:?} took {:?}", start.elapsed());
    }
    assert_eq!(source.status().failures, 0, "the sources do not mind");
}

#[tokio::test(start_paused = true)]
async fn the_task_ends_with_the_last_clone() {
    let provider = Provider::new(60, 30);
    let source = TokenSource::start(provider.chain(), target("app"));
    source.token().await.expect("token");
    let clone = source.clone();
    drop(source);
    sleep(MINUTE * 3).await;
    clone.token().await.expect("still rotating");
    drop(clone);
    let asked = provider.asked();
    sleep(MINUTE * 10).await;
    assert_eq!(provider.asked(), asked);
}
