//! What the databases of a configuration are logged in with: IAM tokens and certificate authorities.
//!
//! A reload keeps what did not change: while AWS is unreachable, a token that is still valid cannot be
//! replaced, and while a CA file is missing, the authorities that were read from it before still hold.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use agent_aws::{
    Region, Target,
    credentials::{ChainOptions, CredentialChain},
    source::TokenSource,
};
use agent_database::{TlsTrust, TrustSource};

use crate::config::{Config, Instance};

/// The credentials, token sources and authorities of one configuration. Clones share them.
#[derive(Clone)]
pub(super) struct Logins {
    pub(super) chain: CredentialChain,
    /// The only option of the chain that comes from the configuration.
    region_hint: Option<Region>,
    made: Arc<Mutex<Made>>,
}

/// What was made so far, by the configuration before this one too.
#[derive(Clone, Default)]
struct Made {
    sources: Vec<Arc<TokenSource>>,
    trusts: Vec<Arc<TlsTrust>>,
}

// === impl Logins ===

impl Logins {
    /// `before` are those of the configuration in force. Its credential chain is kept if its options are
    /// the same.
    pub(super) fn new(config: &Config, before: Option<&Self>) -> Self {
        let region = config.instances().find_map(|(_, instance)| instance.region.clone());
        let region_hint = region.and_then(|region| Region::parse(&region).ok());
        let chain = match before {
            Some(before) if before.region_hint == region_hint => before.chain.clone(),
            _ => {
                let options = ChainOptions { region_hint: region_hint.clone(), ..ChainOptions::default() };
                CredentialChain::standard(options)
            }
        };
        let mut made = before.map(|before| before.made().clone()).unwrap_or_default();
        made.sources.retain(|source| config.instances().any(|(_, instance)| is_for(source, instance)));
        made.trusts.retain(|trust| config.databases.iter().any(|database| database.trust == *trust.source()));
        Self { chain, region_hint, made: Arc::new(Mutex::new(made)) }
    }

    /// The token source of an instance. One for the same endpoint, user and region is kept.
    pub(super) async fn token_source(&self, instance: &Instance) -> Result<Arc<TokenSource>, String> {
        if let Some(known) = self.made().sources.iter().find(|known| is_for(known, instance)) {
            return Ok(known.clone());
        }
        let region = match &instance.region {
            Some(region) => Region::parse(region).map_err(|error| error.to_string())?,
            None => self.chain.region().await.ok_or_else(|| {
                let id = instance.id();
                format!("{id}: no AWS region is known: set `region` in its database, or AWS_REGION")
            })?,
        };
        let target = signed(instance, region).map_err(|error| format!("{}: {error}", instance.id()))?;
        let source = Arc::new(TokenSource::start(self.chain.clone(), target));
        self.made().sources.push(source.clone());
        Ok(source)
    }

    /// The authorities, as their file has them now. If it cannot be loaded, also those that were loaded
    /// from it before.
    pub(super) fn trust(
        &self,
        source: &TrustSource,
    ) -> Result<Arc<TlsTrust>, (String, Option<Arc<TlsTrust>>)> {
        let loaded = TlsTrust::load(source.clone());
        let mut made = self.made();
        match loaded {
            Ok(trust) => {
                let trust = Arc::new(trust);
                made.trusts.retain(|known| known.source() != source);
                made.trusts.push(trust.clone());
                Ok(trust)
            }
            Err(error) => {
                let before = made.trusts.iter().find(|known| known.source() == source);
                Err((error.to_string(), before.cloned()))
            }
        }
    }

    fn made(&self) -> MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn signed(instance: &Instance, region: Region) -> Result<Target, agent_aws::TargetError> {
    let target = &instance.target;
    Target::new(&target.endpoint.host, target.endpoint.port, &target.user, region)
}

/// Whether the tokens of a source are those of an instance. The region of the AWS environment stays the
/// same while the process runs.
fn is_for(source: &TokenSource, instance: &Instance) -> bool {
    let named = instance.region.as_ref().map(|region| Region::parse(region).ok());
    let region = named.unwrap_or_else(|| Some(source.target().region().clone()));
    region.is_some_and(|region| signed(instance, region).is_ok_and(|target| target == *source.target()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::testing::{A, B, C, config};

    #[tokio::test]
    async fn a_reload_keeps_the_token_source_of_an_unchanged_target() {
        async fn sources(config: &Config, before: Option<&Logins>) -> (Logins, Vec<Arc<TokenSource>>) {
            let logins = Logins::new(config, before);
            let mut sources = Vec::new();
            for (_, instance) in config.instances() {
                sources.push(logins.token_source(instance).await.unwrap());
            }
            (logins, sources)
        }
        let (before, first) = sources(&config("agent", A, B), None).await;
        let (_, second) = sources(&config("agent", A, C), Some(&before)).await;
        let kept = |index: usize| Arc::ptr_eq(&first[index], &second[index]);
        assert_eq!((kept(0), kept(1)), (true, false));
        let (_, other) = sources(&config("another", A, B), Some(&before)).await;
        assert!(!Arc::ptr_eq(&first[0], &other[0]), "a token is for one user");
    }

    #[tokio::test]
    async fn authorities_that_were_loaded_outlast_their_file_and_a_reload() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let source = TrustSource::File(path.clone());
        let mut config = config("agent", A, B);
        config.databases[0].trust = source.clone();

        let logins = Logins::new(&config, None);
        let (error, before) = logins.trust(&source).unwrap_err();
        assert!(error.contains("ca.pem: cannot be read") && before.is_none(), "{error}");
        let bundle = concat!(env!("CARGO_MANIFEST_DIR"), "/database/certs/rds-global-bundle.pem");
        std::fs::copy(bundle, &path).unwrap();
        let trust = logins.trust(&source).unwrap();
        std::fs::remove_file(&path).unwrap();
        let next = Logins::new(&config, Some(&logins));
        let (_, before) = next.trust(&source).unwrap_err();
        assert!(before.is_some_and(|before| Arc::ptr_eq(&before, &trust)));
        config.databases[0].trust = TrustSource::BuiltIn;
        assert!(
            Logins::new(&config, Some(&next)).trust(&source).unwrap_err().1.is_none(),
            "no longer configured"
        );
    }
}
