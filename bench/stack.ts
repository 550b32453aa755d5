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

/** One object of the JSON line. Microseconds of CPU and bytes are for each device, memory in MB. */
export interface StackFigures {
  devices: number;
  devices_per_second: number;
  worker_cpu_us: number;
  postgres_cpu_us: number;
  temporal_cpu_us: number;
  worker_rss_mb_max: number;
  /** Of the whole database: the device's row in the registry, and what the send left. */
  db_bytes_per_device: number;
  /** What the send left in the tables that belong to notifications: the frozen audience and the outcomes, with their indexes. */
  db_send_bytes_per_device: number;
  wal_bytes_per_device: number;
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
  return runs.map(({ importRowsPerSecond, firstDispatchMs, cpu, workerRss, temporal, ...figures }) => figures);
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
  const { db } = connect(stack.databaseUrl, {
    maxConnections: 1,
    applicationName: 'carillon-bench',
    statementTimeoutMs: 0,
  });
  const worker = stack.processes.workers[0]!;
  const workerRss: number[] = [];
  let before: StackRun['cpu'] | undefined;
  let bytesBefore: DatabaseBytes | undefined;
  const empty = await databaseBytes(db);
  const sampler = setInterval(() => {
    if (before) workerRss.push(residentMb(worker.pid));
  }, 250);
  try {
    const { report, problems, notificationId } = await runDemoSend(stack, {
      ...demoAudienceDefaults,
      devices,
      providers: ['apns', 'fcm'],
      onImported: async () => {
        // What the import still owes is no cost of the send: a vacuum of new rows, and pages not yet written.
        await sql`vacuum (analyze) devices`.execute(db);
        await sql`checkpoint`.execute(db);
        bytesBefore = await databaseBytes(db);
        before = cpuOf(stack);
      },
    });
    const after = cpuOf(stack);
    const bytes = await databaseBytes(db);
    if (problems.length > 0) throw new Error(`the send to ${devices} devices: ${problems.join('; ')}`);
    const each = (name: keyof StackRun['cpu']) => round(((after[name] - before![name]) * 1000) / devices, 1);
    const { launchedAt } = await db
      .selectFrom('notifications')
      .select('launched_at as launchedAt')
      .where('id', '=', notificationId)
      .executeTakeFirstOrThrow();
    const ledger = await stack.simulator!.control.ledgerSummary(notificationId);
    const temporal = await countTemporalWork(stack, notificationId);
    const perDevice = (of: keyof DatabaseBytes, since: DatabaseBytes) => round((bytes[of] - since[of]) / devices, 1);
    return {
      devices,
      devices_per_second: report.devices_per_second,
      worker_cpu_us: each('worker'),
      postgres_cpu_us: each('postgres'),
      temporal_cpu_us: each('temporal'),
      worker_rss_mb_max: Math.round(Math.max(...workerRss)),
      db_bytes_per_device: Math.round(perDevice('whole', empty)),
      db_send_bytes_per_device: perDevice('sends', bytesBefore!),
      wal_bytes_per_device: perDevice('wal', bytesBefore!),
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

interface DatabaseBytes {
  whole: number;
  sends: number;
  /** Written since the database was made. */
  wal: number;
}

/** Sizes are those of the files: neither a checkpoint nor a vacuum is needed to see them. */
async function databaseBytes(db: ReturnType<typeof connect>['db']): Promise<DatabaseBytes> {
  const { rows } = await sql<DatabaseBytes>`
    select pg_database_size(current_database())::float8 as whole,
      (
        select sum(pg_total_relation_size(attrelid)) from pg_attribute join pg_class on pg_class.oid = attrelid
        where attname = 'notification_id' and relkind = 'r'
      )::float8 as sends,
      pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::float8 as wal
  `.execute(db);
  return rows[0]!;
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
  row('  of these for the send', (run) => run.db_send_bytes_per_device);
  row('WAL, bytes/device', (run) => run.wal_bytes_per_device);
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
