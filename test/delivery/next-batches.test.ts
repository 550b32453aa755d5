import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { nextBatches } from '../../activities/next-batches.ts';
import { insertNotification } from '../../db/notification-drafts.ts';
import { launchNotification } from '../../db/notification-moves.ts';
import { uuidV7 } from '../../domain/uuid-v7.ts';
import { createDeliveryBench, type DeliveryBench } from './harness.ts';

let bench: DeliveryBench;
before(async () => {
  bench = await createDeliveryBench();
  await bench.launch({ devices: 100 });
});
after(() => bench.close());

const { signal } = new AbortController();

/** Launched, to everybody, and not planned. */
async function launched(): Promise<string> {
  const id = uuidV7();
  const { db } = bench.database;
  await insertNotification(db, {
    ...{ id, appId: 1, title: null, message: { title: 't' }, audience: {}, inDoubtPolicy: 'redeliver' },
    ratePerSecond: null,
  });
  await launchNotification(db, 1, id);
  return id;
}

describe('the next batches', () => {
  test('are as many as two windows of open batches hold, then those after them', async () => {
    const { deps } = bench.worker({ batchSize: 10, openBatches: 3 });
    const notificationId = await launched();
    const first = await nextBatches(deps, { notificationId, afterSeq: 0 }, signal);
    assert.deepEqual(
      first.batches.map(({ seq }) => seq),
      [1, 2, 3, 4, 5, 6],
    );
    assert.deepEqual([first.isLast, first.isUrgent], [false, true]);
    const second = await nextBatches(deps, { notificationId, afterSeq: 6 }, signal);
    assert.deepEqual(
      second.batches.map(({ seq }) => seq),
      [7, 8, 9, 10],
    );
    assert.equal(second.isLast, true);
  });

  test('are none yet when the pages that may be planned do not tell how large the audience is', async () => {
    const { deps } = bench.worker();
    const notificationId = await launched();
    const unknown = await nextBatches(deps, { notificationId, afterSeq: 0 }, signal, 0);
    assert.deepEqual(unknown, { batches: [], isLast: false, isUrgent: false });
    const known = await nextBatches(deps, { notificationId, afterSeq: 0 }, signal, 1);
    assert.deepEqual([known.batches.length, known.isLast, known.isUrgent], [1, true, true]);
  });

  test('are not planned for a worker that is asked to stop', async () => {
    const { deps } = bench.worker();
    const notificationId = await launched();
    await assert.rejects(nextBatches(deps, { notificationId, afterSeq: 0 }, AbortSignal.abort()), {
      name: 'AbortError',
    });
  });
});
