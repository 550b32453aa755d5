/**
 * The whole stack: PostgreSQL, Temporal, simulator, API and one worker on this machine, an audience of each size in turn, on a
 * stack of its own. The cost of a device must not depend on the size of the audience.
 */
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { sql } from 'kysely';
import { connect } from '../db/connect.ts';
import { demoAudienceDefaults, runDemoSend } from '../local/demo-send.ts';
import { formatCount } from '../local/progress.ts';
import { type Stack, startStack } from '../local/stack.ts';
import { round, tableRow } from './figures.ts';
import { canMeasureProcesses, cpuMs, residentMb } from './processes.ts';
import { countTemporalWork, type TemporalWork } from './temporal-work.ts';

/**
 * One object of the JSON line. Memory in MB; bytes of the whole database for each device: its row in the registry and its
 * outcome.
 */
export interface StackFigures {
  devices: number;
  devices_per_second: number;
  worker_cpu_us: number;
  worker_rss_mb_max: number;
  db_bytes_per_device: number;
  temporal_events: number;
}

interface StackRun extends StackFigures {
  importRowsPerSecond: number;
  /** From the launch to the first request at a provider. */
  firstDispatchMs: number;
  /** Microseconds of CPU for each device. */
  cpu: Record<'worker' | 'postgres' | 'temporal' | 'api' | 'simulator', number>;
  /** Megabytes, at equal distances in time. */
  workerRss: number[];
  booksBytes: number;
  temporal: TemporalWork;
}

export async function benchStack(sizes: number[], say: (line: string) => void): Promise<StackFigures[]> {
  say('Whole stack: both providers, 1 % dead device tokens, 1 % refused at first; one worker');
  const runs: StackRun[] = [];
  for (const devices of sizes) {
    const stack = await startBenchStack(1);
    try {
      runs.push(await measureSend(stack, devices));
      say(`  ${formatCount(devices)} devices: done, books balanced, ledger agrees`);
    } finally {
      await stack.stop();
    }
  }
  printTable(runs, say);
  return runs.map(({ devices, devices_per_second, worker_cpu_us, ...rest }) => ({
    devices,
    devices_per_second,
    worker_cpu_us,
    worker_rss_mb_max: rest.worker_rss_mb_max,
    db_bytes_per_device: rest.db_bytes_per_device,
    temporal_events: rest.temporal_events,
  }));
}

/** Everything embedded, in a folder that is removed, quiet. */
export function startBenchStack(workers: number): Promise<Stack> {
  return startStack({
    directory: mkdtempSync(join(tmpdir(), 'carillon-bench-')),
    isTemporary: true,
    ports: 'free',
    hasWebUi: false,
    workers,
    // Refused devices are tried again at once: the bench measures work, not waiting.
    env: { LOG_LEVEL: 'warn', CARILLON_RETRY_BASE_MS: '200', CARILLON_RETRY_MAX_MS: '1000' },
  });
}

async function measureSend(stack: Stack, devices: number): Promise<StackRun> {
  const { db } = connect(stack.databaseUrl, { maxConnections: 1, applicationName: 'carillon-bench' });
  const worker = stack.processes.workers[0]!;
  const workerRss: number[] = [];
  let before: StackRun['cpu'] | undefined;
  let bytesBefore = 0;
  const emptyBytes = await databaseBytes(db);
  const sampler = setInterval(() => {
    if (before) workerRss.push(residentMb(worker.pid));
  }, 250);
  try {
    const { report, problems, notificationId } = await runDemoSend(stack, {
      ...demoAudienceDefaults,
      devices,
      providers: ['apns', 'fcm'],
      onImported: async () => {
        bytesBefore = await databaseBytes(db);
        before = cpuOf(stack);
      },
    });
    const after = cpuOf(stack);
    if (problems.length > 0) throw new Error(`the send to ${devices} devices: ${problems.join('; ')}`);
    const each = (name: keyof StackRun['cpu']) => round(((after[name] - before![name]) * 1000) / devices, 1);
    const { launchedAt } = await db
      .selectFrom('notifications')
      .select('launched_at as launchedAt')
      .where('id', '=', notificationId)
      .executeTakeFirstOrThrow();
    const ledger = await stack.simulator!.control.ledgerSummary(notificationId);
    const temporal = await countTemporalWork(stack, notificationId);
    const bytes = await databaseBytes(db);
    return {
      devices,
      devices_per_second: report.devices_per_second,
      worker_cpu_us: each('worker'),
      worker_rss_mb_max: Math.round(Math.max(...workerRss)),
      db_bytes_per_device: Math.round((bytes - emptyBytes) / devices),
      temporal_events: temporal.events,
      importRowsPerSecond: Math.round(devices / report.seconds.import),
      firstDispatchMs: ledger.first_received_at_ms! - launchedAt!.getTime(),
      cpu: {
        worker: each('worker'),
        postgres: each('postgres'),
        temporal: each('temporal'),
        api: each('api'),
        simulator: each('simulator'),
      },
      workerRss,
      booksBytes: Math.round((bytes - bytesBefore) / devices),
      temporal,
    };
  } finally {
    clearInterval(sampler);
    await db.destroy();
  }
}

function cpuOf({ processes }: Stack): StackRun['cpu'] {
  return {
    worker: cpuMs(processes.workers[0]!.pid),
    postgres: cpuMs(processes.postgres!.pid),
    temporal: cpuMs(processes.temporal!.pid),
    api: cpuMs(processes.api.pid),
    simulator: cpuMs(processes.simulator!.pid),
  };
}

async function databaseBytes(db: ReturnType<typeof connect>['db']): Promise<number> {
  const { rows } = await sql<{ bytes: number }>`select pg_database_size(current_database()) as bytes`.execute(db);
  return rows[0]!.bytes;
}

function printTable(runs: StackRun[], say: (line: string) => void): void {
  const row = (title: string, of: (run: StackRun) => string | number) => say(tableRow(title, ...runs.map(of)));
  row('devices', (run) => formatCount(run.devices));
  row('devices/s', (run) => formatCount(run.devices_per_second));
  row('import, rows/s', (run) => formatCount(run.importRowsPerSecond));
  row('launch to first request, ms', (run) => run.firstDispatchMs);
  if (canMeasureProcesses) {
    for (const name of ['worker', 'postgres', 'temporal', 'simulator', 'api'] as const) {
      row(`CPU of ${name}, µs/device`, (run) => run.cpu[name].toFixed(1));
    }
    row('worker memory, MB: at most', (run) => run.worker_rss_mb_max);
    row('  quarter by quarter', (run) => quarters(run.workerRss).join(' '));
  }
  row('database, bytes/device', (run) => run.db_bytes_per_device);
  row('  of these for the send', (run) => run.booksBytes);
  row('Temporal executions', (run) => run.temporal.executions);
  row('Temporal events', (run) => run.temporal.events);
  row('Temporal actions', (run) => run.temporal.actions);
}

/** The largest value in each quarter of the time. */
function quarters(samples: number[]): number[] {
  const quarter = Math.max(1, Math.ceil(samples.length / 4));
  return [0, 1, 2, 3].flatMap((n) => {
    const part = samples.slice(n * quarter, (n + 1) * quarter);
    return part.length === 0 ? [] : [Math.round(Math.max(...part))];
  });
}
