//! What is rendered is what the recipes are, and has no mistakes.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test")]

use doctor::{
    envoy, haproxy,
    render::{self, Backend, Plan, Server},
    setup::Setup,
    source::Source,
};

/// The setup of the recipes.
fn plan(connect: [&str; 2], cluster: bool) -> Plan {
    let server = |(name, host): (&str, &str)| Server {
        name: name.into(),
        endpoint: (format!("orders-{name}.abc.eu-west-1.rds.amazonaws.com"), 5432),
        connect: (host.into(), 5432),
    };
    let backend = |name: &str, writer: bool, port: u16| Backend {
        name: name.into(),
        writer,
        port,
        servers: ["a", "b"].into_iter().zip(connect).map(server).collect(),
        cluster: cluster.then(|| {
            let kind = if writer { "cluster" } else { "cluster-ro" };
            (format!("orders.{kind}-abc.eu-west-1.rds.amazonaws.com"), 5432)
        }),
        database_name: "orders".into(),
        ..Backend::default()
    };
    Plan {
        agent_check: ("127.0.0.1".into(), 7878),
        envoy_socket: "/run/rds-lb-agent/envoy.sock".into(),
        bind: "127.0.0.1".into(),
        log: Some("127.0.0.1:7881".into()),
        backends: vec![backend("orders_write", true, 5432), backend("orders_read", false, 5433)],
        ..Plan::default()
    }
}

const ADDRESSES: [&str; 2] = ["192.0.2.11", "192.0.2.12"];
const NAMES: [&str; 2] =
    ["orders-a.abc.eu-west-1.rds.amazonaws.com", "orders-b.abc.eu-west-1.rds.amazonaws.com"];

fn settings(text: &str) -> Vec<String> {
    let code = text.lines().map(|line| line.split(" #").next().unwrap_or_default().trim());
    let code = code.filter(|line| !line.is_empty() && !line.starts_with('#'));
    code.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

fn recipe(name: &str) -> String {
    std::fs::read_to_string(format!("{}/../../deploy/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

#[test]
fn the_recipe_of_haproxy_is_what_is_rendered() {
    let named = |text: String| {
        text.replace("postgres_write", "to_orders_write").replace("postgres_read", "to_orders_read")
    };
    assert_eq!(
        settings(&render::haproxy(&plan(ADDRESSES, false))),
        settings(&named(recipe("haproxy/haproxy.cfg")))
    );
}

#[test]
fn lines_of_the_log_are_rendered_only_where_the_agent_receives_it() {
    let text =
        |log: Option<&str>| render::haproxy(&Plan { log: log.map(str::to_owned), ..plan(ADDRESSES, false) });
    assert!(
        text(Some("/run/rds-lb-agent/log.sock"))
            .contains("\n    log /run/rds-lb-agent/log.sock local0 info\n")
    );
    let without = text(None);
    assert!(!without.contains("log") && without.contains("option redispatch 1\n"), "{without}");
}

#[test]
fn the_recipe_of_envoy_is_what_is_rendered() {
    let named = |text: String| {
        text.replace("name: write\n", "name: to_orders_write\n")
            .replace("name: read\n", "name: to_orders_read\n")
            .replace("stat_prefix: write", "stat_prefix: orders_write")
            .replace("stat_prefix: read", "stat_prefix: orders_read")
            .replace("cluster: writer", "cluster: orders_write_or_dns")
            .replace("cluster: reader", "cluster: orders_read_or_dns")
            .replace("name: writer", "name: orders_write_or_dns")
            .replace("name: reader", "name: orders_read_or_dns")
    };
    // The order of clusters means nothing.
    let sorted = |text: &str| {
        let mut settings = settings(text);
        settings.sort();
        settings
    };
    assert_eq!(sorted(&render::envoy(&plan(ADDRESSES, true))), sorted(&named(recipe("envoy/envoy.yaml"))));
}

#[test]
fn what_is_rendered_has_no_mistakes() {
    for connect in [ADDRESSES, NAMES] {
        for cluster in [false, true] {
            let plan = plan(connect, cluster);
            let source = |text| [Source { name: "rendered".into(), text }];
            let findings = [
                haproxy::check(&source(render::haproxy(&plan)), &Setup::default()),
                envoy::check(&source(render::envoy(&plan)), &Setup::default()),
            ];
            for finding in findings.concat() {
                assert_eq!(finding.rule, "haproxy-idle-timeout-long", "{finding:?}");
            }
        }
    }
}

#[test]
fn clients_verify_the_rds_name_and_dial_the_proxy() {
    let text = render::clients(&plan(ADDRESSES, true), "app");
    let host = "host=orders.cluster-abc.eu-west-1.rds.amazonaws.com hostaddr=127.0.0.1 port=5432";
    assert!(text.contains(host), "{text}");
    assert!(!text.contains("--cluster"), "{text}");
    assert!(render::clients(&plan(ADDRESSES, false), "app").contains("--cluster orders_write=HOST:PORT"));
}
