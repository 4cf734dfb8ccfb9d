//! Why there is no token. No message contains a secret.

use std::time::Duration;

use thiserror::Error;

use crate::{sign::SignError, target::Target};

/// Why the AWS chain returned no usable credentials.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CredentialsError {
    /// No provider of the chain is configured. The operator has to configure one.
    #[error(
        "no AWS credentials here: set AWS_PROFILE or AWS_ACCESS_KEY_ID, or run with a role \
         (EC2 instance profile, ECS task role, EKS pod identity or service account): {0}"
    )]
    NotFound(String),
    /// A provider is configured incorrectly. The operator has to correct it.
    #[error("AWS credentials are configured wrongly: {0}")]
    Misconfigured(String),
    /// A configured provider failed: its service, its process or the network is at fault.
    #[error("AWS credentials could not be loaded: {0}")]
    Failed(String),
    /// No answer in time: the provider's endpoint or process is at fault.
    #[error("AWS credentials did not come within {}: no answer from {provider}", seconds(*.after))]
    TimedOut {
        after: Duration,
        /// With the file or address that it uses.
        provider: String,
    },
    /// The credentials had expired when they were loaded: the provider or this host's clock is at
    /// fault.
    #[error(
        "AWS credentials from {provider} expired {} ago: renew them, or check this host's clock",
        seconds(*.ago)
    )]
    Expired {
        provider: String,
        /// By this host's clock.
        ago: Duration,
    },
}

/// Why there is no token. For the health rules this is a problem of the agent (`auth_ill`), never
/// evidence against the database.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TokenError {
    #[error("no token for {target}: {cause}")]
    Credentials { target: Target, cause: CredentialsError },
    /// The credentials cannot sign.
    #[error("no token for {target}: {cause}")]
    Sign { target: Target, cause: SignError },
    /// The credentials are about to expire and the chain has no newer ones: the provider renews
    /// them too late.
    #[error(
        "no token for {target}: the AWS credentials from {provider} expire in {} and the chain has no newer ones",
        seconds(*.expires_in)
    )]
    NotRenewed { target: Target, provider: String, expires_in: Duration },
    /// The rotation task did not answer: the runtime has stopped or is overloaded.
    #[error("no token for {target}: no answer within {}", seconds(*.waited))]
    Stalled { target: Target, waited: Duration },
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
