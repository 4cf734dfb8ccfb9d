//! The configuration file from outside: what each mistake looks like to the
//! person who made it, what the example says, and that no text breaks the parser.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::{process::Command, time::Duration};

use agent_core::plan::{Mode, Policy};
use proptest::prelude::*;
use rds_lb_agent::config::{Config, Loaded, parse};
use serde_json::Value;

/// The file as the tests call it.
const FILE: &str = "rds-lb-agent.yaml";

/// A configuration without a mistake.
const GOOD: &str = "\
databases:
  - name: orders
    engine: postgresql
    user: lb_agent
    instances:
      - {name: a, endpoint: 'orders-a.abc.eu-west-1.rds.amazonaws.com:5432'}
      - {name: b, endpoint: 'orders-b.abc.eu-west-1.rds.amazonaws.com:5432', connect: '10.0.2.7:5432'}
proxies:
  - haproxy: {socket: /run/haproxy/admin.sock, master: /run/haproxy/master.sock}
    backends:
      orders_write: {database: orders, role: writer, servers: {pg1: a, pg2: b}}
      orders_read: {database: orders, role: reader, servers: {pg1: a, pg2: b}}
sessions: {mode: retire, max_age: 14m}
";

const EXAMPLE: &str = include_str!("../example.yaml");

/// `GOOD` with one place changed.
fn edited(from: &str, to: &str) -> String {
    assert_eq!(GOOD.matches(from).count(), 1, "`{from}` is in the good file once");
    GOOD.replace(from, to)
}

fn accepted(text: &str) -> Config {
    match parse(FILE, text) {
        Ok(Loaded { config, .. }) => config,
        Err(problems) => panic!("refused:\n{problems}"),
    }
}

/// What a person reads who has written this.
fn refused(text: &str) -> String {
    match parse(FILE, text) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(problems) => problems.to_string(),
    }
}

/// What is odd about a file, as `line:column: message`.
fn odd(text: &str) -> Vec<String> {
    let warnings = parse(FILE, text).unwrap().warnings;
    warnings
        .iter()
        .map(|warning| format!("{}:{}: {}", warning.line, warning.column, warning.message))
        .collect()
}

#[track_caller]
fn refused_with(from: &str, to: &str, golden: &str) {
    // Indented like the test it stands in.
    let golden = golden.trim_start_matches('\n');
    assert_eq!(refused(&edited(from, to)), golden);
}

// === what it means ===

#[test]
fn a_good_file_means_what_it_says() {
    let config = accepted(GOOD);
    let addresses: Vec<String> = config
        .instances()
        .map(|(_, one)| format!("{} {} {}", one.id(), one.target.endpoint.host, one.target.connect))
        .collect();
    assert_eq!(
        addresses,
        [
            "orders/a orders-a.abc.eu-west-1.rds.amazonaws.com orders-a.abc.eu-west-1.rds.amazonaws.com:5432",
            "orders/b orders-b.abc.eu-west-1.rds.amazonaws.com 10.0.2.7:5432",
        ]
    );
    assert!(config.instances().all(|(_, one)| one.region.as_deref() == Some("eu-west-1")));
    let servers: Vec<String> = config
        .servers()
        .iter()
        .map(|server| format!("{} {} {:?}", server.id, server.instance, server.wanted))
        .collect();
    assert_eq!(
        servers,
        [
            "orders_read/pg1 orders/a Reader",
            "orders_read/pg2 orders/b Reader",
            "orders_write/pg1 orders/a Writer",
            "orders_write/pg2 orders/b Writer",
        ]
    );
    assert_eq!(config.sessions, Policy { mode: Mode::Retire, ..Policy::default() });
    assert_eq!(config.listen.agent_check.to_string(), "127.0.0.1:7878");
    assert_eq!(config.listen.http.to_string(), "127.0.0.1:7879");
    assert_eq!(odd(GOOD), [""; 0]);
}

#[test]
fn without_a_sessions_section_the_agent_only_observes() {
    let config = accepted(&edited("sessions: {mode: retire, max_age: 14m}\n", ""));
    assert_eq!(config.sessions, Policy::default());
    assert_eq!(config.sessions.mode, Mode::Observe);
}

