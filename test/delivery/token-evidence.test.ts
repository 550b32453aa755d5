import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import fc from 'fast-check';
import { pauseNotification, resumeNotification } from '../../db/notification-moves.ts';
import { forgetOldEvidenceOfAllApps } from '../../db/token-evidence.ts';
import type { Verdict } from '../../providers/provider.ts';
import {
  accepted,
  createDeliveryBench,
  createScriptedProvider,
  type DeliveryBench,
  type ScriptedProvider,
  type TestSend,
} from './harness.ts';

let bench: DeliveryBench;
before(async () => {
  bench = await createDeliveryBench();
});
after(() => bench.close());

const suspicious = (reason = 'BadDeviceToken', isOtherTopic = false): Verdict => ({
  ...{
    kind: 'unregistered',
    httpStatus: 400,
    reason,
    suspicion: { fault: 'environment', check: 'check it.' },
    isOtherTopic,
  },
});
const overloaded: Verdict = {
  ...{ kind: 'later', httpStatus: 503, reason: 'ServiceUnavailable', scope: 'provider', afterMs: 1 },
};
const reasons = ['BadDeviceToken', 'DeviceTokenNotForTopic', 'SENDER_ID_MISMATCH', 'INVALID_ARGUMENT'];

let configurations = 0;
/** Each with evidence of its own. */
function providerThat(answer: ScriptedProvider['answer']): ScriptedProvider {
  const provider = createScriptedProvider(answer);
  provider.configuration = `configuration ${++configurations}`;
  return provider;
}

async function retiredAmong(sends: TestSend[]): Promise<number> {
  const { rows } = await bench.database.pool.query(
    'select count(*)::integer as devices from devices where id = any ($1::bigint[]) and retired_at is not null',
    [sends.flatMap(({ deviceIds }) => deviceIds)],
  );
  return rows[0].devices;
}

/** Delivers all batches of a send until it is halted or nothing is left. */
async function deliver(send: TestSend, provider: ScriptedProvider): Promise<string> {
  for (const batch of send.batches) {
    const { status } = await bench.worker({ provider }).deliverToEnd(batch);
    if (status === 'stopped') break;
  }
  return (await send.read()).state;
}

async function acceptSome(provider: ScriptedProvider, devices: number): Promise<void> {
  const { answer } = provider;
  provider.answer = () => accepted;
  await deliver(await bench.launch({ devices }), provider);
  provider.answer = answer;
}

describe('while nobody was accepted with the same configuration', () => {
  for (const reason of reasons) {
    test(`too few ${reason} to judge: each has its outcome, and nobody is retired`, async () => {
      for (const devices of [1, 2, 5, 9]) {
        const send = await bench.launch({ devices });
        const provider = providerThat(() => suspicious(reason));
        assert.equal(await deliver(send, provider), 'sending');
        await send.checkBooks({ rejected: devices });
        assert.ok((await send.rows()).every((row) => row.reason === reason));
        assert.ok(provider.calls.length <= devices + 5, `${provider.calls.length} calls`);
        assert.equal(await retiredAmong([send]), 0);
      }
    });
  }

  test('many sends to one device each: nobody is retired, and from the tenth device on every send halts', async () => {
    const provider = providerThat(() => suspicious());
    const sends = [];
    for (let n = 1; n <= 12; n++) {
      const send = await bench.launch({ devices: 1 });
      sends.push(send);
      assert.equal(await deliver(send, provider), n < 10 ? 'sending' : 'halted', `send ${n}`);
    }
    assert.equal(await retiredAmong(sends), 0);
    assert.match((await sends[9]!.read()).halt!.detail, /10 of the last 10 answers were BadDeviceToken/);
  });

  test('one device asked every hour is no mass of dead tokens', async () => {
    const provider = providerThat(() => suspicious());
    const { pool } = bench.database;
    const first = await bench.launch({ devices: 1 });
    await deliver(first, provider);
    for (let n = 0; n < 12; n++) {
      const send = await bench.launch({ devices: 1 });
      // The same device again: its row takes the place of the new one.
      await pool.query('update batches set first_device_id = $1 where notification_id = $2', [
        first.deviceIds[0],
        send.id,
      ]);
      assert.equal(await deliver(send, provider), 'sending');
    }
    assert.equal(await retiredAmong([first]), 0);
  });

  test('a send that is paused before there are enough to judge is judged as one that is left alone', async () => {
    const send = await bench.launch({ devices: 40 });
    const { db } = bench.database;
    const provider = providerThat(async ({ number }) => {
      if (number <= 9 && number % 3 === 0) await pauseNotification(db, 1, send.id);
      return suspicious();
    });
    let state = 'sending';
    for (let round = 0; round < 30 && state !== 'halted'; round++) {
      await resumeNotification(db, 1, send.id);
      state = await deliver(send, provider);
      assert.equal(await retiredAmong([send]), 0);
    }
    assert.equal(state, 'halted');
    await send.checkBooks({});
    assert.ok(provider.calls.length <= 30, `${provider.calls.length} calls`);
  });

  test('mixed with overload, which ends each run before many have gathered: halted all the same', async () => {
    const send = await bench.launch({ devices: 200 });
    const provider = providerThat(({ number }) => (number % 7 < 5 ? overloaded : suspicious()));
    assert.equal(await deliver(send, provider), 'halted');
    assert.equal(await retiredAmong([send]), 0);
    await send.checkBooks({});
  });

  test('batches of one device each: nobody is retired, and the send halts', async () => {
    const send = await bench.launch({ devices: 30, batchSize: 1 });
    const provider = providerThat(() => suspicious());
    assert.equal(await deliver(send, provider), 'halted');
    assert.equal(await retiredAmong([send]), 0);
    await send.checkBooks({ rejected: 9 });
  });
});

