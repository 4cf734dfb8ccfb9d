//! What is made of the answers: advice, and whether a push arrived.

use std::{collections::BTreeSet, time::Duration};

use envoy::{
    admin::{Advice, Clusters, Difference, Rule, Settings, Setup, advise, confirm},
    eds::{Cluster, Endpoint, Health, Snapshot},
};
use serde_json::{Value, json};

use super::{CLUSTERS, CONFIG_DUMP};

fn setup() -> Setup {
    Setup {
        clusters: ["orders_write".to_owned()].into(),
        server_first: BTreeSet::new(),
        max_age: Some(Duration::from_secs(840)),
    }
}

/// A configuration with nothing to be said against it.
fn good() -> Value {
    let exact = json!({"healthy_panic_threshold": {}, "update_merge_window": "0s"});
    json!({"configs": [
        {"@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump", "static_clusters": [
            {"cluster": {
                "name": "orders_write", "type": "EDS", "common_lb_config": exact,
                "circuit_breakers": {"thresholds": [{"max_connections": 100_000}]},
            }},
            {"cluster": {"name": "orders_write_dns", "type": "LOGICAL_DNS", "common_lb_config": exact}},
            {"cluster": {"name": "writer", "common_lb_config": exact, "cluster_type": {"typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig",
                "clusters": ["orders_write", "orders_write_dns"],
            }}}},
        ]},
        {"@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump", "static_listeners": [
            {"listener": {"name": "write", "filter_chains": [{"filters": [{"typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                "cluster": "writer", "idle_timeout": "0s",
                "access_log_options": {"flush_access_log_on_connected": true, "access_log_flush_interval": "10s"},
                "access_log": [{"typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.access_loggers.grpc.v3.TcpGrpcAccessLogConfig",
                }}],
            }}]}]}},
            {"listener": {"name": "other", "filter_chains": [{"filters": [{"typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                "cluster": "not_ours",
            }}]}]}},
        ]},
    ]})
}

/// The advice after one change.
fn after(pointer: &str, value: Value, setup: &Setup) -> Vec<(String, Rule)> {
    let mut config = good();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = config.pointer_mut(parent).unwrap();
    match parent {
        Value::Object(map) if value.is_null() => {
            map.remove(key).unwrap();
        }
        Value::Object(map) => {
            map.insert(key.to_owned(), value);
        }
        _ => panic!("{pointer} is in no object"),
    }
    let advice = advise(&Settings::read(&config).unwrap(), setup);
    advice.into_iter().map(|Advice { subject, rule }| (subject, rule)).collect()
}

#[test]
fn good_settings_need_no_advice_and_each_trap_is_found() {
    assert_eq!(advise(&Settings::read(&good()).unwrap(), &setup()), []);
    let cluster = "/configs/0/static_clusters/0/cluster";
    let aggregate = "/configs/0/static_clusters/2/cluster";
    let listener = "/configs/1/static_listeners/0/listener";
    let proxy = format!("{listener}/filter_chains/0/filters/0/typed_config");
    let w = "orders_write";
    let cases = [
        (format!("{cluster}/name"), json!("else"), w, Rule::ClusterMissing),
        (format!("{cluster}/common_lb_config/healthy_panic_threshold"), Value::Null, w, Rule::PanicThreshold),
        (
            format!("{cluster}/common_lb_config/healthy_panic_threshold"),
            json!({"value": 10}),
            w,
            Rule::PanicThreshold,
        ),
        (format!("{aggregate}/common_lb_config"), Value::Null, "writer", Rule::PanicThreshold),
        (format!("{cluster}/common_lb_config/update_merge_window"), Value::Null, w, Rule::MergeWindow),
        (format!("{cluster}/circuit_breakers"), Value::Null, w, Rule::ConnectionLimit),
        (format!("{cluster}/health_checks"), json!([{}]), w, Rule::RemovalIgnored),
        (format!("{proxy}/cluster"), json!(w), "write", Rule::NoFallback),
        (format!("{proxy}/idle_timeout"), Value::Null, "write", Rule::IdleTimeout),
        (format!("{proxy}/max_downstream_connection_duration"), json!("600s"), "write", Rule::MaxDuration),
        (format!("{proxy}/access_log"), Value::Null, "write", Rule::NoAccessLog),
        (
            format!("{proxy}/access_log_options/flush_access_log_on_connected"),
            json!(false),
            "write",
            Rule::NotOnConnected,
        ),
        (
            format!("{proxy}/access_log_options/access_log_flush_interval"),
            Value::Null,
            "write",
            Rule::NoLogInterval,
        ),
    ];
    for (pointer, value, subject, rule) in cases {
        let found = after(&pointer, value.clone(), &setup());
        assert!(found.contains(&(subject.to_owned(), rule)), "{pointer} = {value}: {found:?}");
        // A cluster under another name is no longer ours, so much goes with it.
        assert!(found.len() == 1 || rule == Rule::ClusterMissing, "{pointer} = {value}: {found:?}");
    }
}

