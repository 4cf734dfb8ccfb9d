//! What a good file means.

use std::time::Duration;

use agent_core::plan::{Mode, Policy};
use rds_lb_agent::config::{Address, ProxyKind, Topology};

use super::{GOOD, accepted, edited, odd, refused};

#[test]
fn a_valid_file_is_translated_into_its_meaning() {
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
fn a_cluster_has_all_instances_of_the_database_by_default() {
    let envoy = "  - envoy: {node: one, admin: 127.0.0.1:9901, access_log: /var/log/envoy/database.json}
    clusters:
      w: {database: orders, role: writer}
      r: {database: orders, role: reader, instances: [b]}
sessions:";
    let config = accepted(&edited("sessions:", envoy));
    let proxy = &config.proxies[1];
    let ProxyKind::Envoy(envoy) = &proxy.kind else { panic!("{proxy:?}") };
    assert_eq!(
        (proxy.name().as_str(), envoy.admin.as_ref().unwrap().to_string()),
        ("envoy:one", "127.0.0.1:9901".into())
    );
    let servers: Vec<String> =
        proxy.servers.iter().map(|one| format!("{} {} {:?}", one.id, one.instance, one.wanted)).collect();
    assert_eq!(servers, ["r/b orders/b Reader", "w/a orders/a Writer", "w/b orders/b Writer"]);
    assert_eq!(config.listen.envoy, Some(Address::Unix("/run/rds-lb-agent/envoy.sock".into())));
    assert_eq!(accepted(GOOD).listen.envoy, None, "nothing listens for an Envoy that is not there");
}

#[test]
fn a_cluster_of_envoy_may_have_any_name_and_that_of_a_backend_too() {
    let shared = edited(
        "orders_write: {database: orders, role: writer, servers: {pg1: a, pg2: b}}",
        "orders_write: {database: orders, role: writer, servers: {a: a, pg2: b}}",
    );
    let envoy = "  - envoy: {}
    clusters:
      'outbound|5432||host': {database: orders, role: reader, instances: [b]}
      orders_write: {database: orders, role: writer}
sessions:";
    let config = accepted(&shared.replace("sessions:", envoy));
    let names: Vec<String> = config.proxies[1].servers.iter().map(|server| server.id.to_string()).collect();
    assert_eq!(names, ["envoy:orders_write/a", "orders_write/b", "outbound|5432||host/b"]);
    let all: std::collections::BTreeSet<String> =
        config.servers().iter().map(|server| server.id.to_string()).collect();
    assert_eq!(all.len(), config.servers().len(), "no two servers have one name: {all:?}");
    assert!(all.contains("orders_write/a"), "HAProxy's own: {all:?}");
}

#[test]
fn instances_are_compared_with_a_cluster_or_an_instance_in_lower_case() {
    for (topology, meaning) in [
        ("{cluster: Orders}", Topology::Cluster("orders".into())),
        ("{instance: orders-a}", Topology::Instance("orders-a".into())),
    ] {
        let key = format!("    topology: {topology}\n    user: lb_agent\n");
        let config = accepted(&edited("    user: lb_agent\n", &key));
        assert_eq!(config.databases[0].topology, Some(meaning));
    }
}

#[test]
fn mysql_and_mariadb_connect_to_no_database_by_default() {
    let name = |engine: &str| {
        let config = accepted(&edited("engine: postgresql", engine));
        config.databases[0].instances[0].target.database_name.to_string()
    };
    assert_eq!([name("engine: postgresql"), name("engine: mariadb")], ["postgres", ""]);
    let named = "engine: mysql\n    database_name: shop\n    open_transactions: strict";
    assert_eq!(name(named), "shop");
}

#[test]
fn innodb_trx_with_a_short_quiet_time_is_a_warning() {
    let with = |quiet: &str| {
        let text = edited("engine: postgresql", "engine: mariadb\n    open_transactions: innodb_trx");
        odd(&text.replace("max_age: 14m", &format!("max_age: 14m, quiet_min: {quiet}")))
    };
    assert_eq!(with("1s"), [""; 0]);
    let odd = with("200ms");
    assert!(odd[0].starts_with("4:24: sessions that are idle for less than a second"), "{odd:?}");
    let text = edited("engine: postgresql", "engine: mariadb\n    open_transactions: innodb_trx");
    let problem = refused(&text.replace("max_age: 14m", "close_via: proxy, quiet_min: 1s"));
    assert!(problem.contains("4:24: `close_via: proxy` is not possible with this"), "{problem}");
}

#[test]
fn without_a_sessions_section_the_agent_only_observes() {
    let config = accepted(&edited("sessions: {mode: retire, max_age: 14m}\n", ""));
    assert_eq!(config.sessions, Policy::default());
    assert_eq!(config.sessions.mode, Mode::Observe);
}

#[test]
fn values_replace_defaults() {
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
fn liveness_can_be_off_or_have_intervals() {
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
