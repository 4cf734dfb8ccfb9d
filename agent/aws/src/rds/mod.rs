//! What RDS's API reports about databases. Only reads: no call here changes anything.
//!
//! The API is behind the trait [`RdsApi`], so that tests answer without AWS. [`RdsClient`] asks AWS, by
//! the standard endpoint of the region or by `AWS_ENDPOINT_URL_RDS` and `AWS_ENDPOINT_URL`.
//!
//! # Layout
//! - [`model`]: instances, clusters and the rest. Serialized, they are the JSON that `aws rds describe-...` prints.
//! - [`client`]: the calls, with time limits and retries. `convert`: from the SDK's types to the model.
//! - [`error`]: why a call failed, with the action of IAM that it needs.

pub mod client;
mod convert;
pub mod error;
pub mod model;

use async_trait::async_trait;

pub use client::RdsClient;
pub use error::{ApiError, ApiErrorKind};
pub use model::{
    BlueGreenDeployment, Cluster, Event, Instance, MaintenanceActions, Parameter, ParameterGroupKind,
};

/// Which instances or clusters to report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Those with these identifiers. An unknown one is left out of the answer.
    Identifiers(Vec<String>),
    /// The instances of a cluster; of clusters, the cluster itself.
    Cluster(String),
}

/// The calls of one region. Answers are whole: a list that does not arrive to its end is an error.
#[async_trait]
pub trait RdsApi: Send + Sync {
    async fn instances(&self, wanted: &Wanted) -> Result<Vec<Instance>, ApiError>;

    async fn clusters(&self, wanted: &Wanted) -> Result<Vec<Cluster>, ApiError>;

    /// All parameters of a parameter group.
    async fn parameters(&self, kind: ParameterGroupKind, group: &str) -> Result<Vec<Parameter>, ApiError>;

    /// What is pending at all resources of the region.
    async fn pending_maintenance(&self) -> Result<Vec<MaintenanceActions>, ApiError>;

    /// The events of the last `minutes` of all instances and clusters of the region. AWS keeps them for 14 days.
    async fn events(&self, minutes: u16) -> Result<Vec<Event>, ApiError>;

    async fn blue_green_deployments(&self) -> Result<Vec<BlueGreenDeployment>, ApiError>;
}
