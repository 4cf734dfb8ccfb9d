//! The admin interface, on what a real Envoy 1.40 answered.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test")]

mod asked;
mod judged;

use envoy::admin::{Clusters, HostHealth, ServerInfo, Settings, Stats};
use proptest::prelude::*;
use serde_json::{Map, Value};
use std::time::Duration;

const CLUSTERS: &str = include_str!("../samples/clusters.json");
const CONFIG_DUMP: &str = include_str!("../samples/config_dump.json");
const SERVER_INFO: &str = include_str!("../samples/server_info.json");
const STATS: &str = include_str!("../samples/stats.json");

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn hosts_are_read_with_the_health_they_were_given() {
    let clusters = Clusters::read(&json(CLUSTERS)).unwrap().clusters;
    assert_eq!(clusters.len(), 7);
    let seen: Vec<_> = clusters["writer"]
        .iter()
        .map(|host| (host.hostname.as_str(), host.address.unwrap().to_string(), host.health))
        .collect();
    assert_eq!(
        seen,
        [
            ("a.example", "127.0.0.1:29101".to_owned(), HostHealth::Healthy),
            ("b.example", "127.0.0.2:29101".to_owned(), HostHealth::Draining),
            ("c.example", "127.0.0.3:29101".to_owned(), HostHealth::Unhealthy),
            ("d.example", "127.0.0.4:29101".to_owned(), HostHealth::Degraded),
        ]
    );
    assert_eq!(clusters["agent"][0].address, None, "a Unix socket");
    assert!(clusters["writer"].iter().all(|host| !host.failed_active_check && !host.outlier));
    assert_eq!(clusters["writer"][0].connections, 0, "zero is left out");
    assert_eq!(Clusters::read(&json("{}")).unwrap().clusters.len(), 0, "so is an empty list");
    assert_eq!(Clusters::read(&json("[]")), None);
    assert_eq!(Clusters::read(&json(r#"{"error": 1}"#)), None);
}

#[test]
fn the_settings_that_matter_are_read() {
    let settings = Settings::read(&json(CONFIG_DUMP)).unwrap();
    let cluster = |name: &str| settings.clusters.iter().find(|cluster| cluster.name == name).unwrap();
    let writer = cluster("writer");
    assert_eq!(writer.discovered_as.as_deref(), Some("writer"));
    assert!(writer.panic_threshold.abs() < f64::EPSILON, "a zero that is left out is not the default");
    assert_eq!(writer.merge_window, Duration::ZERO);
    assert!(writer.ignore_health_on_removal && !writer.close_on_failure && !writer.active_checks);
    let dead = cluster("dead");
    assert_eq!(dead.discovered_as, None);
    assert!((dead.panic_threshold - 50.0).abs() < f64::EPSILON);
    assert_eq!((dead.merge_window, dead.max_connections), (Duration::from_secs(1), 1_024));
    let listener = settings.listeners.iter().find(|listener| listener.name == "ok").unwrap();
    assert!(!listener.tls_inspector);
    let proxy = &listener.proxies[0];
    assert_eq!(proxy.clusters, ["writer"]);
    assert_eq!((proxy.idle_timeout, proxy.max_duration), (Duration::ZERO, None));
    assert!(proxy.grpc_log && proxy.log_on_connected);
    assert_eq!(settings.log_interval(), Some(Duration::from_secs(3)));
    assert_eq!(Settings::read(&json("{}")), None);
}

#[test]
fn the_server_says_who_it_is() {
    let info = ServerInfo::read(&json(SERVER_INFO)).unwrap();
    assert_eq!((&*info.version, &*info.state, &*info.node), ("1.40.0", "LIVE", "envoy-1"));
    assert!(info.uptime > Duration::from_secs(10));
    assert_eq!(ServerInfo::read(&json("{}")), None);
}

#[test]
fn counts_are_read_by_name() {
    let stats = Stats::read(&json(STATS)).unwrap();
    assert_eq!(stats.log_entries_lost(), 0);
    assert_eq!(stats.values["access_logs.grpc_access_log.grpc_entries_flushed"], 39);
    assert!(!stats.values.contains_key("cluster.writer.version_text"), "a text");
    assert_eq!(Stats::read(&json("{}")), None);
}

/// Reads it as everything that it might be.
fn read_all(value: &Value) {
    let _ = Clusters::read(value);
    let _ = Settings::read(value).map(|settings| settings.log_interval());
    let _ = ServerInfo::read(value);
    let _ = Stats::read(value).map(|stats| stats.log_entries_lost());
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[-0-9.es]{0,12}".prop_map(Value::from),
    ];
    let keys = prop::sample::select(vec![
        "configs",
        "@type",
        "cluster_statuses",
        "host_statuses",
        "stats",
        "name",
        "value",
        "address",
        "socket_address",
        "port_value",
    ]);
    leaf.prop_recursive(5, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((keys.clone(), inner), 0..6).prop_map(|all| all
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect::<Map<_, _>>()
                .into()),
        ]
    })
}

/// Puts `new` in the place of one of the values, counted from the top.
fn damage(value: &mut Value, which: &mut usize, new: &Value) {
    if *which == 0 {
        *value = new.clone();
    }
    *which = which.wrapping_sub(1);
    match value {
        Value::Array(all) => all.iter_mut().for_each(|value| damage(value, which, new)),
        Value::Object(all) => all.values_mut().for_each(|value| damage(value, which, new)),
        _ => {}
    }
}

proptest! {
    #[test]
    fn no_json_makes_it_panic(value in any_json()) {
        read_all(&value);
    }

    #[test]
    fn no_damage_to_real_answers_makes_it_panic(which in 0..1_500_usize, new in any_json()) {
        for sample in [CLUSTERS, CONFIG_DUMP, SERVER_INFO] {
            let mut value = json(sample);
            damage(&mut value, &mut which.clone(), &new);
            read_all(&value);
        }
    }
}
