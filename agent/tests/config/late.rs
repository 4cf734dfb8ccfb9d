//! Errors that would otherwise appear at the first login or command.

use std::time::Duration;

use rds_lb_agent::config::parse;

use super::{A, FILE, GOOD, accepted, edited, odd, refused, refused_with};

#[test]
fn health_rules_know_the_probe_interval() {
    let text = edited("    user: lb_agent", "    user: lb_agent\n    probe_interval: 5m");
    let database = accepted(&text).databases.remove(0);
    assert_eq!(database.probe_interval, Duration::from_secs(300));
    assert_eq!(database.rules.probe_interval, database.probe_interval);
}

#[test]
fn errors_in_liveness_have_their_own_position() {
    let with = |liveness: &str| {
        refused(&edited("    user: lb_agent", &format!("    user: lb_agent\n    liveness: {liveness}")))
    };
    for (liveness, begin) in [
        ("{wirter: 1s}", "error: rds-lb-agent.yaml:5:16: unknown key `wirter`\n"),
        ("{writer: 1s, reader: 5}", "error: rds-lb-agent.yaml:5:36: `liveness` is not a duration\n"),
        ("{writer: 1ms}", "error: rds-lb-agent.yaml:5:24: `liveness` is too short\n"),
        ("5", "error: rds-lb-agent.yaml:5:15: `liveness` is not a duration\n"),
        ("never", "error: rds-lb-agent.yaml:5:15: `liveness` is not a duration\n"),
        (
            "[1s]",
            "error: rds-lb-agent.yaml:5:5: `off`, an interval like 500ms, or {writer: 250ms, reader: 1s} is",
        ),
    ] {
        let problem = with(liveness);
        assert!(problem.starts_with(begin) && problem.contains("hint: "), "{liveness}: {problem}");
    }
}

#[test]
fn targets_that_no_token_can_be_signed_for_are_refused() {
    for (endpoint, message) in [
        ("me@orders-a.abc.eu-west-1.rds.amazonaws.com:5432", "is not HOST:PORT"),
        ("orders-a.abc.eu-west-1.rds.amazonaws.com/orders:5432", "is not HOST:PORT"),
        ("ördérs.abc.eu-west-1.rds.amazonaws.com:5432", "has a character that is not allowed in host names"),
        ("orders-a..eu-west-1.rds.amazonaws.com:5432", "two dots in a row"),
    ] {
        let problem = refused(&edited(A, &format!("'{endpoint}'")));
        assert!(problem.starts_with("error: rds-lb-agent.yaml:6:29: "), "{problem}");
        assert!(problem.contains(message) && problem.contains("hint: "), "{problem}");
    }
    let problem = refused(&edited("user: lb_agent", "user: \"lb\\tagent\""));
    assert!(problem.starts_with("error: rds-lb-agent.yaml:4:11: database user \"lb\\tagent\""), "{problem}");
    assert!(problem.contains("hint: write the name of the database user that logs in by IAM"), "{problem}");
}

#[test]
fn a_region_is_valid_and_matches_the_endpoint() {
    let with =
        |region: &str| edited("    user: lb_agent", &format!("    user: lb_agent\n    region: {region}"));
    accepted(&with("eu-west-1"));
    assert_eq!(
        refused(&with("eu-west-1a")).lines().next().unwrap(),
        "error: rds-lb-agent.yaml:5:13: \"eu-west-1a\" is an availability zone"
    );
    assert!(refused(&with("europe")).contains("hint: write it like eu-west-1"));
    assert_eq!(odd(&with("us-east-1"))[0], "5:13: the endpoints' names say eu-west-1");
}

#[test]
fn a_database_server_is_named_once() {
    refused_with(
        "orders-b.abc",
        "Orders-A.abc",
        "
error: rds-lb-agent.yaml:7:29: two instances have the endpoint `Orders-A.abc.eu-west-1.rds.amazonaws.com:5432`
     7 |       - {name: b, endpoint: 'Orders-A.abc.eu-west-1.rds.amazonaws.com:5432', connect: '10.0.2.7:5432'}
       |                             ^
  hint: name each database server once, by its own endpoint
",
    );
    refused_with(
        "role: writer, servers: {pg1: a, pg2: b}",
        "role: writer, servers: {pg1: a, pg2: a}",
        "
error: rds-lb-agent.yaml:11:77: backend `orders_write` has instance `a` twice
    11 |       orders_write: {database: orders, role: writer, servers: {pg1: a, pg2: a}}
       |                                                                             ^
  hint: one of them would count as a second usable server that is not there
",
    );
    let second = "  - haproxy: {socket: /run/haproxy/admin.sock}
    backends:
      orders_any: {database: orders, role: any, servers: {pg1: a}}
sessions:";
    let problem = refused(&edited("sessions:", second));
    assert!(problem.contains("13:23: two proxies have the socket `/run/haproxy/admin.sock`"), "{problem}");
}

