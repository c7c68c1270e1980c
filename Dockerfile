# One image, two commands: `worker` (the default) and `api`.
#
#   docker build -t qdrant-fleet:0.1.0 .
#   docker run --rm --read-only --tmpfs /tmp --env-file fleet.env -p 127.0.0.1:8080:8080 qdrant-fleet:0.1.0 api
#
# Base images are pinned by tag and digest: a tag may be moved, a digest is what it is. `docker buildx imagetools inspect IMAGE`
# prints the digest of a newer one. Debian and not Alpine, because Temporal's core has no build for musl.

# Helm from source: its hash is in Go's public checksum database, which `go install` checks it against.
FROM golang:1.26.8-bookworm@sha256:a688600ca24f8a4d3ca77f95b0dd40704a9fc787c826660eb7ba0b641b8b175d AS helm
ENV CGO_ENABLED=0 GOTOOLCHAIN=local GOFLAGS=-trimpath
RUN go install -ldflags='-s -w' helm.sh/helm/v3/cmd/helm@v3.22.0

FROM node:24.21.0-trixie-slim@sha256:8ec5d7557396cfe32d21c3f9c13072355ceab22b584578ca4bb28af31120cffe AS build
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
# Without 200 MB that the image has no use for: a Node for machines without one, Temporal's core for other systems.
RUN npm ci --omit=dev --ignore-scripts \
  && cd node_modules \
  && rm -rf node-linux-* .bin/node @temporalio/core-bridge/releases/*-apple-* @temporalio/core-bridge/releases/*-windows-*
COPY LICENSE ./
COPY activities ./activities
COPY api ./api
COPY workflows ./workflows
COPY src ./src
# Once here, instead of several seconds and 300 MB at every start of a worker.
RUN node src/bundle-workflows.ts /app/dist/workflows.js
# The names of the two commands. `exec`, so that Node gets the signals.
RUN mkdir bin \
  && printf '#!/bin/sh\nexec node /app/src/worker.ts\n' > bin/worker \
  && printf '#!/bin/sh\nexec node /app/src/server.ts\n' > bin/api \
  && chmod 755 bin/worker bin/api

FROM node:24.21.0-trixie-slim@sha256:8ec5d7557396cfe32d21c3f9c13072355ceab22b584578ca4bb28af31120cffe
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="qdrant-fleet" \
  org.opencontainers.image.description="A durable control plane for Qdrant clusters: API and worker" \
  org.opencontainers.image.licenses="Apache-2.0" \
  org.opencontainers.image.version="$VERSION" \
  org.opencontainers.image.revision="$REVISION"

# The slim image has no certificate authorities, and Helm needs them to fetch the chart.
COPY --from=helm /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=helm /go/bin/helm /usr/local/bin/helm
# Owned by root: the process cannot change its own program.
COPY --from=build /app /app

WORKDIR /app
# /tmp is the only place that is written to; with a read-only root filesystem mount a tmpfs there.
# Probes and clients come from outside the container, so both listen on all of its addresses.
ENV NODE_ENV=production \
  PATH=/app/bin:/usr/local/bin:/usr/bin:/bin \
  HOME=/tmp \
  HELM_CACHE_HOME=/tmp/helm/cache \
  HELM_CONFIG_HOME=/tmp/helm/config \
  HELM_DATA_HOME=/tmp/helm/data \
  FLEET_WORKFLOW_BUNDLE=/app/dist/workflows.js \
  FLEET_API_HOST=0.0.0.0 \
  FLEET_WORKER_HEALTH_HOST=0.0.0.0

# The user `node` of the base image, by number: Kubernetes' runAsNonRoot cannot judge a name.
USER 1000:1000
EXPOSE 8080 8081
STOPSIGNAL SIGTERM
# Whichever of the two runs here.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["node", "-e", "Promise.any([process.env.FLEET_API_PORT || 8080, process.env.FLEET_WORKER_HEALTH_PORT || 8081].map(async (port) => { const { status } = await fetch(`http://127.0.0.1:${port}/readyz`); if (status !== 200) throw new Error(status); })).catch(() => process.exit(1))"]
ENTRYPOINT []
CMD ["worker"]
