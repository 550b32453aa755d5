/**
 * Messages to one person: how many a second, one by one, in a stream and where the caller waits for the outcome; how soon they reach the
 * provider, alone and beside a large send; and what each costs. Caller, Carillon and providers share one machine.
 */
import { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Kysely, sql } from 'kysely';
import { type Dispatcher, Pool } from 'undici';
import { connect } from '../db/connect.ts';
import type { Database } from '../db/schema.ts';
import { type ApiClient, createApiClient, type NotificationView } from '../local/api-client.ts';
import { demoDevices } from '../local/demo-audience.ts';
import { formatCount } from '../local/progress.ts';
import type { Stack } from '../local/stack.ts';
import { round, tableRow } from './figures.ts';
import { cpuMs } from './processes.ts';
import { startBenchStack } from './stack.ts';

/** A second: from the first request to the last outcome. CPU is in microseconds for each message. */
export interface MessageFigures {
  /** A request for each message, over 16 connections and over 256. */
  single_per_second: number;
  single_256_per_second: number;
  /** All in one stream of lines. */
  streamed_per_second: number;
  /** Answers with the outcome, over 16 connections, and how long each took. */
  wait_per_second: number;
  wait_p50_ms: number;
  wait_p99_ms: number;
  /** From the call to the request at the provider, at half of `single_per_second`. */
  p50_ms: number;
  p99_ms: number;
  /** The same at a quarter of it, while a large send is running. */
  beside_campaign_p99_ms: number;
  /** Of the API, the worker and Temporal together, one request for each message over 16 connections. */
  cpu_us: number;
  postgres_us: number;
  /** The same of the stream. */
  streamed_cpu_us: number;
  streamed_postgres_us: number;
  /** Of the tables of messages with their indexes, and of the WAL of the stream. */
  bytes: number;
  wal_bytes: number;
}

/** Messages go to these in turn; the large send to all devices. */
const recipients = 10_000;
const audience = 'bench';
const [few, many] = [16, 256];
const shares = [0.25, 0.5, 0.75];
const linesPerChunk = 100;
const pollMs = 50;
/** Nothing gained an outcome for so long: the stack has stopped. */
const stallMs = 60_000;

