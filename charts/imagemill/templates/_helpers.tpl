{{- /* Names. Those of one release are in all of its objects, so that two releases share a namespace. */ -}}
{{- define "imagemill.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "imagemill.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "imagemill.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "imagemill.buildServiceAccount" -}}
{{- if .Values.builds.serviceAccount.create -}}
{{- default (printf "%s-build" (include "imagemill.fullname" .)) .Values.builds.serviceAccount.name -}}
{{- else -}}
{{- .Values.builds.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "imagemill.buildNamespace" -}}
{{- default .Release.Namespace .Values.builds.namespace -}}
{{- end -}}

{{- define "imagemill.selector" -}}
app.kubernetes.io/name: imagemill
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "imagemill.labels" -}}
{{ include "imagemill.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{- define "imagemill.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ include "imagemill.repository" $ }}@{{ .digest }}
{{- else -}}
{{ include "imagemill.repository" $ }}:{{ default $.Chart.AppVersion .tag }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "imagemill.repository" -}}
{{- required "no image of Imagemill is published: build the Dockerfile of its repository, push it to where the cluster finds it, and set image.repository (docs/kubernetes.md, Install)" .Values.image.repository -}}
{{- end -}}

{{- /* `[{name: …, value: …}]`, as the W&B chart has it, or a mapping, as a mapping. */ -}}
{{- define "imagemill.variables" -}}
{{- $made := dict -}}
{{- if kindIs "slice" . -}}
{{- range . }}{{ $_ := set $made .name .value }}{{ end -}}
{{- else -}}
{{- $made = default dict . -}}
{{- end -}}
{{- toYaml $made -}}
{{- end -}}

{{- /* The launch config as text. What other values say of the builder is put in where it does not say it itself. */ -}}
{{- define "imagemill.config" -}}
{{- $root := .root -}}
{{- $given := .config -}}
{{- $parsed := $given -}}
{{- if kindIs "string" $given }}{{ $parsed = fromYaml $given }}{{ end -}}
{{- $claim := default $root.Values.kanikoPvcName $root.Values.contextVolume.claimName -}}
{{- $account := include "imagemill.buildServiceAccount" $root -}}
{{- $builder := dict -}}
{{- $kaniko := eq (dig "builder" "type" "" $parsed) "kaniko" -}}
{{- if and $kaniko $claim -}}
{{- $_ := set $builder "context-volume-claim" $claim -}}
{{- $_ := set $builder "build-context-store" (printf "file://%s" $root.Values.contextVolume.mountPath) -}}
{{- end -}}
{{- if and $kaniko $root.Values.azureStorageAccessKey -}}
{{- $_ := set $builder "secret-name" (printf "%s-azure-storage" (include "imagemill.fullname" $root)) -}}
{{- $_ := set $builder "secret-key" "account-key" -}}
{{- else if and $kaniko $root.Values.kanikoDockerConfigSecret -}}
{{- $_ := set $builder "secret-name" $root.Values.kanikoDockerConfigSecret -}}
{{- $_ := set $builder "secret-key" "config.json" -}}
{{- end -}}
{{- if and $kaniko $account -}}
{{- $pod := dict "spec" (dict "template" (dict "spec" (dict "serviceAccountName" $account))) -}}
{{- $_ := set $builder "kaniko-config" $pod -}}
{{- end -}}
{{- if $builder -}}
{{- toYaml (mergeOverwrite (dict "builder" $builder) (deepCopy $parsed)) -}}
{{- else if kindIs "string" $given -}}
{{- $given -}}
{{- else -}}
{{- toYaml $given -}}
{{- end -}}
{{- end -}}

{{- define "imagemill.brokerSecret" -}}
{{- if .Values.broker.existingSecret -}}
{{- .Values.broker.existingSecret -}}
{{- else if and .Values.redis.enabled .Values.redis.existingSecret -}}
{{- .Values.redis.existingSecret -}}
{{- else -}}
{{- printf "%s-broker" (include "imagemill.fullname" .) -}}
{{- end -}}
{{- end -}}

{{- define "imagemill.sourcesSecret" -}}
{{- if .Values.sources.existingSecret -}}
{{- .Values.sources.existingSecret -}}
{{- else if or .Values.sources.credentials .Values.gitCreds -}}
{{- printf "%s-sources" (include "imagemill.fullname" .) -}}
{{- end -}}
{{- end -}}

{{- /* What every container of Imagemill's own may do: Pod Security's level "restricted". */ -}}
{{- define "imagemill.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "imagemill.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .user }}
runAsGroup: {{ .user }}
fsGroup: {{ .user }}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "imagemill.brokerEnv" -}}
- name: IMAGEMILL_BROKER
  valueFrom: {secretKeyRef: {name: {{ include "imagemill.brokerSecret" . }}, key: broker}}
