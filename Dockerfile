# One image for every Carillon process; the command picks which:
#   node api/serve.node.ts      the API (the default)
#   node activities/worker.ts   a worker
#   node db/migrate.ts          brings the database up to date, then ends
#   node admin/main.ts          the command for operators (npm run admin)
# The sources run as they are: Node strips the types.

FROM node:24-slim AS dependencies
WORKDIR /carillon
COPY package.json package-lock.json .npmrc ./
RUN npm ci --omit=dev --ignore-scripts --no-audit --no-fund \
  # Temporal's native client comes for every system.
  && rm -rf node_modules/@temporalio/core-bridge/releases/*-apple-* \
    node_modules/@temporalio/core-bridge/releases/*-windows-*
# The workflows' bundle: two seconds of webpack and 250 MB that no worker needs at its start.
COPY domain ./domain
COPY workflows ./workflows
RUN node workflows/build.ts dist/workflow-bundle.js

FROM node:24-slim
# Temporal's native client looks for the system's certificate authorities; the slim image has none.
RUN apt-get update \
  && apt-get install --yes --no-install-recommends ca-certificates \
  && rm -rf /var/lib/apt/lists/*
ENV NODE_ENV=production
# glibc gives every thread a heap of its own, which cost a worker 30 MB at two million devices (mallopt(3)).
ENV MALLOC_ARENA_MAX=2
ENV CARILLON_WORKFLOW_BUNDLE=/carillon/dist/workflow-bundle.js
WORKDIR /carillon
COPY --from=dependencies /carillon/node_modules ./node_modules
COPY --from=dependencies /carillon/dist ./dist
COPY package.json ./
COPY domain ./domain
COPY http2 ./http2
COPY providers ./providers
COPY db ./db
COPY telemetry ./telemetry
COPY workflows ./workflows
COPY activities ./activities
COPY api ./api
COPY admin ./admin
USER node
EXPOSE 8080
CMD ["node", "api/serve.node.ts"]
