//! What a login was like: how long each phase took, who was reached, what TLS
//! agreed on. Filled as far as the login got, also when it failed.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use agent_core::Phase;
use serde::{Serialize, Serializer};

/// The course of one login.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LoginReport {
    /// How long each phase took; a failed phase counts until it failed.
    pub phases: PhaseTimes,
    /// The address that was reached.
    pub server_address: Option<SocketAddr>,
    /// The agent's own end of that connection.
    pub local_address: Option<SocketAddr>,
    /// What TLS agreed on. `None` if it did not come to that.
    pub tls: Option<TlsFacts>,
    /// The server's own certificate, whether or not it was accepted.
    pub certificate: Option<CertificateFacts>,
    /// Whether the server asked for the token. A login that succeeds without
    /// being asked proves nothing of IAM.
    pub token_asked: bool,
    /// The server's version as it calls it.
    pub server_version: Option<String>,
}

/// How long each phase took (in JSON: seconds).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PhaseTimes {
    /// Resolving the name.
    #[serde(serialize_with = "seconds")]
    pub dns: Option<Duration>,
    /// Opening the TCP connection.
    #[serde(serialize_with = "seconds")]
    pub tcp: Option<Duration>,
    /// Agreeing on TLS and verifying the server.
    #[serde(serialize_with = "seconds")]
    pub tls: Option<Duration>,
    /// Handing over the token.
    #[serde(serialize_with = "seconds")]
    pub login: Option<Duration>,
}

impl PhaseTimes {
    /// Notes how long a phase took. Queries are no part of a login.
    pub(crate) fn note(&mut self, phase: Phase, took: Duration) {
        match phase {
            Phase::Dns => self.dns = Some(took),
            Phase::Tcp => self.tcp = Some(took),
            Phase::Tls => self.tls = Some(took),
            Phase::Login => self.login = Some(took),
            Phase::Query => {}
        }
    }

    /// All phases together.
    pub fn total(&self) -> Duration {
        [self.dns, self.tcp, self.tls, self.login].into_iter().flatten().sum()
    }
}

/// What TLS agreed on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TlsFacts {
    /// `TLSv1.3` or `TLSv1.2`.
    pub version: String,
    /// The cipher suite, by its IANA name as far as rustls knows it.
    pub cipher: String,
    /// The key exchange group.
    pub group: Option<String>,
    /// The application protocol the server chose, if any.
    pub alpn: Option<String>,
}

/// One certificate in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CertificateFacts {
    /// Its subject.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// When it becomes valid (in JSON: seconds since 1970).
    #[serde(serialize_with = "unix_seconds")]
    pub not_before: SystemTime,
    /// When it ends (in JSON: seconds since 1970).
    #[serde(serialize_with = "unix_seconds")]
    pub not_after: SystemTime,
    /// The DNS names and IP addresses it is for.
    pub names: Vec<String>,
    /// Which of these covers the endpoint, if one does.
    pub matched: Option<String>,
}

#[expect(clippy::ref_option, reason = "serde hands out references")]
fn seconds<S: Serializer>(took: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    took.map(|took| took.as_secs_f64()).serialize(serializer)
}

fn unix_seconds<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    let seconds = match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |seconds| -seconds),
    };
    serializer.serialize_i64(seconds)
}
