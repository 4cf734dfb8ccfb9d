//! What becomes of sessions when endpoint discovery ends, and comes back.

use integration_tests::{envoy::EnvoyConfig, process::wait_for};

use crate::{
    agent::{Discovery, nothing_known, writer_is},
    client::{Client, instances_of_new_sessions, new_sessions_reach},
    lab::{Lab, PATIENCE},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_and_sessions_outlive_their_agent() {
    let lab = Lab::set_up().await;
    // By DNS sessions would go to `c`: nothing may fall back while an agent has been heard.
    lab.names.answer(lab.ip("c"));
    let agent = Discovery::serving(writer_is(&lab.standin, "b"));
    let address = agent.address;
    let envoy = lab.envoy(EnvoyConfig::shipped().unwrap().agent(address)).await;
    let (write, read) = (envoy.address("write"), envoy.address("read"));
    let mut held = Vec::new();
    for dial in [write, write, read, read] {
        held.push(Client::login(&lab.standin, dial).await.unwrap());
    }
    let connected = async |wanted: u64| {
        wait_for(&format!("{wanted} streams to the agent"), PATIENCE, async || {
            match envoy.stat("cluster.agent.upstream_rq_active").await {
                Ok(found) if found == wanted => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await
        .unwrap();
    };
    let as_before = async |when: &str| {
        assert_eq!(instances_of_new_sessions(&lab.standin, write, 10).await, ["b"], "{when}");
        // The one with fewer sessions is preferred, which may be the same one each time.
        let read = instances_of_new_sessions(&lab.standin, read, 10).await;
        assert!(!read.contains(&"b".to_owned()), "{when}: {read:?}");
        let hosts = envoy.hosts("orders_write").await.unwrap();
        assert_eq!(
            hosts.iter().map(|host| &*host.eds).collect::<Vec<_>>(),
            ["UNHEALTHY", "HEALTHY", "UNHEALTHY"]
        );
        // An endpoint that had been away would count from zero.
        assert!(hosts[1].total >= 3, "{when}: {hosts:?}");
        for cluster in ["orders_write", "orders_read"] {
            let changes = envoy.stat(&format!("cluster.{cluster}.membership_change")).await.unwrap();
            assert_eq!(changes, 1, "{when}: endpoints of {cluster} came or went");
            let by_dns = envoy.stat(&format!("cluster.{cluster}_dns.upstream_cx_total")).await.unwrap();
            assert_eq!(by_dns, 0, "{when}: {cluster} was without a healthy endpoint");
        }
    };
    as_before("with the agent").await;

    drop(agent);
    connected(0).await;
    as_before("without the agent").await;

    // Started anew with no memory.
    let agent = Discovery::at(address, nothing_known());
    connected(2).await;
    as_before("with an agent that knows nothing").await;
    agent.say(writer_is(&lab.standin, "b"));
    agent.taken(&writer_is(&lab.standin, "b")).await;
    as_before("with an agent that knows again").await;
    for client in &held {
        assert!(client.works().await);
    }

    // It is listened to.
    agent.say(writer_is(&lab.standin, "a"));
    new_sessions_reach(&lab.standin, write, "a", PATIENCE).await;
    drop(envoy);
    lab.tear_down().await;
}
