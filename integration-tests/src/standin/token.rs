//! RDS authentication tokens: signed and verified, independently of the AWS crates.
//!
//! A token is a presigned `GET https://HOST:PORT/?Action=connect&DBUser=USER` for the service
//! `rds-db`, without its `https://`. The rules are those of AWS Signature Version 4 with
//! query parameters
//! (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>).
//!
//! [`verify`] is stricter than RDS is known to be where that keeps a wrong signer from
//! passing: hosts are compared as they are written, and no parameter may be unknown or twice.

use std::{fmt, time::Duration};

use hmac::{Hmac, KeyInit, Mac};
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use sha2::{Digest, Sha256};

use super::credential::{Credential, Issued};

/// The only life that a token may claim.
const LIFE: Duration = Duration::from_mins(15);

/// How far the signer's clock may be ahead.
const SKEW: Duration = Duration::from_mins(5);

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const SERVICE: &str = "rds-db";

/// What a token is for.
#[derive(Clone, Copy, Debug)]
pub struct Purpose<'a> {
    /// The RDS name, lower case.
    pub host: &'a str,
    pub port: u16,
    /// Such as `eu-west-1`.
    pub region: &'a str,
    pub user: &'a str,
}

/// What a server takes.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The names by which it can be reached: its own, the cluster's.
    pub names: &'a [String],
    pub port: u16,
    pub region: &'a str,
    /// The user that logs in.
    pub user: &'a str,
}

/// Why a token was refused. The client never learns it, as on RDS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Not a token at all, with the first thing that is wrong with it.
    Malformed(&'static str),
    /// Signed for another action than `connect`.
    Action,
    /// Signed with another algorithm.
    Algorithm,
    /// Claims another life than 900 seconds.
    Life,
    /// Signs other headers than the host.
    SignedHeaders,
    /// Signed for another service than `rds-db`, or with a scope that is not a scope.
    Scope,
    /// Signed for another region.
    Region,
    /// Signed for another host.
    Host,
    /// Signed for another port.
    Port,
    /// Signed for another user than the one that logs in.
    User,
    /// No such access key exists.
    UnknownKey,
    /// Not the session token that was issued with the access key.
    SessionToken,
    /// The signature is not the one that the secret key makes.
    Signature,
    /// The credential behind it was revoked.
    CredentialRevoked,
    /// The credential behind it has expired.
    CredentialExpired,
    /// Signed more than five minutes in the future.
    NotYetValid,
    /// Signed 900 seconds ago or more.
    Expired,
    /// Nothing wrong with it: tokens are being refused for a while.
    ForAWhile,
    /// Nothing wrong with it: too many logins within a second.
    Throttled,
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = match self {
            Refusal::Malformed(what) => return write!(formatter, "malformed: {what}"),
            Refusal::Action => "another action",
            Refusal::Algorithm => "another algorithm",
            Refusal::Life => "another life than 900 s",
            Refusal::SignedHeaders => "other signed headers",
            Refusal::Scope => "another scope",
            Refusal::Region => "another region",
            Refusal::Host => "another host",
            Refusal::Port => "another port",
            Refusal::User => "another user",
            Refusal::UnknownKey => "unknown access key",
            Refusal::SessionToken => "another session token",
            Refusal::Signature => "wrong signature",
            Refusal::CredentialRevoked => "credential revoked",
            Refusal::CredentialExpired => "credential expired",
            Refusal::NotYetValid => "signed in the future",
            Refusal::Expired => "token expired",
            Refusal::ForAWhile => "refused for a while",
            Refusal::Throttled => "too many logins within a second",
        };
        formatter.write_str(reason)
    }
}

// === signing ===

