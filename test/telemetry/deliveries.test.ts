/** What is counted of deliveries, held against the books. */
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { sql } from 'kysely';
import { keepLane } from '../../activities/keep-lane.ts';
import { settleCancelled } from '../../activities/settle-cancelled.ts';
import { openLanesOfAllApps } from '../../db/lanes.ts';
import { cancelNotification } from '../../db/notification-moves.ts';
import { providerNames } from '../../domain/device.ts';
import { type Outcome, outcomes } from '../../domain/outcome.ts';
import type { Verdict } from '../../providers/provider.ts';
import { countRecorded } from '../../telemetry/delivery-metrics.ts';
import { createTestApi } from '../api/harness.ts';
import {
  accepted,
  activityEnvironment,
  type Call,
  createDeliveryBench,
  createScriptedProvider,
  type DeliveryBench,
  type TestSend,
} from '../delivery/harness.ts';
import { until } from '../support/until.ts';
import { readMetrics, sumOf } from './families.ts';
import type { ParsedFamily } from './strict-parser.ts';

const verdicts: Verdict[] = [
  accepted,
  { kind: 'unregistered', httpStatus: 410, reason: 'Unregistered' },
  { kind: 'rejected', httpStatus: 413, reason: 'PayloadTooLarge', isPayloadFault: false },
  { kind: 'later', httpStatus: 429, reason: 'TooManyRequests', scope: 'device' },
  { kind: 'unanswered', httpStatus: null, reason: 'timeout' },
  { kind: 'unanswered', httpStatus: 500, reason: 'InternalServerError' },
];
/** A few of each kind, and each of those that are tried again has another answer then. */
const mixed = ({ deviceId, call }: Call): Verdict => verdicts[(deviceId + 7 * (call - 1)) % verdicts.length]!;

let bench: DeliveryBench;
let metricsBefore: Map<string, ParsedFamily>;
before(async () => {
  bench = await createDeliveryBench();
});
beforeEach(async () => {
  metricsBefore = await readMetrics();
});
after(() => bench.close());

/** How much the counter has grown since the test began. */
async function grown(name: string, labels: Record<string, string> = {}): Promise<number> {
  return sumOf(await readMetrics(), name, labels) - sumOf(metricsBefore, name, labels);
}

async function countedOutcomes(): Promise<Partial<Record<Outcome, number>>> {
  const counted: Partial<Record<Outcome, number>> = {};
  for (const outcome of outcomes) {
    const devices = await grown('carillon_deliveries_total', { app: 'default', outcome });
    if (devices > 0) counted[outcome] = devices;
  }
  return counted;
}

async function checkAgainstBooks(send: TestSend): Promise<void> {
  assert.deepEqual(await countedOutcomes(), await send.counts());
  const rows = await send.rows();
  assert.equal(
    await grown('carillon_delivery_attempts_total'),
    rows.reduce((sum, { attempts }) => sum + attempts, 0),
  );
  assert.equal(await grown('carillon_deliveries_in_doubt_total'), rows.filter(({ inDoubt }) => inDoubt).length);
}

describe('a send', () => {
  test('has in the metrics exactly what it has in the books', async () => {
    const send = await bench.launch({ devices: 600, batchSize: 200 });
    const provider = createScriptedProvider(mixed);
    const worker = bench.worker({ provider });
    for (const batch of send.batches) assert.equal((await worker.deliverToEnd(batch)).status, 'finished');
    await send.checkBooks();
    await checkAgainstBooks(send);
    const counts = await send.counts();
    assert.ok(Object.keys(counts).length >= 3, JSON.stringify(counts));
    assert.equal(await grown('carillon_devices_retired_total', { provider: 'apns' }), counts.unregistered);
    assert.ok((await grown('carillon_deferrals_total', { cause: 'quota' })) > 0);
    assert.ok((await grown('carillon_deferrals_total', { cause: 'silence' })) > 0);
  });

  test('has its windows counted, with the time that was waited for PostgreSQL', async () => {
    const send = await bench.launch({ devices: 100 });
    await bench.worker({ provider: createScriptedProvider() }).deliverToEnd(send.batches[0]!);
    assert.equal(await grown('carillon_window_devices_total', { provider: 'apns' }), 100);
    const windows = await grown('carillon_windows_total', { provider: 'apns' });
    assert.ok(windows >= 1 && windows <= 100);
    assert.equal(await grown('carillon_window_waits_total', { cause: 'reservation' }), windows);
    assert.ok((await grown('carillon_window_wait_seconds_total', { cause: 'reservation' })) > 0);
    assert.equal(await grown('carillon_runs_total', { provider: 'apns', end: 'noneDue' }), 1);
  });

  test('that waits for its rate limit says so', async () => {
    const send = await bench.launch({ devices: 30, ratePerSecond: 200 });
    await bench.worker({ provider: createScriptedProvider() }).deliverToEnd(send.batches[0]!);
    assert.ok((await grown('carillon_window_waits_total', { cause: 'rate_limit' })) > 0);
    assert.ok((await grown('carillon_window_wait_seconds_total', { cause: 'rate_limit' })) > 0);
  });

  test('that is cancelled has those counted that were not sent to', async () => {
    const send = await bench.launch({ devices: 40, batchSize: 20 });
    const { deps, deliver } = bench.worker({ provider: createScriptedProvider() });
    await deliver(send.batches[0]!);
    await cancelNotification(bench.database.db, 1, send.id);
    await settleCancelled(deps, send.id, new AbortController().signal);
    assert.deepEqual(await countedOutcomes(), { accepted: 20, cancelled: 20 });
    await checkAgainstBooks(send);
  });

  test('that expires has those counted that it was too late for', async () => {
    const send = await bench.launch({ devices: 25 });
    await sql`update notifications set expires_at = now() - interval '1 second' where id = ${send.id}`.execute(
      bench.database.db,
    );
    await bench.worker({ provider: createScriptedProvider() }).deliver(send.batches[0]!);
    assert.deepEqual(await countedOutcomes(), { expired: 25 });
    await checkAgainstBooks(send);
  });

  test('that halts is counted by its reason', async () => {
    const send = await bench.launch({ devices: 20 });
    const refused: Verdict = {
      ...{ kind: 'misconfigured', httpStatus: 403, reason: 'InvalidProviderToken', fault: 'credentials' },
      detail: 'Apple refuses the key.',
    };
    await bench.worker({ provider: createScriptedProvider(() => refused) }).deliver(send.batches[0]!);
    assert.equal(await grown('carillon_halts_total', { of: 'notification', reason: 'credentials' }), 1);
    assert.deepEqual(await countedOutcomes(), {});
  });
});

