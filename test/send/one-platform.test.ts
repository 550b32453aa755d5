import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { Verdict } from '../../providers/provider.ts';
import { accepted } from '../delivery/harness.ts';
import { createSendBench, type SendBench } from './harness.ts';

let bench: SendBench;
before(async () => {
  bench = await createSendBench();
  await bench.startWorker({ batchSize: 40 });
});
after(() => bench.close());

test("Apple refuses Firebase's key: everybody else is sent to, then the send halts, and after the fix it goes on", async () => {
  const send = await bench.launch({ devices: 400, provider: 'fcm', isLaunched: false });
  const phones = new Set(send.deviceIds.filter((_, n) => n % 4 === 0));
  await bench.api.database.pool.query(`update devices set platform = 'ios' where id = any ($1::bigint[])`, [
    [...phones],
  ]);
  const refused: Verdict = {
    ...{ kind: 'misconfigured', httpStatus: 401, reason: 'THIRD_PARTY_AUTH_ERROR', fault: 'credentials' },
    ...{ detail: 'Apple refused the key.', isOnePlatform: true },
  };
  bench.providers.fcm.answer = ({ deviceId }) => (phones.has(deviceId) ? refused : accepted);
  assert.equal(await send.call('launch'), 202);
  const { halt, books } = await send.until('halted');
  assert.deepEqual(halt, { reason: 'credentials', detail: 'Apple refused the key.' });
  assert.deepEqual([books.outcomes.accepted, books.pending], [300, 100]);

  bench.providers.fcm.answer = () => accepted;
  assert.equal(await send.call('resume'), 202);
  await send.until('completed');
  await send.checkBooks({ accepted: 400 });
});
