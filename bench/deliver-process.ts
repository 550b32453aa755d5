/** The process that `deliver.ts` measures: a worker's activities without Temporal. Its last line of output is the report. */
import { MockActivityEnvironment } from '@temporalio/testing';
import { DefaultLogger } from '@temporalio/worker';
import { pino } from 'pino';
import type { ActivityDeps } from '../activities/activities.ts';
import type { ProviderSource } from '../activities/app-providers.ts';
import { deliverBatch } from '../activities/deliver-batch.ts';
import { DatabaseClock } from '../activities/delivery/database-clock.ts';
import { OverloadWatch } from '../activities/delivery/overload-watch.ts';
import { PendingDevices } from '../activities/delivery/pending-devices.ts';
import { ProviderHosts } from '../activities/delivery/provider-hosts.ts';
import { LaneBell } from '../activities/lane-bell.ts';
import { nextBatches } from '../activities/next-batches.ts';
import { SendingSlots } from '../activities/sending-slots.ts';
import { loadWorkerSettings } from '../activities/worker-settings.ts';
import { type Claim, claimBatch } from '../db/batches.ts';
import { connect } from '../db/connect.ts';
import { insertNotification } from '../db/notification-drafts.ts';
import { launchNotification } from '../db/notification-moves.ts';
import { createProviderTokenStore } from '../db/provider-tokens.ts';
import type { DeliverBatchInput, DeliverBatchResult } from '../domain/delivery.ts';
import { uuidV7 } from '../domain/uuid-v7.ts';
import { fromEnvironment, surroundingsOf } from '../providers/open.ts';
import type { DeviceAddress, PushProvider } from '../providers/provider.ts';
import { SimulatorControl } from '../simulator/control-client.ts';
import { measureCounting } from './counting.ts';
import { median } from './figures.ts';

export interface DeliverTask {
  /** The property `demo` of the devices to send to. */
  audience: string;
  rounds: number;
  controlUrl: string;
}

export interface Speed {
  cpuUs: number;
  perSecond: number;
}

/** Medians; microseconds of CPU for each device. */
export interface DeliverReport {
  atOnce: { tracked: Speed; bare: Speed };
  /** Every answer takes 20 to 80 ms, and at most one connection's 1 000 requests are under way. */
  likeAProvider: { tracked: Speed; bare: Speed };
  parts: { readUs: number; buildUs: number; withoutSendingUs: number };
  /** Of the metrics. */
  countUs: number;
}

const appId = 1;
const message = { title: 'Hello', body: 'A message of ordinary size', deepLink: 'https://example.org/a/b/c', badge: 1 };
const readAtOnce = 1_000;
const batchesOfPage = 100;
const builds = 1_000;
const providerInFlight = 1_000;

const task: DeliverTask = JSON.parse(process.argv.at(-1)!);
const { config, configured } = loadWorkerSettings(process.env);
const log = pino({ level: 'silent' });
const { db, pool } = connect(config.databaseUrl, { maxConnections: 20, applicationName: 'carillon-bench' });
const provider = await configured.apns.fromFiles!(
  fromEnvironment,
  surroundingsOf(config, { logger: log, providerTokenStore: createProviderTokenStore(db) }),
);
const deps: ActivityDeps = {
  ...{
    db,
    pool,
    providers: sourceOf(provider),
    overload: new OverloadWatch(),
    providerHosts: new ProviderHosts(log),
    config: config.worker,
    log,
  },
  slots: new SendingSlots(config.worker.concurrentBatches),
  bell: new LaneBell(),
};
/** Accepts everything and sends nothing. */
const sink: PushProvider = {
  ...{
    name: 'apns',
    credential: 'bench',
    hosts: ['bench'],
    hostOf: () => 'bench',
    usefulRequests: () => Number.POSITIVE_INFINITY,
  },
  prepare: (content, nowMs) => provider.prepare(content, nowMs),
  send: async () => ({ kind: 'accepted', httpStatus: 200 }),
  probe: async () => ({ kind: 'accepted', httpStatus: 200 }),
  close: async () => {},
};
const control = new SimulatorControl(task.controlUrl);
const quietly = { logger: new DefaultLogger('ERROR') };

const addresses = await readAddresses();
// The first pass compiles and fills caches; it must not count.
await measurePair();
await measureParts();
const atOnce = await repeat(measurePair);
const parts = await repeat(measureParts);
await control.addRule({}, { type: 'delay', latency: { distribution: 'uniform', minMs: 20, maxMs: 80 } });
deps.config = { ...config.worker, maxInFlight: providerInFlight / config.worker.concurrentBatches };
const likeAProvider = await repeat(measurePair);
const report: DeliverReport = {
  atOnce: mediansOf(atOnce),
  likeAProvider: mediansOf(likeAProvider),
  parts: {
    readUs: median(parts.map(({ readUs }) => readUs)),
    buildUs: median(parts.map(({ buildUs }) => buildUs)),
    withoutSendingUs: median(parts.map(({ withoutSendingUs }) => withoutSendingUs)),
  },
  countUs: measureCounting(),
};
await provider.close();
await db.destroy();
console.log(JSON.stringify(report));