test('messages to one person have in the metrics what they have in their counts: sent, expired in a halted lane, cancelled', async () => {
  const api = await createTestApi();
  const { db, pool } = api.database;
  try {
    await openLanesOfAllApps(db, 'apns', 1);
    const device = (n: number) => ({ provider: 'apns', platform: 'ios', device_token: String(n).padStart(64, '0') });
    for (const n of [1, 2, 3, 4]) await api.request('PUT', `/v1/devices/d${n}`, device(n));
    const message = async (n: number) => {
      const body = { to: { external_id: `d${n}` }, message: { title: 'Hello' } };
      const { status, body: answer } = await api.request('POST', '/v1/messages', body);
      assert.equal(status, 202);
      return answer.id as string;
    };
    await message(1);
    let isRefusing = false;
    const provider = createScriptedProvider(() =>
      isRefusing
        ? { kind: 'misconfigured', httpStatus: 403, reason: 'Forbidden', fault: 'credentials', detail: 'No.' }
        : accepted,
    );
    const { deps } = bench.worker({ provider, database: { db, pool } });
    const environment = activityEnvironment();
    const listening = new AbortController();
    const listened = deps.bell.listen(pool, deps.log, listening.signal);
    const kept = environment.run(() => keepLane(deps, { laneId: 1 }));
    const counted = async (outcome: Outcome) => grown('carillon_deliveries_total', { app: 'default', outcome });
    await until(async () => (await counted('accepted')) === 1);

    isRefusing = true;
    await message(2);
    await until(async () => (await grown('carillon_halts_total', { of: 'lane', reason: 'credentials' })) === 1);
    const cancelled = await message(3);
    await api.request('DELETE', `/v1/messages/${cancelled}`);
    assert.equal(await counted('cancelled'), 1);
    await message(4);
    await sql`update message_entries set expires_at = now() where outcome is null`.execute(db);
    await until(async () => (await counted('expired')) >= 2);
    environment.cancel('WORKER_SHUTDOWN');
    await kept;
    listening.abort();
    await listened;

    const { rows } = await sql<{ outcome: Outcome; devices: number }>`
      select outcome, sum(devices)::bigint as devices from message_counts where outcome <> 'entered' group by outcome
    `.execute(db);
    const books = Object.fromEntries(rows.map(({ outcome, devices }) => [outcome, devices]));
    assert.deepEqual(await countedOutcomes(), books);
    assert.deepEqual(books, { accepted: 1, cancelled: 1, expired: 2 });
  } finally {
    await api.close();
  }
});

test('two hundred apps to which all happens that can happen make some thousands of series', async () => {
  const reasons = ['BadDeviceToken', 'device_gone', 'already_reached', 'replaced', 'message: a text of its own', null];
  const statuses = [null, 200, 400, 403, 410, 413, 429, 500, 503];
  for (let app = 0; app < 200; app++) {
    for (const provider of providerNames) {
      for (const outcome of outcomes) {
        for (const httpStatus of statuses) {
          for (const word of reasons) {
            const reason = word?.includes('own') ? `${word} ${app}` : word;
            countRecorded(
              { app: `app-${app}`, provider },
              { outcome, httpStatus, reason, attempts: 1, inDoubt: true },
              1,
            );
          }
        }
      }
    }
  }
  const metrics = await readMetrics();
  const own = (name: string) =>
    metrics.get(name)!.samples.filter(({ labels }) => labels.app?.startsWith('app-')).length;
  assert.ok(own('carillon_deliveries_total') <= 200 * 2 * 21, String(own('carillon_deliveries_total')));
  assert.equal(own('carillon_delivery_attempts_total'), 200 * 2);
  assert.equal(own('carillon_deliveries_in_doubt_total'), 200 * 2);
});
