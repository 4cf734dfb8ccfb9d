//! The task on tokio's paused clock, with a scripted API.

use std::sync::{Mutex, PoisonError};

use agent_aws::rds::{
    ApiError, ApiErrorKind, BlueGreenDeployment, Cluster, Event as AwsEvent, Instance, MaintenanceActions,
    Parameter, ParameterGroupKind, Wanted, model::Endpoint,
};
use agent_core::{InstanceId, plan::Policy};
use async_trait::async_trait;
use tokio::{
    sync::{mpsc, watch},
    time::advance,
};

use super::*;
use crate::{clock::Clock, metrics::labels::OfDatabase, snapshot::Snapshot};

/// Its instances, or why it does not answer; and how often it was asked.
#[derive(Default)]
struct Script(Mutex<(Vec<Instance>, Option<ApiErrorKind>, usize)>);

impl Script {
    fn set(&self, instances: &[(&str, &[&str])]) {
        let instance = |(name, replicas): &(&str, &[&str])| Instance {
            db_instance_identifier: (*name).to_owned(),
            db_instance_status: "available".to_owned(),
            endpoint: Some(Endpoint { address: format!("{name}.rds"), port: 5432 }),
            read_replica_db_instance_identifiers: replicas.iter().map(|name| (*name).to_owned()).collect(),
            ..Instance::default()
        };
        let mut script = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (script.0, script.1) = (instances.iter().map(instance).collect(), None);
    }

    fn fail(&self, kind: ApiErrorKind) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1 = Some(kind);
    }

    fn asked(&self) -> usize {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).2)
    }
}

#[async_trait]
impl RdsApi for Script {
    async fn instances(&self, wanted: &Wanted) -> Result<Vec<Instance>, ApiError> {
        let mut script = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        script.2 += 1;
        if let Some(kind) = script.1 {
            return Err(ApiError { action: "rds:DescribeDBInstances", kind, message: String::new() });
        }
        let Wanted::Identifiers(names) = wanted else { return Ok(Vec::new()) };
        let wanted = |instance: &&Instance| names.contains(&instance.db_instance_identifier);
        Ok(script.0.iter().filter(wanted).cloned().collect())
    }
    async fn clusters(&self, _: &Wanted) -> Result<Vec<Cluster>, ApiError> {
        Ok(Vec::new())
    }
    async fn parameters(&self, _: ParameterGroupKind, _: &str) -> Result<Vec<Parameter>, ApiError> {
        Ok(Vec::new())
    }
    async fn pending_maintenance(&self) -> Result<Vec<MaintenanceActions>, ApiError> {
        Ok(Vec::new())
    }
    async fn events(&self, _: u16) -> Result<Vec<AwsEvent>, ApiError> {
        Ok(Vec::new())
    }
    async fn blue_green_deployments(&self) -> Result<Vec<BlueGreenDeployment>, ApiError> {
        Ok(Vec::new())
    }
}

/// A running task for the database `orders` with the instances `a` and `b`.
struct Running {
    script: Arc<Script>,
    shared: Shared,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    fn start(topology: Topology, script: Arc<Script>) -> Self {
        let clock = Clock::start();
        let (decider, _) = mpsc::channel(1);
        let (_, snapshot) = watch::channel(Arc::new(Snapshot::empty(clock.now())));
        let shared = Shared::new(clock, Arc::default(), &Policy::default(), snapshot, decider);
        let (own, api) = (shared.clone(), script.clone());
        let task = tokio::spawn(async move {
            let configured = ["a", "b"].map(|name| Configured {
                instance: InstanceId::new("orders", name),
                host: format!("{name}.rds"),
                port: 5432,
            });
            poll("orders", &topology, &configured, &*api, &own).await;
        });
        Self { script, shared, task }
    }

    async fn pass(&self, seconds: u64) {
        for _ in 0..seconds * 10 {
            advance(Duration::from_millis(100)).await;
            tokio::task::yield_now().await;
        }
    }

    fn differences(&self) -> Vec<String> {
        let asked = "instance a";
        self.shared
            .topologies
            .with("orders", asked, |seen| seen.comparison.lasting().map(ToString::to_string).collect())
    }

    fn error(&self) -> Option<String> {
        self.shared.topologies.with("orders", "instance a", |seen| seen.error.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn replicas_that_come_and_go_are_reported_and_aws_is_asked_about_once_a_minute() {
    let script = Arc::new(Script::default());
    script.set(&[("a", &["b"]), ("b", &[])]);
    let running = Running::start(Topology::Instance("a".into()), script);
    running.pass(600).await;
    assert_eq!(running.differences(), [""; 0]);
    // Two calls for each answer: the instance, then its replica.
    let asked = running.script.asked();
    assert!((16..=26).contains(&asked), "{asked}");

    running.script.set(&[("a", &["b", "c", "arn:aws:rds:us-east-1:1:db:far"]), ("b", &[]), ("c", &[])]);
    running.pass(100).await;
    assert_eq!(running.differences(), ["AWS has the member c (c.rds:5432), which is not configured"]);
    let labels = OfDatabase { database: "orders".into() };
    assert_eq!(running.shared.metrics.topology_differences.get_or_create(&labels).get(), 1);
    running.script.set(&[("a", &["b"]), ("b", &[])]);
    running.pass(100).await;
    assert_eq!(running.differences(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_reported_and_the_task_runs_again() {
    let script = Arc::new(Script::default());
    script.set(&[("a", &["b"]), ("b", &[])]);
    let running = Running::start(Topology::Instance("a".into()), script);
    let (shared, topology) = (running.shared.clone(), Topology::Instance("a".into()));
    let starts = Arc::new(Mutex::new(0));
    let counted = starts.clone();
    let task = tokio::spawn(async move {
        let task = || {
            let starts = counted.clone();
            async move {
                *starts.lock().unwrap() += 1;
                panic!("made up");
            }
        };
        restarted("orders", &topology, &shared, task).await;
    });
    running.task.abort();
    running.pass(120).await;
    assert!((3..=5).contains(&*starts.lock().unwrap()), "{starts:?}");
    assert!(running.error().is_some_and(|error| error.contains("internal error")));
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn a_failure_keeps_what_was_seen_and_is_tried_again_rarely() {
    let script = Arc::new(Script::default());
    script.set(&[("a", &[])]);
    let running = Running::start(Topology::Instance("a".into()), script);
    running.pass(100).await;
    let before = running.differences();
    assert_eq!(before, ["orders/b is configured, and AWS has no member b.rds"]);
    for kind in [ApiErrorKind::Denied, ApiErrorKind::Throttled, ApiErrorKind::Unreachable] {
        running.script.fail(kind);
        running.script.asked();
        running.pass(3_600).await;
        assert_eq!(running.differences(), before);
        assert!(running.error().is_some_and(|error| error.starts_with("rds:DescribeDBInstances: ")));
        let asked = running.script.asked();
        assert!((4..=14).contains(&asked), "{kind}: {asked}");
    }
    // An answer without any instance is none.
    running.script.set(&[]);
    running.pass(1_300).await;
    assert_eq!(running.differences(), before);
    assert!(running.error().is_some_and(|error| error.contains("AWS has no instances of the instance a")));
    running.script.set(&[("a", &["b"]), ("b", &[])]);
    running.pass(1_300).await;
    assert_eq!((running.differences().len(), running.error()), (0, None));
}