export async function benchMessages(quick: boolean, say: (line: string) => void): Promise<MessageFigures> {
  const [single, streamed, waited, seconds, devices] = quick
    ? [3_000, 10_000, 1_000, 4, 100_000]
    : [20_000, 100_000, 10_000, 10, 300_000];
  const stack = await startBenchStack(1);
  const { db } = connect(stack.databaseUrl, {
    maxConnections: 1,
    applicationName: 'carillon-bench',
    statementTimeoutMs: 0,
  });
  const callers = { few: new Caller(stack, few), many: new Caller(stack, many) };
  try {
    const api = createApiClient(stack.apiUrl, stack.apiKey!);
    await importDevices(api, db, devices);
    const run = (send: () => Promise<Sent[]>, campaignDevices = 0) => measure(stack, db, send, campaignDevices);
    say(`Messages to one person: ${formatCount(single)} one by one, ${formatCount(streamed)} in a stream`);
    await run(() => callers.few.sendClosed(single / 2));

    const overFew = await run(() => callers.few.sendClosed(single));
    const overMany = await run(() => callers.many.sendClosed(single));
    // Pages touched since are written whole once more; so they are in every run.
    await sql`checkpoint`.execute(db);
    const stream = await run(() => callers.few.stream(streamed));
    const bytes = await bytesOfEach(db);
    const waits = await run(() => callers.few.sendClosed(waited, 10));
    showPaces(say, {
      [`${few} callers`]: overFew,
      [`${many} callers`]: overMany,
      'one stream': stream,
      [`${few}, waiting`]: waits,
    });
    say(tableRow('database, bytes a message', bytes));

    const waitMs = waits.sent.map(({ calledAt, answeredAt }) => answeredAt - calledAt);
    say(tableRow('', ...['p50 ms', 'p95 ms', 'p99 ms', 'p99.9 ms']));
    showSpread(say, 'to the answer with outcome', waitMs);
    const latencies: Latency[] = [];
    for (const share of shares) {
      const rate = overFew.perSecond * share;
      const { sent } = await run(() => callers.many.sendOpen(rate, untilOver(seconds)));
      latencies.push(await showLatency(stack, say, `${share * 100} %, ${formatCount(Math.round(rate))}/s`, sent));
    }

    const nothing = () => Promise.resolve([]);
    // The worker compiles what the first one needs.
    await runCampaign(stack, api, nothing);
    const alone = await runCampaign(stack, api, nothing);
    let beside: Campaign | undefined;
    const rate = overFew.perSecond * shares[0]!;
    await run(async () => {
      beside = await runCampaign(stack, api, (isOver) => callers.many.sendOpen(rate, () => !isOver()));
      return beside.sent;
    }, devices);
    const title = `${shares[0]! * 100} %, beside a large send`;
    const besideCampaign = await showLatency(stack, say, title, beside!.sent);
    const speed = ({ seconds }: Campaign) => formatCount(Math.round(devices / seconds));
    say(tableRow('the large send, devices/s', speed(alone)));
    say(tableRow(`  beside ${formatCount(beside!.sent.length)} messages`, speed(beside!)));

    return {
      single_per_second: Math.round(overFew.perSecond),
      single_256_per_second: Math.round(overMany.perSecond),
      streamed_per_second: Math.round(stream.perSecond),
      wait_per_second: Math.round(waits.acceptedPerSecond),
      wait_p50_ms: round(percentile(waitMs, 50), 1),
      wait_p99_ms: round(percentile(waitMs, 99), 1),
      p50_ms: round(percentile(latencies[1]!.fromCall, 50), 1),
      p99_ms: round(percentile(latencies[1]!.fromCall, 99), 1),
      beside_campaign_p99_ms: round(percentile(besideCampaign.fromCall, 99), 1),
      cpu_us: ownCpuUs(overFew),
      postgres_us: Math.round(overFew.cpuUs.postgres),
      streamed_cpu_us: ownCpuUs(stream),
      streamed_postgres_us: Math.round(stream.cpuUs.postgres),
      bytes,
      wal_bytes: Math.round(stream.walBytes),
    };
  } finally {
    await Promise.all([callers.few.close(), callers.many.close(), db.destroy()]);
    await stack.stop();
  }
}

/** Both providers in turn, nobody is dead. */
async function importDevices(api: ApiClient, db: Kysely<Database>, devices: number): Promise<void> {
  const rows = { name: audience, devices, providers: ['apns', 'fcm'] as const, deadPercent: 0, transientPercent: 0 };
  const { imported } = await api.importDevices(demoDevices(rows));
  if (imported !== devices) throw new Error(`${imported} of ${devices} devices were imported`);
  // What the import still owes is no cost of the messages.
  await sql`vacuum (analyze) devices`.execute(db);
  await sql`checkpoint`.execute(db);
}

/** A message that was accepted. Milliseconds since the epoch. */
interface Sent {
  id: string;
  /** When the call was due, whether or not there was a connection for it. */
  calledAt: number;
  answeredAt: number;
  /** By the API; a line of a stream does not tell it. */
  createdAt: number;
}

function messageTo(n: number): object {
  return {
    to: { external_id: `${audience}-${n % recipients}` },
    message: { title: 'Hello', body: 'A message of ordinary size', deep_link: 'carillon://orders/4711' },
  };
}

class Caller {
  readonly #pool: Pool;
  readonly #connections: number;
  readonly #authorization: string;

  constructor(stack: Stack, connections: number) {
    this.#pool = new Pool(stack.apiUrl, { connections, headersTimeout: stallMs, bodyTimeout: stallMs });
    this.#connections = connections;
    this.#authorization = `Bearer ${stack.apiKey}`;
  }

