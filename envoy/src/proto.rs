//! Envoy's messages and services, as far as the agent speaks them.
//!
//! The only file that names the crates of generated code, so that another
//! generator, or another version of Envoy's API, is a change of one file. Nothing
//! is added here; what the messages mean is said where they are used.

pub use envoy_types::pb::{
    envoy::{
        config::{
            core::v3::{
                Address, ControlPlane, HealthStatus, Metadata, Node, Pipe, SocketAddress, address,
                socket_address,
            },
            endpoint::v3::{
                ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, cluster_load_assignment,
                endpoint, lb_endpoint,
            },
        },
        data::accesslog::v3::{
            AccessLogCommon, AccessLogType, ConnectionProperties, ResponseFlags, TcpAccessLogEntry,
        },
        service::{
            accesslog::v3::{
                StreamAccessLogsMessage, StreamAccessLogsResponse,
                access_log_service_client::AccessLogServiceClient,
                access_log_service_server::{AccessLogService, AccessLogServiceServer},
                stream_access_logs_message,
            },
            discovery::v3::{
                DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
                aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
                aggregated_discovery_service_server::{
                    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
                },
            },
            endpoint::v3::{
                endpoint_discovery_service_client::EndpointDiscoveryServiceClient,
                endpoint_discovery_service_server::{
                    EndpointDiscoveryService, EndpointDiscoveryServiceServer,
                },
            },
        },
    },
    google::{
        protobuf::{Any, Duration, Struct, Timestamp, UInt32Value, Value, value},
        rpc::Status,
    },
};
/// How a message is written and read, and its name in an [`Any`].
pub use prost::{Message, Name};
/// The health checking protocol of gRPC itself, `grpc.health.v1`.
pub use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus,
    health_client::HealthClient,
    health_server::{Health, HealthServer},
};
