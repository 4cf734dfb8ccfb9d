//! Tokens equal botocore's, byte for byte.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a test")]

use std::{
    collections::BTreeMap,
    time::{Duration, UNIX_EPOCH},
};

use agent_aws::{Region, Target, sign};
use aws_credential_types::Credentials;
use serde_json::Value;

const VECTORS: &str = include_str!("data/botocore.jsonl");

struct Vector {
    target: Target,
    credentials: Credentials,
    signed_at: u64,
    token: String,
}

fn vectors() -> Vec<Vector> {
    let parse = |line| {
        let v: Value = serde_json::from_str(line).expect("JSON");
        let text = |key: &str| v[key].as_str().unwrap_or_else(|| panic!("{key}")).to_owned();
        let port = u16::try_from(v["port"].as_u64().expect("port")).expect("port");
        let region = Region::parse(&text("region")).expect("region");
        Vector {
            target: Target::new(&text("host"), port, &text("user"), region).expect("target"),
            credentials: Credentials::new(
                text("access_key"),
                text("secret_key"),
                v["session_token"].as_str().map(str::to_owned),
                None,
                "vector",
            ),
            signed_at: v["signed_at"].as_u64().expect("signed_at"),
            token: text("token"),
        }
    };
    VECTORS.lines().map(parse).collect()
}

fn parameters(token: &str) -> (&str, BTreeMap<&str, &str>) {
    let (host, query) = token.split_once("/?").expect("a query");
    let pairs: Vec<_> = query.split('&').map(|pair| pair.split_once('=').expect("a value")).collect();
    let map: BTreeMap<_, _> = pairs.iter().copied().collect();
    assert_eq!(map.len(), pairs.len(), "a parameter twice: {query}");
    (host, map)
}

#[test]
fn every_parameter_and_signature_equals_botocores() {
    let vectors = vectors();
    assert_eq!(vectors.len(), 26);
    for v in vectors {
        let token =
            sign(&v.target, &v.credentials, UNIX_EPOCH + Duration::from_secs(v.signed_at)).expect("signed");
        assert_eq!(parameters(token.expose_secret()), parameters(&v.token));
        assert_eq!(token.expose_secret(), v.token, "the order of the parameters, too");
    }
}

#[test]
fn capitals_in_the_host_and_fractions_of_a_second_change_nothing() {
    for v in vectors() {
        let shouted = Target::new(
            &v.target.host().to_uppercase(),
            v.target.port(),
            v.target.user(),
            v.target.region().clone(),
        );
        let late = UNIX_EPOCH + Duration::from_secs(v.signed_at) + Duration::from_nanos(999_999_999);
        let token = sign(&shouted.expect("target"), &v.credentials, late).expect("signed");
        assert_eq!(token.expose_secret(), v.token);
        assert_eq!(token.signed_at(), UNIX_EPOCH + Duration::from_secs(v.signed_at));
    }
}
