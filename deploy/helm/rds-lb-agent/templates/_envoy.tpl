{{/* envoy.yaml, after deploy/envoy/envoy.yaml, which explains the settings. */}}
{{- define "rdslb.envoy" -}}
node: {id: {{ include "rdslb.fullname" . }}, cluster: rds}
admin:
  address: {pipe: {path: /run/envoy/admin.sock, mode: 384}}
static_resources:
  listeners:
  # For the kubelet and Prometheus. It says that Envoy runs, and nothing of the databases: a restarted balancer heals
  # no database.
  - name: health
    address: {socket_address: {address: 0.0.0.0, port_value: {{ .Values.ports.proxyHealth }}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: health
          request_timeout: 10s
          request_headers_timeout: 5s
          common_http_protocol_options: {idle_timeout: 60s}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
          route_config:
            virtual_hosts:
            - name: health
              domains: ["*"]
              routes:
              - {match: {path: /healthz}, direct_response: {status: 200}}
              - {match: {path: /metrics}, route: {cluster: admin, prefix_rewrite: /stats/prometheus}}
{{- range .Values.pools }}
  - name: {{ .name }}
    address: {socket_address: {address: 0.0.0.0, port_value: {{ .port }}}}
    per_connection_buffer_limit_bytes: 131072
    tcp_keepalive: {keepalive_time: 60, keepalive_interval: 15, keepalive_probes: 4}
    filter_chains:
    - filters:
      - name: envoy.filters.network.tcp_proxy
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: {{ .name }}
          # The agent's endpoints, then the fallback. With routing observe the agent sends no endpoints.
          cluster: {{ .name }}_all
          idle_timeout: 0s
          max_connect_attempts: 30
          backoff_options: {base_interval: 1s, max_interval: 1s}
          access_log_options: {flush_access_log_on_start: true, flush_access_log_on_connected: true, access_log_flush_interval: 10s}
          # No file beside it: nothing rotates a file in a pod.
          access_log:
          - name: envoy.access_loggers.tcp_grpc
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.grpc.v3.TcpGrpcAccessLogConfig
              common_config:
                log_name: sessions
                transport_api_version: V3
                buffer_flush_interval: 0.05s
                buffer_size_bytes: 0
                grpc_service: {envoy_grpc: {cluster_name: agent}}
{{- end }}
  clusters:
{{- range .Values.pools }}
  - name: {{ .name }}
    type: EDS
    connect_timeout: 5s
    lb_policy: LEAST_REQUEST
{{- include "rdslb.envoyLimits" . | nindent 4 }}
    eds_cluster_config:
      eds_config:
        resource_api_version: V3
        initial_fetch_timeout: 2s
        api_config_source:
          api_type: GRPC
          transport_api_version: V3
          grpc_services:
          - envoy_grpc:
              cluster_name: agent
              retry_policy: {retry_back_off: {base_interval: 0.2s, max_interval: 2s}}
  - name: {{ .name }}_dns
    type: LOGICAL_DNS
    connect_timeout: 5s
    dns_lookup_family: V4_PREFERRED
{{- include "rdslb.envoyLimits" . | nindent 4 }}
    load_assignment:
      cluster_name: {{ .name }}_dns
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: {{ include "rdslb.host" .fallback }}, port_value: {{ include "rdslb.port" .fallback }}}}}}]}]
  - name: {{ .name }}_all
    connect_timeout: 5s
    lb_policy: CLUSTER_PROVIDED
    circuit_breakers: {thresholds: [{max_connections: 100000, max_pending_requests: 100000}]}
    common_lb_config: {healthy_panic_threshold: {value: 0}, update_merge_window: 0s}
    cluster_type:
      name: envoy.clusters.aggregate
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig
        clusters: [{{ .name }}, {{ .name }}_dns]
{{- end }}
  - name: agent
    type: STATIC
    connect_timeout: 1s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config:
          http2_protocol_options:
            connection_keepalive: {interval: 5s, timeout: 5s}
    load_assignment:
      cluster_name: agent
      endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: /run/rds-lb-agent/envoy.sock}}}}]}]
  - name: admin
    type: STATIC
    connect_timeout: 1s
    load_assignment:
      cluster_name: admin
      endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: /run/envoy/admin.sock}}}}]}]
overload_manager:
  resource_monitors:
  - name: envoy.resource_monitors.global_downstream_max_connections
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig
      max_active_downstream_connections: {{ .Values.envoy.maxConnections }}
{{ end -}}

{{- define "rdslb.envoyLimits" -}}
common_lb_config: {healthy_panic_threshold: {value: 0}, update_merge_window: 0s}
circuit_breakers: {thresholds: [{max_connections: 100000, max_pending_requests: 100000}]}
per_connection_buffer_limit_bytes: 131072
upstream_connection_options: {tcp_keepalive: {keepalive_time: 60, keepalive_interval: 15, keepalive_probes: 4}}
upstream_bind_config: {socket_options: [{description: TCP_USER_TIMEOUT, level: 6, name: 18, int_value: 120000, state: STATE_PREBIND}]}
{{- end -}}
