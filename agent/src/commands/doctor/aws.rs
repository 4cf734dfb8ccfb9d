//! Asks AWS for everything that the rules judge, by calls that only read. What cannot be asked is reported as not
//! examined, with the action that is missing.

use std::collections::{BTreeMap, BTreeSet};

use agent_aws::{
    Region,
    credentials::{ChainOptions, CredentialChain},
    rds::{ApiError, ApiErrorKind, Cluster, Instance, ParameterGroupKind, RdsApi, RdsClient, Wanted},
};
use doctor::{finding::Report, setup, source::Source};
use serde_json::{Value, json};

use crate::config::{Config, Database, file::Engine};

/// Events of this time explain what an operator is looking for now.
const EVENTS_MINUTES: u16 = 24 * 60;

/// The instances of a configuration, as AWS has to agree with them.
pub(super) fn instances(config: &Config) -> Vec<setup::Instance> {
    let instance = |(database, instance): (&Database, &crate::config::Instance)| setup::Instance {
        id: instance.id().to_string(),
        host: instance.target.endpoint.host.to_ascii_lowercase(),
        port: instance.target.endpoint.port,
        engine: match database.engine {
            Engine::Postgresql => "postgresql",
            Engine::Mysql => "mysql",
            Engine::Mariadb => "mariadb",
        },
        keeps_connection: database.liveness,
        asked: false,
    };
    config.instances().map(instance).collect()
}

/// The answers of AWS, region by region. Marks the instances that AWS was asked for.
pub(super) async fn fetch(
    config: &Config,
    instances: &mut [setup::Instance],
    report: &mut Report,
) -> Vec<Source> {
    let chain = CredentialChain::standard(ChainOptions::patient());
    let mut regions: BTreeMap<Region, BTreeSet<String>> = BTreeMap::new();
    for (_, instance) in config.instances() {
        let region = match &instance.region {
            Some(region) => Region::parse(region).ok(),
            None => chain.region().await,
        };
        let id = instance.id().to_string();
        match region {
            Some(region) => drop(regions.entry(region).or_default().insert(id)),
            None => {
                report.skipped.push(format!("AWS, {id}: no region is known: set `region`, or AWS_REGION"));
            }
        }
    }
    let mut sources = Vec::new();
    for (region, ids) in regions {
        let client = RdsClient::new(&chain, &region).await;
        let of_region: Vec<&mut setup::Instance> =
            instances.iter_mut().filter(|instance| ids.contains(&instance.id)).collect();
        ask(&client, &region, of_region, report, &mut sources).await;
    }
    sources
}

/// One region.
async fn ask(
    api: &dyn RdsApi,
    region: &Region,
    mut instances: Vec<&mut setup::Instance>,
    report: &mut Report,
    sources: &mut Vec<Source>,
) {
    let identifiers = instances.iter().map(|instance| instance.identifier().to_owned()).collect();
    let found = match api.instances(&Wanted::Identifiers(identifiers)).await {
        Ok(found) => found,
        Err(error) => {
            // Without the instances it is unknown what else to ask for.
            report.skipped.push(format!("AWS {region}: {error}"));
            return;
        }
    };
    for instance in &mut instances {
        instance.asked = true;
    }
    report.examined.push(format!("AWS {region}"));
    let mut region = Asked { name: format!("AWS {region}"), report, sources };

    let names: BTreeSet<&String> =
        found.iter().filter_map(|instance| instance.db_cluster_identifier.as_ref()).collect();
    let names: Vec<String> = names.into_iter().cloned().collect();
    let clusters = if names.is_empty() {
        Vec::new()
    } else {
        region.or_skip(api.clusters(&Wanted::Identifiers(names)).await).unwrap_or_default()
    };
    let arns: BTreeSet<&str> = found
        .iter()
        .map(|instance| instance.db_instance_arn.as_str())
        .chain(clusters.iter().map(|cluster| cluster.db_cluster_arn.as_str()))
        .collect();
    let known = |arn: &str| arns.contains(arn);
    let names: BTreeSet<&str> = found
        .iter()
        .map(|instance| instance.db_instance_identifier.as_str())
        .chain(clusters.iter().map(|cluster| cluster.db_cluster_identifier.as_str()))
        .collect();

    let mut maintenance = region.or_skip(api.pending_maintenance().await).unwrap_or_default();
    maintenance.retain(|pending| known(&pending.resource_identifier));
    let mut events = region.or_skip(api.events(EVENTS_MINUTES).await).unwrap_or_default();
    events.retain(|event| names.contains(event.source_identifier.as_str()));
    let mut deployments = region.or_skip(api.blue_green_deployments().await).unwrap_or_default();
    deployments.retain(|deployment| {
        let members = deployment.switchover_details.iter();
        known(&deployment.source)
            || known(&deployment.target)
            || members.into_iter().any(|member| known(&member.source_member) || known(&member.target_member))
    });
    let answer = json!({
        "DBInstances": &found,
        "DBClusters": &clusters,
        "PendingMaintenanceActions": maintenance,
        "Events": events,
        "BlueGreenDeployments": deployments,
    });
    region.add("", &answer);
    parameters(api, &found, &clusters, &mut region).await;
}

async fn parameters(api: &dyn RdsApi, instances: &[Instance], clusters: &[Cluster], region: &mut Asked<'_>) {
    let of_instances = instances
        .iter()
        .flat_map(|instance| &instance.db_parameter_groups)
        .map(|group| (ParameterGroupKind::Instance, group.db_parameter_group_name.as_str()));
    let of_clusters = clusters
        .iter()
        .map(|cluster| (ParameterGroupKind::Cluster, cluster.db_cluster_parameter_group.as_str()));
    let groups: BTreeSet<(ParameterGroupKind, &str)> =
        of_instances.chain(of_clusters).filter(|(_, name)| !name.is_empty()).collect();
    let mut denied = None;
    for (kind, name) in groups {
        if denied == Some(kind) {
            continue;
        }
        let key = match kind {
            ParameterGroupKind::Instance => "DBParameterGroupName",
            ParameterGroupKind::Cluster => "DBClusterParameterGroupName",
        };
        match api.parameters(kind, name).await {
            Ok(parameters) => {
                region
                    .add(&format!(" parameter group {name}"), &json!({key: name, "Parameters": parameters}));
            }
            Err(error) => {
                // The other groups would be denied as well.
                denied = (error.kind == ApiErrorKind::Denied).then_some(kind);
                let error =
                    ApiError { message: format!("parameter group {name}: {}", error.message), ..error };
                region.or_skip::<()>(Err(error));
            }
        }
    }
}

/// A region that has answered, and where its answers go.
struct Asked<'a> {
    name: String,
    report: &'a mut Report,
    sources: &'a mut Vec<Source>,
}

impl Asked<'_> {
    fn add(&mut self, part: &str, answer: &Value) {
        self.sources.push(Source { name: format!("{}{part}", self.name), text: answer.to_string() });
    }

    /// The answer; an error is reported as not examined.
    fn or_skip<T>(&mut self, answer: Result<T, ApiError>) -> Option<T> {
        answer.map_err(|error| self.report.skipped.push(format!("{}: {error}", self.name))).ok()
    }
}
