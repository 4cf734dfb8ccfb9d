//! The calls, and what they mean: the members of a cluster, or an instance and its read replicas.

use std::collections::BTreeSet;

use agent_aws::rds::{ApiError, Instance, RdsApi, Wanted};
use agent_core::topology::Member;

use crate::config::Topology;

/// Read replicas may have read replicas: PostgreSQL allows three levels.
const LEVELS: usize = 4;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unanswered {
    /// As a word.
    pub result: &'static str,
    pub message: String,
}

impl From<ApiError> for Unanswered {
    fn from(error: ApiError) -> Self {
        Self { result: error.kind.word(), message: error.to_string() }
    }
}

/// The whole answer. It is never empty: a cluster without members, or an instance that is not there, is an error.
pub(super) async fn members(api: &dyn RdsApi, topology: &Topology) -> Result<Vec<Member>, Unanswered> {
    let members = match topology {
        Topology::Cluster(identifier) => of_cluster(api, identifier).await?,
        Topology::Instance(identifier) => of_instance(api, identifier).await?,
    };
    if members.is_empty() {
        let message = format!("AWS has no instances of the {topology}; correct the identifier or the region");
        return Err(Unanswered { result: "not_found", message });
    }
    Ok(members)
}

async fn of_cluster(api: &dyn RdsApi, identifier: &str) -> Result<Vec<Member>, ApiError> {
    let wanted = Wanted::Cluster(identifier.to_owned());
    let clusters = api.clusters(&wanted).await?;
    let Some(cluster) = clusters.into_iter().find(|cluster| cluster.db_cluster_identifier == identifier)
    else {
        return Ok(Vec::new());
    };
    let member = |instance: Instance| {
        let known = cluster
            .db_cluster_members
            .iter()
            .find(|member| member.db_instance_identifier == instance.db_instance_identifier);
        let writer = known.map(|member| member.is_cluster_writer);
        // The flag of the cluster decides.
        let iam = cluster.iam_database_authentication_enabled;
        Member { writer, iam, ..member(instance) }
    };
    Ok(api.instances(&wanted).await?.into_iter().map(member).collect())
}

async fn of_instance(api: &dyn RdsApi, identifier: &str) -> Result<Vec<Member>, ApiError> {
    let mut members = Vec::new();
    let mut known = BTreeSet::from([identifier.to_owned()]);
    let mut next = vec![identifier.to_owned()];
    for _ in 0..LEVELS {
        if next.is_empty() {
            break;
        }
        let found = api.instances(&Wanted::Identifiers(std::mem::take(&mut next))).await?;
        for instance in found {
            // Replicas in other regions are named by their ARN.
            let here =
                instance.read_replica_db_instance_identifiers.iter().filter(|name| !name.contains(':'));
            next.extend(here.filter(|name| known.insert((*name).clone())).cloned());
            members.push(member(instance));
        }
    }
    Ok(members)
}

fn member(instance: Instance) -> Member {
    Member {
        identifier: instance.db_instance_identifier,
        status: instance.db_instance_status,
        endpoint: instance.endpoint.map(|endpoint| (endpoint.address, endpoint.port)),
        writer: None,
        iam: instance.iam_database_authentication_enabled,
    }
}
