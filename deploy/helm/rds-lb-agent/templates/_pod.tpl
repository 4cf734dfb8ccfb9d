{{/* The agent's container. */}}
{{- define "rdslb.agent" -}}
name: agent
image: {{ include "rdslb.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- if and (eq .Values.sidecar "native") (ne .Values.mode "agent") }}
restartPolicy: Always
{{- end }}
# --restart: a pod is Ready only while every container runs, this one too. So an agent that exits, also for a wrong
# configuration, must not end the container: a parent process starts it again.
args: [run, --restart, --config, /etc/rds-lb-agent/config.yaml]
{{- if or .Values.aws.region .Values.agent.extraEnv }}
env:
{{- with .Values.aws.region }}
  - {name: AWS_REGION, value: {{ . | quote }}}
{{- end }}
{{- with .Values.agent.extraEnv }}
{{ toYaml . | indent 2 }}
{{- end }}
{{- end }}
ports:
  - {name: http-agent, containerPort: {{ .Values.ports.agentHttp }}}
# No probes: a failed one takes a proxy that works out of the Service. Alert on the agent instead.
resources: {{ toYaml .Values.agent.resources | nindent 2 }}
securityContext: {{ include "rdslb.security" . | nindent 2 }}
volumeMounts:
  - {name: agent-config, mountPath: /etc/rds-lb-agent, readOnly: true}
  - {name: agent-state, mountPath: /var/lib/rds-lb-agent}
  - {name: agent-run, mountPath: /run/rds-lb-agent}
{{- if ne .Values.mode "agent" }}
  - {name: proxy-run, mountPath: /run/{{ .Values.mode }}}
{{- end }}
{{- with .Values.agent.caConfigMap }}
  - {name: agent-ca, mountPath: /etc/rds-lb-agent-ca, readOnly: true}
{{- end }}
{{- range $index, $folder := .Values.agent.hostFolders }}
  - {name: host-{{ $index }}, mountPath: {{ $folder }}}
{{- end }}
{{- end -}}

{{- define "rdslb.security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Seconds that a container goes on before it is asked to stop. */}}
{{- define "rdslb.sleep" -}}
preStop:
{{- if semverCompare ">=1.30.0-0" .root.Capabilities.KubeVersion.Version }}
  sleep: {seconds: {{ .seconds }}}
{{- else }}
  exec: {command: [sleep, {{ .seconds | quote }}]}
{{- end }}
{{- end -}}

{{- define "rdslb.proxy" -}}
name: {{ .Values.mode }}
{{- if eq .Values.mode "haproxy" }}
{{- with .Values.haproxy }}
image: {{ .image.repository }}:{{ .image.tag }}
imagePullPolicy: {{ .image.pullPolicy }}
command: [haproxy, -W, -db, -S, "/run/haproxy/master.sock,mode,600", -f, /etc/haproxy/haproxy.cfg]
resources: {{ toYaml .resources | nindent 2 }}
{{- end }}
lifecycle: {{ include "rdslb.sleep" (dict "root" . "seconds" (int .Values.shutdown.delay)) | nindent 2 }}
{{- else }}
{{- with .Values.envoy }}
image: {{ .image.repository }}:{{ .image.tag }}
imagePullPolicy: {{ .image.pullPolicy }}
command: [envoy, -c, /etc/envoy/envoy.yaml, --disable-hot-restart, --concurrency, {{ .concurrency | quote }}, --log-level, warn]
resources: {{ toYaml .resources | nindent 2 }}
{{- end }}
lifecycle: {{ include "rdslb.sleep" (dict "root" . "seconds" (add (int .Values.shutdown.delay) (int .Values.shutdown.sessions))) | nindent 2 }}
{{- end }}
ports:
{{- range $index, $pool := .Values.pools }}
  - {name: pool-{{ $index }}, containerPort: {{ $pool.port }}}
{{- end }}
  - {name: http-proxy, containerPort: {{ .Values.ports.proxyHealth }}}
# All three ask whether the proxy runs, never whether a database is healthy.
startupProbe: {httpGet: {path: /healthz, port: http-proxy}, periodSeconds: 1, failureThreshold: 60}
readinessProbe: {httpGet: {path: /healthz, port: http-proxy}, periodSeconds: 5, timeoutSeconds: 3, failureThreshold: 3}
livenessProbe: {httpGet: {path: /healthz, port: http-proxy}, periodSeconds: 10, timeoutSeconds: 5, failureThreshold: 6}
securityContext: {{ include "rdslb.security" . | nindent 2 }}
volumeMounts:
  - {name: proxy-config, mountPath: /etc/{{ .Values.mode }}, readOnly: true}
  - {name: proxy-run, mountPath: /run/{{ .Values.mode }}}
{{- if eq .Values.mode "envoy" }}
  - {name: agent-run, mountPath: /run/rds-lb-agent}
{{- end }}
{{- end -}}

{{- define "rdslb.pod" -}}
{{- include "rdslb.check" . -}}
{{- $proxy := ne .Values.mode "agent" -}}
{{- $native := and $proxy (eq .Values.sidecar "native") -}}
metadata:
  labels: {{ include "rdslb.labels" . | nindent 4 }}
{{- with .Values.podLabels }}
{{ toYaml . | indent 4 }}
{{- end }}
  annotations:
    kubectl.kubernetes.io/default-container: {{ $proxy | ternary .Values.mode "agent" }}
{{- if $proxy }}
    # A proxy reads its configuration once.
    checksum/proxy: {{ include (print "rdslb." .Values.mode) . | sha256sum }}
{{- end }}
{{- if eq .Values.agent.reload "rollout" }}
    checksum/agent: {{ include "rdslb.agentConfig" . | sha256sum }}
{{- end }}
{{- with .Values.podAnnotations }}
{{ toYaml . | indent 4 }}
{{- end }}
spec:
  serviceAccountName: {{ include "rdslb.serviceAccount" . }}
  # The agent asks nothing of Kubernetes. IRSA and Pod Identity mount their own tokens.
  automountServiceAccountToken: false
  enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
  imagePullSecrets: {{ toYaml . | nindent 4 }}
{{- end }}
{{- if .Values.hostNetwork }}
  hostNetwork: true
  dnsPolicy: ClusterFirstWithHostNet
{{- end }}
  securityContext: {{ toYaml .Values.podSecurityContext | nindent 4 }}
  terminationGracePeriodSeconds: {{ $proxy | ternary (add (int .Values.shutdown.delay) (int .Values.shutdown.sessions) 15) 30 }}
{{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
{{- end }}
{{- if $native }}
  initContainers:
    - {{ include "rdslb.agent" . | nindent 6 | trim }}
{{- end }}
  containers:
{{- if $proxy }}
    - {{ include "rdslb.proxy" . | nindent 6 | trim }}
{{- end }}
{{- if not $native }}
    - {{ include "rdslb.agent" . | nindent 6 | trim }}
{{- end }}
  volumes:
    - {name: agent-config, configMap: {name: {{ include "rdslb.fullname" . }}-agent}}
    - {name: agent-run, emptyDir: {medium: Memory, sizeLimit: 1Mi}}
{{- with .Values.agent.state }}
{{- if eq .type "hostPath" }}
    - {name: agent-state, hostPath: {path: {{ .hostPath }}, type: Directory}}
{{- else if eq .type "claim" }}
    - {name: agent-state, persistentVolumeClaim: {claimName: {{ .claim }}}}
{{- else }}
    - {name: agent-state, emptyDir: {}}
{{- end }}
{{- end }}
{{- if $proxy }}
    - {name: proxy-config, configMap: {name: {{ include "rdslb.fullname" . }}-{{ .Values.mode }}}}
    - {name: proxy-run, emptyDir: {medium: Memory, sizeLimit: 1Mi}}
{{- end }}
{{- with .Values.agent.caConfigMap }}
    - {name: agent-ca, configMap: {name: {{ . }}}}
{{- end }}
{{- range $index, $folder := .Values.agent.hostFolders }}
    - {name: host-{{ $index }}, hostPath: {path: {{ $folder }}, type: Directory}}
{{- end }}
{{- if eq .Values.kind "Deployment" }}
  topologySpreadConstraints:
{{- if .Values.topologySpreadConstraints }}
{{ toYaml .Values.topologySpreadConstraints | indent 4 }}
{{- else }}
{{- range (list "topology.kubernetes.io/zone" "kubernetes.io/hostname") }}
    - maxSkew: 1
      topologyKey: {{ . }}
      whenUnsatisfiable: ScheduleAnyway
      labelSelector: {matchLabels: {{ include "rdslb.selector" $ | fromYaml | toJson }}}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.affinity }}
  affinity: {{ toYaml . | nindent 4 }}
{{- end }}
{{- with .Values.nodeSelector }}
  nodeSelector: {{ toYaml . | nindent 4 }}
{{- end }}
{{- with .Values.tolerations }}
  tolerations: {{ toYaml . | nindent 4 }}
{{- end }}
{{- end -}}
