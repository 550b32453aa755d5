import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { claimBatch } from '../../db/batches.ts';
import { transactionWithClient } from '../../db/connect.ts';
import { FencedError } from '../../db/fenced-error.ts';
import { recordDeliveries } from '../../db/record-deliveries.ts';
import { settleBatch } from '../../db/settle-batch.ts';
import { reserveWindow, returnReserved } from '../../db/windows.ts';
import { groupsOf } from '../support/outcomes.ts';
import { until } from '../support/until.ts';
import {
  accepted,
  checkRepeats,
  createDeliveryBench,
  createScriptedProvider,
  type DeliveryBench,
  gate,
  type TestSend,
} from './harness.ts';

let bench: DeliveryBench;
before(async () => {
  bench = await createDeliveryBench();
});
after(() => bench.close());

/** An attempt that dispatches and gets no answers, and a second one that takes the batch over and ends it. */
async function takeOver(inDoubtPolicy: 'redeliver' | 'skip', devices = 300) {
  const send = await bench.launch({ devices, inDoubtPolicy });
  const batch = send.batches[0]!;
  const answers = gate();
  const first = createScriptedProvider(async () => {
    await answers.opened;
    return accepted;
  });
  const second = createScriptedProvider();
  const zombie = bench.worker({ provider: first, windowSize: 20 }).deliver(batch);
  await until(() => first.open === 5);
  const result = await bench.worker({ provider: second, windowSize: 20 }).deliverToEnd(batch);
  assert.equal(result.status, 'finished');
  const rowsBefore = await send.rows();
  answers.open();
  const zombieResult = await zombie;
  return { send, first, second, rowsBefore, zombieResult };
}

describe('two attempts at once', () => {
  test('the older one records nothing more and ends without an error', async () => {
    const { send, rowsBefore, zombieResult } = await takeOver('redeliver');
    assert.equal(zombieResult.status, 'stopped');
    assert.equal(zombieResult.reason, 'fenced');
    assert.deepEqual(await send.rows(), rowsBefore);
    await send.checkBooks({ accepted: 300 });
  });

  test('the older one sends at most what it had reserved, and each device of that is marked', async () => {
    const { send, first, second } = await takeOver('redeliver');
    const marked = (await send.rows()).filter((row) => row.inDoubt);
    // Two windows of at most 20: one being dispatched, one reserved meanwhile.
    assert.ok(first.calls.length <= 40, `${first.calls.length} calls`);
    assert.ok(marked.length <= 40, `${marked.length} marked`);
    await checkRepeats(send, [...first.calls, ...second.calls]);
  });

  test('of any number, one alone ends the batch and every device has one row', async () => {
    const send = await bench.launch({ devices: 400 });
    const providers = Array.from({ length: 6 }, () => createScriptedProvider());
    const results = await Promise.all(
      providers.map((provider) => bench.worker({ provider, windowSize: 20 }).deliver(send.batches[0]!)),
    );
    assert.ok(results.every((result) => ['finished', 'stopped'].includes(result.status)));
    await send.checkBooks({ accepted: 400 });
    await checkRepeats(
      send,
      providers.flatMap((provider) => provider.calls),
    );
  });
});

describe('after a crash between sending and recording', () => {
  test('policy redeliver: who may have got it is sent to again and marked, everybody else is not', async () => {
    const { send, first, second } = await takeOver('redeliver');
    const rows = await send.rows();
    const handedOver = new Set(first.calls.slice(0, 5).map((call) => call.deviceId));
    assert.ok(handedOver.size === 5);
    for (const row of rows) {
      if (handedOver.has(row.deviceId)) assert.deepEqual([row.inDoubt, row.attempts], [true, 2]);
    }
    assert.equal(second.calls.length, 300);
    assert.ok(rows.filter((row) => !row.inDoubt).length >= 260);
  });

  test('policy skip: nobody is ever sent to twice, who may have got it ends as unknown', async () => {
    const { send, first, second } = await takeOver('skip');
    const counts = await send.counts();
    assert.equal(counts.accepted! + counts.unknown!, 300);
    assert.ok(counts.unknown! >= 5 && counts.unknown! <= 40, `${counts.unknown} unknown`);
    const sentTo = [...first.calls, ...second.calls].map((call) => call.deviceId);
    assert.equal(new Set(sentTo).size, sentTo.length);
    const unknown = (await send.rows()).filter((row) => row.outcome === 'unknown');
    assert.ok(unknown.every((row) => row.inDoubt && row.attempts === 1 && row.reason === 'in_doubt'));
    await send.checkBooks();
  });

  test('the devices recorded before it are not sent to again, and progress is read from the books', async () => {
    const send = await bench.launch({ devices: 100, inDoubtPolicy: 'redeliver' });
    const never = gate();
    const first = createScriptedProvider(async ({ number }) => {
      if (number > 37) await never.opened;
      return accepted;
    });
    const zombie = bench.worker({ provider: first, windowSize: 20, maxInFlight: 10 }).deliver(send.batches[0]!);
    await until(async () => first.open > 0 && (await send.rows()).length >= 37);
    const before = new Set((await send.rows()).map((row) => row.deviceId));
    const second = createScriptedProvider();
    await bench.worker({ provider: second }).deliverToEnd(send.batches[0]!);
    assert.deepEqual(
      second.calls.filter((call) => before.has(call.deviceId)),
      [],
    );
    assert.equal(second.calls.length, 100 - before.size);
    never.open();
    await zombie;
    await checkRepeats(send, [...first.calls, ...second.calls]);
    await send.checkBooks({ accepted: 100 });
  });

  test('a device that crashes its worker every time is sent to no more often than the limit on repeats allows', async () => {
    const send = await bench.launch({ devices: 3 });
    const never = gate();
    const providers = [];
    const zombies = [];
    for (let crash = 0; crash < 6; crash++) {
      const provider = createScriptedProvider(async () => {
        await never.opened;
        return accepted;
      });
      providers.push(provider);
      let isOver = false;
      const zombie = bench.worker({ provider, maxDoubts: 2 }).deliver(send.batches[0]!);
      zombies.push(
        zombie.finally(() => {
          isOver = true;
        }),
      );
      await until(() => provider.open === 3 || isOver);
    }
    never.open();
    await Promise.all(zombies);
    const calls = providers.flatMap((provider) => provider.calls);
    for (const deviceId of send.deviceIds) {
      assert.ok(calls.filter((call) => call.deviceId === deviceId).length <= 3, 'once, and two repeats');
    }
    await send.checkBooks({ unknown: 3 });
  });
});

