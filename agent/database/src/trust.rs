//! The certificate authorities that may sign a database's certificate.
//!
//! Either the built-in RDS roots, or a file named by the operator: Amazon's current bundle, or a
//! private authority. A file replaces the built-in roots. The operating system's trust store is
//! not used, because a public authority must not be able to vouch for a database.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use rustls::{
    RootCertStore,
    client::{VerifierBuilderError, WebPkiServerVerifier},
    crypto::CryptoProvider,
};
use rustls_pki_types::{CertificateDer, pem, pem::PemObject};

use crate::certificate::certificate_facts;

/// Amazon's roots, as `certs/README.md` describes them.
const BUILT_IN: &[u8] = include_bytes!("../certs/rds-global-bundle.pem");

/// Far above any bundle: Amazon's global one has 160 KB.
const LARGEST_FILE: u64 = 4 * 1024 * 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrustSource {
    /// Amazon's RDS roots inside the agent.
    BuiltIn,
    /// A file of PEM certificates.
    File(PathBuf),
}

impl fmt::Display for TrustSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TrustSource::BuiltIn => f.write_str("the RDS roots built into the agent"),
            TrustSource::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Certificate authorities, loaded once and shared by all logins.
#[derive(Clone)]
pub struct TlsTrust {
    source: TrustSource,
    trusted: usize,
    expired: usize,
    provider: Arc<CryptoProvider>,
    verifier: Arc<WebPkiServerVerifier>,
}

impl TlsTrust {
    /// Amazon's RDS roots that are built in.
    ///
    /// # Errors
    /// When all of them have expired: an agent decades old.
    pub fn built_in() -> Result<Self, TrustError> {
        Self::load(TrustSource::BuiltIn)
    }

    /// The authorities of a PEM file.
    ///
    /// # Errors
    /// When it cannot be read, holds no certificate or a broken one, or when all have expired.
    pub fn from_file(path: impl Into<PathBuf>) -> Result<Self, TrustError> {
        Self::load(TrustSource::File(path.into()))
    }

    /// Loads from a source.
    ///
    /// # Errors
    /// As [`TlsTrust::from_file`].
    pub fn load(source: TrustSource) -> Result<Self, TrustError> {
        let failed = |problem| TrustError { origin: source.clone(), problem };
        let (roots, expired) = match &source {
            TrustSource::BuiltIn => parse(BUILT_IN),
            TrustSource::File(path) => read(path).and_then(|text| parse(&text)),
        }
        .map_err(failed)?;
        let trusted = roots.len();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|error| failed(Problem::Verifier(error)))?;
        Ok(Self { source, trusted, expired, provider, verifier })
    }

    /// Loads again from the same source. `self` does not change, so a caller can keep it when
    /// this fails.
    ///
    /// # Errors
    /// As [`TlsTrust::from_file`].
    pub fn reload(&self) -> Result<Self, TrustError> {
        Self::load(self.source.clone())
    }

    pub fn source(&self) -> &TrustSource {
        &self.source
    }

    pub fn trusted(&self) -> usize {
        self.trusted
    }

    /// How many were skipped because they have expired. webpki does not check the expiry of
    /// trust anchors.
    pub fn expired(&self) -> usize {
        self.expired
    }

    pub(crate) fn provider(&self) -> Arc<CryptoProvider> {
        Arc::clone(&self.provider)
    }

    pub(crate) fn verifier(&self) -> Arc<WebPkiServerVerifier> {
        Arc::clone(&self.verifier)
    }
}

impl fmt::Debug for TlsTrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsTrust")
            .field("source", &self.source)
            .field("trusted", &self.trusted)
            .field("expired", &self.expired)
            .finish_non_exhaustive()
    }
}

/// Why certificate authorities could not be loaded.
#[derive(Debug, thiserror::Error)]
#[error("certificate authorities of {origin}: {problem}")]
pub struct TrustError {
    origin: TrustSource,
    problem: Problem,
}

/// What is wrong with the file.
#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("cannot be read: {0}")]
    Read(io::Error),
    #[error("larger than {LARGEST_FILE} bytes")]
    TooLarge,
    #[error("not PEM: {0}")]
    Pem(pem::Error),
    #[error("holds no certificate; expected PEM text with -----BEGIN CERTIFICATE-----")]
    Empty,
    #[error("certificate {0} is broken: {1}")]
    Broken(usize, String),
    #[error("all {0} certificates have expired; download a current bundle")]
    AllExpired(usize),
    #[error("{0}")]
    Verifier(VerifierBuilderError),
}

