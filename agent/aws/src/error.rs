//! What callers see when there is no token, and why. No message holds a secret.

use std::time::Duration;

use thiserror::Error;

use crate::{sign::SignError, target::Target};

/// The AWS chain gave no usable credentials.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CredentialsError {
    /// No link of the chain is configured here: the operator's to do.
    #[error(
        "no AWS credentials here: set AWS_PROFILE or AWS_ACCESS_KEY_ID, or run with a role \
         (EC2 instance profile, ECS task role, EKS pod identity or service account): {0}"
    )]
    NotFound(String),
    /// A link is configured, and wrongly: the operator's to correct.
    #[error("AWS credentials are configured wrongly: {0}")]
    Misconfigured(String),
    /// A link is configured and failed: its service, process or the network is at fault.
    #[error("AWS credentials could not be loaded: {0}")]
    Failed(String),
    /// No answer in time: the endpoint or process behind the chain is at fault.
    #[error(
        "AWS credentials did not come within {}: their endpoint or process does not answer \
         (without any configured the chain ends with the EC2 metadata service; \
         outside EC2 set AWS_PROFILE, or AWS_EC2_METADATA_DISABLED=true)",
        seconds(*.0)
    )]
    TimedOut(Duration),
    /// What the chain gave had expired already: its provider or this host's clock is at fault.
    #[error(
        "AWS credentials from {provider} expired {} ago: renew them, or check this host's clock",
        seconds(*.ago)
    )]
    Expired {
        /// Which link of the chain gave them.
        provider: String,
        /// How long ago, by this host's clock.
        ago: Duration,
    },
}

/// There is no token to log in with. For the health rules this is the agent's own
/// trouble (`auth_ill`), never evidence against the database.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TokenError {
    /// No credentials.
    #[error("no token for {target}: {cause}")]
    Credentials {
        /// Whom the token was for.
        target: Target,
        /// Why not.
        cause: CredentialsError,
    },
    /// The credentials are there and cannot sign.
    #[error("no token for {target}: {cause}")]
    Sign {
        /// Whom the token was for.
        target: Target,
        /// Why not.
        cause: SignError,
    },
    /// The credentials are about to expire, and the chain has no newer ones yet: its
    /// provider renews too late.
    #[error(
        "no token for {target}: the AWS credentials from {provider} expire in {} and the chain has no newer ones",
        seconds(*.expires_in)
    )]
    NotRenewed {
        /// Whom the token was for.
        target: Target,
        /// Which link of the chain gave them.
        provider: String,
        /// How long they have left.
        expires_in: Duration,
    },
    /// The rotation task did not answer: its runtime has stopped or is overloaded.
    #[error("no token for {target}: nothing came within {}", seconds(*.waited))]
    Stalled {
        /// Whom the token was for.
        target: Target,
        /// How long the caller waited.
        waited: Duration,
    },
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
