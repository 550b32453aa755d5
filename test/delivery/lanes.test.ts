/** Lanes on a real PostgreSQL, with a provider that answers as the test says. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import type { MockActivityEnvironment } from '@temporalio/testing';
import { sql } from 'kysely';
import { DatabaseClock } from '../../activities/delivery/database-clock.ts';
import { LaneBooks } from '../../activities/delivery/lane-books.ts';
import { LaneEntries } from '../../activities/delivery/lane-entries.ts';
import { keepLane } from '../../activities/keep-lane.ts';
import { acceptMessages } from '../../db/accept-messages.ts';
import { claimLane, openLanesOfAllApps } from '../../db/lanes.ts';
import type { NewDirectMessage } from '../../domain/direct-message.ts';
import type { KeepLaneResult } from '../../domain/lane.ts';
import type { Message } from '../../domain/message.ts';
import { uuidV7 } from '../../domain/uuid-v7.ts';
import type { Verdict } from '../../providers/provider.ts';
import { until } from '../support/until.ts';
import {
  accepted,
  activityEnvironment,
  createDeliveryBench,
  createScriptedProvider,
  type DeliveryBench,
  gate,
  type ScriptedProvider,
  type WorkerOptions,
} from './harness.ts';

const later: Verdict = { kind: 'later', httpStatus: 429, reason: 'TooManyRequests', scope: 'device' };
const silent: Verdict = { kind: 'unanswered', httpStatus: null, reason: 'timeout' };
const wrongKey: Verdict = {
  ...{ kind: 'misconfigured', httpStatus: 403, reason: 'InvalidProviderToken', fault: 'credentials' },
  detail: 'Apple refuses the key.',
};

let bench: DeliveryBench;
const running = new Set<RunningLane>();
before(async () => {
  bench = await createDeliveryBench();
});
afterEach(async () => {
  for (const lane of running) await lane.stop();
  await sql`truncate messages, message_entries, message_counts, message_keys, lane_ends, lanes, devices, rate_limits, provider_hosts
    restart identity cascade`.execute(bench.database.db);
});
after(() => bench.close());

interface RunningLane {
  stop(): Promise<KeepLaneResult>;
  ended: Promise<KeepLaneResult>;
}

interface EntryRow {
  position: number;
  external_id: string;
  outcome: string | null;
  reason: string | null;
  attempts: number;
  doubts: number;
  dispatched: boolean;
}

async function registerDevices(count: number): Promise<void> {
  await sql`
    insert into devices (app_id, external_id, user_id, provider, platform, device_token)
    select 1, 'd' || n, 'u' || n, 'apns', 'ios', lpad(to_hex(n), 64, '0') from generate_series(1, ${count}::integer) n
  `.execute(bench.database.db);
}

function send(externalId: string, message: Message = { title: 'Shipped' }, more: Partial<NewDirectMessage> = {}) {
  const whole: NewDirectMessage = {
    ...{ id: uuidV7(), appId: 1, message, to: { externalIds: [externalId] } },
    ...{ inDoubtPolicy: 'redeliver', idempotency: undefined, unknownRecipient: 'skip', ...more },
  };
  return acceptMessages(bench.database.pool, [whole]).then(() => whole.id);
}

function keep(provider: ScriptedProvider, options: WorkerOptions & { laneId?: number } = {}): RunningLane {
  const { laneId = 1, ...more } = options;
  const { deps } = bench.worker({ provider, ...more });
  const environment: MockActivityEnvironment = activityEnvironment(1);
  const listening = new AbortController();
  void deps.bell.listen(deps.pool, deps.log, listening.signal);
  const ended = environment.run(() => keepLane(deps, { laneId })) as Promise<KeepLaneResult>;
  ended.catch(() => {});
  const lane: RunningLane = {
    ended,
    async stop() {
      running.delete(lane);
      environment.cancel('WORKER_SHUTDOWN');
      const result = await ended;
      listening.abort();
      return result;
    },
  };
  running.add(lane);
  return lane;
}

async function entries(): Promise<EntryRow[]> {
  const { rows } = await sql<EntryRow>`
    select e.position, d.external_id, e.outcome, e.reason, e.attempts, e.doubts, e.dispatched
    from message_entries e join devices d on d.id = e.device_id order by e.lane_id, e.position
  `.execute(bench.database.db);
  return rows;
}

async function untilEnded(): Promise<EntryRow[]> {
  await until(async () => (await entries()).every(({ outcome }) => outcome !== null));
  const all = await entries();
  await checkBooks(all);
  return all;
}

/** Of every lane and day: what entered is what ended. */
async function checkBooks(all: EntryRow[]): Promise<void> {
  const { rows } = await sql<{ outcome: string; devices: number }>`
    select outcome, sum(devices)::integer as devices from message_counts group by 1
  `.execute(bench.database.db);
  const counted = Object.fromEntries(rows.map(({ outcome, devices }) => [outcome, devices]));
  const expected: Record<string, number> = { entered: all.length };
  for (const { outcome } of all) if (outcome !== null) expected[outcome] = (expected[outcome] ?? 0) + 1;
  assert.deepEqual(counted, expected);
}

