{{/* Name of the application: the chart's, unless overridden. */}}
{{- define "qdrant.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Name of every object: the release's when it already says what it is, else release and application. */}}
{{- define "qdrant.fullname" -}}
{{- $name := .Values.nameOverride | default .Chart.Name -}}
{{- $release := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- .Values.fullnameOverride | default $release | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Labels by which Service, budget and StatefulSet find their pods. They never change for a release. */}}
{{- define "qdrant.selector" -}}
app: {{ include "qdrant.name" . }}
app.kubernetes.io/name: {{ include "qdrant.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Labels of every object. */}}
{{- define "qdrant.labels" -}}
{{ include "qdrant.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- with .Values.additionalLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "qdrant.image" -}}
{{- $tag := .Values.image.tag | default .Chart.AppVersion -}}
{{ .Values.image.repository }}:{{ $tag }}{{ if .Values.image.useUnprivilegedImage }}-unprivileged{{ end }}
{{- end -}}

{{/* One volume claim template; takes a dict of root, name and spec. */}}
{{- define "qdrant.claim" -}}
- metadata:
    name: {{ .name }}
    labels:
      app: {{ include "qdrant.name" .root }}
  spec:
    accessModes: {{ toJson .spec.accessModes }}
    {{- with .spec.storageClassName }}
    storageClassName: {{ . }}
    {{- end }}
    resources:
      requests:
        storage: {{ .spec.size }}
{{- end -}}