#[test]
fn values_are_taken_over() {
    let sessions = "sessions: {mode: drain, max_age: 1h30m, quiet: 2s, quiet_min: 300ms, busy: catch, \
                    login_budget: 9, drain_share: 75%, drain_deadline: 90s, capacity_floor: 60%, users: [app], \
                    exempt: {users: [etl], networks: [10.9.0.0/16]}}";
    let policy = accepted(&edited("sessions: {mode: retire, max_age: 14m}", sessions)).sessions;
    assert_eq!(policy.mode, Mode::Drain);
    assert_eq!(policy.max_age, Duration::from_secs(5_400));
    assert_eq!((policy.quiet, policy.quiet_min), (Duration::from_secs(2), Duration::from_millis(300)));
    assert_eq!((policy.login_budget, policy.drain_deadline), (9, Duration::from_secs(90)));
    assert!((policy.drain_share - 0.75).abs() < 1e-9 && (policy.capacity_floor - 0.6).abs() < 1e-9);
    assert_eq!(policy.exempt.users, ["etl"]);
    assert_eq!(policy.exempt.networks[0].to_string(), "10.9.0.0/16");
}

#[test]
fn liveness_can_be_off_or_have_a_cadence() {
    let with = |liveness: &str| {
        let text = edited("    user: lb_agent", &format!("    user: lb_agent\n    liveness: {liveness}"));
        accepted(&text).databases.remove(0)
    };
    for off in ["off", "'off'", "false"] {
        assert!(!with(off).liveness, "{off}");
    }
    let database = with("{writer: 100ms, reader: 2s}");
    assert!(database.liveness);
    assert_eq!(database.rules.liveness_writer, Duration::from_millis(100));
    assert_eq!(database.rules.liveness_reader, Duration::from_secs(2));
}

// === mistakes ===

#[test]
fn an_unknown_key_is_refused_with_the_one_that_was_meant() {
    refused_with(
        "    instances:",
        "    instanses:",
        "
error: rds-lb-agent.yaml:5:5: unknown key `instanses`
     5 |     instanses:
       |     ^
  hint: did you mean `instances`?
",
    );
    let problem = refused(&edited("max_age", "maximum"));
    assert!(problem.starts_with("error: rds-lb-agent.yaml:13:26: unknown key `maximum`\n"), "{problem}");
    assert!(problem.contains("hint: choose from `mode`, `max_age`, `quiet`, "), "{problem}");
}

#[test]
fn a_missing_key_is_named() {
    let problem = refused(&edited("    user: lb_agent\n", ""));
    assert!(problem.contains("the key `user` is missing here"), "{problem}");
    assert!(problem.starts_with("error: rds-lb-agent.yaml:4:5: "), "{problem}");
}

#[test]
fn an_unknown_word_is_refused_with_the_choices() {
    refused_with(
        "role: writer",
        "role: primary",
        "
error: rds-lb-agent.yaml:11:46: `primary` is not one of the choices
    11 |       orders_write: {database: orders, role: primary, servers: {pg1: a, pg2: b}}
       |                                              ^
  hint: choose from `writer`, `reader`, `any`
",
    );
    refused_with(
        "mode: retire",
        "mode: retier",
        "
error: rds-lb-agent.yaml:13:18: `retier` is not one of the choices
    13 | sessions: {mode: retier, max_age: 14m}
       |                  ^
  hint: did you mean `retire`?
",
    );
}

#[test]
fn an_engine_that_is_not_there_yet_is_refused_as_such() {
    refused_with(
        "engine: postgresql",
        "engine: mariadb",
        "
error: rds-lb-agent.yaml:3:13: this engine is not supported yet
     3 |     engine: mariadb
       |             ^
  hint: this version looks after postgresql only; leave the database out until then
",
    );
}

