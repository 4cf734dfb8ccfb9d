//! The standard AWS credential chain, shared by all sources, one load at a time.
//!
//! Environment, profile (static keys, SSO, assumed roles, `credential_process`), web identity,
//! container endpoint (ECS, EKS pod identity) and IMDS, in the SDK's order. The SDK's own
//! identity cache is not used: it belongs to its service clients, renews only ten seconds before
//! expiry, and does not report failures. Here credentials are renewed at two thirds of their
//! lifetime, a failed renewal leaves the old ones in use, and every load has a time limit.
//!
//! The limit has two parts. Callers get an error after [`ChainOptions::load_timeout`], so that a
//! provider that hangs is reported soon. The load itself goes on until [`LOAD_LIMIT`], so that a slow
//! `credential_process` still succeeds, and its result serves the next caller.
//!
//! Two properties of the SDK matter. It reads the profile files once per provider, so a provider
//! whose credentials do not expire, or that found none, is created again for the next load; that
//! way rotated keys and files that appear late are noticed. And it does not kill a
//! `credential_process` that hangs; such a process needs a timeout of its own. The SDK's log
//! output during a load is discarded: at level trace it contains request headers such as SSO
//! access tokens.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use aws_config::{
    environment::EnvironmentVariableRegionProvider, imds::region::ImdsRegionProvider,
    meta::region::RegionProviderChain, profile::ProfileFileRegionProvider,
};
use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, SharedCredentialsProvider},
};
use tokio::{sync::watch, time::Instant};
use tracing::{Dispatch, instrument::WithSubscriber};

use crate::{
    clock::WallClock,
    error::CredentialsError,
    providers::Providers,
    region::Region,
    rotation::Need,
    sign::provider_name,
    status::{CredentialStatus, Failure},
};

/// Credentials are renewed when less than this is left, so that a token of full lifetime can be
/// signed, but never before two thirds of their own lifetime.
const RENEW_LEFT: Duration = Duration::from_secs(900);
/// Credentials without an expiry are loaded again after this time, which in practice is for every
/// token, because files change.
const RELOAD_ENDLESS: Duration = Duration::from_secs(300);
/// The longest that a load may take. Long enough for a `credential_process` that asks a remote service
/// or a hardware key; short enough that a process or endpoint that hangs is tried again while the old
/// token is still valid.
pub const LOAD_LIMIT: Duration = Duration::from_secs(30);
/// The least time between two loads, failed ones included, however many sources ask.
const LOAD_GAP: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub struct ChainOptions {
    /// Instead of `AWS_PROFILE` or `default`.
    pub profile: Option<String>,
    /// The region of one of the databases. Roles are assumed there if neither the environment nor
    /// the profile has a region, instead of asking IMDS.
    pub region_hint: Option<Region>,
    /// How long callers wait for a load before they get an error.
    pub load_timeout: Duration,
    pub clock: WallClock,
}

impl ChainOptions {
    /// For commands that load once: they wait for as long as a load may take.
    pub fn patient() -> Self {
        Self { load_timeout: LOAD_LIMIT, ..Self::default() }
    }
}

impl Default for ChainOptions {
    fn default() -> Self {
        Self {
            profile: None,
            region_hint: None,
            load_timeout: Duration::from_secs(5),
            clock: WallClock::system(),
        }
    }
}

/// The chain. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct CredentialChain(Arc<Shared>);

struct Shared {
    origin: Origin,
    options: ChainOptions,
    book: Mutex<Book>,
}

enum Origin {
    Standard,
    Given(SharedCredentialsProvider),
}

#[derive(Default)]
struct Book {
    /// Kept while it works: it holds connections and SSO sessions.
    provider: Option<Arc<Providers>>,
    /// The provider that the load in progress is waiting for.
    trying: String,
    lease: Option<Arc<Lease>>,
    /// The load in progress, shared by all callers.
    flight: Option<watch::Receiver<Option<Outcome>>>,
    /// When the last load ended, and its result.
    last: Option<(Instant, Outcome)>,
    loads: u64,
    failures: u64,
    failures_in_a_row: u64,
    last_failure: Option<(SystemTime, CredentialsError)>,
}

type Outcome = Result<Arc<Lease>, CredentialsError>;

/// Credentials and the times of their loads.
pub(crate) struct Lease {
    pub(crate) credentials: Credentials,
    /// When these credentials were first loaded.
    pub(crate) known_since: SystemTime,
    loaded_at: SystemTime,
    loaded: Instant,
}

/// The credentials to sign with.
pub(crate) struct Offer {
    pub(crate) lease: Arc<Lease>,
    /// Why there are no newer ones, if newer ones were needed.
    pub(crate) trouble: Option<CredentialsError>,
}

// === impl CredentialChain ===

