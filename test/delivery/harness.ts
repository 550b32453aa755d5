/** The delivery engine on a real PostgreSQL, with a provider that answers as the test says. */
import assert from 'node:assert/strict';
import { MockActivityEnvironment } from '@temporalio/testing';
import { DefaultLogger } from '@temporalio/worker';
import { sql } from 'kysely';
import type { ActivityDeps } from '../../activities/activities.ts';
import type { ProviderSource } from '../../activities/app-providers.ts';
import { deliverBatch } from '../../activities/deliver-batch.ts';
import { OverloadWatch } from '../../activities/delivery/overload-watch.ts';
import { ProviderHosts } from '../../activities/delivery/provider-hosts.ts';
import { LaneBell } from '../../activities/lane-bell.ts';
import { nextBatches } from '../../activities/next-batches.ts';
import { SendingSlots } from '../../activities/sending-slots.ts';
import { auditBooks } from '../../db/audit.ts';
import { countTotals } from '../../db/close-books.ts';
import { type ConnectOptions, connect, type DatabaseHandle } from '../../db/connect.ts';
import { insertNotification } from '../../db/notification-drafts.ts';
import { launchNotification } from '../../db/notification-moves.ts';
import { getNotificationOfAnyApp } from '../../db/notifications.ts';
import { loadConfig, type WorkerConfig } from '../../domain/config.ts';
import type { DeliverBatchInput, DeliverBatchResult } from '../../domain/delivery.ts';
import type { ProviderName } from '../../domain/device.ts';
import type { Logger } from '../../domain/logger.ts';
import type { Message } from '../../domain/message.ts';
import type { Notification } from '../../domain/notification.ts';
import type { InDoubtPolicy } from '../../domain/notification-state.ts';
import type { Outcome } from '../../domain/outcome.ts';
import { uuidV7 } from '../../domain/uuid-v7.ts';
import type { DeviceAddress, PushProvider, Verdict } from '../../providers/provider.ts';
import { PayloadError } from '../../providers/provider.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';

export const accepted: Verdict = { kind: 'accepted', httpStatus: 200 };

/** What a scripted provider is asked. Both numbers count from 1. */
export interface Call extends DeviceAddress {
  /** Among the calls for this device. */
  call: number;
  /** Among all calls. */
  number: number;
}

export interface ScriptedProvider extends PushProvider {
  /** In order of arrival. */
  readonly calls: Call[];
  /** May be changed at any time. */
  answer: (call: Call) => Verdict | Promise<Verdict>;
  /** Calls that have not been answered. */
  readonly open: number;
  callsFor(deviceId: number): number;
  /** What its answers depend on besides the device: those of one name vouch for each other. */
  configuration: string;
}

export function createScriptedProvider(
  answer: ScriptedProvider['answer'] = () => accepted,
  name: ProviderName = 'apns',
): ScriptedProvider {
  const calls: Call[] = [];
  const counts = new Map<number, number>();
  let open = 0;
  const scripted: ScriptedProvider = {
    name,
    credential: 'test',
    hosts: name === 'fcm' ? ['fcm.test'] : ['production.test', 'sandbox.test'],
    hostOf: ({ apnsEnvironment }) => (name === 'fcm' ? 'fcm.test' : `${apnsEnvironment ?? 'production'}.test`),
    calls,
    answer,
    get open() {
      return open;
    },
    callsFor: (deviceId) => counts.get(deviceId) ?? 0,
    prepare: ({ message }) => {
      if (message.title === 'too large') throw new PayloadError('payload', 'is 5000 bytes, at most 4096 are allowed');
      return { provider: name, target: scripted.configuration, payloadBytes: 100 };
    },
    probe: async () => accepted,
    async send(_prepared, device) {
      const call = { ...device, call: (counts.get(device.deviceId) ?? 0) + 1, number: calls.length + 1 };
      counts.set(device.deviceId, call.call);
      calls.push(call);
      open += 1;
      try {
        // Never in the same turn: a real answer is not there when `send` returns.
        await Promise.resolve();
        return await this.answer(call);
      } finally {
        open -= 1;
      }
    },
    configuration: 'scripted',
    usefulRequests: () => Number.POSITIVE_INFINITY,
    close: async () => {},
  };
  return scripted;
}

