import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { accepted } from '../delivery/harness.ts';
import { until } from '../support/until.ts';
import { createSendBench, repeatedCalls, type SendBench } from './harness.ts';

let bench: SendBench;
before(async () => {
  bench = await createSendBench();
  await bench.startWorker({ batchSize: 100 });
});
after(() => bench.close());

test('a host that cannot be reached: the others are sent to, everybody who looks is told, and it goes on by itself', async () => {
  const send = await bench.launch({ devices: 600, isLaunched: false });
  // All of the first batch, and every fourth of the others.
  const sandbox = new Set(send.deviceIds.filter((_, n) => n < 100 || n % 4 === 0));
  const { pool } = bench.api.database;
  await pool.query(`update devices set apns_environment = 'sandbox' where id = any ($1::bigint[])`, [[...sandbox]]);
  let isAway = true;
  bench.providers.apns.answer = ({ deviceId }) =>
    isAway && sandbox.has(deviceId)
      ? { kind: 'unsent', reason: 'connect_failed ECONNREFUSED', afterMs: 1_200 }
      : accepted;
  assert.equal(await send.call('launch'), 202);
  await send.untilDone(600 - sandbox.size);
  await send.checkBooks({ accepted: 600 - sandbox.size });

  const { body } = await bench.api.request('GET', `/v1/notifications/${send.id}`);
  const { since, last_tried_at, ...host } = body.unreachable[0];
  assert.deepEqual(host, { provider: 'apns', host: 'sandbox.test', error: 'connect_failed ECONNREFUSED' });
  assert.ok(Date.parse(since) <= Date.parse(last_tried_at));
  const readiness = await (await bench.api.app.request('/readyz')).json();
  assert.equal(readiness.status, 'ready');
  assert.equal(readiness.unreachable[0].host, 'sandbox.test');
  const details = async () =>
    (await send.handle.query<{ currentDetails: string }>('__temporal_workflow_metadata')).currentDetails;
  await until(async () =>
    /apns cannot be reached at sandbox\.test since \S+: connect_failed ECONNREFUSED/.test(await details()),
  );
  assert.ok(bench.logged.some(({ message, level }) => message === 'a provider cannot be reached' && level !== 'info'));

  isAway = false;
  await send.until('completed');
  await send.checkBooks({ accepted: 600 });
  assert.equal(
    repeatedCalls(
      bench.providers.apns,
      [...send.deviceIds].filter((id) => !sandbox.has(id)),
    ),
    0,
  );
  const after = await bench.api.request('GET', `/v1/notifications/${send.id}`);
  assert.deepEqual(after.body.unreachable, []);
  assert.deepEqual((await (await bench.api.app.request('/readyz')).json()).unreachable, []);
  assert.doesNotMatch(await details(), /cannot be reached/);
});