#[test]
fn a_backend_names_a_known_database_and_its_servers_known_instances() {
    refused_with(
        "orders_write: {database: orders,",
        "orders_write: {database: order,",
        "
error: rds-lb-agent.yaml:11:32: backend `orders_write`: there is no database `order`
    11 |       orders_write: {database: order, role: writer, servers: {pg1: a, pg2: b}}
       |                                ^
  hint: did you mean `orders`?
",
    );
    refused_with(
        "role: writer, servers: {pg1: a, pg2: b}",
        "role: writer, servers: {pg1: a, pg2: z}",
        "
error: rds-lb-agent.yaml:11:77: server `pg2`: database `orders` has no instance `z`
    11 |       orders_write: {database: orders, role: writer, servers: {pg1: a, pg2: z}}
       |                                                                             ^
  hint: choose from `a`, `b`
",
    );
    refused_with(
        "role: writer, servers: {pg1: a, pg2: b}",
        "role: writer, servers: {}",
        "
error: rds-lb-agent.yaml:11:63: backend `orders_write` has no servers
    11 |       orders_write: {database: orders, role: writer, servers: {}}
       |                                                               ^
  hint: map each of HAProxy's servers to an instance
",
    );
}

#[test]
fn names_are_given_once() {
    refused_with(
        "{name: b,",
        "{name: a,",
        "
error: rds-lb-agent.yaml:7:16: there are two instances called `a`
     7 |       - {name: a, endpoint: 'orders-b.abc.eu-west-1.rds.amazonaws.com:5432', connect: '10.0.2.7:5432'}
       |                ^
  hint: give each a name of its own
error: rds-lb-agent.yaml:11:77: server `pg2`: database `orders` has no instance `b`
    11 |       orders_write: {database: orders, role: writer, servers: {pg1: a, pg2: b}}
       |                                                                             ^
  hint: choose from `a`
error: rds-lb-agent.yaml:12:76: server `pg2`: database `orders` has no instance `b`
    12 |       orders_read: {database: orders, role: reader, servers: {pg1: a, pg2: b}}
       |                                                                            ^
  hint: choose from `a`
",
    );
}

#[test]
fn a_name_fits_into_a_url() {
    refused_with(
        "- name: orders",
        "- name: our/orders",
        "
error: rds-lb-agent.yaml:2:11: `our/orders` cannot be the name of a database
     2 |   - name: our/orders
       |           ^
  hint: it stands in URLs and metrics: letters, digits, `-`, `_` and `.`
error: rds-lb-agent.yaml:11:32: backend `orders_write`: there is no database `orders`
    11 |       orders_write: {database: orders, role: writer, servers: {pg1: a, pg2: b}}
       |                                ^
  hint: did you mean `our/orders`?
error: rds-lb-agent.yaml:12:31: backend `orders_read`: there is no database `orders`
    12 |       orders_read: {database: orders, role: reader, servers: {pg1: a, pg2: b}}
       |                               ^
  hint: did you mean `our/orders`?
",
    );
}

#[test]
fn an_endpoint_is_the_rds_name_and_a_port() {
    refused_with(
        A,
        "orders-a.abc.eu-west-1.rds.amazonaws.com",
        "
error: rds-lb-agent.yaml:6:29: `orders-a.abc.eu-west-1.rds.amazonaws.com` is not HOST:PORT
     6 |       - {name: a, endpoint: orders-a.abc.eu-west-1.rds.amazonaws.com}
       |                             ^
  hint: the port is missing: write HOST:PORT, like HOST:5432
",
    );
    for (endpoint, message) in [
        ("10.0.2.7:5432", "this is an address: tokens are signed for the RDS name"),
        ("localhost:5432", "this is not an RDS name: tokens are signed for the RDS name"),
        (
            "orders.cluster-abc.eu-west-1.rds.amazonaws.com:5432",
            "this is a cluster's or a proxy's endpoint: name each instance by its own",
        ),
        ("postgres://orders-a.abc.eu-west-1.rds.amazonaws.com:5432", "is not HOST:PORT"),
        ("orders-a.abc.eu-west-1.rds.amazonaws.com:0", "is not HOST:PORT"),
        ("orders-a.abc.eu-west-1.rds.amazonaws.com:pg", "is not HOST:PORT"),
    ] {
        let problem = refused(&edited(A, &format!("'{endpoint}'")));
        assert!(problem.starts_with("error: rds-lb-agent.yaml:6:29: "), "{problem}");
        assert!(problem.contains(message) && problem.contains("hint: "), "{problem}");
    }
    let alias = edited(A, "'orders.balancer.example:5432'");
    assert_eq!(odd(&alias), ["6:29: this does not look like an RDS endpoint"]);
}