/// A genuine token, signed at `at`.
pub fn sign(credential: &Credential, purpose: &Purpose<'_>, at: Timestamp) -> String {
    let date_time = at.strftime("%Y%m%dT%H%M%SZ").to_string();
    let scope = Scope { date: at.strftime("%Y%m%d").to_string(), region: purpose.region.to_owned() };
    let mut parameters: Vec<(String, String)> = [
        ("Action", "connect"),
        ("DBUser", purpose.user),
        ("X-Amz-Algorithm", ALGORITHM),
        ("X-Amz-Credential", &format!("{}/{scope}", credential.access_key)),
        ("X-Amz-Date", &date_time),
        ("X-Amz-Expires", "900"),
        ("X-Amz-SignedHeaders", "host"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    if !credential.session_token.is_empty() {
        parameters.push(("X-Amz-Security-Token".to_owned(), credential.session_token.clone()));
    }
    let authority = format!("{}:{}", purpose.host, purpose.port);
    let signature = signature(&credential.secret_key, &scope, &date_time, &authority, &parameters);
    let query = encoded(&parameters).join("&");
    format!("{authority}/?{query}&X-Amz-Signature={signature}")
}

// === verifying ===

/// Whether a server takes this token at `now`; `look_up` knows the issued credentials.
pub fn verify(
    token: &str,
    expected: &Expected<'_>,
    look_up: impl Fn(&str) -> Option<Issued>,
    now: Timestamp,
) -> Result<(), Refusal> {
    let parsed = Parsed::from_token(token)?;
    if parsed.action != "connect" {
        return Err(Refusal::Action);
    }
    if parsed.algorithm != ALGORITHM {
        return Err(Refusal::Algorithm);
    }
    if parsed.expires != LIFE.as_secs().to_string() {
        return Err(Refusal::Life);
    }
    if parsed.signed_headers != "host" {
        return Err(Refusal::SignedHeaders);
    }
    let (access_key, scope) = Scope::from_credential(&parsed.credential).ok_or(Refusal::Scope)?;
    if parsed.date_time.split('T').next() != Some(&scope.date) {
        return Err(Refusal::Scope);
    }
    if scope.region != expected.region {
        return Err(Refusal::Region);
    }
    if !expected.names.contains(&parsed.host) {
        return Err(Refusal::Host);
    }
    if parsed.port != expected.port.to_string() {
        return Err(Refusal::Port);
    }
    if parsed.user != expected.user {
        return Err(Refusal::User);
    }

    let Issued { credential, revoked } = look_up(access_key).ok_or(Refusal::UnknownKey)?;
    if parsed.session_token.as_deref().unwrap_or("") != credential.session_token {
        return Err(Refusal::SessionToken);
    }
    let authority = format!("{}:{}", parsed.host, parsed.port);
    let signed =
        signature(&credential.secret_key, &scope, &parsed.date_time, &authority, &parsed.signed_parameters);
    if parsed.signature != signed {
        return Err(Refusal::Signature);
    }

    if revoked {
        return Err(Refusal::CredentialRevoked);
    }
    if now >= credential.expires_at {
        return Err(Refusal::CredentialExpired);
    }
    let signed_at = DateTime::strptime("%Y%m%dT%H%M%SZ", &parsed.date_time)
        .and_then(|date_time| date_time.to_zoned(TimeZone::UTC))
        .map_err(|_| Refusal::Malformed("the date is not a date"))?
        .timestamp();
    if now + SKEW < signed_at {
        return Err(Refusal::NotYetValid);
    }
    if now >= signed_at + LIFE {
        return Err(Refusal::Expired);
    }
    Ok(())
}

/// A token taken apart; every value is decoded.
struct Parsed {
    host: String,
    port: String,
    action: String,
    user: String,
    algorithm: String,
    credential: String,
    date_time: String,
    expires: String,
    signed_headers: String,
    session_token: Option<String>,
    signature: String,
    /// All of the query but the signature, in the order of the token.
    signed_parameters: Vec<(String, String)>,
}

impl Parsed {
    fn from_token(token: &str) -> Result<Self, Refusal> {
        use Refusal::Malformed;
        let (authority, query) = token.split_once("/?").ok_or(Malformed("no query"))?;
        let (host, port) = authority.rsplit_once(':').ok_or(Malformed("no port"))?;

        let mut parameters = Vec::new();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').ok_or(Malformed("a parameter without a value"))?;
            let name = decode(name).ok_or(Malformed("a name that is not percent-encoded"))?;
            let value = decode(value).ok_or(Malformed("a value that is not percent-encoded"))?;
            if parameters.iter().any(|(known, _)| *known == name) {
                return Err(Malformed("a parameter twice"));
            }
            parameters.push((name, value));
        }

        let mut unread = parameters.clone();
        let mut take = |name: &str| {
            let at = unread.iter().position(|(known, _)| known == name)?;
            Some(unread.remove(at).1)
        };
        let parsed = Self {
            host: host.to_owned(),
            port: port.to_owned(),
            action: take("Action").ok_or(Malformed("no Action"))?,
            user: take("DBUser").ok_or(Malformed("no DBUser"))?,
            algorithm: take("X-Amz-Algorithm").ok_or(Malformed("no X-Amz-Algorithm"))?,
            credential: take("X-Amz-Credential").ok_or(Malformed("no X-Amz-Credential"))?,
            date_time: take("X-Amz-Date").ok_or(Malformed("no X-Amz-Date"))?,
            expires: take("X-Amz-Expires").ok_or(Malformed("no X-Amz-Expires"))?,
            signed_headers: take("X-Amz-SignedHeaders").ok_or(Malformed("no X-Amz-SignedHeaders"))?,
            session_token: take("X-Amz-Security-Token"),
            signature: take("X-Amz-Signature").ok_or(Malformed("no X-Amz-Signature"))?,
            signed_parameters: parameters.into_iter().filter(|(name, _)| name != "X-Amz-Signature").collect(),
        };
        if !unread.is_empty() {
            return Err(Malformed("an unknown parameter"));
        }
        Ok(parsed)
    }
}

// === what both share ===

/// Where and when a signature counts.
struct Scope {
    date: String,
    region: String,
}

impl Scope {
    /// `ACCESSKEY/date/region/rds-db/aws4_request`.
    fn from_credential(credential: &str) -> Option<(&str, Self)> {
        let mut parts = credential.split('/');
        let access_key = parts.next()?;
        let scope = Self { date: parts.next()?.to_owned(), region: parts.next()?.to_owned() };
        let rest = [parts.next()?, parts.next()?];
        (rest == [SERVICE, "aws4_request"] && parts.next().is_none()).then_some((access_key, scope))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}/{SERVICE}/aws4_request", self.date, self.region)
    }
}

