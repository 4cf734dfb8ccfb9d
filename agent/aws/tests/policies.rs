//! The policies in `deploy/iam` allow the calls that the client makes, and no others.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::{collections::BTreeSet, fs};

use serde_json::Value;

#[test]
fn policies_allow_exactly_the_calls_that_are_made() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let read = |file: &str| fs::read_to_string(format!("{root}/{file}")).unwrap();
    let client = read("agent/aws/src/rds/client.rs");
    let made: BTreeSet<String> =
        client.split('"').filter(|text| text.starts_with("rds:")).map(str::to_owned).collect();
    assert!(made.len() > 5, "{made:?}");
    let mut allowed = BTreeSet::new();
    for policy in ["topology", "doctor"] {
        let policy: Value =
            serde_json::from_str(&read(&format!("deploy/iam/policies/{policy}.json"))).unwrap();
        for statement in policy["Statement"].as_array().unwrap() {
            let actions = statement["Action"].as_array().unwrap().iter();
            allowed.extend(actions.map(|action| action.as_str().unwrap().to_owned()));
        }
    }
    assert_eq!(allowed, made);
}
