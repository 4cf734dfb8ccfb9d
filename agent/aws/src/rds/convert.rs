//! From the SDK's types to the model. A missing text is empty.

use aws_sdk_rds::{
    primitives::{DateTime, DateTimeFormat},
    types,
};

use super::model::{
    BlueGreenDeployment, CertificateDetails, Cluster, Endpoint, Event, Instance, MaintenanceAction,
    MaintenanceActions, Member, Parameter, ParameterGroup, PendingValues, Scaling, SecurityGroup,
    SwitchoverDetail,
};

pub(super) fn instance(from: types::DbInstance) -> Instance {
    Instance {
        db_instance_identifier: from.db_instance_identifier.unwrap_or_default(),
        db_instance_status: from.db_instance_status.unwrap_or_default(),
        engine: from.engine.unwrap_or_default(),
        engine_version: from.engine_version.unwrap_or_default(),
        db_instance_class: from.db_instance_class.unwrap_or_default(),
        endpoint: from.endpoint.and_then(endpoint),
        db_cluster_identifier: from.db_cluster_identifier,
        dbi_resource_id: from.dbi_resource_id.unwrap_or_default(),
        db_instance_arn: from.db_instance_arn.unwrap_or_default(),
        iam_database_authentication_enabled: from.iam_database_authentication_enabled,
        performance_insights_enabled: from.performance_insights_enabled.unwrap_or_default(),
        certificate_details: from.certificate_details.map(certificate),
        db_parameter_groups: list(from.db_parameter_groups, parameter_group),
        pending_modified_values: from.pending_modified_values.map(pending).filter(some),
        enabled_cloudwatch_logs_exports: from.enabled_cloudwatch_logs_exports.unwrap_or_default(),
        read_replica_source_db_instance_identifier: from.read_replica_source_db_instance_identifier,
        read_replica_db_instance_identifiers: from.read_replica_db_instance_identifiers.unwrap_or_default(),
        vpc_security_groups: list(from.vpc_security_groups, security_group),
        preferred_maintenance_window: from.preferred_maintenance_window.unwrap_or_default(),
    }
}

pub(super) fn cluster(from: types::DbCluster) -> Cluster {
    Cluster {
        db_cluster_identifier: from.db_cluster_identifier.unwrap_or_default(),
        status: from.status.unwrap_or_default(),
        engine: from.engine.unwrap_or_default(),
        engine_version: from.engine_version.unwrap_or_default(),
        endpoint: from.endpoint,
        reader_endpoint: from.reader_endpoint,
        custom_endpoints: from.custom_endpoints.unwrap_or_default(),
        port: from.port.and_then(port),
        db_cluster_resource_id: from.db_cluster_resource_id.unwrap_or_default(),
        db_cluster_arn: from.db_cluster_arn.unwrap_or_default(),
        db_cluster_parameter_group: from.db_cluster_parameter_group.unwrap_or_default(),
        iam_database_authentication_enabled: from.iam_database_authentication_enabled,
        db_cluster_members: list(from.db_cluster_members, member),
        enabled_cloudwatch_logs_exports: from.enabled_cloudwatch_logs_exports.unwrap_or_default(),
        pending_modified_values: from.pending_modified_values.map(cluster_pending).filter(some),
        serverless_v2_scaling_configuration: from.serverless_v2_scaling_configuration.map(|from| Scaling {
            min_capacity: from.min_capacity.unwrap_or_default(),
            max_capacity: from.max_capacity.unwrap_or_default(),
        }),
        vpc_security_groups: list(from.vpc_security_groups, security_group),
    }
}

pub(super) fn parameter(from: types::Parameter) -> Parameter {
    Parameter {
        parameter_name: from.parameter_name.unwrap_or_default(),
        parameter_value: from.parameter_value,
        source: from.source.unwrap_or_default(),
    }
}

pub(super) fn maintenance(from: types::ResourcePendingMaintenanceActions) -> MaintenanceActions {
    let action = |from: types::PendingMaintenanceAction| MaintenanceAction {
        action: from.action.unwrap_or_default(),
        description: from.description.unwrap_or_default(),
        auto_applied_after_date: from.auto_applied_after_date.map(|date| rfc_3339(&date)),
        forced_apply_date: from.forced_apply_date.map(|date| rfc_3339(&date)),
        current_apply_date: from.current_apply_date.map(|date| rfc_3339(&date)),
    };
    MaintenanceActions {
        resource_identifier: from.resource_identifier.unwrap_or_default(),
        pending_maintenance_action_details: list(from.pending_maintenance_action_details, action),
    }
}