const summary = (all: EntryRow[]) => all.map(({ external_id, outcome }) => `${external_id} ${outcome}`);

describe('a lane', () => {
  test('sends what was accepted before and while it runs, in order', async () => {
    await registerDevices(2);
    await openLanesOfAllApps(bench.database.db, 'apns', 1);
    for (const n of [1, 2]) await send(`d${n}`);
    const provider = createScriptedProvider();
    keep(provider);
    await until(() => provider.calls.length === 2);
    await send('d1');
    assert.deepEqual(summary(await untilEnded()), ['d1 accepted', 'd2 accepted', 'd1 accepted']);
    assert.deepEqual(
      provider.calls.map(({ deviceId }) => deviceId),
      [1, 2, 1],
    );
  });

  test('a message to a device waits for the answer to the one before', async () => {
    await registerDevices(2);
    await openLanesOfAllApps(bench.database.db, 'apns', 1);
    const answers = gate();
    const provider = createScriptedProvider(async ({ number }) => {
      if (number === 1) await answers.opened;
      return accepted;
    });
    keep(provider);
    await send('d1');
    await until(() => provider.calls.length === 1);
    await send('d1', { title: 'second' });
    await send('d1', { title: 'third' });
    await send('d2');
    await until(() => provider.calls.some(({ deviceId }) => deviceId === 2));
    assert.equal(provider.callsFor(1), 1);
    answers.open();
    await untilEnded();
    assert.equal(provider.callsFor(1), 3);
  });

  test('one that was refused for now lets one with another collapse id pass, and is replaced by one with the same', async () => {
    await registerDevices(1);
    await openLanesOfAllApps(bench.database.db, 'apns', 1);
    const provider = createScriptedProvider(({ number }) => (number === 1 ? later : accepted));
    keep(provider, { retryBaseMs: 60_000, retryMaxMs: 60_000 });
    await send('d1', { title: 'on its way', collapseId: 'order' });
    await until(async () => (await entries())[0]!.attempts === 1);
    await send('d1', { title: 'hello' });
    await until(async () => (await entries())[1]?.outcome === 'accepted');
    await send('d1', { title: 'delivered', collapseId: 'order' });
    const all = await untilEnded();
    assert.deepEqual(
      all.map(({ outcome, reason, attempts }) => [outcome, reason, attempts]),
      [
        ['cancelled', 'replaced', 1],
        ['accepted', null, 1],
        ['accepted', null, 1],
      ],
    );
  });

  test('a second worker takes it over: what the first left is in doubt and marked, the first writes nothing more', async () => {
    await registerDevices(3);
    await openLanesOfAllApps(bench.database.db, 'apns', 1);
    const answers = gate();
    const frozen = createScriptedProvider(async () => {
      await answers.opened;
      return accepted;
    });
    const first = keep(frozen);
    for (const n of [1, 2]) await send(`d${n}`);
    await until(() => frozen.calls.length === 2);
    const second = createScriptedProvider();
    keep(second);
    await until(() => second.calls.length === 2);
    await send('d3');
    const all = await untilEnded();
    answers.open();
    assert.equal((await first.ended).reason, 'claimed by another');
    assert.deepEqual(
      (await entries()).map(({ outcome, attempts, doubts }) => [outcome, attempts, doubts]),
      all.map(({ position }) => ['accepted', position < 2 ? 2 : 1, position < 2 ? 1 : 0]),
    );
  });

  test('a worker that wakes in a halted lane which another has taken over leaves it to that one', async () => {
    await registerDevices(2);
    await openLanesOfAllApps(bench.database.db, 'apns', 1);
    await send('d1');
    const first = keep(createScriptedProvider(() => wrongKey));
    await until(async () => {
      const { rows } = await sql`select from lanes where halt_reason is not null`.execute(bench.database.db);
      return rows.length === 1;
    });
    const second = createScriptedProvider();
    keep(second);
    const all = await untilEnded();
    assert.equal((await first.ended).reason, 'claimed by another');
    await send('d2');
    assert.deepEqual(summary(await untilEnded()), ['d1 accepted', 'd2 accepted']);
    assert.equal(all.length, 1);
    assert.equal(second.calls.length, 2);
  });

  test('of two in doubt with one collapse id neither replaces the other, and the later is sent last', async () => {
    await registerDevices(1);
    await openLanesOfAllApps(bench.database.db, 'apns', 1);
    for (const title of ['on its way', 'delivered']) await send('d1', { title, collapseId: 'order' });
    await claimLane(bench.database.db, 1);
    await sql`update lanes set horizon = 2`.execute(bench.database.db);
    const provider = createScriptedProvider();
    keep(provider);
    assert.deepEqual(summary(await untilEnded()), ['d1 accepted', 'd1 accepted']);
    assert.equal(provider.calls.length, 2);
  });

  test('an entry in doubt is never sent to again under skip', async () => {
    await registerDevices(1);
    await openLanesOfAllApps(bench.database.db, 'apns', 1);
    await send('d1', { title: 'code' }, { inDoubtPolicy: 'skip' });
    await claimLane(bench.database.db, 1);
    await sql`update lanes set horizon = 1`.execute(bench.database.db);
    const provider = createScriptedProvider();
    keep(provider);
    assert.deepEqual(summary(await untilEnded()), ['d1 unknown']);
    assert.equal(provider.calls.length, 0);
  });

  test('a silent provider: tried again with a mark, then unknown', async () => {
    await registerDevices(1);
    await openLanesOfAllApps(bench.database.db, 'apns', 1);
    const provider = createScriptedProvider(() => silent);
    keep(provider, { maxDoubts: 1 });
    await send('d1');
    const [entry] = await untilEnded();
    assert.deepEqual([entry!.outcome, entry!.attempts, entry!.doubts], ['unknown', 2, 1]);
  });

  test('a fault of the configuration halts it; what is in it waits, and goes on once it is resumed', async () => {
    await registerDevices(20);
    await openLanesOfAllApps(bench.database.db, 'apns', 1);
    for (let n = 1; n <= 20; n++) await send(`d${n}`);
    const provider = createScriptedProvider(() => wrongKey);
    keep(provider);
    await until(async () => {
      const { rows } = await sql`select from lanes where halt_reason = 'credentials'`.execute(bench.database.db);
      return rows.length === 1;
    });
    assert.ok(provider.calls.length <= 5, `${provider.calls.length} calls`);
    assert.deepEqual(
      new Set((await entries()).map(({ outcome, attempts }) => `${outcome} ${attempts}`)),
      new Set(['null 0']),
    );
    provider.answer = () => accepted;
    await sql`
      with resumed as (update lanes set halt_reason = null, halt_detail = null, halted_at = null, changes = changes + 1 returning id)
      select pg_notify('carillon_lanes', id::text) from resumed
    `.execute(bench.database.db);
    assert.equal((await untilEnded()).filter(({ outcome }) => outcome === 'accepted').length, 20);
  });

  test('what gets too old in a halted lane expires without a call', async () => {
    await registerDevices(1);
    await openLanesOfAllApps(bench.database.db, 'apns', 1);
    const provider = createScriptedProvider(() => wrongKey);
    keep(provider);
    await send('d1', { title: 'now', ttlSeconds: 2_000 });
    await until(async () => {
      const { rows } = await sql`select from lanes where halt_reason is not null`.execute(bench.database.db);
      return rows.length === 1;
    });
    await sql`update message_entries set expires_at = now()`.execute(bench.database.db);
    assert.deepEqual(summary(await untilEnded()), ['d1 expired']);
    assert.equal(provider.calls.length, 1);
  });

  test('what was cancelled while it waited is not sent; what was handed over is', async () => {
    await registerDevices(3);
    await openLanesOfAllApps(bench.database.db, 'apns', 1);
    const answers = gate();
    const provider = createScriptedProvider(async () => {
      await answers.opened;
      return accepted;
    });
    keep(provider);
    const first = await send('d1');
    await until(() => provider.calls.length === 1);
    const second = await send('d1');
    await until(async () => (await entries())[1]?.reason === 'behind_another');
    for (const id of [first, second]) await sql`select cancel_message(${id}, '{1}')`.execute(bench.database.db);
    answers.open();
    await send('d2');
    assert.deepEqual(summary(await untilEnded()), ['d1 accepted', 'd1 cancelled', 'd2 accepted']);
    assert.equal(provider.callsFor(1), 1);
  });

  test('one under way that waited behind another is not sent again when the lane must read again', async () => {
    await registerDevices(2);
    for (const device of ['d1', 'd2', 'd1']) await send(device);
    const provider = createScriptedProvider();
    const { db, pool } = bench.database;
    const claim = (await claimLane(db, 1))!;
    const lane = await LaneEntries.load({ db, pool, claim, provider, clock: new DatabaseClock() });
    const positions = async () => (await lane.peek(10)).map(({ position }) => position);
    assert.deepEqual(await positions(), [0, 1]);
    const [first] = await lane.peek(10);
    lane.take(1);
    lane.noteDone(first!);
    assert.deepEqual(await positions(), [2, 1]);
    const [behind] = await lane.peek(10);
    lane.take(1);
    // As after a cancel of any message of the lane.
    lane.readAgain();
    assert.deepEqual(await positions(), [1]);
    // Answered, and not recorded yet.
    lane.noteDone(behind!);
    lane.ring();
    assert.deepEqual(await positions(), [1]);
  });

  test('one that waited behind another is in doubt after a takeover, also where fresh ones before it were not reserved', async () => {
    await registerDevices(2);
    for (const device of ['d1', 'd2', 'd1']) await send(device);
    const provider = createScriptedProvider();
    const { db, pool } = bench.database;
    const claim = (await claimLane(db, 1))!;
    const lane = await LaneEntries.load({ db, pool, claim, provider, clock: new DatabaseClock() });
    const books = new LaneBooks({ db, pool }, claim, lane);
    const at = { hosts: [], credential: 'test' };
    // The first is sent and answered; the third is due, and goes ahead of the second.
    const [first] = await lane.peek(1);
    assert.equal((await books.reserve([first!], at)).answer, 'go');
    lane.take(1);
    await lane.peek(10);
    lane.noteDone(first!);
    await sql`update message_entries set outcome = 'accepted', finished_at = now() where position = 0`.execute(db);
    lane.noteStored([0]);
    lane.ring();
    const ahead = (await lane.peek(10)).find(({ position }) => position === 2)!;
    assert.equal((await books.reserve([ahead], at)).answer, 'go');
    // The worker dies before the answer.
    await claimLane(db, 1);
    assert.deepEqual(
      (await entries()).map(({ doubts, reason }) => [doubts, reason]),
      [
        [0, null],
        [0, null],
        [1, 'in_doubt'],
      ],
    );
  });

  test('what was cancelled before it was reserved is settled: nothing waits in the lane', async () => {
    await registerDevices(2);
    await send('d1');
    const cancelled = await send('d2');
    const { db, pool } = bench.database;
    const claim = (await claimLane(db, 1))!;
    const lane = await LaneEntries.load({
      ...{ db, pool, claim, provider: createScriptedProvider(), clock: new DatabaseClock() },
    });
    const [first] = await lane.peek(10);
    lane.take(1);
    await sql`select cancel_message(${cancelled}, device_ids) from messages where id = ${cancelled}`.execute(db);
    lane.readAgain();
    const looking = lane.peek(10);
    lane.noteDone(first!);
    lane.noteStored([0]);
    await until(() => lane.settled === 2);
    assert.equal(lane.waiting, 0);
    lane.end();
    assert.deepEqual(await looking, []);
  });

  test('a database that fails in between loses none that waits behind another', async () => {
    await registerDevices(1);
    await openLanesOfAllApps(bench.database.db, 'apns', 1);
    const answers = gate();
    const provider = createScriptedProvider(async ({ number }) => {
      if (number === 1) await answers.opened;
      return accepted;
    });
    keep(provider);
    await send('d1');
    await until(() => provider.calls.length === 1);
    for (let n = 0; n < 5; n++) {
      await send('d1');
      await sql`
        select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid()
      `.execute(bench.database.db);
    }
    answers.open();
    const all = await untilEnded();
    assert.equal(all.filter(({ outcome }) => outcome === 'accepted').length, 6);
    assert.equal(provider.calls.length, 6);
  });

  test('a worker that stops hands the lane over with nobody in doubt', async () => {
    await registerDevices(50);
    await openLanesOfAllApps(bench.database.db, 'apns', 1);
    const provider = createScriptedProvider();
    const first = keep(provider);
    for (let n = 1; n <= 50; n++) await send(`d${n}`);
    await until(() => provider.calls.length > 0);
    assert.equal((await first.stop()).reason, 'worker shut down');
    keep(provider);
    const all = await untilEnded();
    assert.equal(provider.calls.length, 50);
    assert.ok(all.every(({ outcome, doubts }) => outcome === 'accepted' && doubts === 0));
  });

  test('a dead token retires its device, a refused message is of that message alone', async () => {
    await registerDevices(12);
    await openLanesOfAllApps(bench.database.db, 'apns', 1);
    const provider = createScriptedProvider(({ deviceId }): Verdict => {
      if (deviceId === 1)
        return { kind: 'unregistered', httpStatus: 410, reason: 'Unregistered', invalidAt: new Date() };
      if (deviceId <= 8) return { kind: 'rejected', httpStatus: 413, reason: 'PayloadTooLarge', isPayloadFault: true };
      return accepted;
    });
    keep(provider);
    for (let n = 1; n <= 12; n++) await send(`d${n}`);
    const all = await untilEnded();
    assert.deepEqual(
      all.map(({ outcome }) => outcome),
      ['unregistered', ...Array(7).fill('rejected'), ...Array(4).fill('accepted')],
    );
    const { rows } = await sql<{ external_id: string }>`
      select external_id from devices where retired_at is not null
    `.execute(bench.database.db);
    assert.deepEqual(rows, [{ external_id: 'd1' }]);
  });

  test('a message that the provider can never take is rejected without a request', async () => {
    await registerDevices(2);
    await openLanesOfAllApps(bench.database.db, 'apns', 1);
    const provider = createScriptedProvider();
    keep(provider);
    await send('d1', { title: 'too large' });
    await send('d2');
    assert.deepEqual(summary(await untilEnded()), ['d1 rejected', 'd2 accepted']);
    assert.equal(provider.calls.length, 1);
  });

  test('a device that went after the message was accepted is skipped', async () => {
    await registerDevices(2);
    await openLanesOfAllApps(bench.database.db, 'apns', 1);
    for (const n of [1, 2]) await send(`d${n}`);
    await sql`update devices set retired_at = now(), retired_reason = 'token_moved' where id = 1`.execute(
      bench.database.db,
    );
    keep(createScriptedProvider());
    assert.deepEqual(summary(await untilEnded()), ['d1 skipped', 'd2 accepted']);
  });
});