describe('windows', () => {
  async function claimed(
    devices = 100,
  ): Promise<{ send: TestSend; claim: NonNullable<Awaited<ReturnType<typeof claimBatch>>> }> {
    const send = await bench.launch({ devices });
    const claim = await claimBatch(bench.database.db, send.id, 1);
    return { send, claim: claim! };
  }
  const reserve = (claim: Parameters<typeof reserveWindow>[1], positions: number[], deferredIds: number[] = []) =>
    reserveWindow(bench.database.pool, claim, { positions, deferredIds, providerScope: 'test:none' });
  const horizonOf = async (id: string) => {
    const row = await bench.database.db
      .selectFrom('batches')
      .select('horizon')
      .where('notification_id', '=', id)
      .executeTakeFirstOrThrow();
    return row.horizon;
  };

  test('a reserved window moves the horizon before anything of it is sent; it never moves back by reserving', async () => {
    const { send, claim } = await claimed();
    assert.deepEqual(await reserve(claim, [0, 1, 2, 9]), { answer: 'go', granted: 4, hosts: [] });
    assert.equal(await horizonOf(send.id), 10);
    await reserve(claim, [3, 4]);
    assert.equal(await horizonOf(send.id), 10);
  });

  test('what was not dispatched is given back; by a zombie it is not', async () => {
    const { send, claim } = await claimed();
    const { db } = bench.database;
    await reserve(claim, [0, 1, 2, 3]);
    await db.transaction().execute((trx) => returnReserved(trx, claim, { position: 2, deferredIds: [] }));
    assert.equal(await horizonOf(send.id), 2);
    await reserve(claim, [2, 3]);
    const newer = await claimBatch(db, send.id, 1);
    assert.equal(newer!.horizon, 4);
    await db.transaction().execute((trx) => returnReserved(trx, claim, { position: 0, deferredIds: [] }));
    assert.equal(await horizonOf(send.id), 4);
  });

  test('a zombie reserves nothing and records nothing', async () => {
    const { send, claim } = await claimed();
    const { db } = bench.database;
    await claimBatch(db, send.id, 1);
    assert.deepEqual(await reserve(claim, [0]), { answer: 'fenced' });
    assert.equal(await horizonOf(send.id), 0);
    const groups = groupsOf(claim, [{ deviceId: send.deviceIds[0]! }]);
    await assert.rejects(recordDeliveries(bench.database.pool, claim, groups), FencedError);
    await assert.rejects(
      transactionWithClient(bench.database.pool, (trx, client) => settleBatch(trx, client, claim, 'cancelled')),
      FencedError,
    );
    await send.checkBooks({});
  });

  for (const [state, statement] of Object.entries({
    paused: `state = 'paused'`,
    halted: `state = 'halted', halt_reason = 'topic'`,
    cancelled: `state = 'cancelled'`,
    expired: `expires_at = now() - interval '1 s'`,
  })) {
    test(`in a notification that is ${state} nothing can be reserved`, async () => {
      const { send, claim } = await claimed();
      await bench.database.pool.query(`update notifications set ${statement} where id = $1`, [send.id]);
      assert.deepEqual(await reserve(claim, [0]), { answer: state });
      assert.equal(await horizonOf(send.id), 0);
    });
  }
});
