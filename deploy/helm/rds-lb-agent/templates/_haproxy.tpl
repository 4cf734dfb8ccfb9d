{{/*
haproxy.cfg. A pod starts with nothing, so no server is UP until the agent confirms its role: see
deploy/haproxy/fail-closed.cfg, which explains the settings.
*/}}
{{- define "rdslb.haproxy" -}}
global
    log stdout format raw local0 notice
    maxconn {{ .Values.haproxy.maxconn }}
    stats socket /run/haproxy/admin.sock mode 600 level admin
    # A pod that stops: open sessions have this long.
    hard-stop-after {{ .Values.shutdown.sessions }}s
    .if !version_atleast(3.1)
    server-state-file /etc/haproxy/all-down.state
    .endif
{{- with .Values.haproxy.extraGlobal }}
{{ . | indent 4 }}
{{- end }}

defaults
    mode tcp
    log global
    timeout connect {{ .Values.haproxy.timeouts.connect }}
    timeout client {{ .Values.haproxy.timeouts.client }}
    timeout server {{ .Values.haproxy.timeouts.server }}
    option clitcpka
    option srvtcpka
    option dontlognull
    retries 10
    option redispatch 1
{{- with .Values.haproxy.extraDefaults }}
{{ . | indent 4 }}
{{- end }}

resolvers vpc
    parse-resolv-conf
    resolve_retries 3
    timeout resolve 1s
    timeout retry 1s
    hold valid 1s
    hold other 1h
    hold refused 1h
    hold nx 1h
    hold timeout 1h
    hold obsolete 5s

# For the kubelet and Prometheus. It says that HAProxy runs, and nothing of the databases: a restarted balancer heals
# no database.
frontend health
    mode http
    timeout client 10s
    timeout http-request 5s
    bind :{{ .Values.ports.proxyHealth }}
    monitor-uri /healthz
    http-request use-service prometheus-exporter if { path /metrics }
    http-request deny
{{- range .Values.pools }}
{{- $pool := . }}
{{- $instances := include "rdslb.instances" (dict "root" $ "pool" .) | fromJsonArray }}

frontend in_{{ .name }}
    bind :{{ .port }}
    default_backend {{ .name }}

backend {{ .name }}
{{- if ne .role "writer" }}
    balance leastconn
{{- end }}
{{- if eq $.Values.routing "observe" }}
    # routing observe: clients go to the fallback, as without an agent. The instances are listed for the agent, which
    # only watches.
    server fallback {{ .fallback }} resolvers vpc resolve-prefer ipv4 init-addr none
    default-server backup
{{- else }}
    .if !version_atleast(3.1)
    load-server-state-from-file global
    .endif
    server fallback {{ .fallback }} backup resolvers vpc resolve-prefer ipv4 init-addr none
    server wait 127.0.0.1:9 backup
    option httpchk
    http-check send meth GET uri-lf "/{{ .database }}/%[srv_name]/{{ get (dict "writer" "primary" "reader" "replica" "any" "health") .role }}"
    default-server check addr 127.0.0.1 port {{ $.Values.ports.agentHttp }} inter 1s fastinter 500ms fall 2 rise 1
    .if version_atleast(3.1)
    default-server init-state fully-down
    .endif
{{- end }}
    default-server agent-check agent-addr 127.0.0.1 agent-port 7878 agent-inter 1s
    default-server resolvers vpc resolve-prefer ipv4 init-addr libc,none
{{- range $instances }}
    server {{ .name }} {{ default .endpoint .connect }} agent-send "{{ $pool.name }}/{{ .name }}\n"
{{- end }}
{{- end }}
{{ end -}}

{{/* For HAProxy before 3.1: every server starts DOWN. */}}
{{- define "rdslb.haproxyState" -}}
1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr srv_agent_addr srv_agent_port
{{- if ne .Values.routing "observe" }}
{{- range .Values.pools }}
{{- $pool := . }}
{{- range (include "rdslb.instances" (dict "root" $ "pool" .) | fromJsonArray) }}
0 {{ $pool.name }} 0 {{ .name }} - 0 0 1 1 0 8 2 0 6 0 0 0 - {{ include "rdslb.port" (default .endpoint .connect) }} - 0 0 - - 0
{{- end }}
{{- end }}
{{- end }}
{{ end -}}