#[test]
fn durations_have_units_and_shares_a_percent_sign() {
    refused_with(
        "max_age: 14m",
        "max_age: 14",
        "
error: rds-lb-agent.yaml:13:35: `14` is not a duration
    13 | sessions: {mode: retire, max_age: 14}
       |                                   ^
  hint: `14` has no unit; did you mean `14s`?
",
    );
    for (setting, message) in [
        ("max_age: soon", "`soon` is not a duration"),
        ("quiet: -1s", "`-1s` is not a duration"),
        ("drain_share: 0.5", "`0.5` is not a share"),
        ("drain_share: 150%", "`150%` is not a share"),
        ("capacity_floor: half", "`half` is not a share"),
    ] {
        let problem = refused(&edited("max_age: 14m", setting));
        assert!(problem.contains(message) && problem.contains("hint: "), "{problem}");
    }
}

#[test]
fn values_that_do_not_fit_together_are_refused() {
    for (setting, place, message) in [
        ("max_age: 4s", "13:35", "`max_age` is too short"),
        ("quiet: 500ms, quiet_min: 700ms", "13:51", "`quiet_min` is longer than `quiet`"),
        ("quiet_min: 50ms", "13:37", "`quiet_min` is too short"),
        ("login_budget: 1", "13:40", "`login_budget` is too small"),
    ] {
        let problem = refused(&edited("max_age: 14m", setting));
        assert!(problem.starts_with(&format!("error: {FILE}:{place}: {message}\n")), "{problem}");
        assert!(problem.contains("hint: "), "{problem}");
    }
}

#[test]
fn what_is_odd_but_not_wrong_is_a_warning() {
    assert_eq!(
        odd(&edited("max_age: 14m", "max_age: 20m")),
        ["13:35: `max_age` is longer than the 15 minutes that a token lives"]
    );
    assert_eq!(
        odd(&edited("max_age: 14m", "max_age: 10s, quiet: 5s")),
        ["13:47: `quiet` is longer than the window in which a session may go"]
    );
}

#[test]
fn other_hosts_reach_the_agent_only_when_the_file_says_so() {
    let with = |listen: &str| format!("{GOOD}listen: {{{listen}}}\n");
    assert_eq!(
        refused(&with("http: '0.0.0.0:7879'")),
        "
error: rds-lb-agent.yaml:14:16: other hosts can reach 0.0.0.0:7879
    14 | listen: {http: '0.0.0.0:7879'}
       |                ^
  hint: the port is not authenticated; say `allow_remote: true` beside it if the network is
"
        .trim_start()
    );
    accepted(&with("http: '0.0.0.0:7879', allow_remote: true"));
    accepted(&with("agent_check: '[::1]:7878'"));
    let problem = refused(&with("agent_check: 'localhost:7878'"));
    assert!(problem.contains("`localhost:7878` is not an address"), "{problem}");
    assert!(problem.contains("hint: write an address and a port, like 127.0.0.1:7878"), "{problem}");
}

#[test]
fn sockets_and_networks_are_checked_in_their_place() {
    let problem = refused(&edited("socket: /run/haproxy/admin.sock", "socket: run/haproxy/admin.sock"));
    assert!(problem.starts_with("error: rds-lb-agent.yaml:9:23: `run/haproxy/admin.sock`"), "{problem}");
    let problem = refused(&edited("max_age: 14m", "exempt: {networks: [10.1.2.3/8]}"));
    assert!(problem.contains("did you mean 10.0.0.0/8?"), "{problem}");
}