fn signature(
    secret_key: &str,
    scope: &Scope,
    date_time: &str,
    authority: &str,
    parameters: &[(String, String)],
) -> String {
    let mut query = encoded(parameters);
    query.sort_unstable();
    let nothing = hexadecimal(&Sha256::digest(b""));
    // HTTPS's own port is not named in the header that is signed.
    let header = authority.strip_suffix(":443").unwrap_or(authority);
    let request = format!("GET\n/\n{}\nhost:{header}\n\nhost\n{nothing}", query.join("&"));
    let request = hexadecimal(&Sha256::digest(request.as_bytes()));
    let to_sign = format!("{ALGORITHM}\n{date_time}\n{scope}\n{request}");

    let mut key = hmac(format!("AWS4{secret_key}").as_bytes(), &scope.date);
    for part in [scope.region.as_str(), SERVICE, "aws4_request"] {
        key = hmac(&key, part);
    }
    hexadecimal(&hmac(&key, &to_sign))
}

#[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
fn hmac(key: &[u8], message: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length");
    mac.update(message.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hexadecimal(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

fn encoded(parameters: &[(String, String)]) -> Vec<String> {
    parameters.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect()
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte)
}

fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| if is_unreserved(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// `None` where a character should have been encoded: `+` for a space, for one.
fn decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let (high, low) = (digit(bytes.next()?)?, digit(bytes.next()?)?);
                u8::try_from(high * 16 + low).ok()?
            }
            byte if is_unreserved(byte) => byte,
            _ => return None,
        });
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
#[path = "token_tests.rs"]
mod tests;