fn read(path: &Path) -> Result<Vec<u8>, Problem> {
    if std::fs::metadata(path).map_err(Problem::Read)?.len() > LARGEST_FILE {
        return Err(Problem::TooLarge);
    }
    std::fs::read(path).map_err(Problem::Read)
}

/// The roots that are still valid, and how many are not.
fn parse(text: &[u8]) -> Result<(RootCertStore, usize), Problem> {
    let now = SystemTime::now();
    let mut roots = RootCertStore::empty();
    let mut expired = 0;
    let mut position = 0;
    for certificate in CertificateDer::pem_slice_iter(text) {
        let certificate = certificate.map_err(Problem::Pem)?;
        position += 1;
        let facts = certificate_facts(&certificate, None).map_err(|why| Problem::Broken(position, why))?;
        if facts.not_after < now {
            expired += 1;
            continue;
        }
        roots.add(certificate).map_err(|error| Problem::Broken(position, error.to_string()))?;
    }
    match (position, roots.is_empty()) {
        (0, _) => Err(Problem::Empty),
        (all, true) => Err(Problem::AllExpired(all)),
        _ => Ok((roots, expired)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[test]
    fn every_built_in_certificate_is_a_valid_rds_root() {
        let blocks = BUILT_IN.windows(27).filter(|text| text == b"-----BEGIN CERTIFICATE-----").count();
        let trust = TlsTrust::built_in().unwrap();
        assert!(blocks > 50, "only {blocks} certificates");
        assert_eq!((trust.trusted(), trust.expired()), (blocks, 0));

        let mut names = BTreeSet::new();
        for certificate in CertificateDer::pem_slice_iter(BUILT_IN) {
            let facts = certificate_facts(&certificate.unwrap(), None).unwrap();
            assert_eq!(facts.subject, facts.issuer, "not a root");
            assert!(facts.subject.contains("OU=Amazon RDS"), "{}", facts.subject);
            assert!(names.insert(facts.subject.clone()), "twice: {}", facts.subject);
        }
        for region in ["eu-west-1", "us-east-1", "ap-southeast-2"] {
            for kind in ["RSA2048", "RSA4096", "ECC384"] {
                let name = format!("CN=Amazon RDS {region} Root CA {kind} G1");
                assert!(names.iter().any(|subject| subject.contains(&name)), "{name} is missing");
            }
        }
    }

    #[test]
    fn a_file_is_loaded_and_reloaded() {
        let (_folder, path) = written(std::str::from_utf8(BUILT_IN).unwrap());
        let trust = TlsTrust::from_file(&path).unwrap();
        assert!(trust.trusted() > 50);

        let one =
            std::str::from_utf8(BUILT_IN).unwrap().split_inclusive("-----END CERTIFICATE-----\n").next();
        std::fs::write(&path, one.unwrap()).unwrap();
        assert_eq!(trust.reload().unwrap().trusted(), 1);
    }

    #[test]
    fn errors_name_the_file_and_the_problem() {
        let missing = TlsTrust::from_file("/nowhere/ca.pem").unwrap_err().to_string();
        assert!(
            missing.starts_with("certificate authorities of /nowhere/ca.pem: cannot be read: "),
            "{missing}"
        );

        let (_folder, path) = written("hello");
        let empty = TlsTrust::from_file(&path).unwrap_err().to_string();
        assert!(empty.contains("holds no certificate") && empty.contains("ca.pem"), "{empty}");

        let (_folder, path) = written("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        let broken = TlsTrust::from_file(&path).unwrap_err().to_string();
        assert!(broken.contains("certificate 1 is broken"), "{broken}");

        let (_folder, path) = written("-----BEGIN CERTIFICATE-----\n*\n-----END CERTIFICATE-----\n");
        let not_pem = TlsTrust::from_file(&path).unwrap_err().to_string();
        assert!(not_pem.contains("not PEM"), "{not_pem}");
    }

    #[test]
    fn a_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(TlsTrust::from_file(folder.path()).unwrap_err().to_string().contains("cannot be read"));
    }
}
