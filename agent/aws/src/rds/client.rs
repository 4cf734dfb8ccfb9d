//! The calls, with time limits and retries.

use std::{env, fmt, time::Duration};

use async_trait::async_trait;
use aws_config::BehaviorVersion;
use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, error::CredentialsError as SdkCredentialsError, future},
};
use aws_sdk_rds::{
    Client,
    config::{AppName, IdentityCache, http::HttpResponse, retry::RetryConfig, timeout::TimeoutConfig},
    error::{ProvideErrorMetadata, SdkError},
    types::Filter,
};
use aws_smithy_async::future::pagination_stream::PaginationStream;
use tokio::task::JoinHandle;
use tracing::{Dispatch, instrument::WithSubscriber};

use super::{
    ApiError, ApiErrorKind, BlueGreenDeployment, Cluster, Event, Instance, MaintenanceActions, Parameter,
    ParameterGroupKind, RdsApi, Wanted, convert,
};
use crate::{credentials::CredentialChain, region::Region, rotation::Need};

/// Long enough for a connection through a VPC endpoint or a NAT gateway.
const CONNECT: Duration = Duration::from_secs(3);
const ATTEMPT: Duration = Duration::from_secs(10);
/// Of one page, all attempts and the waits between them included.
const CALL: Duration = Duration::from_secs(30);
/// Attempts at a page. The SDK waits longer before each, by a random time, and sends a few retries at most
/// while all calls fail.
const ATTEMPTS: u32 = 3;
/// No list of a region is longer: quotas are in the hundreds. A parameter group has about 600 entries.
const MOST: usize = 10_000;

/// The API of one region. Cheap to clone.
#[derive(Clone)]
pub struct RdsClient {
    client: Client,
    chain: CredentialChain,
    region: Region,
}

/// The SDK's way to the credential chain.
#[derive(Debug)]
struct Chain(CredentialChain);

// === impl RdsClient ===

impl RdsClient {
    /// Reads the AWS settings of the environment and the profile, and makes no call.
    pub async fn new(chain: &CredentialChain, region: &Region) -> Self {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT)
            .operation_attempt_timeout(ATTEMPT)
            .operation_timeout(CALL)
            .build();
        let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .region(aws_config::Region::new(region.as_str().to_owned()))
            .credentials_provider(Chain(chain.clone()))
            // The chain renews credentials and keeps them.
            .identity_cache(IdentityCache::no_cache())
            .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
            .timeout_config(timeouts);
        if let Ok(name) = AppName::new("rds-lb-agent") {
            loader = loader.app_name(name);
        }
        if let Some(profile) = chain.profile() {
            loader = loader.profile_name(profile);
        }
        let config = loader.load().with_subscriber(Dispatch::none()).await;
        let mut builder = aws_sdk_rds::config::Builder::from(&config);
        let given = ["AWS_ENDPOINT_URL_RDS", "AWS_ENDPOINT_URL"].map(|name| env::var(name).ok());
        if given.iter().flatten().any(String::is_empty) {
            // An empty variable counts as unset. The SDK would panic.
            builder.set_endpoint_url(given.into_iter().flatten().find(|url| !url.is_empty()));
        }
        let client = Client::from_conf(builder.build());
        Self { client, chain: chain.clone(), region: region.clone() }
    }

    pub fn region(&self) -> &Region {
        &self.region
    }

    /// All entries of a paged answer.
    async fn whole<T, E>(
        &self,
        action: &'static str,
        pages: PaginationStream<Result<T, SdkError<E, HttpResponse>>>,
    ) -> Result<Vec<T>, ApiError>
    where
        T: Send + 'static,
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        // The SDK reports a failed load of credentials as a failed connection.
        self.chain.lease(Need::default()).await.map_err(|error| ApiError::credentials(action, &error))?;
        // The SDK panics on some settings. At level trace it logs headers of requests, with session tokens: that
        // must not reach any log.
        let mut task = Task(tokio::spawn(read(action, pages).with_subscriber(Dispatch::none())));
        let ended = (&mut task.0).await;
        ended.unwrap_or_else(|error| Err(ApiError::new(action, ApiErrorKind::NotSent, error.to_string())))
    }
}

