//! The streams of Envoys on the agent's own listener: who is let in, and who is not.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use agent_core::Time;
use envoy::{
    eds::Snapshot,
    proto::{
        AccessLogServiceClient, ClusterLoadAssignment, DiscoveryRequest, EndpointDiscoveryServiceClient,
        Name, Node, StreamAccessLogsMessage, stream_access_logs_message::Identifier,
    },
    serve::{Limits, serve},
};
use futures_util::{StreamExt, stream};
use rds_lb_agent::{
    clock::Clock,
    metrics::{Format, Metrics},
    proxies::envoy::{
        checks::Answers,
        discovery::Envoys,
        published::{Checked, Published},
    },
};
use tokio::{net::TcpListener, task::JoinHandle};

struct Served {
    address: String,
    envoys: Envoys,
    metrics: Arc<Metrics>,
    task: JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An agent that knows this Envoy, or any.
async fn served(node: Option<&str>) -> Served {
    let metrics = Arc::new(Metrics::default());
    let envoys = Envoys::new(metrics.clone());
    let answers =
        Answers::new(envoys.published(), envoys.changes(), Clock::start(), Arc::new(|| Time::AGENT_START));
    envoys.publish(vec![Published {
        proxy: "envoy:known".into(),
        node: node.map(Into::into),
        endpoints: Snapshot::default(),
        undrained: Snapshot::default(),
        checked: Checked::new(),
    }]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let task = tokio::spawn(serve(listener, envoys.services(answers), Limits::default()));
    Served { address, envoys, metrics, task }
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn the_access_log_of_an_envoy_that_is_nobodys_is_refused_and_told_of() {
    let agent = served(Some("known")).await;
    let stream = async |node: &str| {
        let node = Some(Node { id: node.into(), ..Node::default() });
        let identifier = Some(Identifier { node, log_name: "sessions".into() });
        let message = StreamAccessLogsMessage { identifier, log_entries: None };
        let mut client = AccessLogServiceClient::connect(agent.address.clone()).await.unwrap();
        client.stream_access_logs(stream::iter([message])).await.map(|_| ())
    };
    stream("known").await.unwrap();
    let refused = stream("other").await.unwrap_err();
    assert!(refused.message().contains("\"other\" is configured"), "{}", refused.message());
    until("counted", || {
        agent.metrics.text(Format::OpenMetrics).contains("rdslb_access_log_streams_refused_total 1\n")
    })
    .await;
    // From now on it is known.
    agent.envoys.publish(vec![Published {
        proxy: "envoy:other".into(),
        node: Some("other".into()),
        endpoints: Snapshot::default(),
        undrained: Snapshot::default(),
        checked: Checked::new(),
    }]);
    stream("other").await.unwrap();
}

/// A drain is a health status in the endpoints: an Envoy has to have requested them.
#[tokio::test]
async fn an_envoy_is_connected_once_it_has_asked_for_endpoints() {
    let agent = served(None).await;
    let mut client = EndpointDiscoveryServiceClient::connect(agent.address.clone()).await.unwrap();
    let _silent = client.stream_endpoints(stream::pending()).await.unwrap();
    until("a stream", || agent.envoys.peers().len() == 1).await;
    assert!(!agent.envoys.connected(None), "it has not said a word");
    let asked = DiscoveryRequest {
        node: Some(Node { id: "known".into(), ..Node::default() }),
        resource_names: vec!["w".into()],
        type_url: ClusterLoadAssignment::type_url(),
        ..DiscoveryRequest::default()
    };
    let _asks = client.stream_endpoints(stream::iter([asked]).chain(stream::pending())).await.unwrap();
    until("connected", || agent.envoys.connected(None)).await;
    assert!(agent.envoys.connected(Some("known")) && !agent.envoys.connected(Some("other")));
}
