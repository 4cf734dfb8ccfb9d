//! What `/state` and the metrics show of credentials and tokens. No secrets.

use std::time::Duration;

use serde::{Serialize, Serializer};

/// A failure as people read it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Failure {
    /// How long ago it was.
    #[serde(rename = "ago_s", serialize_with = "seconds")]
    pub ago: Duration,
    /// The whole chain of causes on one line.
    pub message: String,
}

/// The credentials that all tokens are signed with.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CredentialStatus {
    /// Which link of the chain gave the ones in use; `None` before the first load.
    pub provider: Option<String>,
    /// How long they have left: `None` if they do not expire or there are none.
    #[serde(rename = "expires_in_s", serialize_with = "maybe_seconds")]
    pub expires_in: Option<Duration>,
    /// Loads that gave credentials.
    pub loads: u64,
    /// Loads that failed.
    pub failures: u64,
    /// Loads that failed since the last good one.
    pub failures_in_a_row: u64,
    /// The last failure, also when it is over.
    pub last_failure: Option<Failure>,
}

/// One token, as the status shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TokenView {
    /// Time since it was signed.
    #[serde(rename = "age_s", serialize_with = "seconds")]
    pub age: Duration,
    /// Time until the database stops accepting it.
    #[serde(rename = "expires_in_s", serialize_with = "seconds")]
    pub expires_in: Duration,
    /// Time until it is no longer handed out.
    #[serde(rename = "served_for_s", serialize_with = "seconds")]
    pub served_for: Duration,
    /// A login with it succeeded.
    pub proved: bool,
    /// Which link of the chain gave the credentials that signed it.
    pub provider: String,
}

/// One source of tokens.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    /// The user on the endpoint, `user@host:port`.
    pub target: String,
    /// The region signed for.
    pub region: String,
    /// The token handed out now; `None` means that logins are not possible.
    pub served: Option<TokenView>,
    /// The next one, waiting for a login to prove it.
    pub candidate: Option<TokenView>,
    /// Tokens signed and taken into use.
    pub refreshes: u64,
    /// Attempts that gave no better token.
    pub failures: u64,
    /// Attempts that failed since the last good one.
    pub failures_in_a_row: u32,
    /// Logins reported as refused.
    pub refusals: u64,
    /// The last failure, also when it is over.
    pub last_failure: Option<Failure>,
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

// The signature is serde's.
#[allow(clippy::ref_option)]
fn maybe_seconds<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    duration.map(|d| d.as_secs_f64()).serialize(serializer)
}