test('more lanes are opened while messages wait: those of a device keep their order', async () => {
  const { db } = bench.database;
  await registerDevices(8);
  await openLanesOfAllApps(db, 'apns', 1);
  const provider = createScriptedProvider();
  for (let n = 1; n <= 8; n++) await send(`d${n}`, { title: 'first' });
  await openLanesOfAllApps(db, 'apns', 4);
  for (let n = 1; n <= 8; n++) await send(`d${n}`, { title: 'second' });
  for (const laneId of [4, 3, 2]) keep(provider, { laneId });
  // They wait for the first lane, which nobody sends yet.
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(provider.calls.length, 0);
  keep(provider, { laneId: 1 });
  await untilEnded();
  const first = provider.calls.findIndex(({ call }) => call === 2);
  assert.equal(provider.calls.length, 16);
  for (const { deviceId } of provider.calls.slice(first)) assert.equal(provider.callsFor(deviceId), 2);
});

test('the database refuses a second outcome of an entry, whoever writes it', async () => {
  await registerDevices(1);
  await openLanesOfAllApps(bench.database.db, 'apns', 1);
  await send('d1');
  keep(createScriptedProvider());
  await untilEnded();
  const again = sql`update message_entries set outcome = 'failed'`.execute(bench.database.db);
  await assert.rejects(again, /has its outcome already/);
});

