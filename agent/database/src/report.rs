//! The report of a login: the duration of each phase, the addresses, TLS and the certificate.
//! It covers the phases that were reached, also when the login failed.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use agent_core::Phase;
use serde::{Serialize, Serializer};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LoginReport {
    /// The last one may have failed.
    pub phases: PhaseTimes,
    pub server_address: Option<SocketAddr>,
    /// The agent's end of the connection.
    pub local_address: Option<SocketAddr>,
    /// `None` if the handshake did not finish.
    pub tls: Option<TlsFacts>,
    /// The server's certificate, accepted or not.
    pub certificate: Option<CertificateFacts>,
    /// Whether the server asked for the token. A login that succeeds without it proves nothing
    /// about IAM.
    pub token_asked: bool,
    /// As the server reports it.
    pub server_version: Option<String>,
}

/// The duration of each phase (in JSON: seconds).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PhaseTimes {
    #[serde(serialize_with = "seconds")]
    pub dns: Option<Duration>,
    #[serde(serialize_with = "seconds")]
    pub tcp: Option<Duration>,
    #[serde(serialize_with = "seconds")]
    pub tls: Option<Duration>,
    /// From the first byte inside TLS until the session is ready.
    #[serde(serialize_with = "seconds")]
    pub login: Option<Duration>,
}

impl PhaseTimes {
    /// Records the duration of a phase. Queries are not part of a login.
    pub(crate) fn note(&mut self, phase: Phase, took: Duration) {
        match phase {
            Phase::Dns => self.dns = Some(took),
            Phase::Tcp => self.tcp = Some(took),
            Phase::Tls => self.tls = Some(took),
            Phase::Login => self.login = Some(took),
            Phase::Query => {}
        }
    }

    /// The sum of all phases.
    pub fn total(&self) -> Duration {
        [self.dns, self.tcp, self.tls, self.login].into_iter().flatten().sum()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TlsFacts {
    /// `TLSv1.3` or `TLSv1.2`.
    pub version: String,
    /// The cipher suite, by its IANA name where rustls has one.
    pub cipher: String,
    pub group: Option<String>,
    /// The application protocol that the server chose.
    pub alpn: Option<String>,
}

/// The fields of a certificate that a report shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CertificateFacts {
    pub subject: String,
    pub issuer: String,
    /// In hexadecimal. With the issuer it identifies the certificate.
    pub serial: String,
    /// Start of validity (in JSON: seconds since 1970).
    #[serde(serialize_with = "unix_seconds")]
    pub not_before: SystemTime,
    /// End of validity (in JSON: seconds since 1970).
    #[serde(serialize_with = "unix_seconds")]
    pub not_after: SystemTime,
    /// Subject alternative names: DNS names and IP addresses.
    pub names: Vec<String>,
    /// The name that covers the endpoint, if one does.
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
