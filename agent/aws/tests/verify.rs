//! Every token passes a verifier written from the SigV4 specification alone.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a test")]

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use agent_aws::{Region, SignError, Target, Token, sign};
use aws_credential_types::Credentials;
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use proptest::prelude::*;
use sha2::{Digest, Sha256};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first == b'%' {
            let (code, tail) = rest.split_at(2);
            bytes.push(
                u8::from_str_radix(std::str::from_utf8(code).expect("ASCII"), 16).expect("hexadecimal"),
            );
            rest = tail;
        } else {
            assert!(first.is_ascii_alphanumeric() || b"-_.~".contains(first), "{first} has to be encoded");
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).expect("UTF-8")
}

/// What a verified token says, decoded.
fn verified(token: &str, secret_key: &str) -> (String, BTreeMap<String, String>) {
    let (host, query) = token.split_once("/?").expect("a query");
    let (signed, signature) = query.rsplit_once("&X-Amz-Signature=").expect("the signature last");
    let mut pairs: Vec<&str> = signed.split('&').collect();
    pairs.sort_unstable();
    let parameters: BTreeMap<String, String> = pairs
        .iter()
        .map(|pair| pair.split_once('=').expect("a value"))
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect();
    assert_eq!(parameters.len(), pairs.len(), "a parameter twice");

    let (_, scope) = parameters["X-Amz-Credential"].split_once('/').expect("a scope");
    // HTTPS's own port is not named in the header that is signed. botocore's tokens say the same.
    let header = host.strip_suffix(":443").unwrap_or(host);
    let request =
        format!("GET\n/\n{}\nhost:{header}\n\nhost\n{}", pairs.join("&"), hex(&Sha256::digest(b"")));
    let to_sign = format!(
        "AWS4-HMAC-SHA256\n{}\n{scope}\n{}",
        parameters["X-Amz-Date"],
        hex(&Sha256::digest(request.as_bytes()))
    );
    let key = scope.split('/').fold(format!("AWS4{secret_key}").into_bytes(), |key, part| hmac(&key, part));
    assert_eq!(signature, hex(&hmac(&key, &to_sign)), "the signature");
    (host.to_owned(), parameters)
}

fn users() -> impl Strategy<Value = String> {
    prop_oneof!["[ -~]{1,40}", "\\PC{1,20}", "[a-z_][a-z0-9_]{0,30}", "[+&= %/?#@.~]{1,10}"]
        .prop_filter("of a database's length", |user| user.len() <= 255)
}

proptest! {
    #[test]
    fn every_token_verifies_and_says_what_it_was_signed_for(
        host in "[A-Za-z0-9][A-Za-z0-9-]{0,30}(\\.[A-Za-z0-9][A-Za-z0-9-]{0,20}){1,5}",
        port in prop_oneof![1 => Just(80), 1 => Just(443), 8 => 1..=u16::MAX],
        user in users(),
        region in "[a-z]{2}(-gov|-iso)?-(north|southeast|central)-[1-9]",
        access_key in "A[SK]IA[A-Z2-7]{16}",
        secret_key in "[A-Za-z0-9+/]{40}",
        session in prop::option::of("[A-Za-z0-9+/=]{1,1500}"),
        signed_at in 0..253_402_300_000_u64,
        nanos in 0..1_000_000_000_u32,
        left in prop::option::of(1..100_000_u64),
    ) {
        let target = Target::new(&host, port, &user, Region::parse(&region).expect("region")).expect("target");
        let date = UNIX_EPOCH + Duration::from_secs(signed_at);
        let expiry = left.map(|left| date + Duration::from_secs(left));
        let credentials = Credentials::new(&access_key, &secret_key, session.clone(), expiry, "made up");
        let token = sign(&target, &credentials, date + Duration::from_nanos(nanos.into())).expect("signed");

        let (token_host, parameters) = verified(token.expose_secret(), &secret_key);
        prop_assert_eq!(token_host, format!("{}:{port}", host.to_lowercase()));
        prop_assert_eq!(&parameters["Action"], "connect");
        prop_assert_eq!(&parameters["DBUser"], &user);
        prop_assert_eq!(&parameters["X-Amz-Expires"], "900");
        prop_assert_eq!(&parameters["X-Amz-SignedHeaders"], "host");
        prop_assert_eq!(parameters.get("X-Amz-Security-Token"), session.as_ref());
        let at = Timestamp::try_from(date).expect("a date");
        prop_assert_eq!(&parameters["X-Amz-Date"], &at.strftime("%Y%m%dT%H%M%SZ").to_string());
        let scope = format!("{access_key}/{}/{region}/rds-db/aws4_request", at.strftime("%Y%m%d"));
        prop_assert_eq!(&parameters["X-Amz-Credential"], &scope);

        prop_assert_eq!(token.signed_at(), date);
        let life = Duration::from_secs(left.unwrap_or(900).min(900));
        prop_assert_eq!(token.expires_at(), date + life);
        prop_assert_eq!(token.expires_in(date), life);
        prop_assert_eq!(token.expires_in(date + life), Duration::ZERO);
        prop_assert_eq!(token.age(date + life), life);
        prop_assert_eq!(token.provider(), "made up");

        let shown = format!("{token:?}{target:?}");
        for secret in [&secret_key, token.expose_secret()].into_iter().chain(session.as_deref().filter(|s| s.len() > 20)) {
            prop_assert!(!shown.contains(secret));
        }
    }
}

fn signed(key: &str, secret: &str, expiry: Option<SystemTime>, at: SystemTime) -> Result<Token, SignError> {
    let region = Region::parse("eu-west-1").expect("region");
    let target = Target::new("orders.abc.eu-west-1.rds.amazonaws.com", 5432, "app", region).expect("target");
    sign(&target, &Credentials::new(key, secret, None, expiry, "made up"), at)
}

#[test]
fn unusable_credentials_are_an_error_with_advice() {
    let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    for (key, secret) in [("", "secret"), ("AKIA", "")] {
        let error = signed(key, secret, None, now).expect_err("half empty");
        assert!(error.to_string().contains("made up have an empty access key or secret key"), "{error}");
    }
    let error = signed("AKIA", "secret", Some(now), now).expect_err("expired");
    assert_eq!(error, SignError::Expired { provider: "made up".to_owned() });
    assert!(error.to_string().contains("check this host's clock"));
    let dawn = UNIX_EPOCH - Duration::from_secs(1);
    let dusk = UNIX_EPOCH + Duration::from_secs(253_402_300_800);
    assert!(matches!(signed("AKIA", "secret", None, dawn), Err(SignError::Clock)));
    assert!(matches!(signed("AKIA", "secret", None, dusk), Err(SignError::Clock)));
    signed("AKIA", "secret", None, dusk - Duration::from_secs(1)).expect("the last second of the year 9999");
}
