import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import type { Verdict } from '../../providers/provider.ts';
import { accepted, gate } from '../delivery/harness.ts';
import { until } from '../support/until.ts';
import { createSendBench, repeatedCalls, type SendBench, type TestSend } from './harness.ts';

let bench: SendBench;
before(async () => {
  bench = await createSendBench();
  await bench.startWorker({ windowSize: 20, maxInFlight: 10 });
});
beforeEach(() => {
  bench.providers.apns.answer = () => accepted;
});
after(() => bench.close());

const later: Verdict = { kind: 'later', httpStatus: 503, reason: 'Shutdown', scope: 'device', afterMs: 3_600_000 };

/** Answers a thousandth of a second late, so that there is a middle to stop in. */
const slowly = async () => {
  await new Promise((resolve) => setTimeout(resolve, 1));
  return accepted;
};

/** What four open batches may have reserved, and what they have under way. */
const reservedAtMost = 4 * (2 * 20 + 10);

async function inTheMiddle(devices = 1_200): Promise<TestSend> {
  bench.providers.apns.answer = slowly;
  const send = await bench.launch({ devices });
  await send.untilDone(150);
  return send;
}

const callsOf = (send: TestSend) => {
  const ids = new Set(send.deviceIds);
  return bench.providers.apns.calls.filter((call) => ids.has(call.deviceId)).length;
};

const openChildren = async (send: TestSend) => {
  const open: string[] = [];
  for (let seq = 1; seq <= 12; seq++) {
    const handle = bench.temporal.client.workflow.getHandle(`${send.handle.workflowId}/batch-${seq}`);
    const status = await handle.describe().then(
      (description) => description.status.name,
      () => 'NEVER_STARTED',
    );
    if (status === 'RUNNING') open.push(`batch-${seq}`);
  }
  return open;
};

describe('stop it now', () => {
  test('pause: silence, then resume sends to the rest; nobody twice', async () => {
    const send = await inTheMiddle();
    assert.equal(await send.call('pause'), 200);
    const atPause = callsOf(send);
    await until(async () => bench.providers.apns.open === 0 && (await openChildren(send)).length === 0);
    const quiet = callsOf(send);
    assert.ok(quiet - atPause <= reservedAtMost, `${quiet - atPause} after the pause`);
    await new Promise((resolve) => setTimeout(resolve, 100));
    assert.equal(callsOf(send), quiet, 'silence');
    await send.checkBooks({ accepted: quiet });
    assert.equal((await send.read()).state, 'paused');
    assert.equal(await send.call('pause'), 200, 'a repeat is harmless');

    assert.equal(await send.call('resume'), 202);
    assert.equal((await send.until('completed')).totals?.inDoubt, 0);
    await send.checkBooks({ accepted: 1_200 });
    assert.equal(repeatedCalls(bench.providers.apns, send.deviceIds), 0);
  });

  test('pause and resume three times in a second: nothing is lost, nothing is sent twice, nothing hangs', async () => {
    const send = await inTheMiddle();
    for (let round = 0; round < 3; round++) {
      assert.equal(await send.call('pause'), 200);
      assert.equal(await send.call('resume'), 202);
    }
    assert.equal((await send.until('completed')).totals?.inDoubt, 0);
    await send.checkBooks({ accepted: 1_200 });
    assert.equal(repeatedCalls(bench.providers.apns, send.deviceIds), 0);
  });

  test('a resume right after a pause is not held up by batches that wait for an hour', async () => {
    const send = await bench.launch({ devices: 400, isLaunched: false });
    const waiting = new Set(send.deviceIds.slice(0, 100));
    const answers = gate();
    bench.providers.apns.answer = async ({ deviceId }) => {
      if (waiting.has(deviceId)) return later;
      await answers.opened;
      return accepted;
    };
    await send.call('launch');
    await until(() => bench.providers.apns.open >= 3 && callsOf(send) >= 103);
    await send.call('pause');
    await send.call('resume');
    answers.open();
    await send.untilDone(300);
    await send.call('cancel');
    await send.until('cancelled');
    await send.checkBooks({ accepted: 300, cancelled: 100 });
  });

  test('cancel: the few in flight still go out, the rest ends as cancelled, children are gone; a repeat is the same answer', async () => {
    const send = await inTheMiddle();
    assert.equal(await send.call('cancel'), 202);
    const atCancel = callsOf(send);
    await send.until('cancelled');
    const sent = callsOf(send);
    assert.ok(sent - atCancel <= reservedAtMost, `${sent - atCancel} after the cancel`);
    await send.checkBooks({ accepted: sent, cancelled: 1_200 - sent });
    assert.equal((await send.handle.result()).state, 'cancelled');
    assert.deepEqual(await openChildren(send), []);
    assert.equal(await send.call('cancel'), 200);
    for (const verb of ['launch', 'pause', 'resume'] as const) assert.equal(await send.call(verb), 409);
  });

  test('cancel a paused one: ends at once, without sending', async () => {
    const send = await inTheMiddle();
    await send.call('pause');
    await until(() => bench.providers.apns.open === 0);
    await send.call('cancel');
    await send.until('cancelled');
    const sent = callsOf(send);
    await send.checkBooks({ accepted: sent, cancelled: 1_200 - sent });
  });

  test('cancel one that has ended: 409, its books stay', async () => {
    const send = await bench.launch({ devices: 20 });
    await send.until('completed');
    assert.equal(await send.call('cancel'), 409);
    await send.checkBooks({ accepted: 20 });
  });

  test('cancel while devices wait for an hour: ends now', async () => {
    const send = await bench.launch({ devices: 30, isLaunched: false });
    bench.providers.apns.answer = () => later;
    await send.call('launch');
    await until(async () => (await openDeferrals(send)) === 30);
    await send.call('cancel');
    await send.until('cancelled');
    await send.checkBooks({ cancelled: 30 });
  });
});