pub(super) fn event(from: types::Event) -> Event {
    Event {
        source_identifier: from.source_identifier.unwrap_or_default(),
        source_type: from.source_type.map(|kind| kind.as_str().to_owned()).unwrap_or_default(),
        message: from.message.unwrap_or_default(),
        date: from.date.map(|date| rfc_3339(&date)).unwrap_or_default(),
        event_categories: from.event_categories.unwrap_or_default(),
    }
}

pub(super) fn blue_green(from: types::BlueGreenDeployment) -> BlueGreenDeployment {
    let detail = |from: types::SwitchoverDetail| SwitchoverDetail {
        source_member: from.source_member.unwrap_or_default(),
        target_member: from.target_member.unwrap_or_default(),
        status: from.status.unwrap_or_default(),
    };
    BlueGreenDeployment {
        blue_green_deployment_identifier: from.blue_green_deployment_identifier.unwrap_or_default(),
        blue_green_deployment_name: from.blue_green_deployment_name.unwrap_or_default(),
        source: from.source.unwrap_or_default(),
        target: from.target.unwrap_or_default(),
        status: from.status.unwrap_or_default(),
        switchover_details: list(from.switchover_details, detail),
    }
}

fn list<A, B>(from: Option<Vec<A>>, part: impl Fn(A) -> B) -> Vec<B> {
    from.unwrap_or_default().into_iter().map(part).collect()
}

/// An instance that is being created has an endpoint without a name.
fn endpoint(from: types::Endpoint) -> Option<Endpoint> {
    Some(Endpoint { address: from.address?, port: port(from.port?)? })
}

fn port(from: i32) -> Option<u16> {
    u16::try_from(from).ok().filter(|port| *port > 0)
}

fn certificate(from: types::CertificateDetails) -> CertificateDetails {
    CertificateDetails {
        ca_identifier: from.ca_identifier.unwrap_or_default(),
        valid_till: from.valid_till.map(|date| rfc_3339(&date)).unwrap_or_default(),
    }
}

fn parameter_group(from: types::DbParameterGroupStatus) -> ParameterGroup {
    ParameterGroup {
        db_parameter_group_name: from.db_parameter_group_name.unwrap_or_default(),
        parameter_apply_status: from.parameter_apply_status.unwrap_or_default(),
    }
}

fn security_group(from: types::VpcSecurityGroupMembership) -> SecurityGroup {
    SecurityGroup {
        vpc_security_group_id: from.vpc_security_group_id.unwrap_or_default(),
        status: from.status.unwrap_or_default(),
    }
}

fn member(from: types::DbClusterMember) -> Member {
    Member {
        db_instance_identifier: from.db_instance_identifier.unwrap_or_default(),
        is_cluster_writer: from.is_cluster_writer.unwrap_or_default(),
        db_cluster_parameter_group_status: from.db_cluster_parameter_group_status.unwrap_or_default(),
    }
}

/// A pending password is left out.
fn pending(from: types::PendingModifiedValues) -> PendingValues {
    PendingValues {
        iam_database_authentication_enabled: from.iam_database_authentication_enabled,
        port: from.port,
        db_instance_identifier: from.db_instance_identifier,
        db_cluster_identifier: None,
        ca_certificate_identifier: from.ca_certificate_identifier,
        engine_version: from.engine_version,
        db_instance_class: from.db_instance_class,
    }
}

fn cluster_pending(from: types::ClusterPendingModifiedValues) -> PendingValues {
    PendingValues {
        iam_database_authentication_enabled: from.iam_database_authentication_enabled,
        db_cluster_identifier: from.db_cluster_identifier,
        engine_version: from.engine_version,
        ..PendingValues::default()
    }
}

/// AWS reports an empty object where nothing is pending.
fn some(values: &PendingValues) -> bool {
    *values != PendingValues::default()
}

fn rfc_3339(date: &DateTime) -> String {
    date.fmt(DateTimeFormat::DateTime).unwrap_or_default()
}
