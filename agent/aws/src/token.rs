//! A signed token: the secret and its public properties.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use zeroize::Zeroizing;

use crate::target::Target;

/// The password of one IAM login.
///
/// It has no `Display`, `Debug` omits the secret, and its memory is wiped on drop. Share it by
/// `Arc` instead of copying the text.
pub struct Token {
    pub(crate) secret: Zeroizing<String>,
    pub(crate) target: Target,
    pub(crate) signed_at: SystemTime,
    pub(crate) expires_at: SystemTime,
    pub(crate) provider: String,
    pub(crate) credentials_expire_at: Option<SystemTime>,
}

impl Token {
    /// The secret, to be sent over verified TLS only. 346 characters, or a few thousand with a
    /// session token.
    pub fn expose_secret(&self) -> &str {
        &self.secret
    }

    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The date in the signature: the time of signing, rounded down to a second.
    pub fn signed_at(&self) -> SystemTime {
        self.signed_at
    }

    /// When the database stops accepting it: 900 s after signing, or when the credentials that
    /// signed it expire, whichever is first.
    pub fn expires_at(&self) -> SystemTime {
        self.expires_at
    }

    /// Zero if the clock was set back to before its signing.
    pub fn age(&self, now: SystemTime) -> Duration {
        now.duration_since(self.signed_at).unwrap_or_default()
    }

    /// The remaining time until [`Self::expires_at`]; zero after it.
    pub fn expires_in(&self, now: SystemTime) -> Duration {
        self.expires_at.duration_since(now).unwrap_or_default()
    }

    /// The provider of the credentials, such as `EcsContainer`.
    pub fn provider(&self) -> &str {
        &self.provider
    }

    /// When the credentials expire; `None` if they do not.
    pub fn credentials_expire_at(&self) -> Option<SystemTime> {
        self.credentials_expire_at
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("target", &self.target)
            .field("signed_at", &self.signed_at)
            .field("expires_at", &self.expires_at)
            .field("provider", &self.provider)
            .field("credentials_expire_at", &self.credentials_expire_at)
            .finish_non_exhaustive()
    }
}
