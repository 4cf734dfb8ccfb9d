//! The shape of the workspace: imports run one way, and one TLS stack serves all.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use serde_json::Value;

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).args(arguments).output().unwrap();
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Workspace crate → the workspace crates it imports, tests and build scripts included.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let metadata: Value =
        serde_json::from_str(&cargo(&["metadata", "--format-version", "1", "--no-deps"])).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let name = |package: &Value| package["name"].as_str().unwrap().to_owned();
    let own: BTreeSet<String> = packages.iter().map(name).collect();
    packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().unwrap().iter().map(name);
            (name(package), dependencies.filter(|dependency| own.contains(dependency)).collect())
        })
        .collect()
}

#[test]
fn imports_run_one_way() {
    let may_import: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("agent-core", &[][..]),
        ("agent-aws", &["agent-core"]),
        ("agent-database", &["agent-core"]),
        ("doctor", &[]),
        ("haproxy", &["agent-core"]),
        ("envoy", &["agent-core"]),
        ("rds-lb-agent", &["agent-core", "agent-aws", "agent-database", "doctor", "haproxy", "envoy"]),
        (
            "integration-tests",
            &["agent-core", "agent-aws", "agent-database", "doctor", "haproxy", "envoy", "rds-lb-agent"],
        ),
    ]);
    for (package, imported) in imports() {
        let allowed = may_import
            .get(package.as_str())
            .unwrap_or_else(|| panic!("{package} is new: say here what it may import"));
        for import in imported {
            assert!(allowed.contains(&import.as_str()), "{package} must not import {import}");
        }
    }
}

#[test]
fn one_tls_stack_serves_everything() {
    let tree = cargo(&["tree", "--workspace", "-e", "normal", "--prefix", "none", "--format", "{p}"]);
    let unwanted: Vec<&str> = tree
        .lines()
        .filter(|line| {
            let mut words = line.split(' ');
            let (name, version) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
            matches!(name, "ring" | "openssl" | "openssl-sys" | "native-tls")
                || (name == "rustls" && version.starts_with("v0.21"))
                || (name == "hyper" && version.starts_with("v0.14"))
        })
        .collect();
    assert!(unwanted.is_empty(), "in the dependency tree: {unwanted:?}");
    assert!(tree.contains("rustls v0.23"), "the tree does not show the TLS stack it should");
}