test('campaigns keep a fifth of the rate while lanes want all of it', async () => {
  const { db } = bench.database;
  await registerDevices(200);
  await openLanesOfAllApps(db, 'apns', 1);
  await sql`insert into rate_limits (scope, rate_per_second) values ('app:1:apns', 100)`.execute(db);
  for (let n = 1; n <= 200; n++) await send(`d${n}`);
  await claimLane(db, 1);
  const reserve = (from: number) =>
    sql<{ answer: string; granted: number; wait_ms: number }>`
      select * from reserve_lane_window(1, 1, 0, 0, array(select generate_series(${from}::bigint, 199)), '{}', '{}', '{}', '')
    `.execute(db);
  let granted = 0;
  const { rows: start } = await sql<{ now: Date }>`select clock_timestamp() as now`.execute(db);
  for (;;) {
    const { rows } = await reserve(granted);
    if (rows[0]!.answer === 'wait') break;
    granted += rows[0]!.granted;
  }
  const { rows } = await sql<{ scope: string; ahead: number }>`
    select scope, extract(epoch from next_at - ${start[0]!.now})::float8 as ahead from rate_limits order by scope
  `.execute(db);
  // A tenth of a second at a time, at four fifths of the rate; the common meter runs ahead by less than that, so that others get the rest.
  assert.equal(rows.length, 2);
  const [all, lanes] = [rows[0]!, rows[1]!];
  assert.ok(granted >= 10 && lanes.ahead > all.ahead, JSON.stringify({ granted, rows }));
});
