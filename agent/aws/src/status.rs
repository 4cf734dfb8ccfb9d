//! What `/state` and the metrics show of credentials and tokens. No secrets.

use std::time::Duration;

use serde::{Serialize, Serializer};

/// The last failure of a load or of a signing.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Failure {
    #[serde(rename = "ago_s", serialize_with = "seconds")]
    pub ago: Duration,
    /// The error and its causes, on one line.
    pub message: String,
}

/// The credentials that all tokens are signed with.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CredentialStatus {
    /// The provider of the credentials in use; `None` before the first load.
    pub provider: Option<String>,
    /// `None` if they do not expire or there are none.
    #[serde(rename = "expires_in_s", serialize_with = "maybe_seconds")]
    pub expires_in: Option<Duration>,
    pub loads: u64,
    pub failures: u64,
    /// Since the last successful load.
    pub failures_in_a_row: u64,
    /// Also when loads succeed again.
    pub last_failure: Option<Failure>,
}

/// A token's public properties.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TokenView {
    #[serde(rename = "age_s", serialize_with = "seconds")]
    pub age: Duration,
    #[serde(rename = "expires_in_s", serialize_with = "seconds")]
    pub expires_in: Duration,
    /// Time until the agent stops using it.
    #[serde(rename = "served_for_s", serialize_with = "seconds")]
    pub served_for: Duration,
    /// A login with it succeeded.
    pub proved: bool,
    /// The provider of the credentials that signed it.
    pub provider: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    /// `user@host:port`.
    pub target: String,
    pub region: String,
    /// The token in use; without one logins are impossible.
    pub served: Option<TokenView>,
    /// The next token, until a login proves it.
    pub candidate: Option<TokenView>,
    /// Tokens signed and accepted for use.
    pub refreshes: u64,
    /// Attempts that gave no token with a later expiry.
    pub failures: u64,
    /// Since the last successful attempt.
    pub failures_in_a_row: u32,
    /// Logins that the database refused.
    pub refusals: u64,
    /// Also when loads succeed again.
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