  /** As many at once as there are connections, each after the answer to the one before. */
  async sendClosed(count: number, waitSeconds?: number): Promise<Sent[]> {
    const sent: Sent[] = [];
    let next = 0;
    const runner = async () => {
      while (next < count) sent.push(await this.#send(next++, Date.now(), waitSeconds));
    };
    await Promise.all(Array.from({ length: this.#connections }, runner));
    return sent;
  }

  /** At fixed instants, whatever becomes of those before; one that has to wait for a connection was called all the same. */
  async sendOpen(perSecond: number, goesOn: () => boolean): Promise<Sent[]> {
    const startedAt = Date.now();
    const answers: Promise<Sent>[] = [];
    while (goesOn()) {
      for (const now = Date.now(); ; ) {
        const dueAt = startedAt + (answers.length * 1000) / perSecond;
        if (dueAt > now) break;
        const answer = this.#send(answers.length, dueAt);
        // Met where all are awaited.
        answer.catch(() => {});
        answers.push(answer);
      }
      await sleep(1);
    }
    return Promise.all(answers);
  }

  async stream(count: number): Promise<Sent[]> {
    const calledAt = Date.now();
    const answer = await this.#post('application/x-ndjson', Readable.from(toChunks(count)));
    const sent: Sent[] = [];
    let rest = '';
    let summary: { accepted?: number; complete?: boolean } = {};
    answer.body.setEncoding('utf8');
    for await (const part of answer.body) {
      const lines = (rest + part).split('\n');
      rest = lines.pop()!;
      for (const line of lines) {
        const said = JSON.parse(line) as { id?: string; deliveries?: number; complete?: boolean };
        if (said.id !== undefined && said.deliveries === 1)
          sent.push({ id: said.id, calledAt, answeredAt: Date.now(), createdAt: Number.NaN });
        else if (said.complete !== undefined) summary = said;
        else throw new Error(`a line of the stream was answered ${line}`);
      }
    }
    if (!summary.complete || summary.accepted !== count || sent.length !== count)
      throw new Error(`the stream of ${count} ended with ${JSON.stringify(summary)}`);
    return sent;
  }

  async #send(n: number, calledAt: number, waitSeconds?: number): Promise<Sent> {
    const prefer = waitSeconds === undefined ? {} : { prefer: `wait=${waitSeconds}` };
    const answer = await this.#post('application/json', JSON.stringify(messageTo(n)), prefer);
    const text = await answer.body.text();
    if (answer.statusCode !== (waitSeconds === undefined ? 202 : 200))
      throw new Error(`POST of a message: ${answer.statusCode} ${text}`);
    const { id, created_at } = JSON.parse(text) as { id: string; created_at: string };
    return { id, calledAt, answeredAt: Date.now(), createdAt: Date.parse(created_at) };
  }

  #post(contentType: string, body: string | Readable, headers: object = {}): Promise<Dispatcher.ResponseData> {
    return this.#pool.request({
      method: 'POST',
      path: '/v1/messages',
      headers: { authorization: this.#authorization, 'content-type': contentType, ...headers },
      body,
    });
  }

  close(): Promise<void> {
    return this.#pool.destroy();
  }
}

function* toChunks(count: number): Generator<Buffer> {
  for (let first = 0; first < count; first += linesPerChunk) {
    const length = Math.min(linesPerChunk, count - first);
    const lines = Array.from({ length }, (_, i) => `${JSON.stringify(messageTo(first + i))}\n`);
    yield Buffer.from(lines.join(''));
  }
}

function untilOver(seconds: number): () => boolean {
  const endsAt = performance.now() + seconds * 1000;
  return () => performance.now() < endsAt;
}

const cpuOwners = ['api', 'worker', 'postgres', 'temporal', 'simulator', 'caller'] as const;
type Cpu = Record<(typeof cpuOwners)[number], number>;

interface Pace {
  sent: Sent[];
  /** From the first request to the last answer, … */
  acceptedPerSecond: number;
  /** … and to the last outcome. */
  perSecond: number;
  /** Of each message, as the bytes. */
  cpuUs: Cpu;
  walBytes: number;
}

/** Sends, waits for all outcomes, and checks each: accepted by the provider, once, and the books say so. */
async function measure(
  stack: Stack,
  db: Kysely<Database>,
  send: () => Promise<Sent[]>,
  campaignDevices: number,
): Promise<Pace> {
  await stack.simulator!.control.resetLedger();
  const earlier = await readBooks(db);
  const walBefore = await walBytes(db);
  const before = cpuOf(stack);
  const startedAt = Date.now();
  const sent = await send();
  const answeredAt = sent.reduce((latest, message) => Math.max(latest, message.answeredAt), startedAt);
  await untilEnded(db, earlier.entered + sent.length);
  const after = cpuOf(stack);
  const wal = (await walBytes(db)) - walBefore;
  const endedAt = await checkEntries(db, sent, new Date(startedAt));
  await checkBooks(db, earlier.entered + sent.length);
  await checkLedger(stack, sent, campaignDevices);
  const each = (owner: keyof Cpu) => ((after[owner] - before[owner]) * 1000) / sent.length;
  return {
    sent,
    acceptedPerSecond: (sent.length * 1000) / (answeredAt - startedAt),
    perSecond: (sent.length * 1000) / (endedAt - startedAt),
    cpuUs: Object.fromEntries(cpuOwners.map((owner) => [owner, each(owner)])) as Cpu,
    walBytes: wal / sent.length,
  };
}

interface Books {
  entered: number;
  ended: number;
  accepted: number;
  unbalanced: number;
}

async function readBooks(db: Kysely<Database>): Promise<Books> {
  const { rows } = await sql<Books>`
    select coalesce(sum(entered), 0)::bigint as entered, coalesce(sum(ended), 0)::bigint as ended,
      coalesce(sum(accepted), 0)::bigint as accepted, count(*) filter (where entered <> ended) as unbalanced
    from (
      select coalesce(sum(devices) filter (where outcome = 'entered'), 0) as entered,
        coalesce(sum(devices) filter (where outcome <> 'entered'), 0) as ended,
        coalesce(sum(devices) filter (where outcome = 'accepted' and in_doubt = 0), 0) as accepted
      from message_counts group by day, provider, lane_id
    ) as lane
  `.execute(db);
  return rows[0]!;
}

async function untilEnded(db: Kysely<Database>, count: number): Promise<void> {
  for (let ended = -1, changedAt = performance.now(); ended < count; ) {
    const books = await readBooks(db);
    if (books.ended !== ended) changedAt = performance.now();
    else if (performance.now() - changedAt > stallMs)
      throw new Error(`${ended} of ${count} messages have their outcome, then none`);
    ended = books.ended;
    if (ended < count) await sleep(pollMs);
  }
}

async function checkBooks(db: Kysely<Database>, count: number): Promise<void> {
  const books = await readBooks(db);
  if (books.unbalanced > 0 || books.entered !== count || books.accepted !== count)
    throw new Error(`after ${count} messages the books are ${JSON.stringify(books)}`);
}

/** @returns when the last one had its outcome, by the database's clock */
async function checkEntries(db: Kysely<Database>, sent: Sent[], since: Date): Promise<number> {
  const { rows } = await sql<{ stored: number; accepted: number; ended_at: Date }>`
    select count(*) as stored, count(*) filter (where outcome = 'accepted') as accepted, max(finished_at) as ended_at
    from message_entries where message_id >= uuid_v7_floor(${since})
  `.execute(db);
  const { stored, accepted, ended_at } = rows[0]!;
  if (stored !== sent.length || accepted !== sent.length)
    throw new Error(`of ${sent.length} messages ${stored} are stored and ${accepted} accepted`);
  return ended_at.getTime();
}

async function checkLedger(stack: Stack, sent: Sent[], campaignDevices: number): Promise<void> {
  const { control } = stack.simulator!;
  const arrivals = await control.firstReceivedAtMs(sent.map(({ id }) => id));
  const missing = arrivals.filter((at) => at === null).length;
  if (missing > 0) throw new Error(`${missing} of ${sent.length} messages never came to a provider`);
  const { received, accepted, distinct_accepted, repeats } = await control.ledgerSummary();
  const expected = sent.length + campaignDevices;
  if (received !== expected || accepted !== expected || distinct_accepted !== expected)
    throw new Error(`of ${expected} the providers got ${received}, took ${accepted}, ${repeats} of them again`);
}

async function walBytes(db: Kysely<Database>): Promise<number> {
  const { rows } = await sql<{ bytes: number }>`
    select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::float8 as bytes
  `.execute(db);
  return rows[0]!.bytes;
}

/** Of all messages so far. */
async function bytesOfEach(db: Kysely<Database>): Promise<number> {
  const { rows } = await sql<{ bytes: number }>`
    select sum(pg_total_relation_size(inhrelid))::float8 / (select count(*) from messages) as bytes
    from pg_inherits where inhparent in ('messages'::regclass, 'message_entries'::regclass)
  `.execute(db);
  return Math.round(rows[0]!.bytes);
}

function cpuOf({ processes }: Stack): Cpu {
  const { user, system } = process.cpuUsage();
  return {
    api: cpuMs(processes.api.pid),
    worker: cpuMs(processes.workers[0]!.pid),
    postgres: cpuMs(processes.postgres!.pid),
    temporal: cpuMs(processes.temporal!.pid),
    simulator: cpuMs(processes.simulator!.pid),
    caller: (user + system) / 1000,
  };
}

function ownCpuUs({ cpuUs: { api, worker, temporal } }: Pace): number {
  return Math.round(api + worker + temporal);
}

interface Campaign {
  sent: Sent[];
  seconds: number;
}

/** A send to all devices, and what `beside` sends from its first request on; it is asked to end with the campaign. */
async function runCampaign(
  stack: Stack,
  api: ApiClient,
  beside: (isOver: () => boolean) => Promise<Sent[]>,
): Promise<Campaign> {
  const { control } = stack.simulator!;
  const launchedAt = Date.now();
  const { id } = await api.post<NotificationView>('/v1/notifications', {
    message: { title: 'Hello', body: 'A message of ordinary size' },
    audience: { condition: { property: 'demo', operator: 'eq', value: audience } },
    launch: true,
  });
  const deadline = performance.now() + 3 * stallMs;
  const poll = async <T>(look: () => Promise<T | undefined>): Promise<T> => {
    for (;;) {
      const found = await look();
      if (found !== undefined) return found;
      if (performance.now() > deadline) throw new Error('the large send does not end');
      await sleep(pollMs);
    }
  };
  await poll(async () => (await control.lastReceivedAtMs(id)) ?? undefined);
  let isOver = false;
  const [sent, finished] = await Promise.all([
    beside(() => isOver),
    poll(async () => {
      const view = await api.get<NotificationView>(`/v1/notifications/${id}`);
      return view.finished_at === null ? undefined : view;
    }).finally(() => {
      isOver = true;
    }),
  ]);
  const { state, books } = finished;
  if (state !== 'completed' || !books.balanced || books.outcomes.accepted !== books.audience)
    throw new Error(`the large send is ${state}, its books ${JSON.stringify(books)}`);
  return { sent, seconds: (Date.parse(finished.finished_at!) - launchedAt) / 1000 };
}

/** Milliseconds to the request at the provider: from the call, and from the moment at which the API had stored the message. */
interface Latency {
  fromCall: number[];
  fromStored: number[];
}

async function showLatency(stack: Stack, say: (line: string) => void, title: string, sent: Sent[]): Promise<Latency> {
  const arrivals = await stack.simulator!.control.firstReceivedAtMs(sent.map(({ id }) => id));
  const since = (from: (message: Sent) => number) => sent.map((message, i) => arrivals[i]! - from(message));
  const latency = { fromCall: since(({ calledAt }) => calledAt), fromStored: since(({ createdAt }) => createdAt) };
  showSpread(say, title, latency.fromCall);
  showSpread(say, '  from created_at', latency.fromStored);
  return latency;
}

function showSpread(say: (line: string) => void, title: string, ms: number[]): void {
  say(tableRow(title, ...[50, 95, 99, 99.9].map((percent) => round(percentile(ms, percent), 1))));
}

function percentile(values: readonly number[], percent: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil((sorted.length * percent) / 100) - 1)]!;
}

function showPaces(say: (line: string) => void, paces: Record<string, Pace>): void {
  const all = Object.values(paces);
  say(tableRow('', ...Object.keys(paces)));
  say(tableRow('accepted a second', ...all.map((pace) => formatCount(Math.round(pace.acceptedPerSecond)))));
  say(tableRow('done a second', ...all.map((pace) => formatCount(Math.round(pace.perSecond)))));
  for (const owner of cpuOwners)
    say(tableRow(`CPU of ${owner}, µs`, ...all.map(({ cpuUs }) => Math.round(cpuUs[owner]))));
  say(tableRow('WAL, bytes', ...all.map((pace) => Math.round(pace.walBytes))));
}
