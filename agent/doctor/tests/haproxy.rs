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
    for name in ["haproxy.cfg", "mysql.cfg", "fail-closed.cfg"] {
        let source = || Source { name: name.into(), text: recipe(name) };
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

/// What is replaced in a recipe, by what, and the rule that finds it, at the first line that was changed.
const PLANTED: [(&str, &str, &str); 31] = [
    ("mode tcp", "mode http", "haproxy-mode-http"),
    ("bind 127.0.0.1:5432", "bind 127.0.0.1:5432 ssl crt /etc/db.pem", "haproxy-tls-terminated"),
    ("server a 192.0.2.11:5432", "server a 192.0.2.11:5432 ssl verify none", "haproxy-tls-terminated"),
    ("server a 192.0.2.11:5432", "server a 192.0.2.11:5432 send-proxy", "haproxy-send-proxy"),
    ("timeout client 1h", "timeout client 50s", "haproxy-idle-timeout-short"),
    ("timeout server 1h", "timeout server 5000", "haproxy-idle-timeout-short"),
    ("timeout server 1h", "timeout server 1h\n    timeout tunnel 60s", "haproxy-idle-timeout-short"),
    ("timeout connect 5s", "timeout connect 1m", "haproxy-connect-timeout"),
    ("option clitcpka", "", "haproxy-keepalive"),
    ("retries 10", "retries 0", "haproxy-retries"),
    ("option redispatch 1", "option redispatch", "haproxy-redispatch"),
    ("agent-check agent-addr", "no-agent-check agent-addr", "haproxy-agent-check-missing"),
    ("agent-addr 127.0.0.1 ", "", "haproxy-agent-address"),
    ("agent-inter 1s", "agent-inter 1m", "haproxy-agent-inter"),
    ("\"orders_write/a\\n\"", "'orders_write/a\\n'", "haproxy-agent-send"),
    ("orders_write/a\\n", "orders_write/b\\n", "haproxy-agent-send"),
    ("orders_write/a\\n", "orders_writer/a\\n", "haproxy-agent-send"),
    ("orders_write/a\\n", "orders_write/a", "haproxy-agent-send"),
    ("agent-inter 1s", "agent-inter 1s on-marked-down shutdown-sessions", "haproxy-shutdown-sessions"),
    ("balance leastconn", "option pgsql-check user haproxy", "haproxy-pgsql-check"),
    ("server wait 127.0.0.1:9 backup no-agent-check", "", "haproxy-no-fallback"),
    ("server a 192.0.2.11:5432", "server a 192.0.2.11:5432 weight 0", "haproxy-server-out"),
    ("server a 192.0.2.11:5432", "server a 192.0.2.11:5432 disabled", "haproxy-server-out"),
    (
        "server a 192.0.2.11:5432",
        "server a orders-a.abc.eu-west-1.rds.amazonaws.com:5432",
        "haproxy-resolvers-missing",
    ),
    (
        "server a 192.0.2.11:5432",
        "server a orders-a.abc.eu-west-1.rds.amazonaws.com:5432 resolvers vpc",
        "haproxy-init-addr",
    ),
    (
        "server a 192.0.2.11:5432",
        "server a orders-a.abc.eu-west-1.rds.amazonaws.com:5432 resolvers vpc",
        "haproxy-resolvers-wrong",
    ),
    (
        "server a 192.0.2.11:5432",
        "server a orders.cluster-abc.eu-west-1.rds.amazonaws.com:5432",
        "haproxy-cluster-endpoint",
    ),
    ("level admin", "level user", "haproxy-stats-socket"),
    ("mode 660", "mode 666", "haproxy-stats-socket-open"),
    ("server-state-file /var/lib/haproxy/server-state", "hard-stop-after 30s", "haproxy-hard-stop"),
    ("default_backend orders_write", "default_backend orders_writer", "haproxy-backend-missing"),
];

#[test]
fn mistakes_planted_in_a_recipe_are_found_at_their_lines() {
    let recipe = recipe("haproxy.cfg");
    for (right, wrong, rule) in PLANTED {
        let line = recipe.lines().position(|line| line.contains(right) && !line.trim().starts_with('#'));
        let line = line.unwrap_or_else(|| panic!("{right}")) as u64 + 1;
        let text = recipe.replace(right, wrong);
        let source = Source { name: "haproxy.cfg".into(), text };
        let findings = haproxy::check(&[source], &Setup::default());
        // What is missing is reported where its section or its server begins.
        let gone = wrong.is_empty() || rule.ends_with("-missing") || wrong.contains('\n');
        let there = |at: u64| at == line || gone;
        let hit = findings.iter().any(|finding| finding.rule == rule && there(finding.line));
        assert!(hit, "{rule} after `{right}` became `{wrong}`: {findings:#?}");
    }
}

fn recipe(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/haproxy").join(name)).unwrap()
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

/// The recipes, and the examples that come with HAProxy where they are installed. `HAPROXY_CONFIGURATIONS` names
/// a further folder, such as one of HAProxy's own tests.
#[test]
fn configurations_that_haproxy_accepts_are_parsed() {
    let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/haproxy");
    let mut folders = vec![recipes, "/etc/haproxy".into(), "/usr/share/doc/haproxy/examples".into()];
    folders.extend(std::env::var_os("HAPROXY_CONFIGURATIONS").map(Into::into));
    let mut files = 0;
    for entry in folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "cfg") {
            continue;
        }
        let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
        let source = Source { name: path.display().to_string(), text };
        for finding in haproxy::check(&[source], &Setup::default()) {
            assert!(finding.rule != "haproxy-syntax", "{}:{}: {}", finding.file, finding.line, finding.what);
        }
        files += 1;
    }
    assert!(files >= 3, "{files} files");
}
