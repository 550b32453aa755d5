/** Apple has a host for each environment: what is wrong with one holds up nobody of the other. */
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { listUnreachableHostsOfAllApps } from '../../db/provider-hosts.ts';
import type { Verdict } from '../../providers/provider.ts';
import { until } from '../support/until.ts';
import {
  accepted,
  createDeliveryBench,
  createScriptedProvider,
  type DeliveryBench,
  gate,
  type SendOptions,
  type TestSend,
} from './harness.ts';

let bench: DeliveryBench;
before(async () => {
  bench = await createDeliveryBench();
});
beforeEach(() => {
  bench.logged.length = 0;
  return bench.database.pool.query('delete from provider_hosts');
});
after(() => bench.close());

const refused: Verdict = { kind: 'unsent', reason: 'connect_failed ECONNREFUSED', afterMs: 60_000 };
const overloaded: Verdict = {
  ...{ kind: 'later', httpStatus: 503, reason: 'ServiceUnavailable', scope: 'provider', afterMs: 60_000 },
};

/** An APNs audience in which every `every`th device is a sandbox one, from the first on. */
async function launchMixed(devices: number, every: number, options: SendOptions = {}) {
  const send = await bench.launch({ ...options, devices });
  const sandbox = send.deviceIds.filter((_, n) => n % every === 0);
  await bench.database.pool.query(`update devices set apns_environment = 'sandbox' where id = any ($1::bigint[])`, [
    sandbox,
  ]);
  const of = new Set(sandbox);
  const provider = createScriptedProvider(({ deviceId }) => (of.has(deviceId) ? refused : accepted));
  const sandboxCalls = () => provider.calls.filter(({ deviceId }) => of.has(deviceId)).length;
  return { send, sandbox, of, provider, sandboxCalls };
}

/** The instants at which waits end have come. */
async function passTime(send: TestSend): Promise<void> {
  const { pool } = bench.database;
  await pool.query('update deferrals set not_before = to_timestamp(0) where notification_id = $1', [send.id]);
  await pool.query(`update provider_hosts set blocked_until = '-infinity', next_try_at = '-infinity'`);
}

const deferrals = async (send: TestSend) => {
  const { rows } = await bench.database.pool.query('select * from deferrals where notification_id = $1', [send.id]);
  return rows;
};

