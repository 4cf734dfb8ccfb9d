//! Temporary AWS credentials, all made up: what they are, who issues and remembers them.
//!
//! The [`Issuer`] is the stand-in for STS: the credentials endpoint hands out what it issues,
//! and the verifier asks it what stands behind an access key.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use rustls::crypto::aws_lc_rs;

/// An expired credential is remembered this long, so that a refusal can be named.
const REMEMBERED: Duration = Duration::from_hours(1);

/// One set of temporary credentials. Its secrets do not show in `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// `ASIA…`: not a secret.
    pub access_key: String,
    /// Signs tokens and is never sent.
    pub secret_key: String,
    /// Sent with each request, percent-encoded in a token.
    pub session_token: String,
    /// From then on, nothing signed with it is accepted.
    pub expires_at: Timestamp,
}

impl fmt::Debug for Credential {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { access_key, expires_at, .. } = self;
        write!(formatter, "Credential {{ {access_key}, until {expires_at}, secrets not shown }}")
    }
}

/// A credential and what has become of it.
#[derive(Clone, Debug)]
pub struct Issued {
    /// As it was handed out.
    pub credential: Credential,
    /// Revoked before its end.
    pub revoked: bool,
}

/// Issues credentials of one life, and remembers them.
#[derive(Debug)]
pub struct Issuer {
    life: Duration,
    renew_before: Duration,
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    issued: HashMap<String, Issued>,
    current: Option<String>,
}

impl Issuer {
    /// Credentials live `life`; [`Issuer::current`] gives new ones when the current have less
    /// than `renew_before` left.
    pub fn new(life: Duration, renew_before: Duration) -> Self {
        Self { life, renew_before, memory: Mutex::default() }
    }

    /// The credentials that the endpoint serves at `now`.
    pub fn current(&self, now: Timestamp) -> Credential {
        let mut memory = self.memory();
        let served = memory.current.as_ref().and_then(|access_key| memory.issued.get(access_key));
        if let Some(Issued { credential, revoked: false }) = served
            && now + self.renew_before < credential.expires_at
        {
            return credential.clone();
        }
        memory.issue(now, self.life)
    }

    /// New credentials now, whatever is left of the current ones, which stay valid.
    pub fn rotate(&self, now: Timestamp) -> Credential {
        self.memory().issue(now, self.life)
    }

    /// Credentials that the endpoint does not serve, of any life: for a test's own tokens.
    pub fn issue_apart(&self, now: Timestamp, life: Duration) -> Credential {
        let mut memory = self.memory();
        let served = memory.current.clone();
        let credential = memory.issue(now, life);
        memory.current = served;
        credential
    }

    /// Refuses everything that was or will be signed with this access key.
    pub fn revoke(&self, access_key: &str) {
        if let Some(issued) = self.memory().issued.get_mut(access_key) {
            issued.revoked = true;
        }
    }

    /// Revokes all that were issued up to now; the endpoint serves new ones when next asked.
    pub fn revoke_all(&self) {
        for issued in self.memory().issued.values_mut() {
            issued.revoked = true;
        }
    }

    /// What stands behind an access key.
    pub fn look_up(&self, access_key: &str) -> Option<Issued> {
        self.memory().issued.get(access_key).cloned()
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    fn issue(&mut self, now: Timestamp, life: Duration) -> Credential {
        self.issued.retain(|_, issued| now < issued.credential.expires_at + REMEMBERED);
        let credential = Credential {
            access_key: format!("ASIA{}", random_text(16, b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")),
            secret_key: random_text(40, BASE64),
            // As long as those of an assumed role, with the characters that need encoding.
            session_token: format!("IQoJb3JpZ2luX2Vj+/{}==", random_text(700, BASE64)),
            expires_at: now + life,
        };
        self.current = Some(credential.access_key.clone());
        self.issued
            .insert(credential.access_key.clone(), Issued { credential: credential.clone(), revoked: false });
        credential
    }
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Random characters of an alphabet.
pub(super) fn random_text(length: usize, alphabet: &[u8]) -> String {
    // Slightly uneven where 256 is no multiple of the alphabet: these keys open nothing.
    let character = |byte: u8| alphabet.get(usize::from(byte) % alphabet.len()).copied().map(char::from);
    random_bytes(length).into_iter().filter_map(character).collect()
}

pub(super) fn random_byte() -> u8 {
    random_bytes(1).into_iter().sum()
}

/// # Panics
/// If the system has no randomness to give.
fn random_bytes(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let filled = aws_lc_rs::default_provider().secure_random.fill(&mut bytes);
    assert!(filled.is_ok(), "the system gives no randomness");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

    fn issuer() -> Issuer {
        Issuer::new(Duration::from_mins(1), Duration::from_secs(15))
    }

    #[test]
    fn the_same_credentials_are_served_until_their_end_is_near() {
        let issuer = issuer();
        let first = issuer.current(NOW);
        assert_eq!(issuer.current(NOW + Duration::from_secs(44)), first);
        let second = issuer.current(NOW + Duration::from_secs(45));
        assert_ne!(second, first);
        assert_eq!(second.expires_at, NOW + Duration::from_secs(105));
        assert!(!issuer.look_up(&first.access_key).unwrap().revoked, "rotation revokes nothing");
    }

    #[test]
    fn revoked_credentials_are_served_no_more_and_stay_known_as_revoked() {
        let issuer = issuer();
        let first = issuer.current(NOW);
        issuer.revoke(&first.access_key);
        assert_ne!(issuer.current(NOW), first);
        assert!(issuer.look_up(&first.access_key).unwrap().revoked);
    }

    #[test]
    fn credentials_issued_apart_are_known_but_not_served() {
        let issuer = issuer();
        let served = issuer.current(NOW);
        let apart = issuer.issue_apart(NOW, Duration::from_hours(6));
        assert_eq!(issuer.current(NOW), served);
        assert!(issuer.look_up(&apart.access_key).is_some());
    }

    #[test]
    fn credentials_expired_long_ago_are_forgotten() {
        let issuer = issuer();
        let first = issuer.current(NOW);
        issuer.current(NOW + Duration::from_hours(2));
        assert!(issuer.look_up(&first.access_key).is_none());
    }

    #[test]
    fn secrets_do_not_show() {
        let credential = issuer().current(NOW);
        let shown = format!("{credential:?}");
        assert!(shown.contains(&credential.access_key));
        assert!(!shown.contains(&credential.secret_key) && !shown.contains(&credential.session_token));
    }
}
