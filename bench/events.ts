/**
 * What devices tell of a large send: events a second in one stream of lines, told anew and again, and one by one over many connections.
 * Any device in any order, so each chunk meets nearly every batch.
 */
import { Readable } from 'node:stream';
import { sql } from 'kysely';
import { Pool } from 'undici';
import { connect } from '../db/connect.ts';
import { insertNotification } from '../db/notification-drafts.ts';
import { launchNotification } from '../db/notification-moves.ts';
import { findPlan, planNextPage } from '../db/plan.ts';
import { uuidV7 } from '../domain/uuid-v7.ts';
import { formatCount } from '../local/progress.ts';
import type { Stack } from '../local/stack.ts';
import { tableRow } from './figures.ts';
import { cpuMs } from './processes.ts';
import { startBenchStack } from './stack.ts';

/** CPU is in microseconds for each event. */
export interface EventFigures {
  /** In one stream, each told for the first time, … */
  events_per_second: number;
  api_us: number;
  postgres_us: number;
  wal_bytes: number;
  /** … and all of them once more. */
  repeated_per_second: number;
  repeated_api_us: number;
  repeated_postgres_us: number;
  /** A request for each, over 64 connections. */
  single_per_second: number;
  single_api_us: number;
  single_postgres_us: number;
}

type Db = ReturnType<typeof connect>['db'];

const connections = 64;
const linesPerChunk = 500;
const prefix = 'bench-phone-';

export async function benchEvents(quick: boolean, say: (line: string) => void): Promise<EventFigures> {
  const [devices, streamed, singles] = quick ? [200_000, 60_000, 6_000] : [1_000_000, 400_000, 40_000];
  const stack = await startBenchStack(0);
  const { db } = connect(stack.databaseUrl, {
    maxConnections: 1,
    applicationName: 'carillon-bench',
    statementTimeoutMs: 0,
  });
  const pool = new Pool(stack.apiUrl, { connections, headersTimeout: 0, bodyTimeout: 0 });
  try {
    say(
      `Events of a send to ${formatCount(devices)} devices: ${formatCount(streamed)} in a stream, ${formatCount(singles)} one by one`,
    );
    const nid = await planSend(db, devices);
    const teller = new Teller(pool, stack, nid, shuffled(devices));
    const first = await measure(stack, db, streamed, () => teller.stream('opened', 0, streamed));
    const again = await measure(stack, db, streamed, () => teller.stream('opened', 0, streamed));
    const single = await measure(stack, db, singles, () => teller.tellEach('opened', streamed, singles));
    const counts = await teller.counts();
    if (counts.events !== 2 * streamed + singles || counts.devices !== streamed + singles)
      throw new Error(`the counts are ${JSON.stringify(counts)}`);
    show(say, { 'told first': first, 'told again': again, [`${connections} callers`]: single });
    return {
      events_per_second: Math.round(first.perSecond),
      api_us: Math.round(first.cpuUs.api),
      postgres_us: Math.round(first.cpuUs.postgres),
      wal_bytes: Math.round(first.walBytes),
      repeated_per_second: Math.round(again.perSecond),
      repeated_api_us: Math.round(again.cpuUs.api),
      repeated_postgres_us: Math.round(again.cpuUs.postgres),
      single_per_second: Math.round(single.perSecond),
      single_api_us: Math.round(single.cpuUs.api),
      single_postgres_us: Math.round(single.cpuUs.postgres),
    };
  } finally {
    await Promise.all([pool.destroy(), db.destroy()]);
    await stack.stop();
  }
}

/** A launched notification to all devices, planned and not sent: events look at the frozen audience alone. */
async function planSend(db: Db, devices: number): Promise<string> {
  await sql`
    insert into devices (app_id, external_id, provider, platform, device_token)
    select 1, ${prefix} || n, case n % 2 when 0 then 'apns' else 'fcm' end, case n % 2 when 0 then 'ios' else 'android' end, 'token-' || n
    from generate_series(0, ${devices}::integer - 1) n
  `.execute(db);
  await sql`vacuum (analyze) devices`.execute(db);
  const id = uuidV7();
  await insertNotification(db, {
    ...{ id, appId: 1, title: null, message: { title: 'Hello' }, audience: {} },
    ...{ inDoubtPolicy: 'redeliver', ratePerSecond: null },
  });
  await launchNotification(db, 1, id);
  while (!(await findPlan(db, id)).isPlanned) await db.transaction().execute((trx) => planNextPage(trx, id, undefined));
  await sql`checkpoint`.execute(db);
  return id;
}