async fn read<T, E>(
    action: &'static str,
    mut pages: PaginationStream<Result<T, SdkError<E, HttpResponse>>>,
) -> Result<Vec<T>, ApiError>
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let mut entries = Vec::new();
    while let Some(entry) = pages.next().await {
        entries.push(entry.map_err(|error| ApiError::from_sdk(action, &error))?);
        if entries.len() > MOST {
            return Err(ApiError::new(action, ApiErrorKind::TooLong, format!("more than {MOST} entries")));
        }
    }
    Ok(entries)
}

/// A call under way. It is cancelled with its caller.
struct Task<T>(JoinHandle<T>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The entries of a call, by its paginator.
macro_rules! entries {
    ($client:expr, $action:expr, $call:expr) => {{
        let pages = $call.into_paginator().items().send();
        $client.whole($action, pages).await
    }};
}

#[async_trait]
impl RdsApi for RdsClient {
    async fn instances(&self, wanted: &Wanted) -> Result<Vec<Instance>, ApiError> {
        let filter = match wanted {
            Wanted::Identifiers(identifiers) => filter("db-instance-id", identifiers),
            Wanted::Cluster(identifier) => filter("db-cluster-id", std::slice::from_ref(identifier)),
        };
        let call = self.client.describe_db_instances().filters(filter);
        let found = entries!(self, "rds:DescribeDBInstances", call)?;
        Ok(found.into_iter().map(convert::instance).collect())
    }

    async fn clusters(&self, wanted: &Wanted) -> Result<Vec<Cluster>, ApiError> {
        let identifiers = match wanted {
            Wanted::Identifiers(identifiers) => identifiers,
            Wanted::Cluster(identifier) => std::slice::from_ref(identifier),
        };
        let filter = filter("db-cluster-id", identifiers);
        let call = self.client.describe_db_clusters().filters(filter);
        let found = entries!(self, "rds:DescribeDBClusters", call)?;
        Ok(found.into_iter().map(convert::cluster).collect())
    }

    async fn parameters(&self, kind: ParameterGroupKind, group: &str) -> Result<Vec<Parameter>, ApiError> {
        let found = match kind {
            ParameterGroupKind::Instance => {
                let call = self.client.describe_db_parameters().db_parameter_group_name(group);
                entries!(self, "rds:DescribeDBParameters", call)?
            }
            ParameterGroupKind::Cluster => {
                let call =
                    self.client.describe_db_cluster_parameters().db_cluster_parameter_group_name(group);
                entries!(self, "rds:DescribeDBClusterParameters", call)?
            }
        };
        Ok(found.into_iter().map(convert::parameter).collect())
    }

    async fn pending_maintenance(&self) -> Result<Vec<MaintenanceActions>, ApiError> {
        let call = self.client.describe_pending_maintenance_actions();
        let found = entries!(self, "rds:DescribePendingMaintenanceActions", call)?;
        Ok(found.into_iter().map(convert::maintenance).collect())
    }

    async fn events(&self, minutes: u16) -> Result<Vec<Event>, ApiError> {
        let call = self.client.describe_events().duration(minutes.into());
        let found = entries!(self, "rds:DescribeEvents", call)?;
        Ok(found.into_iter().map(convert::event).collect())
    }

    async fn blue_green_deployments(&self) -> Result<Vec<BlueGreenDeployment>, ApiError> {
        let call = self.client.describe_blue_green_deployments();
        let found = entries!(self, "rds:DescribeBlueGreenDeployments", call)?;
        Ok(found.into_iter().map(convert::blue_green).collect())
    }
}

impl fmt::Debug for RdsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RdsClient").field("region", &self.region).finish_non_exhaustive()
    }
}

fn filter(name: &str, values: &[String]) -> Filter {
    Filter::builder().name(name).set_values(Some(values.to_vec())).build()
}

// === impl Chain ===

impl ProvideCredentials for Chain {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let offer = self.0.lease(Need::default()).await.map_err(SdkCredentialsError::provider_error)?;
            Ok::<Credentials, SdkCredentialsError>(offer.lease.credentials.clone())
        })
    }
}
