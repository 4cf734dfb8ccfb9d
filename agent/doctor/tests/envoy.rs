//! The rules for Envoy: each finds its bad example and not its good one, and the recipes are clean.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test")]

mod common;

use std::{fs, path::Path};

use common::setup;
use doctor::{envoy, setup::Setup, source::Source};

fn findings(text: &str, setup: &Setup) -> Vec<String> {
    let source = Source { name: "envoy.yaml".into(), text: text.into() };
    let findings = envoy::check(&[source], setup).into_iter();
    findings.map(|finding| format!("{}:{} {}", finding.rule, finding.line, finding.what)).collect()
}

fn found(text: &str, setup: &Setup) -> Vec<&'static str> {
    let source = Source { name: "envoy.yaml".into(), text: text.into() };
    envoy::check(&[source], setup).into_iter().map(|finding| finding.rule).collect()
}

#[test]
fn every_rule_finds_its_bad_example_and_not_its_good_one() {
    let mut wrong = Vec::new();
    for rule in envoy::rules() {
        for (text, expected) in [(rule.about.bad, true), (rule.about.good, false)] {
            let found = found(text, &setup());
            let readable = rule.about.id == "envoy-syntax" || !found.contains(&"envoy-syntax");
            if found.contains(&rule.about.id) != expected || !readable {
                wrong.push((rule.about.id, text, findings(text, &setup())));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn recipe(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/envoy").join(name)).unwrap()
}

#[test]
fn recipes_are_clean() {
    for name in ["envoy.yaml", "static-checks.yaml"] {
        assert_eq!(findings(&recipe(name), &Setup::default()), [""; 0], "{name}");
    }
}

#[test]
fn mistakes_planted_in_a_recipe_are_found_at_their_lines() {
    let recipe = recipe("envoy.yaml");
    let tls = "connect_timeout: 5s\n    transport_socket: {name: envoy.transport_sockets.tls}";
    let planted = [
        ("idle_timeout: 0s", "idle_timeout: 30s", "envoy-idle-timeout"),
        ("healthy_panic_threshold: {value: 0}, ", "", "envoy-panic-threshold"),
        ("update_merge_window: 0s", "update_merge_window: 1s", "envoy-merge-window"),
        ("max_connections: 100000", "max_connections: 1000", "envoy-circuit-breaker"),
        ("node: {id: envoy-1, cluster: rds}", "node: {cluster: rds}", "envoy-node-id"),
        ("max_connect_attempts: 30", "max_connect_attempts: 1", "envoy-connect-attempts"),
        ("flush_access_log_on_connected: true, ", "", "envoy-access-log-flush"),
        ("connect_timeout: 5s", "connect_timeout: 60s", "envoy-connect-timeout"),
        ("connect_timeout: 5s", tls, "envoy-tls-terminated"),
        ("connect_timeout: 5s", "connect_timeout: 5s\n    outlier_detection: {}", "envoy-outlier-detection"),
        ("type: LOGICAL_DNS", "type: STRICT_DNS", "envoy-dns-type"),
        ("initial_fetch_timeout: 2s", "initial_fetch_timeout: 30s", "envoy-fetch-timeout"),
        ("cluster: writer", "cluster: writers", "envoy-cluster-missing"),
    ];
    for (right, wrong, rule) in planted {
        let line = recipe.lines().position(|line| line.contains(right)).unwrap() + 1;
        let text = recipe.replace(right, wrong);
        let added = wrong.lines().count().saturating_sub(1);
        let expected = format!("{rule}:{} ", line + added);
        let findings = findings(&text, &Setup::default());
        assert!(findings.iter().any(|finding| finding.starts_with(&expected)), "{expected}: {findings:?}");
    }
}

#[test]
fn proxies_without_a_database_are_left_alone() {
    let text = "static_resources:\n  listeners:\n  - address: {socket_address: {address: 0.0.0.0, port_value: 443}}\n    \
                filter_chains:\n    - transport_socket: {name: envoy.transport_sockets.tls}\n      filters:\n      \
                - {name: envoy.filters.network.tcp_proxy, typed_config: {cluster: web}}\n  clusters:\n  - name: web\n    \
                outlier_detection: {}\n";
    assert_eq!(found(text, &Setup::default()), [""; 0]);
}

#[test]
fn a_config_dump_is_read_like_the_bootstrap_it_came_from() {
    let dump = r#"{"configs": [
        {"@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump",
         "bootstrap": {"node": {"id": "envoy-1"}, "static_resources": {"clusters": [{"name": "orders_write"}]}}},
        {"@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump",
         "static_clusters": [{"cluster": {
            "name": "orders_write", "type": "EDS",
            "common_lb_config": {"healthy_panic_threshold": {}, "update_merge_window": "0s"},
            "close_connections_on_host_health_failure": true}}]},
        {"@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump",
         "dynamic_listeners": [{"name": "w", "active_state": {"listener": {
            "name": "w", "address": {"socket_address": {"address": "127.0.0.1", "port_value": 5432}},
            "filter_chains": [{"filters": [{"name": "envoy.filters.network.tcp_proxy",
                "typed_config": {"cluster": "orders_write", "max_downstream_connection_duration": "60s"}}]}]}}}]}
    ]}"#;
    let found = findings(dump, &Setup::default());
    for expected in ["envoy-close-on-failure:8 ", "envoy-max-duration:13 "] {
        assert!(found.iter().any(|finding| finding.starts_with(expected)), "{expected}: {found:?}");
    }
    for rule in ["envoy-panic-threshold", "envoy-merge-window", "envoy-node-id"] {
        assert!(!found.iter().any(|finding| finding.starts_with(rule)), "{rule}: {found:?}");
    }
}

#[test]
fn a_file_that_is_no_configuration_of_envoy_is_an_error() {
    for text in ["hello", "databases: []", "global\n  maxconn 10\n"] {
        assert_eq!(found(text, &Setup::default()), ["envoy-syntax"], "{text:?}");
    }
    assert_eq!(found("admin: {}\n", &Setup::default()), [""; 0]);
}