/** The same providers for every app, never replaced. */
export function sourceOf(providers: Partial<Record<ProviderName, PushProvider>>): ProviderSource {
  const { signal: replaced } = new AbortController();
  return {
    async lease(_appId, name) {
      const provider = providers[name];
      if (provider === undefined) return { fault: `There is no credential for ${name}.` };
      return { provider, replaced, credentialId: undefined, release: () => {} };
    },
  };
}

export interface DeliveryRow {
  deviceId: number;
  outcome: Outcome;
  reason: string | null;
  attempts: number;
  inDoubt: boolean;
  httpStatus: number | null;
}

export interface SendOptions {
  /** Default 1. */
  appId?: number;
  devices?: number;
  provider?: ProviderName;
  message?: Message;
  inDoubtPolicy?: InDoubtPolicy;
  ratePerSecond?: number | null;
  batchSize?: number;
  /** The instant in the notification's id; default: now. */
  idAt?: Date;
  /** By position, from 0; default: any token. */
  tokenOf?: (n: number) => string;
}

/** One launched and planned notification with an audience of its own. */
export interface TestSend {
  id: string;
  deviceIds: number[];
  batches: DeliverBatchInput[];
  read(): Promise<Notification>;
  /** In order of device id. */
  rows(): Promise<DeliveryRow[]>;
  row(deviceId: number): Promise<DeliveryRow | undefined>;
  counts(): Promise<Partial<Record<Outcome, number>>>;
  /** Rows, counts and sizes agree; as `expected`, where given. */
  checkBooks(expected?: Partial<Record<Outcome, number>>): Promise<void>;
}

export interface WorkerOptions extends Partial<WorkerConfig> {
  provider?: PushProvider | undefined;
  /** Default: `provider`, for every app. */
  source?: ProviderSource;
  /** Default: the test's own pool. */
  database?: DatabaseHandle;
  overload?: OverloadWatch;
  slots?: SendingSlots;
  random?: () => number;
}

/** One worker's view: activities with their own provider and settings, on the same books. */
export interface TestWorker {
  deps: ActivityDeps;
  /** One attempt of the activity; `environment` cancels it. */
  deliver(
    batch: DeliverBatchInput,
    attempt?: number,
    environment?: MockActivityEnvironment,
  ): Promise<DeliverBatchResult>;
  /** As the batch's workflow does: again until it no longer has to wait. */
  deliverToEnd(batch: DeliverBatchInput): Promise<DeliverBatchResult>;
}

export interface DeliveryBench {
  database: TestDatabase;
  logged: { level: string; fields: Record<string, unknown>; message: string }[];
  launch(options?: SendOptions): Promise<TestSend>;
  worker(options?: WorkerOptions): TestWorker;
  /** Another pool on the same database; ended by `close`. */
  connect(options?: ConnectOptions & { url?: string }): DatabaseHandle;
  close(): Promise<void>;
}

export function activityEnvironment(attempt = 1): MockActivityEnvironment {
  return new MockActivityEnvironment({ attempt }, { logger: new DefaultLogger('ERROR') });
}

/** Settings under which nothing waits for more than a moment. */
const quick: Partial<WorkerConfig> = { retryBaseMs: 1, retryMaxMs: 20, shutdownGraceMs: 5_000 };

