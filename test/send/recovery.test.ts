import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { cancelNotification } from '../../db/notification-moves.ts';
import type { Verdict } from '../../providers/provider.ts';
import { accepted, gate } from '../delivery/harness.ts';
import { until } from '../support/until.ts';
import { createSendBench, type RunningWorker, repeatedCalls, type SendBench, type TestSend } from './harness.ts';

let bench: SendBench;
let worker: RunningWorker;
before(async () => {
  bench = await createSendBench();
  worker = await bench.startWorker({ batchesPerRun: 3, windowSize: 20, maxInFlight: 10 });
});
beforeEach(() => {
  bench.providers.apns.answer = () => accepted;
  bench.providers.fcm.answer = () => accepted;
});
after(() => bench.close());

const slowly = async () => {
  await new Promise((resolve) => setTimeout(resolve, 1));
  return accepted;
};
const later = (afterMs: number): Verdict => ({
  ...{ kind: 'later', httpStatus: 429, reason: 'TooManyRequests', scope: 'device', afterMs },
});

/** The runs of the notification's workflow, first to last. */
async function runsOf(send: TestSend): Promise<string[]> {
  const runs: string[] = [];
  const { client } = bench.temporal;
  let { runId } = await send.handle.describe();
  for (;;) {
    runs.unshift(runId);
    const { events } = await client.workflow.getHandle(send.handle.workflowId, runId).fetchHistory();
    const before = events?.[0]?.workflowExecutionStartedEventAttributes?.continuedExecutionRunId;
    if (!before) return runs;
    runId = before;
  }
}

describe('the reconciler', () => {
  test('starts what was launched while Temporal was away; a second round, and two at once, change nothing', async () => {
    const send = await bench.launch({ devices: 40, isTemporalAway: true });
    await Promise.all([bench.reconcile(), bench.reconcile()]);
    await bench.reconcile();
    await send.until('completed');
    await send.checkBooks({ accepted: 40 });
    assert.equal(repeatedCalls(bench.providers.apns, send.deviceIds), 0);
  });

  test('wakes a send whose change was never signalled', async () => {
    bench.providers.apns.answer = () => later(3_600_000);
    const send = await bench.launch({ devices: 20 });
    await until(async () => bench.providers.apns.calls.length > 0 && (await send.handle.describe()).historyLength > 10);
    await cancelNotification(bench.api.database.db, 1, send.id);
    await bench.reconcile();
    await send.until('cancelled');
    await send.checkBooks({ cancelled: 20 });
  });

  test('leaves alone what has ended', async () => {
    const send = await bench.launch({ devices: 5 });
    await send.until('completed');
    await send.handle.result();
    await bench.reconcile();
    assert.equal((await runsOf(send)).length, 1);
  });
});

describe('a long send continues as new', () => {
  test('with its children drained: nobody is lost, nobody is sent to twice', async () => {
    const send = await bench.launch({ devices: 2_000 });
    await send.until('completed');
    await send.checkBooks({ accepted: 2_000 });
    assert.equal(repeatedCalls(bench.providers.apns, send.deviceIds), 0);
    await send.handle.result();
    assert.ok((await runsOf(send)).length >= 4, 'twenty batches, three and the open ones a run');
  });

  test('while devices wait: the wait is kept over the runs, and not a run is made for nothing', async () => {
    const send = await bench.launch({ devices: 1_200, isLaunched: false });
    const slow = new Set(send.deviceIds.filter((_, n) => n % 100 === 50));
    bench.providers.apns.answer = ({ deviceId }) => (slow.has(deviceId) ? later(3_600_000) : accepted);
    await send.call('launch');
    await send.untilDone(1_188);
    const runs = (await runsOf(send)).length;
    const calls = bench.providers.apns.calls.length;
    await new Promise((resolve) => setTimeout(resolve, 300));
    assert.ok((await runsOf(send)).length <= runs + 1);
    assert.equal(bench.providers.apns.calls.length, calls);
    await send.call('cancel');
    await send.until('cancelled');
    await send.checkBooks({ accepted: 1_188, cancelled: 12 });
  });

  test('in mid-pause and mid-resume as well', async () => {
    bench.providers.apns.answer = slowly;
    const send = await bench.launch({ devices: 1_500 });
    for (const share of [200, 600, 1_000]) {
      await send.untilDone(share);
      await send.call('pause');
      await send.call('resume');
    }
    await send.until('completed');
    await send.checkBooks({ accepted: 1_500 });
    assert.equal(repeatedCalls(bench.providers.apns, send.deviceIds), 0);
  });
});

