//! Each mistake, in the words its author reads.

use rds_lb_agent::config::parse;

use super::{A, FILE, GOOD, accepted, edited, odd, refused, refused_with};

#[test]
fn an_unknown_key_is_refused_with_a_suggestion() {
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
fn an_unknown_value_is_refused_with_the_choices() {
    refused_with(
        "role: writer",
        "role: primary",
        "
error: rds-lb-agent.yaml:11:46: `primary` is not a valid value
    11 |       orders_write: {database: orders, role: primary, servers: {pg1: a, pg2: b}}
       |                                              ^
  hint: did you mean `writer`?
",
    );
    refused_with(
        "mode: retire",
        "mode: retier",
        "
error: rds-lb-agent.yaml:13:18: `retier` is not a valid value
    13 | sessions: {mode: retier, max_age: 14m}
       |                  ^
  hint: did you mean `retire`?
",
    );
}

#[test]
fn a_topology_needs_one_identifier() {
    for (topology, message) in [
        ("{}", "`topology` needs one of its keys"),
        ("{cluster: orders, instance: orders-a}", "`topology` needs one of its keys"),
        (
            "{cluster: orders.cluster-abc.eu-west-1.rds.amazonaws.com}",
            "this is not the identifier of a database in AWS",
        ),
        (
            "{instance: 'arn:aws:rds:eu-west-1:1:db:a'}",
            "write the identifier (`orders`), not the endpoint and not the ARN",
        ),
        ("{clusters: orders}", "did you mean `cluster`?"),
    ] {
        let key = format!("    topology: {topology}\n    user: lb_agent\n");
        let problem = refused(&edited("    user: lb_agent\n", &key));
        assert!(problem.contains(message), "{topology}: {problem}");
    }
}

#[test]
fn keys_of_mysql_and_mariadb_are_refused_for_postgresql() {
    refused_with(
        "engine: postgresql",
        "engine: postgresql\n    open_transactions: strict",
        "
error: rds-lb-agent.yaml:4:24: `open_transactions` is for mysql and mariadb
     4 |     open_transactions: strict
       |                        ^
  hint: PostgreSQL shows which sessions are in a transaction; remove this key
",
    );
    refused_with(
        "engine: postgresql",
        "engine: postgresql\n    close_method: platform",
        "
error: rds-lb-agent.yaml:4:19: `platform` is for mysql and mariadb
     4 |     close_method: platform
       |                   ^
  hint: RDS for PostgreSQL has `signal` and `function`; `auto` uses what is available
",
    );
}

#[test]
fn a_proxy_is_a_haproxy_or_an_envoy() {
    let envoy = "proxies:\n  - envoy: {node: one}\n    backends:";
    refused_with(
        "proxies:\n  - haproxy: {socket: /run/haproxy/admin.sock, master: /run/haproxy/master.sock}\n    backends:",
        envoy,
        "
error: rds-lb-agent.yaml:9:5: this is neither a HAProxy nor an Envoy
     9 |   - envoy: {node: one}
       |     ^
  hint: write `haproxy` and `backends`, or `envoy` and `clusters`
",
    );
}

#[test]
fn policies_that_envoy_cannot_carry_out_are_refused() {
    let envoy = "  - envoy: {}\n    clusters: {w: {database: orders, role: writer}}\nsessions:";
    let with = |sessions: &str| {
        let text = edited("sessions:", envoy);
        refused(&text.replace("{mode: retire, max_age: 14m}", sessions))
    };
    for (sessions, what) in
        [("{mode: drain}", "mode: drain"), ("{mode: retire, close_via: proxy}", "close_via: proxy")]
    {
        let problem = with(sessions);
        assert!(
            problem.starts_with("error: rds-lb-agent.yaml:13:5: ") && problem.contains("not possible"),
            "{problem}"
        );
        assert!(problem.contains(what) && problem.contains("hint: "), "{problem}");
    }
    let text = edited("sessions:", envoy).replace("max_age: 14m", "demotion_grace: 1m");
    assert!(odd(&text).iter().any(|one| one.contains("close nothing that is busy behind an Envoy")));
}

#[test]
fn several_envoys_need_node_ids_and_clusters_known_instances() {
    let with = |proxies: &str| edited("sessions:", &format!("{proxies}sessions:"));
    let envoy = |name: &str, rest: &str| {
        format!(
            "  - envoy: {name}\n    clusters: {{w{}: {{database: orders, role: writer{rest}}}}}\n",
            name.len()
        )
    };
    let two = with(&format!("{}{}", envoy("{}", ""), envoy("{node: b}", "")));
    let problem = refused(&two);
    assert!(
        problem
            .starts_with("error: rds-lb-agent.yaml:13:5: this is one of several Envoys and has no `node`\n"),
        "{problem}"
    );
    let two = with(&format!("{}{}", envoy("{node: b }", ""), envoy("{node: b}", "")));
    assert!(refused(&two).contains("there are two nodes called `b`"));
    let problem = refused(&with(&envoy("{}", ", instances: [a, c]")));
    assert!(problem.contains("cluster `w2`: database `orders` has no instance `c`"), "{problem}");
    let problem = refused(&with(&envoy("{}", ", instances: []")));
    assert!(problem.contains("cluster `w2` has no instances"), "{problem}");
    let problem = refused(&with(&envoy("{admin: 'localhost'}", "")));
    assert!(problem.contains("`localhost` is not HOST:PORT"), "{problem}");
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
fn names_are_unique() {
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
fn names_are_safe_in_urls() {
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
            "this is the endpoint of a cluster or a proxy: use each instance's own endpoint",
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
  hint: `14` has no unit; did you mean `14s` or `14m`?
",
    );
    for (setting, message) in [
        ("max_age: soon", "`soon` is not a duration"),
        ("quiet: -1s", "`-1s` is not a duration"),
        ("drain_share: 0.5", "`0.5` is not a percentage"),
        ("drain_share: 150%", "`150%` is not a percentage"),
        ("capacity_floor: half", "`half` is not a percentage"),
    ] {
        let problem = refused(&edited("max_age: 14m", setting));
        assert!(problem.contains(message) && problem.contains("hint: "), "{problem}");
    }
}

#[test]
fn values_that_do_not_fit_together_are_refused() {
    for (setting, position, message) in [
        ("max_age: 4s", "13:35", "`max_age` is too short"),
        ("quiet: 500ms, quiet_min: 700ms", "13:51", "`quiet_min` is longer than `quiet`"),
        ("quiet_min: 50ms", "13:37", "`quiet_min` is too short"),
        ("login_budget: 1", "13:40", "`login_budget` is too small"),
    ] {
        let problem = refused(&edited("max_age: 14m", setting));
        assert!(problem.starts_with(&format!("error: {FILE}:{position}: {message}\n")), "{problem}");
        assert!(problem.contains("hint: "), "{problem}");
    }
}

#[test]
fn unusual_values_are_warnings() {
    assert_eq!(
        odd(&edited("max_age: 14m", "max_age: 20m")),
        ["13:35: `max_age` is longer than the lifetime of a token, 15 minutes"]
    );
    assert_eq!(
        odd(&edited("max_age: 14m", "max_age: 10s, quiet: 5s")),
        ["13:47: `quiet` is longer than the window in which a session may go"]
    );
}

#[test]
fn addresses_that_other_hosts_can_reach_need_allow_remote() {
    let with = |listen: &str| format!("{GOOD}listen: {{{listen}}}\n");
    assert_eq!(
        refused(&with("http: '0.0.0.0:7879'")),
        "
error: rds-lb-agent.yaml:14:16: other hosts can reach 0.0.0.0:7879
    14 | listen: {http: '0.0.0.0:7879'}
       |                ^
  hint: the port is not authenticated; set `allow_remote: true` if the network is protected
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
fn sockets_and_networks_are_checked() {
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
fn invalid_yaml_is_refused_with_its_position() {
    for (text, position) in [
        ("databases: [", "1:"),
        ("databases:\n  - name: orders\n\tengine: postgresql\n", "2:"),
        ("databases:\n  - name: 'orders\n", "2:"),
        ("a: b\n---\nc: d\n", ""),
        ("", "1:1:"),
    ] {
        let problem = refused(text);
        assert!(problem.starts_with(&format!("error: {FILE}:{position}")), "{text:?}: {problem}");
    }
}

#[test]
fn all_errors_are_reported_at_once_in_the_order_of_the_file() {
    let text = edited("engine: postgresql", "engine: postgresql\n    open_transactions: strict");
    let text = text.replace("14m", "14").replace("pg2: b", "pg2: c");
    let text = text.replace("    user:", "    max_lag: 5\n    probe_interval: x\n    user:")
        + "listen: {http: nowhere}\nstate_dir: here\n";
    let problems = parse(FILE, &text).unwrap_err();
    let positions: Vec<(u64, u64)> = problems.problems.iter().map(|one| (one.line, one.column)).collect();
    assert_eq!(positions, [(4, 24), (5, 14), (6, 21), (14, 77), (15, 76), (16, 35), (17, 16), (18, 12)]);
    assert_eq!(problems.to_string().matches("error: ").count(), positions.len());
    assert_eq!(problems.brief().lines().count(), 1, "one line for a log");
}

#[test]
fn closing_sessions_while_routing_is_observed_is_refused() {
    let problem = refused(&format!("{GOOD}routing: observe\n"));
    assert!(problem.contains("`routing: observe` changes nothing at the proxies"), "{problem}");
    assert!(problem.contains("hint: set `sessions.mode: observe`"), "{problem}");
    accepted(&format!("{}routing: observe\n", edited("mode: retire", "mode: observe")));
}

#[test]
fn token_files_that_no_client_could_use_are_refused() {
    let endpoint = "orders.cluster-abc.eu-west-1.rds.amazonaws.com:5432";
    let file = |keys: &str| format!("{GOOD}token_files:\n  - {{{keys}}}\n");
    let good = format!("path: /run/app.token, user: app, endpoints: ['{endpoint}']");
    assert_eq!(accepted(&file(&good)).token_files.len(), 1);
    let two = format!("['{endpoint}', 'orders-a.abc.eu-west-1.rds.amazonaws.com:5432']");
    accepted(&file(&format!("path: /run/app.pgpass, format: pgpass, user: app, endpoints: {two}")));
    for (keys, message) in [
        (good.replace("/run", "run"), "is not an absolute path"),
        (good.replace("user: app", "user: \"a\\nb\""), "this cannot be the name of a user"),
        (format!("path: /run/app.token, user: app, endpoints: {two}"), "2 endpoints for one token file"),
        ("path: /run/app.token, user: app, endpoints: []".into(), "0 endpoints for one token file"),
        (good.replace(":5432", ""), "is not HOST:PORT"),
        (format!("{good}, region: nowhere!"), "region"),
        (format!("{good}, format: text"), "`text` is not a valid value"),
    ] {
        let problem = refused(&file(&keys));
        assert!(problem.contains(message), "{keys}: {problem}");
    }
    let twice = format!("{}  - {{{good}}}\n", file(&good));
    assert!(refused(&twice).contains("there are two token files called `/run/app.token`"));
}

#[test]
fn the_control_socket_is_not_a_socket_of_haproxy() {
    let problem = refused(&edited("sessions:", "listen: {control: /run/haproxy/admin.sock}\nsessions:"));
    assert!(problem.contains("this is a socket of HAProxy"), "{problem}");
}

#[test]
fn a_token_socket_has_a_path_of_its_own_and_names_databases_and_peers() {
    let socket = |path: &str, token: &str| {
        let token = format!("endpoint: 'orders.cluster-abc.eu-west-1.rds.amazonaws.com:5432', {token}");
        edited("sessions:", &format!("token_socket: {{path: {path}, tokens: [{{{token}}}]}}\nsessions:"))
    };
    let good = "database: orders, user: app, peers: [app]";
    accepted(&socket("/run/tokens.sock", good));
    for (path, token, message) in [
        ("/run/rds-lb-agent/control.sock", good, "two sockets of the agent have this path"),
        ("/run/haproxy/admin.sock", good, "this is a socket of HAProxy"),
        ("/run/tokens.sock", "database: order, user: app, peers: [app]", "there is no database `order`"),
        ("/run/tokens.sock", "database: orders, user: app, peers: []", "no user gets this token"),
    ] {
        let text = socket(path, token)
            .replace("sessions:", "listen: {control: /run/rds-lb-agent/control.sock}\nsessions:");
        let problem = refused(&text);
        assert!(problem.contains(message), "{problem}");
    }
}

#[test]
fn the_log_of_a_haproxy_has_an_address_of_its_own() {
    let socket = "socket: /run/haproxy/admin.sock";
    let log = |log: &str| edited(socket, &format!("{socket}, log: \"{log}\""));
    for good in ["127.0.0.1:7881", "/run/rds-lb-agent/log.sock"] {
        accepted(&log(good));
    }
    assert!(refused(&log("syslog")).contains("`syslog` is not an address"));
    assert!(refused(&log("0.0.0.0:7881")).contains("other hosts can reach 0.0.0.0:7881"));
    let second = "  - haproxy: {socket: /run/haproxy2/admin.sock, log: \"127.0.0.1:7881\"}
    backends:
      more: {database: orders, role: reader, servers: {pg1: a}}
sessions:";
    let problem = refused(&log("127.0.0.1:7881").replace("sessions:", second));
    assert!(problem.contains("two proxies have the log `127.0.0.1:7881`"), "{problem}");
    let own = "listen: {control: /run/log.sock}\nsessions:";
    let problem = refused(&log("/run/log.sock").replace("sessions:", own));
    assert!(problem.contains("this is a socket of HAProxy, or for its log"), "{problem}");
}

#[test]
fn errors_of_structure_and_of_meaning_are_reported_together() {
    let text = edited("role: writer", "role: primary").replace("max_age: 14m", "max_age: 14");
    let problem = refused(&text);
    assert!(problem.contains("`primary` is not a valid value"), "{problem}");
    assert!(
        problem.contains("`14` is not a duration") && problem.matches("error: ").count() == 2,
        "{problem}"
    );
}

#[test]
fn what_the_agent_cannot_do_is_a_warning() {
    let off = edited("    instances:", "    liveness: off\n    instances:");
    assert!(odd(&off).iter().any(|one| one.contains("`mode: retire` closes no session here")));
    let upper = GOOD.replace(A, &A.to_uppercase());
    assert!(odd(&upper).iter().any(|one| one.contains("lower case")), "{:?}", odd(&upper));
}