export async function createDeliveryBench(): Promise<DeliveryBench> {
  const database = await createTestDatabase();
  const opened: DatabaseHandle[] = [];
  const logged: DeliveryBench['logged'] = [];
  const log = Object.fromEntries(
    ['debug', 'info', 'warn', 'error'].map((level) => [
      level,
      (fields: object, message: string) => logged.push({ level, fields: fields as Record<string, unknown>, message }),
    ]),
  ) as unknown as Logger;

  async function launch(options: SendOptions = {}): Promise<TestSend> {
    const { devices = 50, provider = 'apns', message = { title: 'Hello' }, batchSize = 10_000, appId = 1 } = options;
    const { db } = database;
    const id = uuidV7(options.idAt?.getTime());
    const tokens = options.tokenOf ? Array.from({ length: devices }, (_, n) => options.tokenOf!(n)) : [];
    const { rows: inserted } = await sql<{ id: number }>`
      insert into devices (app_id, external_id, provider, platform, device_token)
      select ${appId}, ${id} || '-' || n, ${provider}, ${provider === 'apns' ? 'ios' : 'android'},
        coalesce((${tokens}::text[])[n], encode(sha256((${id} || n)::bytea), 'hex'))
      from generate_series(1, ${devices}::integer) n order by n
      returning id
    `.execute(db);
    const externalIds = inserted.map((_, n) => `${id}-${n + 1}`);
    await insertNotification(db, {
      id,
      appId,
      title: message.title ?? null,
      message,
      audience: { externalIds },
      inDoubtPolicy: options.inDoubtPolicy ?? 'redeliver',
      ratePerSecond: options.ratePerSecond ?? null,
    });
    await launchNotification(db, appId, id);
    const planner = worker({ batchSize, openBatches: 5_000 }).deps;
    const { signal } = new AbortController();
    const { batches } = await nextBatches(planner, { notificationId: id, afterSeq: 0 }, signal);
    const rows = async () => {
      const stored = await db
        .selectFrom('deliveries')
        .select(['device_id', 'outcome', 'reason', 'attempts', 'in_doubt', 'http_status'])
        .where('notification_id', '=', id)
        .orderBy('device_id')
        .execute();
      return stored.map((row) => ({
        deviceId: row.device_id,
        outcome: row.outcome,
        reason: row.reason,
        attempts: row.attempts,
        inDoubt: row.in_doubt,
        httpStatus: row.http_status,
      }));
    };
    const counts = async () => {
      const { outcomes } = await countTotals(db, id);
      return Object.fromEntries(Object.entries(outcomes).filter(([, devices]) => devices > 0));
    };
    return {
      id,
      deviceIds: inserted.map((row) => row.id),
      batches: batches.map((batch) => ({ notificationId: id, ...batch })),
      read: () => getNotificationOfAnyApp(db, id),
      rows,
      row: async (deviceId) => (await rows()).find((row) => row.deviceId === deviceId),
      counts,
      async checkBooks(expected) {
        assert.deepEqual(await auditBooks(db, id), []);
        if (expected) assert.deepEqual(await counts(), expected);
      },
    };
  }

  function worker(options: WorkerOptions = {}): TestWorker {
    const {
      provider,
      source = sourceOf(provider ? { [provider.name]: provider } : {}),
      database: own = database,
      overload = new OverloadWatch(),
      slots = new SendingSlots(1),
      random,
      ...settings
    } = options;
    const config = { ...loadConfig({ DATABASE_URL: database.url }).worker, ...quick, ...settings };
    const deps: ActivityDeps = {
      ...{ db: own.db, pool: own.pool, overload, config, log, slots, providerHosts: new ProviderHosts(log) },
      bell: new LaneBell(),
      providers: source,
      ...(random && { random }),
    };
    const deliver: TestWorker['deliver'] = (batch, attempt = 1, environment = activityEnvironment(attempt)) =>
      environment.run(() => deliverBatch(deps, batch));
    return {
      deps,
      deliver,
      async deliverToEnd(batch) {
        for (;;) {
          const result = await deliver(batch);
          if (result.status !== 'waiting' && result.status !== 'deferred') return result;
          assert.ok(result.waitMs <= 1_000, `nothing may wait for ${result.waitMs} ms here: ${result.reason}`);
          await new Promise((resolve) => setTimeout(resolve, result.waitMs));
        }
      },
    };
  }

  return {
    database,
    logged,
    launch,
    worker,
    connect({ url = database.url, ...rest } = {}) {
      const handle = connect(url, { applicationName: 'carillon-test', ...rest });
      opened.push(handle);
      return handle;
    },
    async close() {
      for (const handle of opened) {
        await handle.db.destroy();
        if (!handle.pool.ended) await handle.pool.end();
      }
      await database.close();
    },
  };
}

/** Who was sent to more than once must be marked, and who was never sent to cannot have been accepted. */
export async function checkRepeats(send: TestSend, calls: readonly Call[]): Promise<void> {
  const counts = new Map<number, number>();
  for (const { deviceId } of calls) counts.set(deviceId, (counts.get(deviceId) ?? 0) + 1);
  for (const row of await send.rows()) {
    const sent = counts.get(row.deviceId) ?? 0;
    if (row.outcome === 'accepted') assert.ok(sent > 0, `device ${row.deviceId} was accepted and never sent to`);
    if (sent > 1) assert.ok(row.inDoubt, `device ${row.deviceId} was sent to ${sent} times, unmarked`);
  }
}

/** A promise to be kept by the test. */
export function gate(): { opened: Promise<void>; open: () => void } {
  let open = () => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { opened, open };
}