impl CredentialChain {
    /// The standard chain. Nothing is read before the first load.
    pub fn standard(options: ChainOptions) -> Self {
        Self::new(Origin::Standard, options)
    }

    /// A given provider instead of the chain.
    pub fn from_provider(provider: impl ProvideCredentials + 'static, options: ChainOptions) -> Self {
        Self::new(Origin::Given(SharedCredentialsProvider::new(provider)), options)
    }

    fn new(origin: Origin, options: ChainOptions) -> Self {
        Self(Arc::new(Shared { origin, options, book: Mutex::default() }))
    }

    /// The region of the AWS environment: `AWS_REGION`, the profile, or IMDS, in this order.
    /// `None` if none of them has one within the timeout.
    pub async fn region(&self) -> Option<Region> {
        let Origin::Standard = self.0.origin else { return None };
        let options = &self.0.options;
        let region = named_region(options).or_else(ImdsRegionProvider::builder().build());
        let region = region.region().with_subscriber(Dispatch::none());
        let region = tokio::time::timeout(options.load_timeout, region).await.ok()??;
        Region::parse(region.as_ref()).ok()
    }

    /// Loads credentials unless there are fresh ones, and returns their status, or why there are no
    /// fresh ones.
    pub async fn check(&self) -> Result<CredentialStatus, CredentialsError> {
        let offer = self.lease(Need::default()).await?;
        offer.trouble.map_or_else(|| Ok(self.status()), Err)
    }

    /// Loads credentials even if there are fresh ones: whether a client that starts now would get
    /// any. Credentials without an expiry are not checked.
    pub async fn verify(&self) -> Result<(), CredentialsError> {
        let endless = |lease: &Arc<Lease>| lease.credentials.expiry().is_none();
        if self.0.book().lease.as_ref().is_some_and(endless) {
            return Ok(());
        }
        let newer = Need { newer_than: Some(self.clock().now()), ..Need::default() };
        let offer = self.lease(newer).await?;
        offer.trouble.map_or(Ok(()), Err)
    }

    /// What `/state` and the metrics show.
    pub fn status(&self) -> CredentialStatus {
        let now = self.clock().now();
        let book = self.0.book();
        let credentials = book.lease.as_ref().map(|lease| &lease.credentials);
        CredentialStatus {
            provider: credentials.map(provider_name),
            expires_in: credentials.and_then(Credentials::expiry).map(|at| span(now, at)),
            loads: book.loads,
            failures: book.failures,
            failures_in_a_row: book.failures_in_a_row,
            last_failure: book
                .last_failure
                .as_ref()
                .map(|(at, error)| Failure { ago: span(*at, now), message: error.to_string() }),
        }
    }

    /// The clock that expiries are compared with.
    pub fn clock(&self) -> &WallClock {
        &self.0.options.clock
    }

    /// The profile that was chosen instead of `AWS_PROFILE`.
    pub(crate) fn profile(&self) -> Option<&str> {
        self.0.options.profile.as_deref()
    }

    pub(crate) fn load_timeout(&self) -> Duration {
        self.0.options.load_timeout
    }

    /// Credentials to sign with, renewed if they expire soon or do not meet the need. Concurrent
    /// callers share one load. The result may still not meet the need, if there is nothing better.
    pub(crate) async fn lease(&self, need: Need) -> Result<Offer, CredentialsError> {
        let mut flight = {
            let mut book = self.0.book();
            let now = self.clock().now();
            if let Some(lease) = book.lease.as_ref().filter(|lease| lease.is_fresh(now, need)) {
                return Ok(Offer { lease: lease.clone(), trouble: None });
            }
            if let Some((at, outcome)) = book.last.as_ref()
                && at.elapsed() < LOAD_GAP
            {
                return book.offer(now, outcome.clone());
            }
            book.flight.take_if(|flight| flight.has_changed().is_err());
            book.flight.get_or_insert_with(|| self.take_off()).clone()
        };
        let patience = self.0.options.load_timeout;
        let outcome = match tokio::time::timeout(patience, flight.wait_for(Option::is_some)).await {
            Ok(Ok(outcome)) => outcome.clone(),
            Ok(Err(_)) => None,
            Err(_) => Some(Err(self.0.timed_out(patience))),
        };
        let outcome =
            outcome.unwrap_or_else(|| Err(CredentialsError::Failed("the load was cancelled".into())));
        self.0.book().offer(self.clock().now(), outcome)
    }

    /// Starts a load in its own task: it continues if its caller stops waiting, and its result
    /// serves the next one.
    fn take_off(&self) -> watch::Receiver<Option<Outcome>> {
        let (done, flight) = watch::channel(None);
        let shared = self.0.clone();
        tokio::spawn(async move {
            let load = shared.load().with_subscriber(Dispatch::none());
            let loaded = tokio::time::timeout(LOAD_LIMIT, load).await;
            let loaded = loaded.unwrap_or_else(|_| Err(shared.timed_out(LOAD_LIMIT)));
            let outcome = shared.land(loaded);
            done.send_replace(Some(outcome));
        });
        flight
    }
}