#[test]
fn names_that_haproxy_would_reject_are_refused() {
    for name in ["'pg1; shutdown'", "\"pg1\\n\"", "pg/1"] {
        let problem = refused(&edited(
            "role: writer, servers: {pg1: a,",
            &format!("role: writer, servers: {{{name}: a,"),
        ));
        assert!(problem.contains("cannot be the name of a server"), "{name}: {problem}");
        assert!(problem.contains("hint: it has letters"), "{name}: {problem}");
    }
    let problem = refused(&edited("orders_write:", "'orders write':"));
    assert!(problem.contains("`orders write` cannot be the name of a backend"), "{problem}");
}

#[test]
fn a_cluster_without_a_name_is_refused() {
    let envoy = "  - envoy: {}\n    clusters: {\"\": {database: orders, role: writer}}\nsessions:";
    let problem = refused(&edited("sessions:", envoy));
    assert!(problem.contains("`` cannot be the name of a cluster"), "{problem}");
}

#[test]
fn paths_are_absolute() {
    for (line, begin) in [
        ("state_dir: var/lib/x", "14:12: `var/lib/x` is not an absolute path"),
        ("listen: {control: agent.sock}", "14:19: `agent.sock` is not an absolute path"),
    ] {
        let problem = refused(&format!("{GOOD}{line}\n"));
        assert!(problem.starts_with(&format!("error: {FILE}:{begin}\n")), "{problem}");
        assert!(problem.contains("hint: begin with `/`, like /"), "{problem}");
    }
    let problem = refused(&edited("    user: lb_agent", "    user: lb_agent\n    ca_file: ca.pem"));
    assert!(problem.contains("5:14: `ca.pem` is not an absolute path"), "{problem}");
}

#[test]
fn settings_without_effect_are_refused() {
    for (setting, message) in [
        ("users: []", "`users` is empty"),
        ("drain_share: 0%", "`drain_share` is too small"),
        ("drain_deadline: 0s", "`drain_deadline` is too short"),
    ] {
        let problem = refused(&edited("max_age: 14m", setting));
        assert!(problem.contains(message) && problem.contains("hint: "), "{problem}");
    }
    let problem =
        refused(&format!("{GOOD}listen: {{agent_check: '127.0.0.1:7000', http: '127.0.0.1:7000'}}\n"));
    assert!(problem.contains("14:47: `agent_check` and `http` have the same address"), "{problem}");
    // Any free port, as tests take it, is not one address.
    accepted(&format!("{GOOD}listen: {{agent_check: '127.0.0.1:0', http: '127.0.0.1:0'}}\n"));
}

#[test]
fn every_problem_and_every_warning_has_a_hint() {
    for text in [
        edited("max_age: 14m", "force_after: 1h, demotion_grace: 30s, max_age: 20m"),
        edited("socket: /run/haproxy/admin.sock", "socket: admin"),
        edited("max_age: 14m", "exempt: {networks: [10.1.2.3/8, here, 10.0.0.0/99]}"),
        edited("max_age: 14m", "login_budget: -3"),
        edited("max_age: 14m", "login_budget: many"),
        edited("sessions: {mode: retire, max_age: 14m}", "sessions: retire"),
        edited("servers: {pg1: a, pg2: b}}\nsessions", "servers: [a, b]}\nsessions"),
        edited("  - name: orders", "    name: orders"),
        edited("    user: lb_agent", "    user: lb_agent\n    user: other"),
        edited("    user: lb_agent", "    user: [lb_agent]"),
        edited("    user: lb_agent", "    user:"),
        String::new(),
        "databases: []".to_owned(),
        format!("{GOOD}---\n{GOOD}"),
    ] {
        let list =
            parse(FILE, &text).map_or_else(|problems| problems.problems, |loaded| loaded.warnings.problems);
        assert!(!list.is_empty(), "{text}");
        for problem in list {
            assert!(problem.hint.is_some(), "{problem:?}");
            for words in ["DuplicateKeyPolicy", "Options", "serde", "untagged", "u32"] {
                assert!(
                    !problem.message.contains(words),
                    "in the words of the program, not the file: {problem:?}"
                );
            }
        }
    }
}

#[test]
fn excerpts_of_a_file_show_no_secrets_and_no_control_characters() {
    let problem =
        refused(&edited("    user: lb_agent", "    user: lb_agent\n    password: hunter2 # for now"));
    assert!(problem.contains("unknown key `password`") && !problem.contains("hunter2"), "{problem}");
    assert!(problem.contains("     5 |     password:…\n"), "{problem}");
    let long = refused(&edited("mode: retire", &format!("mode: {}", "x".repeat(100_000))));
    assert!(long.lines().filter(|line| line.contains(" | ")).all(|line| line.len() < 250), "{}", long.len());
}
