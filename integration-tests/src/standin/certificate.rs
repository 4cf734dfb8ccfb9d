//! The stand-in's certificates: a CA of its own, and one certificate for each server.
//!
//! As on RDS, a server's certificate carries its own name and those of its cluster, and no
//! address: who verifies has to know the name, whatever is dialled.

use std::time::Duration;

use jiff::{Timestamp, civil::Date, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

use super::credential::random_text;

const DAY: Duration = Duration::from_hours(24);

/// A certificate authority that lives as long as its stand-in.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A server's certificate and key, both in PEM.
pub struct ServerCertificate {
    pub certificate: String,
    /// Readable by the server alone.
    pub key: String,
}

impl Authority {
    /// A new authority, valid from yesterday on for ten years.
    pub fn new(now: Timestamp) -> Result<Self, rcgen::Error> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::OrganizationName, "IAM stand-in");
        // A name of its own, so that several can be in one bundle.
        let name = format!("IAM stand-in root CA {}", random_text(8, b"0123456789abcdef"));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        valid_for(&mut params, now, 3_650);
        Ok(Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)? })
    }

    /// The authority's certificate in PEM: what clients trust.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for a server that is known by these names, the first being its own;
    /// valid from yesterday on for a year.
    pub fn certify(&self, names: &[String], now: Timestamp) -> Result<ServerCertificate, rcgen::Error> {
        let mut params = CertificateParams::new(names)?;
        if let Some(own) = names.first() {
            params.distinguished_name.push(DnType::CommonName, own.as_str());
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        valid_for(&mut params, now, 365);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(ServerCertificate { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

fn valid_for(params: &mut CertificateParams, now: Timestamp, days: u32) {
    let date = |at: Timestamp| at.to_zoned(TimeZone::UTC).date();
    let midnight = |date: Date| {
        // Months and days of a calendar date are never negative.
        date_time_ymd(date.year().into(), date.month().unsigned_abs(), date.day().unsigned_abs())
    };
    params.not_before = midnight(date(now - DAY));
    params.not_after = midnight(date(now + DAY * days));
}
