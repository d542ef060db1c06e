{{- define "deepfakestream.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "deepfakestream.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "deepfakestream.labels" -}}
{{ include "deepfakestream.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "deepfakestream.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "deepfakestream.name" .) }}{{ else }}{{ .Values.serviceAccount.name | default "default" }}{{ end }}
{{- end }}

{{- /* The service account of hooks that run before all other objects exist. */ -}}
{{- define "deepfakestream.earlyServiceAccount" -}}
{{- if .Values.serviceAccount.create }}default{{ else }}{{ include "deepfakestream.serviceAccount" . }}{{ end }}
{{- end }}

{{- define "deepfakestream.secret" -}}
{{- .Values.secrets.existingSecret | default (include "deepfakestream.name" .) }}
{{- end }}

{{- /* Images are tagged by version; the worker has two, of which one includes CUDA. */ -}}
{{- define "deepfakestream.image" -}}
{{- $image := index .root.Values.image .kind -}}
{{- $tag := .root.Chart.AppVersion -}}
{{- if eq .kind "worker" }}{{ $tag = printf "%s-%s" $tag (ternary "cuda" "cpu" (gt (int .root.Values.gpuWorker.gpus) 0)) }}{{ end -}}
{{- with .root.Values.image.registry }}{{ trimSuffix "/" . }}/{{ end -}}
{{- $image.repository -}}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default $tag }}{{ end -}}
{{- end }}

{{- /* The configuration file: the operator's settings, overridden by those that the chart decides. */ -}}
{{- define "deepfakestream.config" -}}
{{- $storage := dict "url" .Values.storage.url -}}
{{- range $name, $value := dict "endpoint_url" .Values.storage.endpointUrl "public_endpoint_url" .Values.storage.publicEndpointUrl "region" .Values.storage.region "server_side_encryption" .Values.storage.serverSideEncryption "kms_key_id" .Values.storage.kmsKeyId -}}
{{- if $value }}{{ $_ := set $storage $name $value }}{{ end -}}
{{- end -}}
{{- $_ := set $storage "cache_dir" "/scratch" -}}
{{- $device := "cpu" -}}
{{- if gt (int .Values.gpuWorker.gpus) 0 -}}
{{- $device = list -}}
{{- range until (int .Values.gpuWorker.gpus) }}{{ $device = append $device (printf "cuda:%d" .) }}{{ end -}}
{{- end -}}
{{- $worker := dict "device" $device "cpu_processes" (int .Values.cpuWorker.processes) "metrics_address" "0.0.0.0" "metrics_port" 9464 "beat_folder" "/state" "processes_per_device" (int .Values.gpuWorker.processesPerDevice) "streams" (int .Values.streamWorker.streams) "flower" (dict "address" "0.0.0.0" "port" 5555) -}}
{{- $api := dict "host" "0.0.0.0" "port" 8000 -}}
{{- /* Otherwise every request would seem to come from the proxy, and one client's failures would lock out all others. */ -}}
{{- $isBehindProxy := or .Values.ingress.enabled .Values.gateway.enabled -}}
{{- if and $isBehindProxy (not (hasKey (.Values.config.api | default dict) "trusted_proxies")) }}{{ $_ := set $api "trusted_proxies" 1 }}{{ end -}}
{{- $own := dict "storage" $storage "worker" $worker "api" $api -}}
{{- with .Values.streamWorker.push -}}
{{- if .enabled -}}
{{- if not .address }}{{ fail "streamWorker.push.address is required: the address for publishers, such as rtmps://live.example:1935" }}{{ end -}}
{{- if ne (hasPrefix "rtmps:" .address) (ne .tlsSecret "") }}{{ fail "streamWorker.push.address must begin with rtmps: with streamWorker.push.tlsSecret, and with rtmp: without" }}{{ end -}}
{{- $streams := dict "push_listen" "0.0.0.0:1935" "push_address" .address -}}
{{- if .tlsSecret }}{{ $_ := set $streams "push_certificate_file" "/run/tls/tls.crt" }}{{ $_ := set $streams "push_certificate_key_file" "/run/tls/tls.key" }}{{ end -}}
{{- $_ := set $own "streams" $streams -}}
{{- end -}}
{{- end -}}
{{- mergeOverwrite (deepCopy .Values.config) $own | toYaml -}}
{{- end }}