- name: IMAGEMILL_BACKEND
  valueFrom: {secretKeyRef: {name: {{ include "imagemill.brokerSecret" . }}, key: backend, optional: true}}
{{- with .Values.broker.keyPrefix }}
- name: IMAGEMILL_KEY_PREFIX
  value: {{ . | quote }}
{{- end }}
{{- end -}}

{{- /* What beat and Flower need, which reach the broker alone. */ -}}
{{- define "imagemill.plainEnv" -}}
{{ include "imagemill.brokerEnv" . }}
- {name: HOME, value: /tmp}
{{- if .Values.customCABundle.configMap.name }}
- {name: SSL_CERT_FILE, value: /etc/imagemill/authorities/ca.crt}
{{- end }}
{{- end -}}

{{- define "imagemill.plainMounts" -}}
- {name: tmp, mountPath: /tmp}
{{- if .Values.customCABundle.configMap.name }}
- {name: authorities, mountPath: /etc/imagemill/authorities, readOnly: true}
{{- end }}
{{- end -}}

{{- define "imagemill.plainVolumes" -}}
- name: tmp
  emptyDir: {}
{{- with .Values.customCABundle.configMap }}
{{- if .name }}
- name: authorities
  configMap: {name: {{ .name }}, items: [{key: {{ default "ca.crt" .key }}, path: ca.crt}]}
{{- end }}
{{- end }}
{{- end -}}

{{- /* Variables of every worker; a name is given once, and what the user gives wins. */ -}}
{{- define "imagemill.env" -}}
{{- $root := .root -}}
{{- $env := dict -}}
{{- $_ := set $env "IMAGEMILL_CONFIG" "/etc/imagemill/config/launch-config.yaml" -}}
{{- $_ := set $env "IMAGEMILL_CONFIG_DIR" "/etc/imagemill/config" -}}
{{- $_ := set $env "IMAGEMILL_STATE_DIR" "/var/lib/imagemill" -}}
{{- $_ := set $env "IMAGEMILL_LOG_FORMAT" "json" -}}
{{- $_ := set $env "HOME" "/tmp" -}}
{{- $_ := set $env "IMAGEMILL_SIGNING_KEYS" "/etc/imagemill/signing/keys" -}}
{{- if $root.Values.flower.enabled }}{{ $_ := set $env "IMAGEMILL_REMOTE_CONTROL" "questions" }}{{ end -}}
{{- if $root.Values.monitoring.enabled }}{{ $_ := set $env "IMAGEMILL_METRICS_PORT" (toString $root.Values.monitoring.port) }}{{ end -}}
{{- with $root.Values.builds.namespace }}{{ $_ := set $env "KUBERNETES_NAMESPACE" . }}{{ end -}}
{{- if include "imagemill.sourcesSecret" $root }}{{ $_ := set $env "IMAGEMILL_SOURCE_CREDENTIALS" "/etc/imagemill/sources" }}{{ end -}}
{{- if $root.Values.sshAuthSecrets }}{{ $_ := set $env "IMAGEMILL_GIT_SSH_KEYS" "/etc/imagemill/ssh-keys" }}{{ end -}}
{{- if $root.Values.sources.knownHosts }}{{ $_ := set $env "IMAGEMILL_GIT_KNOWN_HOSTS" "/etc/imagemill/known-hosts/known_hosts" }}{{ end -}}
{{- if $root.Values.buildSecrets.existingSecret }}{{ $_ := set $env "IMAGEMILL_BUILD_SECRETS_DIR" "/etc/imagemill/build-secrets" }}{{ end -}}
{{- if $root.Values.dockerConfig.existingSecret }}{{ $_ := set $env "IMAGEMILL_DOCKER_CONFIG" "/etc/imagemill/docker" }}{{ end -}}
{{- with $root.Values.proxy -}}
{{- range $name, $value := dict "HTTP_PROXY" .httpProxy "HTTPS_PROXY" .httpsProxy "NO_PROXY" .noProxy -}}
{{- if $value }}{{ $_ := set $env $name $value }}{{ $_ := set $env (lower $name) $value }}{{ end -}}
{{- end -}}
{{- end -}}
{{- if $root.Values.customCABundle.configMap.name -}}
{{- range list "SSL_CERT_FILE" "REQUESTS_CA_BUNDLE" "AWS_CA_BUNDLE" }}{{ $_ := set $env . "/etc/imagemill/authorities/ca.crt" }}{{ end -}}
{{- $_ := set $env "IMAGEMILL_GIT_CONFIG" "/etc/imagemill/config/gitconfig" -}}
{{- end -}}
{{- range $name, $value := .more }}{{ $_ := set $env $name (toString $value) }}{{ end -}}
{{- range $name, $value := $root.Values.settings }}{{ $_ := set $env $name (toString $value) }}{{ end -}}
{{- range $name, $value := include "imagemill.variables" $root.Values.additionalEnvVars | fromYaml }}{{ $_ := set $env $name (toString $value) }}{{ end -}}
{{- range $root.Values.extraEnv }}{{ $_ := unset $env .name }}{{ end -}}
{{- include "imagemill.brokerEnv" $root }}
{{- range $name, $value := $env }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- with $root.Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "imagemill.volumeMounts" -}}
{{ include "imagemill.plainMounts" . }}
- {name: config, mountPath: /etc/imagemill/config, readOnly: true}
- {name: state, mountPath: /var/lib/imagemill}
- {name: signing, mountPath: /etc/imagemill/signing, readOnly: true}
{{- if include "imagemill.sourcesSecret" . }}
- {name: sources, mountPath: /etc/imagemill/sources, readOnly: true}
{{- end }}
{{- if .Values.sshAuthSecrets }}
- {name: ssh-keys, mountPath: /etc/imagemill/ssh-keys, readOnly: true}
{{- end }}
{{- if .Values.sources.knownHosts }}
- {name: known-hosts, mountPath: /etc/imagemill/known-hosts, readOnly: true}
{{- end }}
{{- if .Values.buildSecrets.existingSecret }}
- {name: build-secrets, mountPath: /etc/imagemill/build-secrets, readOnly: true}
{{- end }}
{{- if .Values.dockerConfig.existingSecret }}
- {name: docker-config, mountPath: /etc/imagemill/docker, readOnly: true}
{{- end }}
{{- if default .Values.kanikoPvcName .Values.contextVolume.claimName }}
- {name: contexts, mountPath: {{ .Values.contextVolume.mountPath | quote }}}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "imagemill.volumes" -}}
{{- $root := .root -}}
{{ include "imagemill.plainVolumes" $root }}
- name: config
  configMap: {name: {{ include "imagemill.fullname" $root }}}
