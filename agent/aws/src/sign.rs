//! From target, credentials and time to a token. Pure: no clock, no I/O.
//!
//! A token is a presigned `GET https://HOST:PORT/?Action=connect&DBUser=USER` of
//! the service `rds-db`, without its `https://`. It is signed with `aws-sigv4`
//! directly and equals what botocore makes, byte for byte.

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

/// What `X-Amz-Expires` says. RDS accepts no longer one.
pub const TOKEN_LIFE: Duration = Duration::from_secs(900);

const SERVICE: &str = "rds-db";
const SCHEME: &str = "https://";

/// The parameter that goes last, after a session token, as botocore has it.
const SIGNATURE: &str = "X-Amz-Signature";

/// The last second that fits into the four-digit year of a signature's date.
const YEAR_9999_END: u64 = 253_402_300_799;

/// Nothing could be signed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SignError {
    /// The credentials are half empty: their provider is at fault.
    #[error(
        "the AWS credentials from {provider} have an empty access key or secret key; correct what provides them"
    )]
    EmptyKey {
        /// Which link of the chain gave them.
        provider: String,
    },
    /// The credentials had expired before the time of signing.
    #[error("the AWS credentials from {provider} have expired; renew them, or check this host's clock")]
    Expired {
        /// Which link of the chain gave them.
        provider: String,
    },
    /// The time cannot be written as a signature's date: the host's clock is wrong.
    #[error("the time of signing is outside the years 1970 to 9999; set this host's clock")]
    Clock,
    /// The signer refused the request. Not expected for a checked target.
    #[error("AWS signer: {0}")]
    Signer(String),
}

/// Signs a token for `target` with `credentials`, dated `signed_at`.
pub fn sign(target: &Target, credentials: &Credentials, signed_at: SystemTime) -> Result<Token, SignError> {
    let provider = provider_name(credentials);
    if credentials.access_key_id().is_empty() || credentials.secret_access_key().is_empty() {
        return Err(SignError::EmptyKey { provider });
    }
    // The signature's date has no fractions, and the life counts from it.
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
    // The signer logs, at level trace, the whole request that it signs, and with it
    // the session token. Nobody may hear that.
    let signed = with_default(&Dispatch::none(), || http_request::sign(request, &params));
    let (instructions, _) = signed.map_err(|error| SignError::Signer(chain(&error)))?.into_parts();
    let (_, mut added) = instructions.into_parts();
    added.sort_by_key(|(name, _)| *name == SIGNATURE);

    // Room for the worst case at once: a string that grows leaves copies behind
    // that nobody wipes.
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

/// What SigV4 leaves as it is: `A-Za-z0-9-_.~`. Every other byte is percent-encoded.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Which link of the chain gave the credentials, such as `EcsContainer`. The SDK
/// shows it in its `Debug` and nowhere else; `unknown` if it stops doing so.
pub(crate) fn provider_name(credentials: &Credentials) -> String {
    let shown = format!("{credentials:?}");
    let name = shown.split_once("provider_name: \"").and_then(|(_, rest)| rest.split_once('"'));
    name.map_or("unknown", |(name, _)| name).to_owned()
}
