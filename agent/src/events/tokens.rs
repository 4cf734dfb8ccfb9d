//! Tokens for clients, in files and through the socket. The tokens are in no event.

use std::time::{SystemTime, UNIX_EPOCH};

use tracing::{debug, error, info, warn};

use super::Event;
use crate::metrics::{Metrics, labels::OfPath};

/// A token file for clients has a fresh token.
#[derive(Debug)]
pub struct TokenFileWritten<'a> {
    pub path: &'a str,
    /// When the first of its tokens expires.
    pub expires: SystemTime,
    /// Whether it could not be written before.
    pub again: bool,
}

impl Event for TokenFileWritten<'_> {
    fn emit(&self, metrics: &Metrics) {
        let expires = self.expires.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let gauge = metrics.token_file_expires.get_or_create(&OfPath { path: self.path.to_owned() });
        gauge.set(i64::try_from(expires).unwrap_or(i64::MAX));
        if self.again {
            info!(path = self.path, "token file is current again");
        } else {
            debug!(path = self.path, "token file replaced");
        }
    }
}

/// A token file for clients cannot be replaced: the disk, its rights, or the owner that it shall have.
///
/// Do: make its folder writable for the agent's user. `error` names what failed; the agent tries again.
#[derive(Debug)]
pub struct TokenFileFailed<'a> {
    pub path: &'a str,
    pub error: &'a str,
}

impl Event for TokenFileFailed<'_> {
    fn emit(&self, _: &Metrics) {
        error!(
            path = self.path,
            error = self.error,
            "token file cannot be replaced; clients are refused when the token in it has expired"
        );
    }
}

/// A program asked the token socket for a token that its user does not get.
///
/// Do: add the user to `peers` of this token, if it may have it; else find the program.
#[derive(Debug)]
pub struct TokenRefused<'a> {
    pub database: &'a str,
    pub user: &'a str,
    /// Whom the program runs as, if the kernel says.
    pub uid: Option<u32>,
}

impl Event for TokenRefused<'_> {
    fn emit(&self, _: &Metrics) {
        let Self { database, user, uid } = self;
        warn!(database, user, uid, "a program was refused a token: its user is not among the `peers`");
    }
}
