//! The rules for HAProxy: each finds its bad example and not its good one, and the recipes are clean.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test")]

mod common;

use std::{fs, path::Path};

use common::setup;
use doctor::{
    haproxy,
    setup::{Agent, Setup},
    source::Source,
};

/// The rules that find something, without what lies outside of an example.
fn found(text: &str, setup: &Setup) -> Vec<&'static str> {
    let source = Source { name: "haproxy.cfg".into(), text: text.into() };
    haproxy::check(&[source], setup).into_iter().map(|finding| finding.rule).collect()
}

#[test]
fn every_rule_finds_its_bad_example_and_not_its_good_one() {
    let mut wrong = Vec::new();
    for rule in haproxy::rules() {
        let about = &rule.about;
        for (text, expected) in [(about.bad, true), (about.good, false)] {
            let mut setup = setup();
            if about.id == "haproxy-master-socket" {
                setup.agent.as_mut().unwrap().master_socket = text.contains("master:");
            }
            if found(text, &setup).contains(&about.id) != expected {
                wrong.push((about.id, text));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn recipes_are_clean() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/haproxy");
    for name in ["haproxy.cfg", "mysql.cfg", "fail-closed.cfg"] {
        let source = || Source { name: name.into(), text: fs::read_to_string(folder.join(name)).unwrap() };
        for version in [None, Some((2, 6)), Some((2, 8)), Some((3, 0)), Some((3, 2)), Some((3, 4))] {
            let mut setup = Setup { haproxy: version, ..Setup::default() };
            let rules = |setup: &Setup| -> Vec<String> {
                let findings = haproxy::check(&[source()], setup);
                findings
                    .iter()
                    .map(|finding| format!("{}:{} {}", finding.rule, finding.line, finding.what))
                    .collect()
            };
            assert!(
                rules(&setup).iter().all(|rule| rule.starts_with("haproxy-idle-timeout-long")),
                "{:?}",
                rules(&setup)
            );
            let retires = Agent { retires: true, agent_check: "127.0.0.1:7878".into(), ..Agent::default() };
            setup.agent = Some(retires);
            assert_eq!(rules(&setup), [""; 0], "{name} {version:?}");
        }
    }
}

#[test]
fn proxies_without_a_database_are_left_alone() {
    let text = "global\n stats socket /x level admin\ndefaults\n mode http\nfrontend web\n bind :443 ssl\n default_backend web\n\
                backend web\n server a 10.0.0.9:80 check weight 0\nlisten stats\n bind :9000\n stats enable\n";
    assert_eq!(found(text, &Setup::default()), [""; 0]);
}

#[test]
fn a_listen_section_is_a_frontend_and_a_backend() {
    let text = "listen db\n bind :5432 ssl crt x\n server a 10.0.0.1:5432 ssl\n";
    let tls = found(text, &Setup::default()).into_iter().filter(|rule| *rule == "haproxy-tls-terminated");
    assert_eq!(tls.count(), 2);
}

#[test]
fn values_of_variables_that_are_unknown_are_no_mistakes() {
    let text = "backend orders_write\n default-server agent-check agent-addr \"$AGENT\" agent-port 7878\n \
                server a \"${DB_A}:5432\" agent-send \"${NAME}/a\\n\"\n server b 10.0.0.2:5432 agent-send \"orders_write/b\\n\"\n";
    let rules = found(text, &setup());
    for rule in
        ["haproxy-agent-address", "haproxy-agent-send", "haproxy-address", "haproxy-resolvers-missing"]
    {
        assert!(!rules.contains(&rule), "{rule}");
    }
}

#[test]
fn later_lines_and_own_lines_override_inherited_ones() {
    let text = "defaults\n mode http\n timeout server 10s\n option redispatch\nbackend orders_write\n mode tcp\n \
                timeout server 1h\n option redispatch 1\n default-server ssl\n server a 10.0.0.1:5432 no-ssl\n server b 10.0.0.2:5432 no-ssl\n";
    let rules = found(text, &Setup::default());
    for rule in
        ["haproxy-mode-http", "haproxy-idle-timeout-short", "haproxy-redispatch", "haproxy-tls-terminated"]
    {
        assert!(!rules.contains(&rule), "{rule}");
    }
}

/// `HAPROXY_CONFIGURATIONS` is a folder of configurations that HAProxy accepts, like those of its own tests.
#[test]
#[ignore = "needs a folder of configurations"]
fn configurations_that_haproxy_accepts_are_parsed() {
    let folder = std::env::var_os("HAPROXY_CONFIGURATIONS").unwrap();
    let mut files = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
        let source = Source { name: path.display().to_string(), text };
        for finding in haproxy::check(&[source], &Setup::default()) {
            if finding.rule == "haproxy-syntax" {
                println!("{}:{}: {}", finding.file, finding.line, finding.what);
            }
        }
        files += 1;
    }
    println!("{files} files");
}