describe('with a configuration that others were accepted with', () => {
  test('one dead token in a send of its own is retired', async () => {
    const provider = providerThat(() => suspicious());
    await acceptSome(provider, 20);
    const send = await bench.launch({ devices: 1 });
    await deliver(send, provider);
    await send.checkBooks({ unregistered: 1 });
    assert.equal(await retiredAmong([send]), 1);
  });

  test('another credential, topic or environment is another configuration', async () => {
    const provider = providerThat(() => suspicious());
    await acceptSome(provider, 20);
    provider.configuration = `${provider.configuration} with a new key`;
    const send = await bench.launch({ devices: 1 });
    await deliver(send, provider);
    await send.checkBooks({ rejected: 1 });
    assert.equal(await retiredAmong([send]), 0);
  });

  test('evidence of yesterday counts no more', async () => {
    const provider = providerThat(() => suspicious());
    await acceptSome(provider, 20);
    await bench.database.pool.query(`update token_evidence set accepted_at = now() - interval '25 hours'`);
    const send = await bench.launch({ devices: 1 });
    await deliver(send, provider);
    await send.checkBooks({ rejected: 1 });
    assert.equal(await retiredAmong([send]), 0);
  });

  test('a token for another topic or push type is never retired', async () => {
    const provider = providerThat(() => suspicious('DeviceTokenNotForTopic', true));
    await acceptSome(provider, 100);
    const send = await bench.launch({ devices: 3 });
    await deliver(send, provider);
    await send.checkBooks({ rejected: 3 });
    assert.equal(await retiredAmong([send]), 0);
  });

  test('once everybody is called bad, those who were retired for it before are live again', async () => {
    const provider = providerThat(() => suspicious());
    await acceptSome(provider, 60);
    const sends = [];
    let state = 'sending';
    for (let n = 0; n < 60 && state === 'sending'; n++) {
      const send = await bench.launch({ devices: 1 });
      sends.push(send);
      state = await deliver(send, provider);
      if (n === 0) assert.equal(await retiredAmong(sends), 1);
    }
    assert.equal(state, 'halted');
    assert.equal(await retiredAmong(sends), 0);
    assert.match((await sends.at(-1)!.read()).halt!.detail, /devices that were retired for it are live again/);
  });

  test('a device that took the token meanwhile keeps it', async () => {
    const provider = providerThat(() => suspicious());
    await acceptSome(provider, 40);
    const first = await bench.launch({ devices: 1 });
    await deliver(first, provider);
    await bench.database.pool.query(
      `insert into devices (app_id, external_id, provider, platform, device_token)
        select 1, external_id || ' heir', provider, platform, device_token from devices where id = $1`,
      [first.deviceIds[0]],
    );
    const second = await bench.launch({ devices: 30 });
    assert.equal(await deliver(second, provider), 'halted');
    assert.equal(await retiredAmong([first]), 1);
  });
});