describe('a host that cannot be reached', () => {
  test('keeps its own devices waiting, without an attempt; the others of the batch are sent to', async () => {
    const { send, provider, sandboxCalls } = await launchMixed(400, 4);
    const worker = bench.worker({ provider });
    const result = await worker.deliver(send.batches[0]!);
    assert.deepEqual([result.status, result.host, result.deferred], ['waiting', 'sandbox.test', 100]);
    assert.ok(result.waitMs > 30_000);
    await send.checkBooks({ accepted: 300 });
    assert.ok(sandboxCalls() <= 5, `${sandboxCalls()} calls`);

    await passTime(send);
    provider.answer = () => accepted;
    assert.equal((await worker.deliverToEnd(send.batches[0]!)).status, 'finished');
    await send.checkBooks({ accepted: 400 });
    assert.ok((await send.rows()).every(({ attempts, inDoubt }) => attempts === 1 && !inDoubt));
    assert.equal(provider.calls.length - sandboxCalls(), 300);
  });

  test('or that has not answered yet: the others do not wait for it', async () => {
    const { send, of, provider, sandboxCalls } = await launchMixed(400, 2);
    const answers = gate();
    provider.answer = async ({ deviceId }) => {
      if (!of.has(deviceId)) return accepted;
      await answers.opened;
      return refused;
    };
    const running = bench.worker({ provider }).deliver(send.batches[0]!);
    await until(async () => (await send.counts()).accepted === 200, 'production to be sent to');
    assert.equal(sandboxCalls(), 5);
    answers.open();
    assert.deepEqual([(await running).host, sandboxCalls()], ['sandbox.test', 5]);
    await send.checkBooks({ accepted: 200 });
  });

  test('whose devices stepped aside when the send was paused: nobody of them is in doubt', async () => {
    const { send, of, provider } = await launchMixed(200, 2, { inDoubtPolicy: 'skip' });
    const answers = gate();
    provider.answer = async ({ deviceId }) => {
      if (!of.has(deviceId)) return accepted;
      await answers.opened;
      return accepted;
    };
    const running = bench.worker({ provider }).deliver(send.batches[0]!);
    await until(async () => (await send.counts()).accepted === 100);
    await bench.database.pool.query(`update notifications set state = 'paused' where id = $1`, [send.id]);
    answers.open();
    await running;
    await bench.database.pool.query(`update notifications set state = 'sending' where id = $1`, [send.id]);
    assert.equal((await bench.worker({ provider }).deliverToEnd(send.batches[0]!)).status, 'finished');
    await send.checkBooks({ accepted: 200 });
  });

  test('in a batch that it has to itself: the batch stops at once, without a line for each device', async () => {
    const { send, provider } = await launchMixed(600, 1);
    const result = await bench.worker({ provider }).deliver(send.batches[0]!);
    assert.deepEqual([result.status, result.host], ['waiting', 'sandbox.test']);
    assert.ok(provider.calls.length <= 5);
    assert.ok((await deferrals(send)).length <= 60, `${(await deferrals(send)).length} deferrals`);
    const before = (await deferrals(send)).length;
    await bench.worker({ provider }).deliver(send.batches[0]!);
    assert.equal((await deferrals(send)).length, before);
  });

  test('is known to every worker: the next batch leaves it alone and sends to the others', async () => {
    const first = await launchMixed(40, 2);
    await bench.worker({ provider: first.provider }).deliver(first.send.batches[0]!);
    const second = await launchMixed(40, 2);
    const result = await bench.worker({ provider: second.provider }).deliver(second.send.batches[0]!);
    assert.deepEqual([result.host, second.sandboxCalls()], ['sandbox.test', 0]);
    await second.send.checkBooks({ accepted: 20 });
  });

  test('is tried by one batch at a time', async () => {
    const first = await launchMixed(40, 2);
    await bench.worker({ provider: first.provider }).deliver(first.send.batches[0]!);
    await passTime(first.send);
    const answers = gate();
    first.provider.answer = async () => {
      await answers.opened;
      return accepted;
    };
    const trying = bench.worker({ provider: first.provider }).deliver(first.send.batches[0]!);
    await until(() => first.provider.open > 0);
    const second = await launchMixed(40, 2);
    const other = bench.worker({ provider: second.provider });
    assert.deepEqual([(await other.deliver(second.send.batches[0]!)).host, second.sandboxCalls()], ['sandbox.test', 0]);
    answers.open();
    assert.equal((await trying).status, 'finished');
    second.provider.answer = () => accepted;
    await passTime(second.send);
    assert.equal((await other.deliver(second.send.batches[0]!)).status, 'finished');
    await second.send.checkBooks({ accepted: 40 });
  });

  test('is tried again under another credential at once', async () => {
    const first = await launchMixed(40, 2);
    await bench.worker({ provider: first.provider }).deliver(first.send.batches[0]!);
    const provider = { ...createScriptedProvider(), credential: 'another' };
    assert.equal((await bench.worker({ provider }).deliver(first.send.batches[0]!)).waitMs > 0, true);
    const second = await launchMixed(40, 2);
    assert.equal((await bench.worker({ provider }).deliver(second.send.batches[0]!)).status, 'finished');
  });

  test('is shown with since when and why, until it answers; logged once a minute with a count', async () => {
    const { send, provider } = await launchMixed(40, 2);
    const worker = bench.worker({ provider });
    const result = await worker.deliver(send.batches[0]!);
    const { pool, db } = bench.database;
    await pool.query(`update provider_hosts set unreachable_since = unreachable_since - interval '9 minutes'`);
    await passTime(send);
    await worker.deliver(send.batches[0]!);
    const [shown, ...others] = (await send.read()).unreachable;
    assert.deepEqual(others, []);
    const { since, lastTriedAt, ...rest } = shown!;
    assert.deepEqual(rest, { provider: 'apns', host: 'sandbox.test', error: 'connect_failed ECONNREFUSED' });
    assert.ok(lastTriedAt.getTime() - since.getTime() >= 9 * 60_000, 'since the first attempt in vain');
    assert.deepEqual(await listUnreachableHostsOfAllApps(db), [shown]);
    assert.equal(result.unreachable?.[0]?.host, 'sandbox.test');
    const lines = bench.logged.filter(({ message }) => message === 'a provider cannot be reached');
    assert.deepEqual(
      lines.map(({ level, fields }) => [level, fields.provider, fields.host, fields.error]),
      [['warn', 'apns', 'sandbox.test', 'connect_failed ECONNREFUSED']],
    );

    await passTime(send);
    provider.answer = () => accepted;
    await worker.deliver(send.batches[0]!);
    assert.deepEqual(await listUnreachableHostsOfAllApps(db), []);
    assert.equal(bench.logged.filter(({ message }) => message === 'a provider can be reached again').length, 1);
  });
});

describe('a host that asks for patience', () => {
  test('gets it, and the other one is sent to at full speed', async () => {
    const { send, of, provider, sandboxCalls } = await launchMixed(400, 4);
    provider.answer = ({ deviceId }) => (of.has(deviceId) ? overloaded : accepted);
    const result = await bench.worker({ provider, retryMaxMs: 120_000, retryBaseMs: 1_000 }).deliver(send.batches[0]!);
    assert.deepEqual([result.status, result.host, result.reason], ['waiting', 'sandbox.test', 'rate limit']);
    await send.checkBooks({ accepted: 300 });
    assert.ok(sandboxCalls() <= 100);
    assert.deepEqual((await send.read()).unreachable, [], 'it was reached');
  });
});