#[test]
fn two_proxies_cannot_have_the_same_server() {
    let second = "  - haproxy: {socket: /run/haproxy2/admin.sock}
    backends:
      orders_write: {database: orders, role: writer, servers: {pg1: a}}
sessions:";
    let problem = refused(&edited("sessions:", second));
    assert!(
        problem
            .starts_with("error: rds-lb-agent.yaml:15:69: `orders_write/pg1` is a server of two proxies\n"),
        "{problem}"
    );
}

#[test]
fn text_that_is_no_yaml_is_refused_where_it_stops_being_yaml() {
    for (text, place) in [
        ("databases: [", "1:"),
        ("databases:\n  - name: orders\n\tengine: postgresql\n", "2:"),
        ("databases:\n  - name: 'orders\n", "2:"),
        ("a: b\n---\nc: d\n", ""),
        ("", "1:1:"),
    ] {
        let problem = refused(text);
        assert!(problem.starts_with(&format!("error: {FILE}:{place}")), "{text:?}: {problem}");
    }
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_the_file() {
    let text = edited("engine: postgresql", "engine: mysql").replace("14m", "14").replace("pg2: b", "pg2: c");
    let text = text.replace("    user:", "    max_lag: 5\n    probe_interval: x\n    user:")
        + "listen: {http: nowhere}\nstate_dir: here\n";
    let problems = parse(FILE, &text).unwrap_err();
    let places: Vec<(u64, u64)> = problems.problems.iter().map(|one| (one.line, one.column)).collect();
    assert_eq!(places, [(3, 13), (4, 14), (5, 21), (13, 77), (14, 76), (15, 35), (16, 16), (17, 12)]);
    assert_eq!(problems.to_string().matches("error: ").count(), places.len());
    assert_eq!(problems.brief().lines().count(), 1, "one line for a log");
}

// === mistakes that would only show later ===

const A: &str = "'orders-a.abc.eu-west-1.rds.amazonaws.com:5432'";

#[test]
fn a_probe_interval_is_known_to_the_rules_that_count_in_it() {
    let text = edited("    user: lb_agent", "    user: lb_agent\n    probe_interval: 5m");
    let database = accepted(&text).databases.remove(0);
    assert_eq!(database.probe_interval, Duration::from_secs(300));
    assert_eq!(database.rules.probe_interval, database.probe_interval);
}

#[test]
fn mistakes_in_liveness_have_their_own_place() {
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
fn what_no_token_can_be_signed_for_is_refused_in_its_place() {
    for (endpoint, message) in [
        ("me@orders-a.abc.eu-west-1.rds.amazonaws.com:5432", "is not HOST:PORT"),
        ("orders-a.abc.eu-west-1.rds.amazonaws.com/orders:5432", "is not HOST:PORT"),
        ("ördérs.abc.eu-west-1.rds.amazonaws.com:5432", "has a character that no host name has"),
        ("orders-a..eu-west-1.rds.amazonaws.com:5432", "two in a row"),
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
fn a_region_is_a_region_and_the_endpoints_own() {
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
fn one_server_has_one_name() {
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
fn names_that_haproxy_would_not_take_are_refused() {
    for name in ["'pg1; shutdown'", "\"pg1\\n\"", "pg/1"] {
        let problem = refused(&edited(
            "role: writer, servers: {pg1: a,",
            &format!("role: writer, servers: {{{name}: a,"),
        ));
        assert!(problem.contains("cannot be the name of a server"), "{name}: {problem}");
        assert!(problem.contains("hint: HAProxy allows letters"), "{name}: {problem}");
    }
    let problem = refused(&edited("orders_write:", "'orders write':"));
    assert!(problem.contains("`orders write` cannot be the name of a backend"), "{problem}");
}

#[test]
fn paths_begin_at_the_root() {
    for (line, begin) in [
        ("state_dir: var/lib/x", "14:12: `var/lib/x` is not a whole path"),
        ("listen: {control: agent.sock}", "14:19: `agent.sock` is not a whole path"),
    ] {
        let problem = refused(&format!("{GOOD}{line}\n"));
        assert!(problem.starts_with(&format!("error: {FILE}:{begin}\n")), "{problem}");
        assert!(problem.contains("hint: begin with `/`, like /"), "{problem}");
    }
    let problem = refused(&edited("    user: lb_agent", "    user: lb_agent\n    ca_file: ca.pem"));
    assert!(problem.contains("5:14: `ca.pem` is not a whole path"), "{problem}");
}

#[test]
fn settings_that_mean_nothing_are_refused() {
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
    assert!(problem.contains("14:47: both servers have one address"), "{problem}");
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
        let list = parse(FILE, &text).map_or_else(|problems| problems.problems, |loaded| loaded.warnings);
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
fn what_is_shown_of_a_file_neither_leaks_nor_moves_the_cursor() {
    let problem =
        refused(&edited("    user: lb_agent", "    user: lb_agent\n    password: hunter2 # for now"));
    assert!(problem.contains("unknown key `password`") && !problem.contains("hunter2"), "{problem}");
    assert!(problem.contains("     5 |     password:…\n"), "{problem}");
    let long = refused(&edited("mode: retire", &format!("mode: {}", "x".repeat(100_000))));
    assert!(long.lines().filter(|line| line.contains(" | ")).all(|line| line.len() < 250), "{}", long.len());
}

// === the real program ===

#[test]
fn run_and_validate_exit_64_with_the_problem_on_standard_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.yaml");
    let state = format!("state_dir: {}\n", folder.path().join("state").display());
    std::fs::write(&path, edited("    instances:", "    instanses:") + &state).unwrap();
    for command in ["run", "validate"] {
        let output = Command::new(env!("CARGO_BIN_EXE_rds-lb-agent"))
            .env_clear()
            .args([command, "--config"])
            .arg(&path)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(64), "{command}");
        let said = String::from_utf8(output.stderr).unwrap();
        let begin = format!("error: {}:5:5: unknown key `instanses`\n", path.display());
        assert!(said.starts_with(&begin), "{command}: {said}");
        assert!(said.contains("hint: did you mean `instances`?"), "{command}: {said}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named_with_the_way_to_name_another() {
    for command in ["run", "validate", "check"] {
        let output = Command::new(env!("CARGO_BIN_EXE_rds-lb-agent"))
            .env_clear()
            .env("RDS_LB_AGENT_CONFIG", "/nonexistent/config.yaml")
            .arg(command)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(64), "{command}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.starts_with("error: /nonexistent/config.yaml: cannot read it: "), "{command}: {said}");
        assert!(said.contains("hint: name the file with --config"), "{command}: {said}");
    }
}

// === the example and the schema ===

/// The example with the keys that are off switched on.
fn example_with_everything() -> String {
    let switched_on = |line: &str| {
        let indent = line.len() - line.trim_start().len();
        match line.trim_start().strip_prefix('#') {
            Some(key) if !key.starts_with(' ') => format!("{}{key}", &line[..indent]),
            _ => line.to_owned(),
        }
    };
    EXAMPLE.lines().map(switched_on).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_is_valid_and_shows_the_defaults() {
    assert_eq!(odd(EXAMPLE), [""; 0]);
    let example = accepted(EXAMPLE);
    let good = accepted(GOOD);
    assert_eq!(example.sessions.exempt.applications, ["pg_dump", "migrate-*"]);
    let sessions = Policy { exempt: good.sessions.exempt.clone(), ..example.sessions.clone() };
    assert_eq!(Config { sessions, ..example }, good);
}

#[test]
fn the_example_has_every_key_of_the_schema() {
    accepted(&example_with_everything());
    let example: Value = serde_saphyr::from_str(&example_with_everything()).unwrap();
    let schema = serde_json::to_value(schemars::schema_for!(rds_lb_agent::config::file::File)).unwrap();
    let mut missing = Vec::new();
    compare(&schema, &schema, &example, "", &mut missing);
    assert_eq!(missing, [""; 0], "keys that the example lacks");
}

/// Collects the keys of the schema that a value lacks. A list is as complete as all its items together.
fn compare(root: &Value, schema: &Value, value: &Value, path: &str, missing: &mut Vec<String>) {
    let schema = resolve(root, schema);
    for key in keys(schema) {
        let path = format!("{path}/{key}");
        match value.get(&key) {
            None => missing.push(path),
            Some(value) => compare(root, &schema["properties"][&key], value, &path, missing),
        }
    }
    if let (Some(of), Some(items)) = (schema.get("items"), value.as_array()) {
        let lacks = items.iter().map(|item| {
            let mut lacks = Vec::new();
            compare(root, of, item, path, &mut lacks);
            lacks
        });
        missing.extend(
            lacks.reduce(|one, other| one.into_iter().filter(|key| other.contains(key)).collect()).unwrap(),
        );
    }
    if let (Some(of @ Value::Object(_)), Some(entries)) =
        (schema.get("additionalProperties"), value.as_object())
    {
        entries.iter().for_each(|(key, value)| compare(root, of, value, &format!("{path}/{key}"), missing));
    }
}

/// A schema behind its reference; of alternatives, the one that has keys.
fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    if let Some(target) = schema["$ref"].as_str() {
        return resolve(root, root.pointer(target.trim_start_matches('#')).unwrap());
    }
    let alternatives = schema["anyOf"].as_array().into_iter().flatten();
    alternatives.map(|one| resolve(root, one)).find(|one| one.get("properties").is_some()).unwrap_or(schema)
}

fn keys(schema: &Value) -> Vec<String> {
    schema["properties"].as_object().into_iter().flat_map(|keys| keys.keys().cloned()).collect()
}

#[test]
fn every_key_of_the_schema_is_documented() {
    let schema = serde_json::to_value(schemars::schema_for!(rds_lb_agent::config::file::File)).unwrap();
    let mut seen = 0;
    let definitions = schema["$defs"].as_object().unwrap().iter();
    for (name, definition) in definitions.chain([(&"File".to_owned(), &schema)]) {
        for (key, value) in definition["properties"].as_object().into_iter().flatten() {
            seen += 1;
            let words = value["description"].as_str().unwrap_or_default();
            assert!(words.len() > 8, "{name}.{key} says what it is");
        }
    }
    assert!(seen > 40, "{seen} keys");
}

// === any text ===

/// The example with some of its characters and lines changed.
fn mutated() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[\\x00-\\x7f]{0,4}",
        Just("\u{feff}é\u{2028}".to_owned()),
        prop::sample::select(vec![
            "&a ",
            "*a",
            "<<: *a",
            "- ",
            "? ",
            ": ",
            "{",
            "}",
            "[",
            "]",
            "|",
            ">",
            "!!binary ",
            "!x ",
            "~",
            "null",
            "---\n",
            "...\n",
            "'",
            "\"",
            "#",
            "\t",
            "%YAML 1.1\n",
            ".nan",
            "0x",
            "1e999",
            "\u{85}",
        ])
        .prop_map(str::to_owned),
    ];
    prop::collection::vec((any::<prop::sample::Index>(), 0..12_usize, piece), 1..6).prop_map(|edits| {
        let mut text: Vec<char> = EXAMPLE.chars().collect();
        for (at, cut, piece) in edits {
            let at = at.index(text.len());
            let end = (at + cut).min(text.len());
            text.splice(at..end, piece.chars());
        }
        text.into_iter().collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_change_of_a_good_file_breaks_the_parser(text in mutated()) {
        if let Err(problems) = parse(FILE, &text) {
            let shown = problems.to_string();
            prop_assert!(!problems.problems.is_empty());
            prop_assert!(shown.starts_with("error: rds-lb-agent.yaml:"), "{}", shown);
        }
    }

    #[test]
    fn no_text_breaks_the_parser(text in any::<String>()) {
        let _ = parse(FILE, &text);
    }
}

#[test]
fn deep_nesting_and_multiplying_aliases_are_refused_quickly() {
    let deep = "[".repeat(100_000);
    let mut aliases = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let before = format!("*a{}", level - 1);
        let nine = vec![before; 9].join(", ");
        aliases.push_str(&format!("a{level}: &a{level} [{nine}]\n"));
    }
    for text in [deep, "{a: ".repeat(50_000), "- ".repeat(50_000), aliases] {
        let begun = std::time::Instant::now();
        assert!(parse(FILE, &text).is_err());
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
}
