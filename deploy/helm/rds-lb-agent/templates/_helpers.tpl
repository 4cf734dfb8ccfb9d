{{- define "rdslb.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "rdslb.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains (include "rdslb.name" .) .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "rdslb.name" .) | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "rdslb.selector" -}}
app.kubernetes.io/name: {{ include "rdslb.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: database-proxy
{{- end -}}

{{- define "rdslb.labels" -}}
{{ include "rdslb.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: {{ include "rdslb.name" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "rdslb.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "rdslb.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "rdslb.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The instances of a pool's database, as a JSON list. */}}
{{- define "rdslb.instances" -}}
{{- $instances := list -}}
{{- range .root.Values.databases -}}
{{- if eq .name $.pool.database -}}{{- $instances = .instances -}}{{- end -}}
{{- end -}}
{{- $instances | toJson -}}
{{- end -}}

{{/* The host and the port of HOST:PORT. */}}
{{- define "rdslb.host" -}}{{ regexReplaceAll ":[0-9]+$" . "" }}{{- end -}}
{{- define "rdslb.port" -}}{{ regexFind "[0-9]+$" . }}{{- end -}}

{{/* Values that the JSON Schema cannot check. */}}
{{- define "rdslb.check" -}}
{{- if eq .Values.mode "agent" -}}
{{- if not .Values.config.proxies -}}{{- fail "mode agent: set config.proxies, as in docs/CONFIGURATION.md" -}}{{- end -}}
{{- if .Values.pools -}}{{- fail "mode agent: pools are for the modes haproxy and envoy; name backends in config.proxies" -}}{{- end -}}
{{- else -}}
{{- if .Values.config.proxies -}}{{- fail "config.proxies is for mode agent; the modes haproxy and envoy write it from pools" -}}{{- end -}}
{{- if not .Values.pools -}}{{- fail "pools is empty: name at least one port for clients" -}}{{- end -}}
{{- $ports := dict -}}
{{- $names := dict -}}
{{- range .Values.pools -}}
{{- if not (include "rdslb.instances" (dict "root" $ "pool" .) | fromJsonArray) -}}
{{- fail (printf "pool %s: there is no database %s in databases" .name .database) -}}
{{- end -}}
{{- if hasKey $ports (toString .port) -}}{{- fail (printf "pool %s: port %v is another pool's" .name .port) -}}{{- end -}}
{{- if hasKey $names .name -}}{{- fail (printf "two pools have the name %s" .name) -}}{{- end -}}
{{- $_ := set $ports (toString .port) true -}}
{{- $_ := set $names .name true -}}
{{- if has (int .port) (list (int $.Values.ports.agentHttp) (int $.Values.ports.agentCheck) (int $.Values.ports.proxyHealth)) -}}
{{- fail (printf "pool %s: port %v is used by the agent or for health checks" .name .port) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (eq .Values.routing "observe") (has (default "observe" .Values.sessions.mode) (list "drain" "retire")) -}}
{{- fail "routing observe needs sessions.mode observe" -}}
{{- end -}}
{{- if and (eq .Values.agent.state.type "claim") (not .Values.agent.state.claim) -}}
{{- fail "agent.state: type claim needs the name of a PersistentVolumeClaim in claim" -}}
{{- end -}}
{{- if and (eq .Values.agent.state.type "claim") (or (eq .Values.kind "DaemonSet") (ne .Values.mode "agent")) -}}
{{- fail "agent.state: a claim is for one pod (mode agent, kind Deployment): agents must not share a state directory" -}}
{{- end -}}
{{- if and (eq .Values.sidecar "native") (ne .Values.mode "agent") (semverCompare "<1.29.0-0" .Capabilities.KubeVersion.Version) -}}
{{- fail "sidecar native needs Kubernetes 1.29; set sidecar: classic" -}}
{{- end -}}
{{- end -}}

{{/* Whether Prometheus connects to the agent from outside of the pod. Not empty: yes. */}}
{{- define "rdslb.scraped" -}}
{{- with .Values.metrics -}}{{- if or .service .serviceMonitor.enabled .podMonitor.enabled -}}true{{- end -}}{{- end -}}
{{- end -}}

{{/* The agent's configuration. */}}
{{- define "rdslb.agentConfig" -}}
{{- $config := dict "databases" .Values.databases "routing" .Values.routing "state_dir" "/var/lib/rds-lb-agent" -}}
{{- if .Values.sessions -}}{{- $_ := set $config "sessions" .Values.sessions -}}{{- end -}}
{{- $listen := dict "agent_check" (printf "127.0.0.1:%v" .Values.ports.agentCheck) "http" (printf "127.0.0.1:%v" .Values.ports.agentHttp) -}}
{{- /* The port is not authenticated: whoever reaches /metrics reaches /state and /history. */ -}}
{{- if include "rdslb.scraped" . -}}
{{- $listen = merge (dict "http" (printf "0.0.0.0:%v" .Values.ports.agentHttp) "allow_remote" true) $listen -}}
{{- end -}}
{{- $_ := set $config "listen" $listen -}}
{{- $sections := dict -}}
{{- range .Values.pools -}}
{{- $section := dict "database" .database "role" .role -}}
{{- if eq $.Values.mode "haproxy" -}}
{{- $servers := dict -}}
{{- range (include "rdslb.instances" (dict "root" $ "pool" .) | fromJsonArray) -}}
{{- $_ := set $servers .name .name -}}
{{- end -}}
{{- $_ := set $section "servers" $servers -}}
{{- end -}}
{{- $_ := set $sections .name $section -}}
{{- end -}}
{{- if eq .Values.mode "haproxy" -}}
{{- $sockets := dict "socket" "/run/haproxy/admin.sock" "master" "/run/haproxy/master.sock" -}}
{{- $_ := set $config "proxies" (list (dict "haproxy" $sockets "backends" $sections)) -}}
{{- else if eq .Values.mode "envoy" -}}
{{- $_ := set $config "proxies" (list (dict "envoy" (dict "admin" "/run/envoy/admin.sock") "clusters" $sections)) -}}
{{- end -}}
{{- mergeOverwrite $config .Values.config | toYaml -}}
{{- end -}}
