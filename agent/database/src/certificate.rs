//! The fields of a certificate, for reports and errors. Not here: whether it is valid, which
//! the verifier decides (`tls`).

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use rustls_pki_types::CertificateDer;
use x509_parser::{extensions::GeneralName, prelude::FromDer};

use crate::{report::CertificateFacts, target::Address};

/// Amazon's certificates have a handful of names of at most 255 characters.
const MOST_NAMES: usize = 32;
const LONGEST_TEXT: usize = 400;

/// The fields of a certificate, and which of its names covers `endpoint`.
pub(crate) fn certificate_facts(
    certificate: &CertificateDer<'_>,
    endpoint: Option<&Address>,
) -> Result<CertificateFacts, String> {
    let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(certificate)
        .map_err(|error| error.to_string())?;
    let names: Vec<String> = match parsed.subject_alternative_name() {
        Ok(Some(alternatives)) => {
            alternatives.value.general_names.iter().filter_map(name_in_words).take(MOST_NAMES).collect()
        }
        _ => Vec::new(),
    };
    let matched =
        endpoint.and_then(|endpoint| names.iter().find(|name| covers(name, &endpoint.host)).cloned());
    Ok(CertificateFacts {
        subject: printable(&parsed.subject().to_string()),
        issuer: printable(&parsed.issuer().to_string()),
        serial: printable(&parsed.raw_serial_as_string()),
        not_before: system_time(parsed.validity().not_before.timestamp()),
        not_after: system_time(parsed.validity().not_after.timestamp()),
        names,
        matched,
    })
}

/// Text from an untrusted certificate, made safe for logs: bounded, and without control
/// characters.
fn printable(text: &str) -> String {
    text.chars().take(LONGEST_TEXT).map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn name_in_words(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(printable(name)),
        GeneralName::IPAddress(bytes) => match <[u8; 4]>::try_from(*bytes) {
            Ok(v4) => Some(IpAddr::from(v4).to_string()),
            Err(_) => <[u8; 16]>::try_from(*bytes).ok().map(|v6| IpAddr::from(v6).to_string()),
        },
        _ => None,
    }
}

/// Whether a certificate's name covers a host; a `*` stands for one label. For reports only.
fn covers(name: &str, host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    match name.strip_prefix("*.") {
        Some(parent) => host.split_once('.').is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(parent)),
        None => name.eq_ignore_ascii_case(host),
    }
}

fn system_time(unix: i64) -> SystemTime {
    let distance = Duration::from_secs(unix.unsigned_abs());
    let time = if unix < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    };
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_for_one_label() {
        assert!(covers("a.abc.eu-west-1.rds.amazonaws.com", "A.abc.eu-west-1.rds.amazonaws.com"));
        assert!(covers("*.abc.eu-west-1.rds.amazonaws.com", "a.abc.eu-west-1.rds.amazonaws.com."));
        assert!(!covers("*.abc.eu-west-1.rds.amazonaws.com", "abc.eu-west-1.rds.amazonaws.com"));
        assert!(!covers("*.rds.amazonaws.com", "a.abc.rds.amazonaws.com"));
        assert!(covers("10.0.2.7", "10.0.2.7"));
    }

    #[test]
    fn control_characters_and_length_are_removed_for_logs() {
        assert_eq!(printable("CN=a\n2026 ERROR all is lost\u{1b}[2J"), "CN=a?2026 ERROR all is lost?[2J");
        assert_eq!(printable(&"x".repeat(100_000)).len(), LONGEST_TEXT);
    }

    #[test]
    fn dates_before_1970_are_converted() {
        assert_eq!(system_time(-1), SystemTime::UNIX_EPOCH - Duration::from_secs(1));
        assert_eq!(system_time(1), SystemTime::UNIX_EPOCH + Duration::from_secs(1));
    }
}
