//! `token`: prints an IAM token, and nothing else, on standard output.

use agent_aws::{
    Region, Target,
    credentials::{ChainOptions, CredentialChain},
    source::TokenSource,
};

use super::{Exit, complain, print};
use crate::cli::Token;

pub(super) async fn token(arguments: &Token) -> Exit {
    let chain = CredentialChain::standard(ChainOptions::patient());
    let target = match target(arguments, &chain).await {
        Ok(target) => target,
        Err(error) => {
            complain(error);
            return Exit::Usage;
        }
    };
    match TokenSource::start(chain, target).token().await {
        Ok(token) => {
            print(token.expose_secret());
            Exit::Ok
        }
        Err(error) => {
            complain(error);
            Exit::CouldNotCheck
        }
    }
}

async fn target(arguments: &Token, chain: &CredentialChain) -> Result<Target, String> {
    let (host, port) = arguments.endpoint.rsplit_once(':').ok_or("--endpoint is HOST:PORT, like ...:5432")?;
    let port = port.parse().map_err(|_| format!("--endpoint: `{port}` is not a port"))?;
    let region = match &arguments.region {
        Some(region) => Region::parse(region).map_err(|error| error.to_string())?,
        None => match Region::from_endpoint(host) {
            Some(region) => region,
            None => chain.region().await.ok_or("no AWS region is known: use --region or set AWS_REGION")?,
        },
    };
    Target::new(host, port, &arguments.user, region).map_err(|error| error.to_string())
}
