//! The TLS handshake, and why it failed.
//!
//! The certificate is verified against the endpoint's name, whatever address is dialled.
//! Sessions are never resumed: each login verifies the server again.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use agent_core::{Fault, FaultKind, Phase};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::{
    certificate::certificate_facts,
    dial::io_fault,
    report::{CertificateFacts, LoginReport, TlsFacts},
    target::Address,
    trust::TlsTrust,
};

/// A TLS stream whose server certificate has been verified.
pub(crate) type VerifiedStream = tokio_rustls::client::TlsStream<TcpStream>;

/// Performs the handshake over `stream` and verifies that the server is `endpoint`.
///
/// Fills in the TLS part of the report; the certificate also when it is refused.
pub(crate) async fn handshake(
    stream: TcpStream,
    endpoint: &Address,
    trust: &TlsTrust,
    alpn: &[u8],
    report: &mut LoginReport,
) -> Result<VerifiedStream, Fault> {
    let name = server_name(&endpoint.host)?;
    let witness = Arc::new(Witness { verifier: trust.verifier(), presented: Mutex::new(None) });
    let mut config = ClientConfig::builder_with_provider(trust.provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| tls_failed(&error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&witness) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![alpn.to_vec()];

    let outcome = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    report.certificate = witness.presented().and_then(|leaf| certificate_facts(&leaf, Some(endpoint)).ok());
    let stream =
        outcome.map_err(|error| handshake_fault(&error, endpoint, trust, report.certificate.as_ref()))?;
    report.tls = Some(facts(&stream));
    Ok(stream)
}

fn server_name(host: &str) -> Result<ServerName<'static>, Fault> {
    // A trailing dot is valid in DNS; certificates never carry it.
    ServerName::try_from(host.strip_suffix('.').unwrap_or(host).to_owned()).map_err(|_| {
        let message = format!(
            "the endpoint {host:?} is neither a DNS name nor an IP address, so no certificate can match it"
        );
        Fault::new(Phase::Tls, FaultKind::CertificateInvalid, message)
    })
}

fn facts(stream: &VerifiedStream) -> TlsFacts {
    let (_, connection) = stream.get_ref();
    TlsFacts {
        version: connection.protocol_version().map_or_else(String::new, |version| match version {
            rustls::ProtocolVersion::TLSv1_3 => "TLSv1.3".to_owned(),
            rustls::ProtocolVersion::TLSv1_2 => "TLSv1.2".to_owned(),
            other => format!("{other:?}"),
        }),
        cipher: connection
            .negotiated_cipher_suite()
            .map_or_else(String::new, |suite| format!("{:?}", suite.suite())),
        group: connection.negotiated_key_exchange_group().map(|group| format!("{:?}", group.name())),
        alpn: connection.alpn_protocol().map(|alpn| String::from_utf8_lossy(alpn).into_owned()),
    }
}

// === why it failed ===

fn tls_failed(error: &rustls::Error) -> Fault {
    Fault::new(Phase::Tls, FaultKind::TlsFailed, error.to_string())
}

fn handshake_fault(
    error: &std::io::Error,
    endpoint: &Address,
    trust: &TlsTrust,
    presented: Option<&CertificateFacts>,
) -> Fault {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(why)) => {
            let message = refused_certificate(why, endpoint, trust, presented);
            Fault::new(Phase::Tls, FaultKind::CertificateInvalid, message)
        }
        Some(other) => tls_failed(other),
        None => io_fault(Phase::Tls, error, "during the TLS handshake"),
    }
}

/// Why a certificate was refused: what was presented, what was expected, and what to do.
fn refused_certificate(
    why: &CertificateError,
    endpoint: &Address,
    trust: &TlsTrust,
    presented: Option<&CertificateFacts>,
) -> String {
    let certificate = presented.map_or_else(
        || "the server's certificate (unreadable)".to_owned(),
        |facts| format!("the server's certificate (subject {}, issuer {})", facts.subject, facts.issuer),
    );
    match why {
        CertificateError::UnknownIssuer => format!(
            "{certificate} is not signed by any of the {} authorities of {}: set `ca_file` to a bundle that contains its issuer",
            trust.trusted(),
            trust.source(),
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            let names = presented.map_or_else(String::new, |facts| facts.names.join(", "));
            format!("{certificate} is valid for {names}, not for {}: check the endpoint", endpoint.host)
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => format!(
            "{certificate} expired{} by the agent's clock: rotate it, or correct the clock",
            presented.map_or_else(String::new, |facts| format!(" {} ago", in_words(since(facts.not_after)))),
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            format!("{certificate} is not valid yet by the agent's clock: check the clock")
        }
        other => format!("{certificate} is refused: {}", rustls::Error::InvalidCertificate(other.clone())),
    }
}

fn since(time: SystemTime) -> Duration {
    SystemTime::now().duration_since(time).unwrap_or_default()
}

fn in_words(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

/// Delegates to the standard verifier and keeps the certificate that the server presented, so
/// that a refusal can be explained.
struct Witness {
    verifier: Arc<WebPkiServerVerifier>,
    presented: Mutex<Option<CertificateDer<'static>>>,
}

impl Witness {
    fn presented(&self) -> Option<CertificateDer<'static>> {
        self.presented.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Witness").finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.presented.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(end_entity.clone().into_owned());
        self.verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_that_no_certificate_can_match_is_refused_before_the_handshake() {
        assert!(server_name("orders-a.abc.eu-west-1.rds.amazonaws.com.").is_ok());
        assert!(server_name("fd00::7").is_ok());
        let fault = server_name("not a name").unwrap_err();
        assert_eq!((fault.phase, fault.kind), (Phase::Tls, FaultKind::CertificateInvalid));
    }
}
