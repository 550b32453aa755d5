import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { until } from '../support/until.ts';
import {
  accepted,
  activityEnvironment,
  checkRepeats,
  createDeliveryBench,
  createScriptedProvider,
  type DeliveryBench,
  type TestSend,
} from './harness.ts';
import { type LossyDatabase, startLossyDatabase } from './lossy-database.ts';

let bench: DeliveryBench;
let lossy: LossyDatabase;
before(async () => {
  bench = await createDeliveryBench();
  lossy = await startLossyDatabase(bench.database.url);
});
after(async () => {
  await bench.close();
  await lossy.close();
});

const connectLossy = () => bench.connect({ url: lossy.url, maxConnections: 4 });

/** Everybody was sent to once and nobody is in doubt: an absent PostgreSQL costs time, not certainty. */
async function checkSentOnce(send: TestSend, calls: number, devices: number, unregistered?: number) {
  assert.equal(calls, devices);
  await send.checkBooks(
    unregistered === undefined ? { accepted: devices } : { accepted: devices - unregistered, unregistered },
  );
  assert.ok((await send.rows()).every((row) => row.attempts === 1 && !row.inDoubt));
}

describe('PostgreSQL goes away', () => {
  test('in mid-batch, and comes back: the batch goes on by itself, nothing is lost, nothing sent twice', async () => {
    const send = await bench.launch({ devices: 500 });
    const provider = createScriptedProvider(async ({ number }) => {
      if (number === 120) {
        lossy.cut();
        setTimeout(() => lossy.restore(), 150);
      }
      return accepted;
    });
    const result = await bench.worker({ provider, database: connectLossy(), windowSize: 20 }).deliver(send.batches[0]!);
    assert.equal(result.status, 'finished');
    await checkSentOnce(send, provider.calls.length, 500);
  });

  test('again and again: the same', async () => {
    const send = await bench.launch({ devices: 400 });
    const provider = createScriptedProvider(async ({ number }) => {
      if (number % 100 === 50) {
        lossy.cut();
        setTimeout(() => lossy.restore(), 20);
      }
      return accepted;
    });
    await bench.worker({ provider, database: connectLossy(), windowSize: 20 }).deliver(send.batches[0]!);
    await checkSentOnce(send, provider.calls.length, 400);
  });

  test('at the very first statement, and comes back: the batch begins late', async () => {
    const send = await bench.launch({ devices: 20 });
    lossy.cut();
    setTimeout(() => lossy.restore(), 50);
    const provider = createScriptedProvider();
    await bench.worker({ provider, database: connectLossy() }).deliver(send.batches[0]!);
    await checkSentOnce(send, provider.calls.length, 20);
  });

  test('while it is away little is sent: what cannot be recorded holds the sending back', async () => {
    const send = await bench.launch({ devices: 2_000 });
    const provider = createScriptedProvider(async ({ number }) => {
      if (number === 50) lossy.cut();
      return accepted;
    });
    const database = connectLossy();
    const running = bench.worker({ provider, database, windowSize: 20 }).deliver(send.batches[0]!);
    await until(() => provider.calls.length >= 50 && provider.open === 0);
    const dispatched = provider.calls.length;
    assert.ok(dispatched <= 90, `${dispatched} dispatched`);
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.equal(provider.calls.length, dispatched);
    lossy.restore();
    assert.equal((await running).status, 'finished');
    await checkSentOnce(send, provider.calls.length, 2_000);
  });

  test('for as long as the worker has left: what was not recorded is in doubt, and marked when it is sent again', async () => {
    const send = await bench.launch({ devices: 200 });
    const first = createScriptedProvider(async ({ number }) => {
      if (number === 100) lossy.cut();
      return accepted;
    });
    const environment = activityEnvironment();
    const database = connectLossy();
    const running = bench
      .worker({ provider: first, database, windowSize: 20, shutdownGraceMs: 30 })
      .deliver(send.batches[0]!, 1, environment);
    await until(() => first.calls.length >= 100 && first.open === 0);
    environment.cancel('WORKER_SHUTDOWN');
    await assert.rejects(running, 'it cannot even report');
    lossy.restore();
    const recorded = (await send.rows()).length;
    assert.ok(recorded < first.calls.length);
    const second = createScriptedProvider();
    await bench.worker({ provider: second }).deliverToEnd(send.batches[0]!);
    await send.checkBooks({ accepted: 200 });
    await checkRepeats(send, [...first.calls, ...second.calls]);
    const marked = (await send.rows()).filter((row) => row.inDoubt).length;
    assert.ok(marked <= first.calls.length - recorded + 40, `${marked} marked`);
  });
});