describe('before a halt on suspicion, devices elsewhere in the audience are asked', () => {
  test('the oldest twenty of a healthy list are dead: all others are sent to, and the twenty are retired', async () => {
    const send = await bench.launch({ devices: 3_000 });
    const dead = new Set(send.deviceIds.slice(0, 20));
    const provider = providerThat(({ deviceId }) => (dead.has(deviceId) ? suspicious() : accepted));
    assert.equal(await deliver(send, provider), 'sending');
    await send.checkBooks({ accepted: 2_980, unregistered: 20 });
    assert.equal(await retiredAmong([send]), 20);
    assert.ok((await send.rows()).every((row) => !row.inDoubt));
  });

  test('three hundred in a row in the middle of it are dead', async () => {
    const send = await bench.launch({ devices: 3_000 });
    const dead = new Set(send.deviceIds.slice(1_000, 1_300));
    const provider = providerThat(({ deviceId }) => (dead.has(deviceId) ? suspicious() : accepted));
    assert.equal(await deliver(send, provider), 'sending');
    await send.checkBooks({ accepted: 2_700, unregistered: 300 });
    assert.equal(await retiredAmong([send]), 300);
  });

  test('everybody is called bad from the middle on: halted, and nobody is retired', async () => {
    const send = await bench.launch({ devices: 3_000 });
    const provider = providerThat(({ number }) => (number <= 1_000 ? accepted : suspicious()));
    assert.equal(await deliver(send, provider), 'halted');
    assert.equal(await retiredAmong([send]), 0);
    assert.ok(((await send.counts()).accepted ?? 0) >= 1_000);
    assert.ok(provider.calls.length <= 3_000);
  });
});

test('a fault that is ours retires nobody, in whatever order and pieces the answers come', async () => {
  const piece = fc.record({
    devices: fc.integer({ min: 1, max: 6 }),
    batchSize: fc.integer({ min: 1, max: 4 }),
    /** Numbers of the calls at which something happens before the answer. */
    pausesAt: fc.option(fc.integer({ min: 1, max: 6 }), { nil: 0 }),
    overloadAt: fc.option(fc.integer({ min: 1, max: 6 }), { nil: 0 }),
  });
  await fc.assert(
    fc.asyncProperty(
      fc.array(piece, { minLength: 8, maxLength: 14 }),
      fc.constantFrom(...reasons),
      async (pieces, reason) => {
        const { db } = bench.database;
        const provider = providerThat(() => suspicious(reason));
        const sends: TestSend[] = [];
        let halted = 0;
        for (const { devices, batchSize, pausesAt, overloadAt } of pieces) {
          const send = await bench.launch({ devices, batchSize });
          sends.push(send);
          const before = provider.calls.length;
          provider.answer = async ({ number }) => {
            if (number - before === pausesAt) await pauseNotification(db, 1, send.id);
            return number - before === overloadAt ? overloaded : suspicious(reason);
          };
          await deliver(send, provider);
          await resumeNotification(db, 1, send.id);
          if ((await deliver(send, provider)) === 'halted') halted += 1;
          assert.equal(await retiredAmong(sends), 0);
          await send.checkBooks();
        }
        const answered = new Set(provider.calls.map(({ deviceId }) => deviceId)).size;
        if (answered >= 20) assert.ok(halted > 0, `${answered} devices were called bad and nothing halted`);
      },
    ),
    { numRuns: 12 },
  );
});

test('when every third answer is suspicious, nobody is retired at the end, in whatever order and pieces they come', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.integer({ min: 1, max: 20 }), { minLength: 30, maxLength: 30 }),
      fc.integer(),
      async (sizes, seed) => {
        const provider = providerThat(({ number }) => ((number * 7 + seed) % 3 === 0 ? suspicious() : accepted));
        const sends: TestSend[] = [];
        let state = 'sending';
        for (const devices of sizes) {
          if (state === 'halted') break;
          const send = await bench.launch({ devices });
          sends.push(send);
          state = await deliver(send, provider);
        }
        assert.equal(state, 'halted');
        assert.equal(await retiredAmong(sends), 0);
      },
    ),
    { numRuns: 6 },
  );
});

test('suspects and departed tokens are forgotten when they can decide nothing any more', async () => {
  const { db, pool } = bench.database;
  const provider = providerThat(() => suspicious());
  const send = await bench.launch({ devices: 2 });
  await deliver(send, provider);
  await pool.query('delete from devices where id = $1', [send.deviceIds[0]]);
  const count = async () =>
    (
      await pool.query(
        `select (select count(*) from token_suspects where device_id = any ($1::bigint[]))::integer as suspects,
          (select count(*) from token_departures where device_id = any ($1::bigint[]))::integer as departures`,
        [send.deviceIds],
      )
    ).rows[0];
  await forgetOldEvidenceOfAllApps(db);
  assert.deepEqual(await count(), { suspects: 2, departures: 1 });
  await pool.query(`update token_suspects set suspected_at = now() - interval '3 days'`);
  await pool.query(`update token_departures set departed_at = now() - interval '36 days'`);
  await forgetOldEvidenceOfAllApps(db);
  assert.deepEqual(await count(), { suspects: 0, departures: 0 });
});