describe('a provider that nobody can be sent to', () => {
  test('keeps its own batches waiting, not the other’s; one at a time tries whether it is back', async () => {
    let isAway = true;
    let triesWhileAway = 0;
    const startedAt = performance.now();
    bench.providers.apns.answer = () => {
      if (!isAway) return accepted;
      triesWhileAway += 1;
      return { kind: 'unsent', reason: 'connect_failed', afterMs: 1_200 };
    };
    const send = await bench.launch({ devices: 2_400, provider: 'both in turn' });
    await send.untilDone(1_200);
    const { books } = await send.read();
    assert.equal(books.outcomes.accepted, 1_200);
    // A handful each time that a wait is over.
    const rounds = 2 + (performance.now() - startedAt) / 1_200;
    assert.ok(triesWhileAway <= rounds * 5, `${triesWhileAway} tries in ${rounds} rounds`);
    isAway = false;
    await send.until('completed');
    await send.checkBooks({ accepted: 2_400 });
  });
});

describe('a worker that stops in mid-send', () => {
  test('hands over at once: nobody is lost, nobody is sent to twice, nobody is in doubt', async () => {
    bench.providers.apns.answer = slowly;
    const send = await bench.launch({ devices: 1_500 });
    await send.untilDone(300);
    const [stopped] = await Promise.all([
      worker.stop().then(() => true),
      bench.startWorker().then((next) => (worker = next)),
    ]);
    assert.ok(stopped);
    const { totals } = await send.until('completed');
    await send.checkBooks({ accepted: 1_500 });
    assert.equal(totals?.inDoubt, 0);
    assert.equal(repeatedCalls(bench.providers.apns, send.deviceIds), 0);
  });

  test('with nobody to take over: the send waits in Temporal and goes on when a worker is there', async () => {
    bench.providers.apns.answer = slowly;
    const send = await bench.launch({ devices: 800 });
    await send.untilDone(200);
    await worker.stop();
    const done = (await send.read()).books.outcomes.accepted;
    assert.ok(done < 800);
    await send.checkBooks({ accepted: done });
    worker = await bench.startWorker();
    await send.until('completed');
    await send.checkBooks({ accepted: 800 });
  });
});

describe('what fails', () => {
  test('an activity that fails is tried again, and the send ends as if nothing had been', async () => {
    const provider = bench.providers.apns;
    const prepare = provider.prepare;
    let failures = 0;
    provider.prepare = (content) => {
      if (failures < 2) {
        failures += 1;
        throw new Error('a fault of ours');
      }
      return prepare(content);
    };
    const send = await bench.launch({ devices: 150 });
    await send.until('completed');
    provider.prepare = prepare;
    assert.equal(failures, 2);
    await send.checkBooks({ accepted: 150 });
  });

  test('books that do not balance are never called complete: the send fails, is shown as halted, and says so in the log', async () => {
    const answers = gate();
    bench.providers.apns.answer = async ({ deviceId }) => {
      if (deviceId === send.deviceIds[250]) await answers.opened;
      return accepted;
    };
    const send = await bench.launch({ devices: 300 });
    await send.untilDone(299);
    await bench.api.database.pool.query(
      'delete from delivery_groups where notification_id = $1 and first_position = (select min(first_position) from delivery_groups where notification_id = $1)',
      [send.id],
    );
    answers.open();
    await until(async () => (await send.handle.describe()).status.name === 'FAILED');
    const { state, finishedAt } = await send.read();
    assert.deepEqual([state, finishedAt], ['sending', null]);
    assert.ok(bench.logged.some((line) => line.message === 'books do not balance'));
    await bench.reconcile();
    assert.equal((await send.until('halted')).halt?.reason, 'workflow_terminated');
  });
});