impl fmt::Debug for CredentialChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialChain").field("status", &self.status()).finish_non_exhaustive()
    }
}

// === impl Shared ===

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn load(&self) -> Result<Credentials, CredentialsError> {
        let kept = self.book().provider.clone();
        let providers = match (kept, &self.origin) {
            (Some(providers), _) => providers,
            (None, Origin::Given(provider)) => Arc::new(Providers::given(provider.clone())),
            (None, Origin::Standard) => Arc::new(standard_providers(&self.options).await),
        };
        self.book().provider = Some(providers.clone());
        providers.load(|description| description.clone_into(&mut self.book().trying)).await
    }

    fn timed_out(&self, after: Duration) -> CredentialsError {
        CredentialsError::TimedOut { after, provider: self.book().trying.clone() }
    }

    /// Records the result of a load.
    fn land(&self, loaded: Result<Credentials, CredentialsError>) -> Outcome {
        let now = self.options.clock.now();
        let loaded = loaded.and_then(|credentials| match credentials.expiry() {
            Some(expiry) if expiry <= now => Err(CredentialsError::Expired {
                provider: provider_name(&credentials),
                ago: span(expiry, now),
            }),
            _ => Ok(credentials),
        });
        let mut book = self.book();
        let outcome = match loaded {
            Ok(credentials) => {
                let same = book.lease.as_ref().filter(|lease| lease.credentials == credentials);
                let known_since = same.map_or(now, |lease| lease.known_since);
                if credentials.expiry().is_none() {
                    book.provider = None;
                }
                let lease = Lease { credentials, known_since, loaded_at: now, loaded: Instant::now() };
                book.loads += 1;
                book.failures_in_a_row = 0;
                Ok(book.lease.insert(Arc::new(lease)).clone())
            }
            Err(error) => {
                // IMDS and SSO providers keep state that helps during an outage; after a
                // configuration error a provider would only repeat that error.
                if book.loads == 0
                    || !matches!(error, CredentialsError::Failed(_) | CredentialsError::TimedOut { .. })
                {
                    book.provider = None;
                }
                book.failures += 1;
                book.failures_in_a_row += 1;
                book.last_failure = Some((now, error.clone()));
                Err(error)
            }
        };
        book.last = Some((Instant::now(), outcome.clone()));
        book.flight = None;
        outcome
    }
}

// === impl Book ===

impl Book {
    /// The result of a load, or the old credentials while they are valid.
    fn offer(&self, now: SystemTime, outcome: Outcome) -> Result<Offer, CredentialsError> {
        let expiry = |lease: &Lease| lease.credentials.expiry();
        match (outcome, &self.lease) {
            (Ok(lease), _) => Ok(Offer { lease, trouble: None }),
            (Err(error), Some(lease)) if expiry(lease).is_none_or(|at| at > now) => {
                Ok(Offer { lease: lease.clone(), trouble: Some(error) })
            }
            (Err(error), _) => Err(error),
        }
    }
}

// === impl Lease ===

impl Lease {
    fn is_fresh(&self, now: SystemTime, need: Need) -> bool {
        let expiry = self.credentials.expiry();
        if need.newer_than.is_some_and(|at| self.loaded_at <= at)
            || need.beyond.is_some_and(|at| expiry.is_some_and(|expiry| expiry <= at))
        {
            return false;
        }
        match expiry {
            None => self.loaded.elapsed() < RELOAD_ENDLESS,
            Some(expiry) => span(now, expiry) > RENEW_LEFT.min(span(self.known_since, expiry) / 3),
        }
    }
}

/// The region of the environment or the profile.
fn named_region(options: &ChainOptions) -> RegionProviderChain {
    let mut profile = ProfileFileRegionProvider::builder();
    if let Some(name) = &options.profile {
        profile = profile.profile_name(name);
    }
    RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new()).or_else(profile.build())
}

async fn standard_providers(options: &ChainOptions) -> Providers {
    let named = named_region(options).region().await;
    let hint = || options.region_hint.as_ref().map(|hint| aws_config::Region::new(hint.as_str().to_owned()));
    let mut region = named.or_else(hint);
    if region.is_none() {
        // Outside EC2 IMDS does not answer, and the credentials may not need a region.
        let imds = ImdsRegionProvider::builder().build();
        region = tokio::time::timeout(options.load_timeout / 3, imds.region()).await.ok().flatten();
    }
    Providers::standard(options.profile.as_deref(), region)
}

fn span(from: SystemTime, to: SystemTime) -> Duration {
    to.duration_since(from).unwrap_or_default()
}