const openDeferrals = async (send: TestSend) => {
  const rows = await bench.api.database.db
    .selectFrom('deferrals')
    .select('device_id')
    .where('notification_id', '=', send.id)
    .execute();
  return rows.length;
};

describe('in Temporal’s own UI', () => {
  test('cancel is a cancel: the rest is recorded, the books are closed, the workflow shows as cancelled', async () => {
    const send = await inTheMiddle();
    await send.handle.cancel();
    await send.until('cancelled');
    const sent = callsOf(send);
    await send.checkBooks({ accepted: sent, cancelled: 1_200 - sent });
    await until(async () => (await send.handle.describe()).status.name === 'CANCELLED');
    assert.deepEqual(await openChildren(send), []);
    assert.ok(repeatedCalls(bench.providers.apns, send.deviceIds) === 0);
  });

  test('cancel of one that is paused, or that waits for its time', async () => {
    const paused = await inTheMiddle();
    await paused.call('pause');
    await paused.handle.cancel();
    await paused.until('cancelled');
    await paused.checkBooks();
    const scheduled = await bench.launch({ devices: 5, scheduledAt: new Date(Date.now() + 3_600_000) });
    await until(async () => (await scheduled.handle.describe()).historyLength > 5);
    await scheduled.handle.cancel();
    await scheduled.until('cancelled');
    await scheduled.checkBooks({});
    for (const { handle } of [paused, scheduled]) {
      await until(async () => (await handle.describe()).status.name === 'CANCELLED');
    }
  });

  test('terminate: the reconciler shows it as halted, resume starts it again where it stopped', async () => {
    const send = await inTheMiddle();
    await send.handle.terminate('by an operator');
    await bench.reconcile();
    const { halt } = await send.until('halted');
    assert.equal(halt?.reason, 'workflow_terminated');
    assert.match(halt!.detail, /TERMINATED/);
    const done = (await send.read()).books.outcomes.accepted;
    assert.ok(done < 1_200);
    await until(() => bench.providers.apns.open === 0);
    bench.providers.apns.answer = () => accepted;
    assert.equal(await send.call('resume'), 202);
    await send.until('completed');
    await send.checkBooks({ accepted: 1_200 });
  });

  test('terminate of one batch alone: it is started again', async () => {
    const send = await inTheMiddle();
    const handle = bench.temporal.client.workflow.getHandle(`${send.handle.workflowId}/batch-9`);
    await until(async () =>
      handle.terminate().then(
        () => true,
        () => false,
      ),
    );
    bench.providers.apns.answer = () => accepted;
    await send.until('completed');
    await send.checkBooks({ accepted: 1_200 });
  });

  test('terminate of a paused one stays paused, and resume starts it again', async () => {
    const send = await inTheMiddle();
    await send.call('pause');
    await until(async () => (await openChildren(send)).length === 0);
    await send.handle.terminate();
    await bench.reconcile();
    assert.equal((await send.read()).state, 'paused');
    await send.call('resume');
    await send.until('completed');
    await send.checkBooks({ accepted: 1_200 });
  });
});

test('a wrong key halts the whole send within a handful of calls a batch; after the fix resume sends to all once', async () => {
  bench.providers.apns.answer = () => ({
    ...{ kind: 'misconfigured', httpStatus: 403, reason: 'InvalidProviderToken', fault: 'credentials' },
    detail: 'Check key id and team id.',
  });
  const send = await bench.launch({ devices: 1_000 });
  const { halt } = await send.until('halted');
  assert.deepEqual(halt, { reason: 'credentials', detail: 'Check key id and team id.' });
  await until(async () => (await openChildren(send)).length === 0);
  assert.ok(callsOf(send) <= 4 * 5, `${callsOf(send)} calls`);
  await send.checkBooks({});
  const before = callsOf(send);
  bench.providers.apns.answer = () => accepted;
  await send.call('resume');
  await send.until('completed');
  await send.checkBooks({ accepted: 1_000 });
  assert.equal(callsOf(send) - before, 1_000);
});
