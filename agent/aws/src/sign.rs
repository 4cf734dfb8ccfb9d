//! Signs a token. Pure: no clock, no I/O.
//!
//! A token is a presigned `GET https://HOST:PORT/?Action=connect&DBUser=USER` for the service
//! `rds-db`, without its `https://`. Signed with `aws-sigv4` directly, it is identical to
//! botocore's, byte for byte.

use std::{
    fmt::Write as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{self, SignableBody, SignableRequest, SignatureLocation, SigningSettings},
    sign::v4,
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use thiserror::Error;
use tracing::{Dispatch, dispatcher::with_default};
use zeroize::Zeroizing;

use crate::{causes::chain, target::Target, token::Token};

/// `X-Amz-Expires`. RDS accepts at most this.
pub const TOKEN_LIFE: Duration = Duration::from_secs(900);

const SERVICE: &str = "rds-db";
const SCHEME: &str = "https://";

/// Placed last, after a session token, in botocore's order.
const SIGNATURE: &str = "X-Amz-Signature";

/// The last second of a four-digit year: a signature's date has no more digits.
const YEAR_9999_END: u64 = 253_402_300_799;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SignError {
    /// Incomplete credentials: the provider is at fault.
    #[error(
        "the AWS credentials from {provider} have an empty access key or secret key; correct what provides them"
    )]
    EmptyKey { provider: String },
    /// The credentials expired before the time of signing.
    #[error("the AWS credentials from {provider} have expired; renew them, or check this host's clock")]
    Expired { provider: String },
    /// The time does not fit a signature's date: the host's clock is wrong.
    #[error("the time of signing is outside the years 1970 to 9999; set this host's clock")]
    Clock,
    /// The signer refused the request. Not expected for a validated target.
    #[error("AWS signer: {0}")]
    Signer(String),
}

/// Signs a token for `target` with `credentials`, dated `signed_at`.
pub fn sign(target: &Target, credentials: &Credentials, signed_at: SystemTime) -> Result<Token, SignError> {
    let provider = provider_name(credentials);
    if credentials.access_key_id().is_empty() || credentials.secret_access_key().is_empty() {
        return Err(SignError::EmptyKey { provider });
    }
    // The signature's date has whole seconds, and the lifetime counts from it.
    let signed_at = match signed_at.duration_since(UNIX_EPOCH) {
        Ok(since) if since.as_secs() <= YEAR_9999_END => UNIX_EPOCH + Duration::from_secs(since.as_secs()),
        _ => return Err(SignError::Clock),
    };
    let expires_at = signed_at + TOKEN_LIFE;
    let expires_at = credentials.expiry().map_or(expires_at, |expiry| expires_at.min(expiry));
    if expires_at <= signed_at {
        return Err(SignError::Expired { provider });
    }

    let url = format!(
        "{SCHEME}{}:{}/?Action=connect&DBUser={}",
        target.host(),
        target.port(),
        utf8_percent_encode(target.user(), ENCODED)
    );
    Ok(Token {
        secret: presign(&url, target.region().as_str(), credentials, signed_at)?,
        target: target.clone(),
        signed_at,
        expires_at,
        provider,
        credentials_expire_at: credentials.expiry(),
    })
}

fn presign(
    url: &str,
    region: &str,
    credentials: &Credentials,
    time: SystemTime,
) -> Result<Zeroizing<String>, SignError> {
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(TOKEN_LIFE);
    let identity = credentials.clone().into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name(SERVICE)
        .time(time)
        .settings(settings)
        .build()
        .map_err(|error| SignError::Signer(chain(&error)))?
        .into();
    let request = SignableRequest::new("GET", url, std::iter::empty(), SignableBody::Bytes(&[]))
        .map_err(|error| SignError::Signer(chain(&error)))?;
    // At level trace the signer logs the whole request, including the session token. That must
    // not reach any log.
    let signed = with_default(&Dispatch::none(), || http_request::sign(request, &params));
    let (instructions, _) = signed.map_err(|error| SignError::Signer(chain(&error)))?.into_parts();
    let (_, mut added) = instructions.into_parts();
    added.sort_by_key(|(name, _)| *name == SIGNATURE);

    // Allocated at full size at once: a growing string leaves copies behind that are not wiped.
    let room = url.len() + added.iter().map(|(name, value)| name.len() + 3 * value.len() + 2).sum::<usize>();
    let mut secret = Zeroizing::new(String::with_capacity(room));
    secret.push_str(url.strip_prefix(SCHEME).unwrap_or(url));
    for (name, value) in added {
        let value = Zeroizing::new(value.into_owned());
        // Writing to a string cannot fail.
        let _ = write!(secret, "&{name}={}", utf8_percent_encode(&value, ENCODED));
    }
    Ok(secret)
}

/// SigV4 encodes everything except `A-Za-z0-9-_.~`.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The provider of the credentials, such as `EcsContainer`. The SDK exposes it in `Debug` only;
/// `unknown` should that change.
pub(crate) fn provider_name(credentials: &Credentials) -> String {
    let shown = format!("{credentials:?}");
    let name = shown.split_once("provider_name: \"").and_then(|(_, rest)| rest.split_once('"'));
    name.map_or("unknown", |(name, _)| name).to_owned()
}
