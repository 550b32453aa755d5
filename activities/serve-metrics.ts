import type pg from 'pg';
import { readInstallationOfAllApps } from '../db/installation-state.ts';
import { databaseRetries } from '../db/retry-database.ts';
import type { MetricsAddress } from '../domain/config.ts';
import type { ProviderName } from '../domain/device.ts';
import type { ProviderTraffic } from '../domain/provider-traffic.ts';
import { createMetricsHandler } from '../telemetry/handler.ts';
import { watchInstallation } from '../telemetry/installation-metrics.ts';
import { collected } from '../telemetry/metrics.ts';
import { watchProcess } from '../telemetry/process-metrics.ts';
import { watchProviders } from '../telemetry/provider-metrics.ts';
import { serveMetrics as serve } from '../telemetry/serve.node.ts';
import { temporalMetrics } from '../telemetry/temporal-metrics.ts';
import type { ActivityDeps } from './activities.ts';

/** Each of a few statements; a scrape waits for none of them so long. */
const statementMs = 3_000;

interface WorkerMetrics extends Pick<ActivityDeps, 'db' | 'config' | 'log'> {
  pool: pg.Pool;
  traffic: Record<ProviderName, ProviderTraffic>;
  /** Where Temporal's SDK tells its own. */
  temporalAddress: string;
}

/** The worker's `/metrics`. To be called once a process. @returns its end */
export function serveMetrics(address: MetricsAddress, metrics: WorkerMetrics): () => void {
  const { db, pool, config, log, traffic, temporalAddress } = metrics;
  watchProcess({ role: 'worker', pool, log });
  collected(
    'counter',
    { name: 'carillon_database_retries_total', help: 'Statements tried again, for PostgreSQL was away.' },
    () => [{ labels: {}, value: databaseRetries.count }],
  );
  watchProviders(traffic);
  const handler = createMetricsHandler(log, {
    // Few workers need to ask for what is the same for all.
    ...(config.roles.includes('notifications') && {
      prepare: watchInstallation(
        () => readInstallationOfAllApps(db, { timeoutMs: statementMs, isUploading: config.bookExport !== undefined }),
        log,
      ),
    }),
    sources: { temporal: temporalMetrics(temporalAddress) },
  });
  return serve(address, handler, log);
}