- name: state
  emptyDir: {sizeLimit: {{ .size | quote }}}
- name: signing
  secret: {secretName: {{ default (printf "%s-signing" (include "imagemill.fullname" $root)) $root.Values.signing.existingSecret }}, defaultMode: 0440}
{{- with include "imagemill.sourcesSecret" $root }}
- name: sources
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- with $root.Values.sshAuthSecrets }}
- name: ssh-keys
  projected:
    defaultMode: 0440
    sources:
      {{- range . }}
      - secret: {name: {{ .name }}, items: [{key: ssh-privatekey, path: {{ .host | quote }}}]}
      {{- end }}
{{- end }}
{{- with $root.Values.sources.knownHosts }}
- name: known-hosts
  configMap: {name: {{ .configMap }}, items: [{key: {{ default "known_hosts" .key }}, path: known_hosts}]}
{{- end }}
{{- with $root.Values.buildSecrets.existingSecret }}
- name: build-secrets
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- with $root.Values.dockerConfig.existingSecret }}
- name: docker-config
  secret: {secretName: {{ . }}, defaultMode: 0440, items: [{key: .dockerconfigjson, path: config.json}]}
{{- end }}
{{- with default $root.Values.kanikoPvcName $root.Values.contextVolume.claimName }}
- name: contexts
  persistentVolumeClaim: {claimName: {{ . }}}
{{- end }}
{{- with $root.Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* Where pods run and how they are marked: a pool's own values, else those for all, else the W&B chart's names. */ -}}
{{- define "imagemill.placement" -}}
{{- $all := .root.Values.pod -}}
{{- $agent := .root.Values.agent -}}
{{- $own := default dict .own -}}
{{- with default $all.priorityClassName $own.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with coalesce $own.nodeSelector $all.nodeSelector $agent.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with coalesce $own.tolerations $all.tolerations $agent.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
affinity:
{{- with coalesce $own.affinity $all.affinity $agent.affinity }}
  {{- toYaml . | nindent 2 }}
{{- else }}
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "imagemill.selector" . | nindent 14 }}
{{- end }}
{{- with coalesce $own.topologySpreadConstraints $all.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "imagemill.podMetadata" -}}
{{- $own := default dict .own -}}
labels:
  {{- include "imagemill.labels" . | nindent 2 }}
  {{- with merge (dict) (default dict $own.labels) .root.Values.pod.labels .root.Values.agent.labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  checksum/config: {{ include (print .root.Template.BasePath "/configmap.yaml") .root | sha256sum }}
  {{- with merge (dict) (default dict $own.annotations) .root.Values.pod.annotations .root.Values.agent.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}
