import { collectDefaultMetrics } from 'prom-client';
import type { Logger } from '../domain/logger.ts';
import { version } from '../domain/version.ts';
import { collected, registry } from './metrics.ts';

/** What a pool of connections to PostgreSQL knows of itself. */
interface PoolState {
  readonly totalCount: number;
  readonly idleCount: number;
  readonly waitingCount: number;
  readonly options: { max?: number };
}

/** Of no use, and named as counters are, which they are not. */
const unwanted = ['handles', 'requests', 'resources'].flatMap((what) => [
  `nodejs_active_${what}`,
  `nodejs_active_${what}_total`,
]);

/** Runtime, build and connections to PostgreSQL. To be called once a process. */
export function watchProcess({ role, pool, log }: { role: 'api' | 'worker'; pool: PoolState; log: Logger }): void {
  try {
    collectDefaultMetrics({ register: registry });
  } catch (err) {
    // A runtime that lacks one of them.
    log.debug({ err }, 'some metrics of the runtime are left out');
  }
  for (const name of unwanted) registry.removeSingleMetric(name);
  const build = { version, role };
  collected('gauge', { name: 'carillon_build_info', help: 'Always 1; what runs here.' }, () => [
    { labels: build, value: 1 },
  ]);
  collected('gauge', { name: 'carillon_database_connections', help: 'Connections to PostgreSQL, by state.' }, () => [
    { labels: { state: 'in_use' }, value: pool.totalCount - pool.idleCount },
    { labels: { state: 'idle' }, value: pool.idleCount },
  ]);
  collected(
    'gauge',
    { name: 'carillon_database_connections_max', help: 'Connections that there may be at most.' },
    () => [{ labels: {}, value: pool.options.max ?? 0 }],
  );
  const waiting = 'Who waits for a connection to PostgreSQL.';
  collected('gauge', { name: 'carillon_database_waiting', help: waiting }, () => [
    { labels: {}, value: pool.waitingCount },
  ]);
}