/** Every run gets this one. */
function sourceOf(provider: PushProvider): ProviderSource {
  const { signal: replaced } = new AbortController();
  return { lease: async () => ({ provider, replaced, credentialId: undefined, release() {} }) };
}

/** The same devices, with books and without. */
async function measurePair(): Promise<{ tracked: Speed; bare: Speed }> {
  await control.resetLedger();
  const { batches } = await launch();
  const tracked = await measure(() => deliverAll(deps, batches));
  const bare = await measure(sendBare);
  const { accepted, repeats } = await control.ledgerSummary();
  if (accepted !== 2 * addresses.length || repeats > 0) throw new Error(`${accepted} accepted, ${repeats} repeats`);
  return { tracked, bare };
}

async function deliverAll(own: ActivityDeps, batches: DeliverBatchInput[]): Promise<void> {
  await inParallel(config.worker.concurrentBatches, batches, async (batch) => {
    const environment = new MockActivityEnvironment({ attempt: 1 }, quietly);
    const { status, reason } = await environment.run((): Promise<DeliverBatchResult> => deliverBatch(own, batch));
    if (status !== 'finished') throw new Error(`a batch ended as ${status}: ${reason}`);
  });
}

/** The provider alone, with as many requests under way as the batches may have together. */
async function sendBare(): Promise<void> {
  const prepared = provider.prepare({ notificationId: uuidV7(), message });
  const inFlight = config.worker.concurrentBatches * deps.config.maxInFlight;
  await inParallel(inFlight, addresses, async (address) => {
    const verdict = await provider.send(prepared, address);
    if (verdict.kind !== 'accepted') throw new Error(`not accepted: ${JSON.stringify(verdict)}`);
  });
}

/** Reading and building by themselves, and a batch whose provider takes everything and sends nothing. */
async function measureParts(): Promise<DeliverReport['parts']> {
  const { id, batches } = await launch();
  const claims: Claim[] = [];
  for (const { seq } of batches) claims.push((await claimBatch(db, id, seq))!);
  const sent = { appId, launchedAt: new Date() };
  const clock = new DatabaseClock();
  const prepared = provider.prepare({ notificationId: id, message });
  const content = { prepared, expiresAt: null, inDoubtPolicy: 'redeliver' as const };
  const read = await measure(async () => {
    for (const claim of claims) {
      const pending = await PendingDevices.load({ db, pool, claim, launch: sent, clock, content });
      for (;;) {
        const devices = await pending.peek(readAtOnce);
        if (devices.length === 0) break;
        pending.take(devices.length);
      }
    }
  });
  const build = await measure(async () => {
    for (let n = 0; n < builds; n++) provider.prepare({ notificationId: id, message });
  });
  const withoutSending = await measure(() => deliverAll({ ...deps, providers: sourceOf(sink) }, batches));
  return {
    readUs: read.cpuUs,
    // Built once a batch.
    buildUs: (build.cpuUs / builds) * batches.length,
    withoutSendingUs: withoutSending.cpuUs,
  };
}

/** A launched and planned notification to the whole audience. */
async function launch(): Promise<{ id: string; batches: DeliverBatchInput[] }> {
  const id = uuidV7();
  await insertNotification(db, {
    id,
    appId,
    title: 'Bench',
    message,
    audience: { condition: { property: 'demo', operator: 'eq', value: task.audience } },
    inDoubtPolicy: 'redeliver',
    ratePerSecond: null,
  });
  await launchNotification(db, appId, id);
  const batches: DeliverBatchInput[] = [];
  for (;;) {
    const from = { notificationId: id, afterSeq: batches.length, limit: batchesOfPage };
    const page = await nextBatches(deps, from, new AbortController().signal);
    batches.push(...page.batches.map((batch) => ({ notificationId: id, ...batch })));
    if (page.isLast) return { id, batches };
  }
}

async function readAddresses(): Promise<DeviceAddress[]> {
  const rows = await db.selectFrom('devices').select(['id', 'device_token']).where('app_id', '=', appId).execute();
  return rows.map((row) => ({ deviceId: row.id, deviceToken: row.device_token!, apnsEnvironment: null }));
}

async function measure(work: () => Promise<void>): Promise<Speed> {
  const startedAt = performance.now();
  const before = process.cpuUsage();
  await work();
  const { user, system } = process.cpuUsage(before);
  const seconds = (performance.now() - startedAt) / 1000;
  return { cpuUs: (user + system) / addresses.length, perSecond: addresses.length / seconds };
}

async function repeat<T>(once: () => Promise<T>): Promise<T[]> {
  const results: T[] = [];
  for (let round = 0; round < task.rounds; round++) results.push(await once());
  return results;
}

function mediansOf(pairs: { tracked: Speed; bare: Speed }[]): { tracked: Speed; bare: Speed } {
  const of = (name: 'tracked' | 'bare'): Speed => ({
    cpuUs: median(pairs.map((pair) => pair[name].cpuUs)),
    perSecond: median(pairs.map((pair) => pair[name].perSecond)),
  });
  return { tracked: of('tracked'), bare: of('bare') };
}

async function inParallel<T>(limit: number, items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  let next = 0;
  const runner = async () => {
    while (next < items.length) await work(items[next++]!);
  };
  await Promise.all(Array.from({ length: Math.min(limit, items.length) }, runner));
}