#[test]
fn settings_that_are_safe_by_themselves_may_not_be_together() {
    let cluster = "/configs/0/static_clusters/0/cluster";
    let close = format!("{cluster}/close_connections_on_host_health_failure");
    assert_eq!(after(&close, json!(true), &setup()), [], "without checks nothing fails");
    let mut config = good();
    let cluster = config.pointer_mut(cluster).unwrap().as_object_mut().unwrap();
    cluster.insert("close_connections_on_host_health_failure".into(), json!(true));
    cluster.insert("health_checks".into(), json!([{}]));
    cluster.insert("ignore_health_on_host_removal".into(), json!(true));
    let found = advise(&Settings::read(&config).unwrap(), &setup());
    assert_eq!(found, [Advice { subject: "orders_write".into(), rule: Rule::CloseOnFailure }]);
    assert!(found[0].to_string().starts_with("orders_write: an agent that stops"));

    let inspector = json!([{"typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
    }}]);
    let filters = "/configs/1/static_listeners/0/listener/listener_filters";
    assert_eq!(after(filters, inspector.clone(), &setup()), [], "PostgreSQL: the client speaks first");
    let mysql = Setup { server_first: setup().clusters, ..setup() };
    assert_eq!(after(filters, inspector, &mysql), [("write".to_owned(), Rule::TlsInspector)]);
}

#[test]
fn a_cluster_that_is_called_otherwise_in_the_log_is_found() {
    let mut config = good();
    let cluster =
        config.pointer_mut("/configs/0/static_clusters/0/cluster").unwrap().as_object_mut().unwrap();
    cluster.insert("name".into(), json!("of_the_agent"));
    cluster.insert("eds_cluster_config".into(), json!({"service_name": "orders_write"}));
    *config
        .pointer_mut("/configs/0/static_clusters/2/cluster/cluster_type/typed_config/clusters/0")
        .unwrap() = json!("of_the_agent");
    let found = advise(&Settings::read(&config).unwrap(), &setup());
    assert_eq!(found, [Advice { subject: "of_the_agent".into(), rule: Rule::NameDiffers }]);
}

#[test]
fn the_real_configuration_of_the_capture_is_judged() {
    let setup = Setup { clusters: ["writer".to_owned()].into(), ..setup() };
    let found = advise(&Settings::read(&super::json(CONFIG_DUMP)).unwrap(), &setup);
    let expected = [("ok", Rule::NoFallback), ("writer", Rule::ConnectionLimit)];
    assert_eq!(found, expected.map(|(subject, rule)| Advice { subject: subject.into(), rule }));
}

#[test]
fn what_envoy_has_is_compared_with_what_it_was_sent() {
    let clusters = Clusters::read(&super::json(CLUSTERS)).unwrap();
    let endpoint = |name: &str, last: u8, health| Endpoint {
        name: name.into(),
        addresses: vec![([127, 0, 0, last], 29_101).into()],
        health,
    };
    let sent = |endpoints| Snapshot::new([Cluster { name: "writer".into(), endpoints }]);
    let all = || {
        vec![
            endpoint("a", 1, Health::Healthy),
            endpoint("b", 2, Health::Draining),
            endpoint("c", 3, Health::Unhealthy),
            endpoint("d", 4, Health::Degraded),
        ]
    };
    assert_eq!(confirm(&sent(Some(all())), &clusters), []);
    assert_eq!(confirm(&sent(None), &clusters), [], "nothing was sent for it");
    let mut other = all();
    other[1].health = Health::Healthy;
    other[3] = endpoint("e", 5, Health::Healthy);
    other.push(Endpoint { addresses: Vec::new(), ..endpoint("not_resolved", 9, Health::Unhealthy) });
    let cluster = || "writer".to_owned();
    assert_eq!(
        confirm(&sent(Some(other)), &clusters),
        [
            Difference::Missing { cluster: cluster(), endpoint: "e".into() },
            Difference::Extra { cluster: cluster(), address: ([127, 0, 0, 4], 29_101).into() },
            Difference::Health {
                cluster: cluster(),
                endpoint: "b".into(),
                sent: "HEALTHY",
                shown: "DRAINING"
            },
        ]
    );
    let absent = Snapshot::new([Cluster { name: "absent".into(), endpoints: Some(all()) }]);
    assert_eq!(confirm(&absent, &clusters), [Difference::NoCluster { cluster: "absent".into() }]);
}
