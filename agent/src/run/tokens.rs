//! The credentials and IAM tokens of a configuration.
//!
//! A reload keeps the token sources of targets that did not change: while AWS is unreachable, a
//! token that is still valid cannot be replaced.

use std::sync::Arc;

use agent_aws::{
    Region,
    credentials::{ChainOptions, CredentialChain},
    source::TokenSource,
};

use crate::config::{Config, Instance};

/// The credentials and token sources of one configuration.
#[derive(Clone)]
pub(super) struct Tokens {
    pub(super) chain: CredentialChain,
    /// The only option of the chain that comes from the configuration.
    region_hint: Option<Region>,
    sources: Vec<Arc<TokenSource>>,
}

impl Tokens {
    /// `before` are the tokens of the configuration in force, whose credential chain is kept if its options are the same.
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
        Self { chain, region_hint, sources: Vec::new() }
    }

    /// The token source of an instance. One in `before` for the same endpoint, user and region is kept.
    pub(super) async fn source(
        &mut self,
        instance: &Instance,
        before: Option<&Self>,
    ) -> Result<Arc<TokenSource>, String> {
        let endpoint = &instance.target.endpoint;
        let region = match &instance.region {
            Some(region) => Region::parse(region).map_err(|error| error.to_string())?,
            None => self.chain.region().await.ok_or_else(|| {
                let id = instance.id();
                format!("{id}: no AWS region is known: set `region` in its database, or AWS_REGION")
            })?,
        };
        let target = agent_aws::Target::new(&endpoint.host, endpoint.port, &instance.target.user, region)
            .map_err(|error| format!("{}: {error}", instance.id()))?;
        let known = before.and_then(|before| before.sources.iter().find(|known| *known.target() == target));
        let source =
            known.cloned().unwrap_or_else(|| Arc::new(TokenSource::start(self.chain.clone(), target)));
        self.sources.push(source.clone());
        Ok(source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(user: &str, a: &str, b: &str) -> Config {
        let text = format!(
            "databases:\n  - name: orders\n    engine: postgresql\n    user: {user}\n    region: eu-west-1\n    \
             instances:\n      - {{name: a, endpoint: '{a}:5432'}}\n      - {{name: b, endpoint: '{b}:5432'}}\n"
        );
        crate::config::parse("test", &text).unwrap().config
    }

    const A: &str = "a.abc.eu-west-1.rds.amazonaws.com";
    const B: &str = "b.abc.eu-west-1.rds.amazonaws.com";
    const C: &str = "c.abc.eu-west-1.rds.amazonaws.com";

    #[tokio::test]
    async fn a_reload_keeps_the_token_source_of_an_unchanged_target() {
        async fn tokens(config: &Config, before: Option<&Tokens>) -> Tokens {
            let mut tokens = Tokens::new(config, before);
            for (_, instance) in config.instances() {
                tokens.source(instance, before).await.unwrap();
            }
            tokens
        }
        let before = tokens(&config("agent", A, B), None).await;
        let after = tokens(&config("agent", A, C), Some(&before)).await;
        let kept = |index: usize| Arc::ptr_eq(&before.sources[index], &after.sources[index]);
        assert_eq!((kept(0), kept(1)), (true, false));
        let other = tokens(&config("another", A, B), Some(&before)).await;
        assert!(!Arc::ptr_eq(&before.sources[0], &other.sources[0]), "a token is for one user");
    }
}
