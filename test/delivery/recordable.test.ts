/** Nothing is sent that cannot be recorded. */
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { settleCancelled } from '../../activities/settle-cancelled.ts';
import { claimBatch } from '../../db/batches.ts';
import { transactionWithClient } from '../../db/connect.ts';
import { cancelNotification, resumeNotification } from '../../db/notification-moves.ts';
import { recordDeliveries, rehearseRecording } from '../../db/record-deliveries.ts';
import { groupsOf } from '../support/outcomes.ts';
import { until } from '../support/until.ts';
import {
  activityEnvironment,
  checkRepeats,
  createDeliveryBench,
  createScriptedProvider,
  type DeliveryBench,
  type TestSend,
} from './harness.ts';

let bench: DeliveryBench;
before(async () => {
  bench = await createDeliveryBench();
});
beforeEach(() => run(`drop trigger if exists refuse on delivery_groups`));
after(() => bench.close());

const run = (text: string, values: unknown[] = []) => bench.database.pool.query(text, values);

const partitions = async () => {
  const { rows } = await run(`select inhrelid::regclass::text as name from pg_inherits
    where inhparent = 'delivery_groups'::regclass order by 1`);
  return rows.map(({ name }: { name: string }) => name);
};

/** A notification whose id says another month than PostgreSQL's clock, as that of an old draft or of an API with an odd clock. */
async function launchWithIdOf(month: string): Promise<TestSend> {
  const send = await bench.launch({ devices: 30, idAt: new Date(`${month}-10T00:00:00Z`) });
  assert.ok(!(await partitions()).includes(`delivery_groups_${month.replace('-', '_')}`));
  return send;
}

/** PostgreSQL refuses the outcome of one device, and lets those of the others pass. */
async function refuseOutcomeOf(position: number, send: TestSend): Promise<void> {
  await run(`create or replace function refuse() returns trigger language plpgsql as $$ begin
    if new.notification_id = '${send.id}' and new.batch_seq = 1 and substring(new.positions from ${position + 1} - new.first_position for 1) = B'1'
      and new.first_position <= ${position} then raise exception 'no such outcome'; end if; return new; end $$`);
  await run('create trigger refuse before insert on delivery_groups for each row execute function refuse()');
}

async function cancel(send: TestSend): Promise<void> {
  await cancelNotification(bench.database.db, 1, send.id);
  const { signal } = new AbortController();
  const { deps } = bench.worker();
  await activityEnvironment().run(() => settleCancelled(deps, send.id, signal));
}

describe('a notification whose month has no partition', () => {
  for (const [what, month] of [
    ['an old draft, its month dropped', '2019-03'],
    ['an id from a clock that is far ahead', '2041-07'],
  ] as const) {
    test(`${what}: its first claim makes the partition, and everybody is sent to once`, async () => {
      const send = await launchWithIdOf(month);
      const provider = createScriptedProvider();
      assert.equal((await bench.worker({ provider }).deliver(send.batches[0]!)).status, 'finished');
      assert.equal(provider.calls.length, 30);
      await send.checkBooks({ accepted: 30 });
    });
  }

  test('is settled when it is cancelled before anybody was sent to', async () => {
    const send = await launchWithIdOf('2018-01');
    await cancel(send);
    await send.checkBooks({ cancelled: 30 });
    assert.equal((await send.read()).books.pending, 0);
  });

  test('that was detached and kept gets it back', async () => {
    const send = await bench.launch({ devices: 10, idAt: new Date('2017-05-10T00:00:00Z') });
    const other = await bench.launch({ devices: 10, idAt: new Date('2017-05-11T00:00:00Z') });
    const provider = createScriptedProvider();
    await bench.worker({ provider }).deliver(send.batches[0]!);
    await run('alter table delivery_groups detach partition delivery_groups_2017_05');
    await bench.worker({ provider }).deliver(other.batches[0]!);
    await send.checkBooks({ accepted: 10 });
    await other.checkBooks({ accepted: 10 });
  });
});