{{- /* A setting of the operator, or the service's default. */ -}}
{{- define "deepfakestream.setting" -}}
{{- $section := index (.root.Values.config | default dict) .section | default dict -}}
{{- if hasKey $section .name }}{{ index $section .name }}{{ else }}{{ .default }}{{ end -}}
{{- end }}

{{- define "deepfakestream.scoreLimit" -}}
{{- include "deepfakestream.setting" (dict "root" . "section" "worker" "name" "score_time_limit_s" "default" 300) | float64 | ceil | int -}}
{{- end }}

{{- define "deepfakestream.ingestLimit" -}}
{{- include "deepfakestream.setting" (dict "root" . "section" "worker" "name" "ingest_time_limit_s" "default" 900) | float64 | ceil | int -}}
{{- end }}

{{- define "deepfakestream.apiGrace" -}}
{{- include "deepfakestream.setting" (dict "root" . "section" "api" "name" "shutdown_grace_s" "default" 30) | float64 | ceil | int -}}
{{- end }}

{{- define "deepfakestream.podMeta" -}}
labels:
  {{- include "deepfakestream.labels" . | nindent 2 }}
annotations:
  # A changed configuration or secret starts a new rollout.
  checksum/config: {{ include "deepfakestream.config" .root | sha256sum }}
  checksum/secrets: {{ .root.Values.secrets.create | toJson | sha256sum }}
  {{- with .values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "deepfakestream.podFields" -}}
serviceAccountName: {{ .serviceAccount | default (include "deepfakestream.serviceAccount" .root) }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.topologySpreadConstraints }}
topologySpreadConstraints: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "deepfakestream.containerFields" -}}
image: {{ include "deepfakestream.image" (dict "root" .root "kind" .image) }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{- /* Annotations of the objects that must exist before the migration. */ -}}
{{- define "deepfakestream.early" -}}
helm.sh/hook: pre-install,pre-upgrade
helm.sh/hook-weight: "-10"
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}

{{- define "deepfakestream.env" -}}
- {name: DEEPFAKESTREAM_CONFIG, value: /etc/deepfakestream/config.yaml}
- {name: DEEPFAKESTREAM_SECRETS, value: /run/secrets/deepfakestream}
{{- end }}

{{- define "deepfakestream.mounts" -}}
- {name: config, mountPath: /etc/deepfakestream, readOnly: true}
- {name: secrets, mountPath: /run/secrets/deepfakestream, readOnly: true}
- {name: tmp, mountPath: /tmp}
{{- end }}

{{- define "deepfakestream.volumes" -}}
- name: config
  configMap: {name: {{ .config | default (include "deepfakestream.name" .root) }}}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      - secret: {name: {{ .secret | default (include "deepfakestream.secret" .root) }}, items: [{key: database__url, path: database__url}, {key: broker__url, path: broker__url}]}
      {{- with .secrets }}
      # Optional secrets of this component.
      - secret:
          name: {{ include "deepfakestream.secret" $.root }}
          optional: true
          items:
            {{- range . }}
            - {key: {{ . }}, path: {{ . }}}
            {{- end }}
      {{- end }}
- name: tmp
  emptyDir: {sizeLimit: {{ .tmp | default "1Gi" }}}
{{- end }}

{{- define "deepfakestream.scratchEnv" -}}
# Two thirds of the scratch disk are for copies that are not in use at the moment; the rest is for those in use.
- {name: DEEPFAKESTREAM_STORAGE__CACHE_BYTES, value: {{ mul (trimSuffix "Gi" . | int64) 715827882 | quote }}}
{{- end }}

{{- define "deepfakestream.metricsVolume" -}}
- name: metrics
  emptyDir: {medium: Memory, sizeLimit: 64Mi}
{{- end }}

{{- define "deepfakestream.workerProbes" -}}
startupProbe:
  httpGet: {path: /metrics, port: metrics}
  periodSeconds: 5
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /metrics, port: metrics}
  periodSeconds: 20
  timeoutSeconds: 10
  failureThreshold: 6
{{- end }}

{{- define "deepfakestream.disruptionBudget" -}}
{{- if .values.podDisruptionBudget.enabled }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "deepfakestream.name" .root }}-{{ .component }}
  labels: {{- include "deepfakestream.labels" . | nindent 4 }}
spec:
  {{- omit .values.podDisruptionBudget "enabled" | toYaml | nindent 2 }}
  selector:
    matchLabels: {{- include "deepfakestream.selector" . | nindent 6 }}
{{- end }}
{{- end }}
