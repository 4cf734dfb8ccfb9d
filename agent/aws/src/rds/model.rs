//! Instances, clusters and the rest, as far as the agent uses them.
//!
//! Serialized, they are the JSON that `aws rds describe-...` prints, so that a recorded answer and a fetched
//! one are judged alike. Names differ in case only. No field holds a secret.

use serde::Serialize;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Instance {
    pub db_instance_identifier: String,
    /// `available`, or what is being done.
    pub db_instance_status: String,
    pub engine: String,
    pub engine_version: String,
    pub db_instance_class: String,
    /// Absent while the instance is being created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Endpoint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub db_cluster_identifier: Option<String>,
    /// The name in the policy of `rds-db:connect`.
    pub dbi_resource_id: String,
    pub db_instance_arn: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iam_database_authentication_enabled: Option<bool>,
    pub performance_insights_enabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_details: Option<CertificateDetails>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub db_parameter_groups: Vec<ParameterGroup>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending_modified_values: Option<PendingValues>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub enabled_cloudwatch_logs_exports: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_replica_source_db_instance_identifier: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub read_replica_db_instance_identifiers: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vpc_security_groups: Vec<SecurityGroup>,
    pub preferred_maintenance_window: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Endpoint {
    pub address: String,
    pub port: u16,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct CertificateDetails {
    pub ca_identifier: String,
    /// RFC 3339.
    pub valid_till: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ParameterGroup {
    pub db_parameter_group_name: String,
    pub parameter_apply_status: String,
}

/// Changes that wait for the maintenance window or for a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PendingValues {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iam_database_authentication_enabled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i32>,
    /// A rename.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub db_instance_identifier: Option<String>,
    /// A rename.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub db_cluster_identifier: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_certificate_identifier: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine_version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub db_instance_class: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct SecurityGroup {
    pub vpc_security_group_id: String,
    pub status: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Cluster {
    pub db_cluster_identifier: String,
    pub status: String,
    pub engine: String,
    pub engine_version: String,
    /// The name of the writer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reader_endpoint: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub custom_endpoints: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The name in the policy of `rds-db:connect`.
    pub db_cluster_resource_id: String,
    pub db_cluster_arn: String,
    pub db_cluster_parameter_group: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iam_database_authentication_enabled: Option<bool>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub db_cluster_members: Vec<Member>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub enabled_cloudwatch_logs_exports: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending_modified_values: Option<PendingValues>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serverless_v2_scaling_configuration: Option<Scaling>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vpc_security_groups: Vec<SecurityGroup>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Member {
    pub db_instance_identifier: String,
    pub is_cluster_writer: bool,
    pub db_cluster_parameter_group_status: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Scaling {
    /// In capacity units; with 0 the instance pauses by itself.
    pub min_capacity: f64,
    pub max_capacity: f64,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ParameterGroupKind {
    Instance,
    Cluster,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Parameter {
    pub parameter_name: String,
    /// `None`: the engine's own default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameter_value: Option<String>,
    /// `user`, `system` or `engine-default`.
    pub source: String,
}

/// What is pending at an instance or a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct MaintenanceActions {
    /// An ARN.
    pub resource_identifier: String,
    pub pending_maintenance_action_details: Vec<MaintenanceAction>,
}

/// Dates are RFC 3339.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct MaintenanceAction {
    /// Such as `system-update` or `ca-certificate-rotation`.
    pub action: String,
    pub description: String,
    /// In the next maintenance window after this date.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_applied_after_date: Option<String>,
    /// Whatever the maintenance window is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forced_apply_date: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_apply_date: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Event {
    /// The identifier of an instance or a cluster.
    pub source_identifier: String,
    /// `db-instance`, `db-cluster` and others.
    pub source_type: String,
    pub message: String,
    /// RFC 3339.
    pub date: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub event_categories: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct BlueGreenDeployment {
    pub blue_green_deployment_identifier: String,
    pub blue_green_deployment_name: String,
    /// ARNs of the instance or the cluster, blue and green.
    pub source: String,
    pub target: String,
    pub status: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub switchover_details: Vec<SwitchoverDetail>,
}

/// ARNs of a blue member and its green copy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct SwitchoverDetail {
    pub source_member: String,
    pub target_member: String,
    pub status: String,
}