describe('outcomes that PostgreSQL refuses', () => {
  test('all of them: halted before anybody is sent to', async () => {
    const send = await bench.launch({ devices: 30 });
    await run(`create or replace function refuse() returns trigger language plpgsql as $$ begin
      raise exception 'closed for the night'; end $$`);
    await run('create trigger refuse before insert on delivery_groups for each row execute function refuse()');
    const provider = createScriptedProvider();
    const result = await bench.worker({ provider }).deliver(send.batches[0]!);
    assert.deepEqual([result.status, result.reason], ['stopped', 'books']);
    const { state, halt } = await send.read();
    assert.equal(state, 'halted');
    assert.equal(halt?.reason, 'books');
    assert.match(halt!.detail, /closed for the night/);
    assert.equal(provider.calls.length, 0);
  });

  test('some of them: halted at once; who is sent to again after the resume is in doubt', async () => {
    const send = await bench.launch({ devices: 200 });
    await refuseOutcomeOf(70, send);
    const provider = createScriptedProvider();
    const worker = bench.worker({ provider, windowSize: 20, maxInFlight: 10 });
    for (let round = 1; round <= 2; round++) {
      assert.equal((await worker.deliver(send.batches[0]!)).reason, 'books');
      assert.equal((await send.read()).halt?.reason, 'books');
      await resumeNotification(bench.database.db, 1, send.id);
      if (round === 1) for (const id of send.deviceIds) assert.ok(provider.callsFor(id) <= 1);
    }
    await run('drop trigger refuse on delivery_groups');
    assert.equal((await worker.deliverToEnd(send.batches[0]!)).status, 'finished');
    await checkRepeats(send, provider.calls);
    await send.checkBooks();
  });

  test('of one batch: a cancel settles all the others, and that one once it can', async () => {
    const send = await bench.launch({ devices: 90, batchSize: 30 });
    await refuseOutcomeOf(5, send);
    await assert.rejects(cancel(send), /no such outcome/);
    assert.equal((await send.read()).books.pending, 30);
    await run('drop trigger refuse on delivery_groups');
    await cancel(send);
    await send.checkBooks({ cancelled: 90 });
  });
});

test('a batch may be rehearsed while a zombie records the very device that the rehearsal takes', async () => {
  const send = await bench.launch({ devices: 10 });
  const { db, pool } = bench.database;
  const claim = (await claimBatch(db, send.id, 1))!;
  const rehearsed = await transactionWithClient(pool, async (_trx, client) => {
    await recordDeliveries(client, claim, groupsOf(claim, [{ deviceId: send.deviceIds[0]! }]));
    const rehearsal = rehearseRecording(db, send.id, 1);
    await until(async () => {
      const { rows } = await run(
        `select from pg_stat_activity where wait_event_type = 'Lock' and query ~ 'rehearse_groups'`,
      );
      return rows.length > 0;
    });
    return { rehearsal };
  });
  await rehearsed.rehearsal;
  await send.checkBooks({ accepted: 1 });
});

describe('months that are dropped', () => {
  const drop = async () => {
    const { rows } = await run(`select drop_delivery_months((now() at time zone 'UTC')::date + 1) as name`);
    return rows.map(({ name }: { name: string }) => name);
  };

  test('are those whose sends ended before the day: a send under way keeps its own, however old its draft', async () => {
    const ended = await bench.launch({ devices: 5, idAt: new Date('2015-01-10T00:00:00Z') });
    const under = await bench.launch({ devices: 5, idAt: new Date('2015-02-10T00:00:00Z') });
    const provider = createScriptedProvider();
    for (const send of [ended, under]) await bench.worker({ provider }).deliver(send.batches[0]!);
    await run(`update notifications set state = 'completed', finished_at = now() where id = $1`, [ended.id]);
    const dropped = await drop();
    assert.ok(dropped.includes('delivery_groups_2015_01'));
    assert.ok(!dropped.includes('delivery_groups_2015_02'));
    assert.ok(!(await partitions()).includes('delivery_groups_2015_01'));
    await under.checkBooks({ accepted: 5 });
  });

  test('that one is a send ended after the day stay', async () => {
    const late = await bench.launch({ devices: 5, idAt: new Date('2014-01-10T00:00:00Z') });
    await bench.worker({ provider: createScriptedProvider() }).deliver(late.batches[0]!);
    await run(`update notifications set state = 'completed', finished_at = now() + interval '3 days' where id = $1`, [
      late.id,
    ]);
    assert.ok(!(await drop()).includes('delivery_groups_2014_01'));
  });
});

test('a partition is made while others read and write the table', async () => {
  const { db } = bench.database;
  await db.transaction().execute(async (reader) => {
    await reader.selectFrom('delivery_groups').select('batch_seq').limit(1).execute();
    await run(`set lock_timeout = '10s'; select create_delivery_partition('2031-01-01Z')`);
  });
  assert.ok((await partitions()).includes('delivery_groups_2031_01'));
});