/** The numbers below `count` in an order that is the same in every run. */
function shuffled(count: number): Uint32Array {
  const numbers = Uint32Array.from({ length: count }, (_, n) => n);
  let state = 1;
  for (let last = count - 1; last > 0; last--) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    const other = Math.floor((state / 2 ** 32) * (last + 1));
    [numbers[last], numbers[other]] = [numbers[other]!, numbers[last]!];
  }
  return numbers;
}

class Teller {
  readonly #pool: Pool;
  readonly #authorization: string;
  readonly #nid: string;
  readonly #devices: Uint32Array;

  constructor(pool: Pool, stack: Stack, nid: string, devices: Uint32Array) {
    this.#pool = pool;
    this.#authorization = `Bearer ${stack.apiKey}`;
    this.#nid = nid;
    this.#devices = devices;
  }

  async stream(type: string, from: number, count: number): Promise<void> {
    const text = await this.#post('application/x-ndjson', Readable.from(this.#chunks(type, from, count)));
    const summary = JSON.parse(text.trimEnd().split('\n').pop()!);
    if (!summary.complete || summary.taken !== count || summary.unknown > 0)
      throw new Error(`the stream of ${count} ended with ${JSON.stringify(summary)}`);
  }

  async tellEach(type: string, from: number, count: number): Promise<void> {
    let next = from;
    const runner = async () => {
      while (next < from + count) {
        const { taken, unknown } = JSON.parse(await this.#post('application/json', this.#event(type, next++)));
        if (taken !== 1 || unknown > 0) throw new Error('an event was not counted');
      }
    };
    await Promise.all(Array.from({ length: connections }, runner));
  }

  async counts(): Promise<{ events: number; devices: number }> {
    const path = `/v1/notifications/${this.#nid}/events`;
    const answer = await this.#pool.request({ method: 'GET', path, headers: { authorization: this.#authorization } });
    const { types } = (await answer.body.json()) as { types: { events: number; devices: number }[] };
    return types[0]!;
  }

  *#chunks(type: string, from: number, count: number): Generator<Buffer> {
    for (let first = from; first < from + count; first += linesPerChunk) {
      const length = Math.min(linesPerChunk, from + count - first);
      yield Buffer.from(Array.from({ length }, (_, i) => `${this.#event(type, first + i)}\n`).join(''));
    }
  }

  #event(type: string, n: number): string {
    const at = new Date(Date.now() - (n % 1_000)).toISOString();
    return JSON.stringify({ type, nid: this.#nid, device: `${prefix}${this.#devices[n]}`, at });
  }

  async #post(contentType: string, body: string | Readable): Promise<string> {
    const headers = { authorization: this.#authorization, 'content-type': contentType };
    const answer = await this.#pool.request({ method: 'POST', path: '/v1/events', headers, body });
    const text = await answer.body.text();
    if (answer.statusCode !== 200) throw new Error(`POST of events: ${answer.statusCode} ${text}`);
    return text;
  }
}

const cpuOwners = ['api', 'postgres', 'caller'] as const;

/** Of one event: CPU in microseconds. */
interface Pace {
  perSecond: number;
  cpuUs: Record<(typeof cpuOwners)[number], number>;
  walBytes: number;
}

async function measure(stack: Stack, db: Db, count: number, work: () => Promise<void>): Promise<Pace> {
  const cpu = () => {
    const { user, system } = process.cpuUsage();
    return {
      api: cpuMs(stack.processes.api.pid),
      postgres: cpuMs(stack.processes.postgres!.pid),
      caller: (user + system) / 1000,
    };
  };
  const walBefore = await walBytes(db);
  const before = cpu();
  const startedAt = performance.now();
  await work();
  const seconds = (performance.now() - startedAt) / 1000;
  const after = cpu();
  const each = (owner: (typeof cpuOwners)[number]) => ((after[owner] - before[owner]) * 1000) / count;
  return {
    perSecond: count / seconds,
    cpuUs: { api: each('api'), postgres: each('postgres'), caller: each('caller') },
    walBytes: ((await walBytes(db)) - walBefore) / count,
  };
}

async function walBytes(db: Db): Promise<number> {
  const { rows } = await sql<{ bytes: number }>`
    select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::float8 as bytes
  `.execute(db);
  return rows[0]!.bytes;
}

function show(say: (line: string) => void, paces: Record<string, Pace>): void {
  const all = Object.values(paces);
  say(tableRow('', ...Object.keys(paces)));
  say(tableRow('events a second', ...all.map(({ perSecond }) => formatCount(Math.round(perSecond)))));
  for (const owner of cpuOwners)
    say(tableRow(`CPU of ${owner}, µs`, ...all.map(({ cpuUs }) => Math.round(cpuUs[owner]))));
  say(tableRow('WAL, bytes', ...all.map((pace) => Math.round(pace.walBytes))));
}
