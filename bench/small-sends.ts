/**
 * Notifications to one device each: one at a time, and many launched at once. What they cost Temporal and the worker, how fast they are
 * done, and whether the cost of one grows with how many wait.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { connect } from '../db/connect.ts';
import { type ApiClient, createApiClient, type NotificationView } from '../local/api-client.ts';
import { demoDevices } from '../local/demo-audience.ts';
import { formatCount } from '../local/progress.ts';
import type { Stack } from '../local/stack.ts';
import { round, tableRow } from './figures.ts';
import { cpuMs } from './processes.ts';
import { startBenchStack } from './stack.ts';
import { countTemporalWork } from './temporal-work.ts';

/** Milliseconds, and of CPU where the name says so, for each notification. */
export interface SmallSendFigures {
  events: number;
  actions: number;
  /** From the launch's answer to the closed books, one at a time; median. */
  alone_ms: number;
  /** Of Temporal and the worker together. */
  cpu_ms: number;
  postgres_cpu_ms: number;
  at_once: number;
  per_second: number;
  /** Of Temporal and the worker together, in the first and in the last quarter of those launched at once. */
  first_quarter_cpu_ms: number;
  last_quarter_cpu_ms: number;
  /** Of a core, in percent, with nothing to do. */
  idle_cpu_percent: number;
}

const idleMs = 10_000;
const launchersAtOnce = 16;
const pollMs = 100;
/** Nothing finished for so long: the stack has stopped. */
const stallMs = 60_000;

export async function benchSmallSends(quick: boolean, say: (line: string) => void): Promise<SmallSendFigures> {
  const [alone, atOnce] = quick ? [30, 500] : [100, 2_000];
  const stack = await startBenchStack(1);
  const { db } = connect(stack.databaseUrl, { maxConnections: 1, applicationName: 'carillon-bench' });
  try {
    const api = createApiClient(stack.apiUrl, stack.apiKey!);
    const audience = { name: 'bench', devices: atOnce, providers: ['apns', 'fcm'] as const };
    await api.importDevices(demoDevices({ ...audience, deadPercent: 0, transientPercent: 0 }));
    const launch = (n: number) => launchOne(api, `${audience.name}-${n % atOnce}`);
    const ids = await Promise.all([launch(0), launch(1)]);
    await untilFinished(api, ids);

    const idleBefore = cpuOf(stack);
    await sleep(idleMs);
    const idle = cpuOf(stack);

    const waits: number[] = [];
    const before = cpuOf(stack);
    for (let n = 0; n < alone; n++) {
      const launchedAt = performance.now();
      await untilFinished(api, [await launch(n)]);
      waits.push(performance.now() - launchedAt);
    }
    const after = cpuOf(stack);
    const { events, actions } = await countTemporalWork(stack, ids[0]!);

    const finished = () =>
      db
        .selectFrom('notifications')
        .select(({ fn }) => fn.countAll<number>().as('finished'))
        .where('finished_at', 'is not', null)
        .executeTakeFirstOrThrow()
        .then((row) => Number(row.finished));
    const already = await finished();
    const launchedAt = performance.now();
    let next = 0;
    const launches = Array.from({ length: launchersAtOnce }, async () => {
      while (next < atOnce) await launch(next++);
    });
    const quarters: number[] = [];
    let lastCpu = temporalAndWorker(cpuOf(stack));
    for (let done = 0, changedAt = performance.now(); done < atOnce; ) {
      await sleep(pollMs);
      const now = (await finished()) - already;
      if (now !== done) changedAt = performance.now();
      else if (performance.now() - changedAt > stallMs)
        throw new Error(`${done} of ${atOnce} small sends finished, then none`);
      done = now;
      while (quarters.length < Math.floor((done * 4) / atOnce)) {
        const cpu = temporalAndWorker(cpuOf(stack));
        quarters.push((cpu - lastCpu) / (atOnce / 4));
        lastCpu = cpu;
      }
    }
    const seconds = (performance.now() - launchedAt) / 1000;
    await Promise.all(launches);
    const figures: SmallSendFigures = {
      events,
      actions,
      alone_ms: Math.round(waits.toSorted((a, b) => a - b)[waits.length >> 1]!),
      cpu_ms: round((temporalAndWorker(after) - temporalAndWorker(before)) / alone, 1),
      postgres_cpu_ms: round((after.postgres - before.postgres) / alone, 1),
      at_once: atOnce,
      per_second: round(atOnce / seconds, 1),
      first_quarter_cpu_ms: round(quarters[0]!, 1),
      last_quarter_cpu_ms: round(quarters[3]!, 1),
      idle_cpu_percent: round(((idle.all - idleBefore.all) / idleMs) * 100, 1),
    };
    say('Notifications to one device each');
    say(tableRow('Temporal: events, actions', events, actions));
    say(tableRow('one at a time, to closed books, ms', figures.alone_ms));
    say(tableRow('  CPU of Temporal and worker, ms', figures.cpu_ms));
    say(tableRow('  CPU of PostgreSQL, ms', figures.postgres_cpu_ms));
    say(tableRow(`${formatCount(atOnce)} at once, done a second`, figures.per_second));
    say(tableRow('  CPU each, by quarter, ms', ...quarters.map((ms) => round(ms, 1))));
    say(tableRow('idle stack, % of a core', figures.idle_cpu_percent));
    return figures;
  } finally {
    await db.destroy();
    await stack.stop();
  }
}

async function launchOne(api: ApiClient, externalId: string): Promise<string> {
  const { id } = await api.post<NotificationView>('/v1/notifications', {
    ...{ title: 'Hello', message: { title: 'Hello' }, audience: { external_ids: [externalId] }, launch: true },
  });
  return id;
}

async function untilFinished(api: ApiClient, ids: string[]): Promise<void> {
  for (const id of ids) {
    const deadline = performance.now() + stallMs;
    while ((await api.get<NotificationView>(`/v1/notifications/${id}`)).state !== 'completed') {
      if (performance.now() > deadline) throw new Error(`notification ${id} was not completed`);
      await sleep(10);
    }
  }
}

interface Cpu {
  worker: number;
  temporal: number;
  postgres: number;
  all: number;
}

function cpuOf({ processes }: Stack): Cpu {
  const [worker, temporal, postgres, api] = [
    processes.workers[0]!,
    processes.temporal!,
    processes.postgres!,
    processes.api,
  ].map(({ pid }) => cpuMs(pid)) as [number, number, number, number];
  return { worker, temporal, postgres, all: worker + temporal + postgres + api };
}

function temporalAndWorker({ worker, temporal }: Cpu): number {
  return worker + temporal;
}