describe('a connection breaks', () => {
  const isRecording = (text: string) => /record_chunk/.test(text);

  for (const sent of [true, false]) {
    test(`while outcomes are recorded, ${sent ? 'after' : 'before'} it was carried out: recorded once, the batch's counts too`, async () => {
      const send = await bench.launch({ devices: 60 });
      const lost = lossy.loseNext(isRecording, sent);
      const provider = createScriptedProvider();
      const result = await bench.worker({ provider, database: connectLossy() }).deliver(send.batches[0]!);
      await lost;
      assert.equal(result.status, 'finished');
      await checkSentOnce(send, provider.calls.length, 60);
      const { books } = await send.read();
      assert.deepEqual([books.outcomes.accepted, books.pending, books.batchesFinished], [60, 0, 1]);
    });

    test(`while outcomes and dead tokens are recorded, ${sent ? 'after' : 'before'} it was carried out: the same`, async () => {
      const send = await bench.launch({ devices: 60 });
      const lost = lossy.loseNext(isRecording, sent);
      const unregistered = {
        kind: 'unregistered',
        httpStatus: 410,
        reason: 'Unregistered',
      } as const;
      const provider = createScriptedProvider(({ number }) => (number % 10 === 0 ? unregistered : accepted));
      const result = await bench.worker({ provider, database: connectLossy() }).deliver(send.batches[0]!);
      await lost;
      assert.equal(result.status, 'finished');
      await checkSentOnce(send, provider.calls.length, 60, 6);
      const { books } = await send.read();
      assert.deepEqual([books.outcomes.accepted, books.pending, books.batchesFinished], [54, 0, 1]);
    });

    test(`at the reservation of a window, ${sent ? 'after' : 'before'} it was carried out: every device is sent to once`, async () => {
      const send = await bench.launch({ devices: 60 });
      const lost = lossy.loseNext((text) => /reserve_window/.test(text), sent);
      const provider = createScriptedProvider();
      await bench.worker({ provider, database: connectLossy() }).deliver(send.batches[0]!);
      await lost;
      await checkSentOnce(send, provider.calls.length, 60);
    });

    test(`at the claim, ${sent ? 'after' : 'before'} it was carried out: the batch is claimed again`, async () => {
      const send = await bench.launch({ devices: 30 });
      const lost = lossy.loseNext((text) => /fence \+ 1/.test(text), sent);
      const provider = createScriptedProvider();
      await bench.worker({ provider, database: connectLossy() }).deliver(send.batches[0]!);
      await lost;
      await checkSentOnce(send, provider.calls.length, 30);
    });
  }

  test('when what was reserved is given back: nobody who was not sent to is in doubt', async () => {
    const send = await bench.launch({ devices: 200, inDoubtPolicy: 'skip' });
    const first = createScriptedProvider(() => ({
      ...{ kind: 'misconfigured', httpStatus: 403, reason: 'Forbidden', fault: 'credentials', detail: 'Refused.' },
    }));
    const lost = lossy.loseNext((text) => /update "batches" set "horizon"/.test(text), false);
    await bench.worker({ provider: first, database: connectLossy() }).deliver(send.batches[0]!);
    await lost;
    await bench.database.pool.query(
      `update notifications set state = 'sending', halt_reason = null, halt_detail = null where id = $1`,
      [send.id],
    );
    await bench.worker({ provider: createScriptedProvider() }).deliverToEnd(send.batches[0]!);
    await send.checkBooks({ accepted: 200 });
  });

  test('when an expired batch is settled: it is settled, or tried again, never twice', async () => {
    const send = await bench.launch({ devices: 80, message: { title: 't', ttlSeconds: 60 } });
    await bench.database.pool.query(`update notifications set expires_at = now() where id = $1`, [send.id]);
    const lost = lossy.loseNext((text) => /record_chunk/.test(text), true);
    const worker = bench.worker({ provider: createScriptedProvider(), database: connectLossy() });
    await worker.deliver(send.batches[0]!).catch(() => worker.deliver(send.batches[0]!));
    await lost;
    await send.checkBooks({ expired: 80 });
  });
});
