import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import fc from 'fast-check';
import { sql } from 'kysely';
import { auditBooks } from '../../db/audit.ts';
import { type Claim, claimBatch } from '../../db/batches.ts';
import { claimToSend } from '../../db/claim-to-send.ts';
import { countTotals } from '../../db/close-books.ts';
import { transactionWithClient } from '../../db/connect.ts';
import { type Deferral, listDeferrals, noteDoubts, storeDeferrals } from '../../db/deferrals.ts';
import { insertNotification } from '../../db/notification-drafts.ts';
import { launchNotification } from '../../db/notification-moves.ts';
import { planNextPage } from '../../db/plan.ts';
import { setProviderRate } from '../../db/rate-limits.ts';
import { recordDeliveries } from '../../db/record-deliveries.ts';
import { settleBatch } from '../../db/settle-batch.ts';
import { reserveWindow, returnReserved } from '../../db/windows.ts';
import { outcomes } from '../../domain/outcome.ts';
import { uuidV7 } from '../../domain/uuid-v7.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { groupsOf, type OutcomeOf } from '../support/outcomes.ts';

let database: TestDatabase;
before(async () => {
  database = await createTestDatabase({ maxConnections: 20 });
});
after(() => database.close());

/** A launched notification with one claimed batch. */
async function claimed(devices = 20): Promise<Claim> {
  const { db } = database;
  const id = uuidV7();
  await sql`
    insert into devices (app_id, external_id, provider, platform, device_token)
    select 1, ${id} || n, 'apns', 'ios', ${id} || n from generate_series(1, ${devices}::integer) n
  `.execute(db);
  const externalIds = Array.from({ length: devices }, (_, n) => `${id}${n + 1}`);
  await insertNotification(db, {
    ...{ id, appId: 1, title: null, message: { title: 't' }, audience: { externalIds } },
    ...{ inDoubtPolicy: 'redeliver', ratePerSecond: null },
  });
  await launchNotification(db, 1, id);
  await db.transaction().execute((trx) => planNextPage(trx, id, 100_000));
  return (await claimBatch(db, id, 1))!;
}

const store = (claim: Claim, devices: OutcomeOf[]) => recordDeliveries(database.pool, claim, groupsOf(claim, devices));
const recordedIds = async ({ notificationId, deviceIds }: Claim) => {
  const { recorded } = await database.db
    .selectFrom('batches')
    .select('recorded')
    .where('notification_id', '=', notificationId)
    .executeTakeFirstOrThrow();
  return deviceIds.filter((_, position) => recorded[position] === '1');
};

const deferral = (deviceId: number, more: Partial<Deferral> = {}): Deferral => ({
  ...{
    deviceId,
    notBefore: new Date(1_000),
    attempts: 1,
    excused: 0,
    doubts: 0,
    refusedAt: null,
    reason: 'Shutdown',
    httpStatus: 503,
  },
  ...more,
});
const defer = (claim: Claim, deferrals: Deferral[]) =>
  database.db.transaction().execute((trx) => storeDeferrals(trx, claim, deferrals));
const reserve = (claim: Claim, positions: number[], deferredIds: number[] = [], providerScope = 'none') =>
  reserveWindow(database.pool, claim, { positions, deferredIds, providerScope });

describe('outcomes', () => {
  test('are recorded in chunks; the last one closes the batch', async () => {
    const claim = await claimed(20);
    assert.equal(
      await store(
        claim,
        claim.deviceIds.slice(0, 12).map((deviceId) => ({ deviceId })),
      ),
      false,
    );
    assert.deepEqual(await auditBooks(database.db, claim.notificationId), []);
    assert.equal(
      await store(
        claim,
        claim.deviceIds.slice(12).map((deviceId) => ({ deviceId, outcome: 'failed' })),
      ),
      true,
    );
    assert.deepEqual(await auditBooks(database.db, claim.notificationId), []);
    assert.equal(await claimBatch(database.db, claim.notificationId, 1), undefined);
    const totals = await countTotals(database.db, claim.notificationId);
    assert.deepEqual([totals.devices, totals.outcomes.accepted, totals.outcomes.failed], [20, 12, 8]);
  });

  test('of one device twice: the second transaction fails whole, the books stay as they were', async () => {
    const claim = await claimed(5);
    const [first, second] = claim.deviceIds;
    await store(claim, [{ deviceId: first! }]);
    await assert.rejects(store(claim, [{ deviceId: second! }, { deviceId: first! }]), { code: '23505' });
    assert.deepEqual(await recordedIds(claim), [first]);
    assert.deepEqual(await auditBooks(database.db, claim.notificationId), []);
  });

  test('of one device by two connections at once: one is recorded, the other waits for it and is refused', async () => {
    const claim = await claimed(4);
    const [a, b, c] = claim.deviceIds;
    const both = await Promise.allSettled([
      store(claim, [{ deviceId: a! }, { deviceId: b! }]),
      store(claim, [{ deviceId: b!, outcome: 'failed' }, { deviceId: c! }]),
    ]);
    const refusals = both.flatMap((end) => (end.status === 'rejected' ? [end.reason.code] : []));
    assert.deepEqual(refusals, ['23505']);
    assert.equal((await recordedIds(claim)).length, 2);
    assert.deepEqual(await auditBooks(database.db, claim.notificationId), []);
  });

  /** As a person would with psql. */
  const insertByHand = ({ notificationId }: Claim, firstPosition: number, positions: string, seq = 1) =>
    sql`
    insert into delivery_groups (notification_id, batch_seq, first_position, positions, outcome, attempts, in_doubt)
    values (${notificationId}, ${seq}, ${firstPosition}, ${positions}, 'failed', 1, false)
  `.execute(database.db);

  test('inserted by hand are counted; a second one for a device is refused', async () => {
    const claim = await claimed(6);
    await store(claim, [{ deviceId: claim.deviceIds[2]! }]);
    await assert.rejects(insertByHand(claim, 0, '101'), { code: '23505', constraint: 'delivery_groups_one_outcome' });
    await insertByHand(claim, 1, '101');
    assert.deepEqual(await recordedIds(claim), claim.deviceIds.slice(1, 4));
    assert.deepEqual(await auditBooks(database.db, claim.notificationId), []);
  });

  test('inserted by hand into a partition by its name are counted all the same, and a second one is refused', async () => {
    const claim = await claimed(4);
    const { rows } = await database.pool.query<{ partition: string }>(
      `select relid::text as partition from pg_partition_tree('delivery_groups') where isleaf`,
    );
    const into = (partition: string, positions: string) =>
      database.pool.query(
        `insert into ${partition} (notification_id, batch_seq, first_position, positions, outcome, attempts, in_doubt)
          values ($1, 1, 0, $2, 'failed', 1, false)`,
        [claim.notificationId, positions],
      );
    const tried = await Promise.allSettled(rows.map(({ partition }) => into(partition, '101')));
    const taken = tried.findIndex(({ status }) => status === 'fulfilled');
    assert.equal(tried.filter(({ status }) => status === 'fulfilled').length, 1, 'only the partition of its month');
    await assert.rejects(into(rows[taken]!.partition, '001'), { code: '23514' });
    await assert.rejects(insertByHand(claim, 2, '1'), { code: '23505', constraint: 'delivery_groups_one_outcome' });
    await assert.rejects(into(rows[taken]!.partition, '111'), { code: '23505' });
    assert.deepEqual(await recordedIds(claim), [claim.deviceIds[0], claim.deviceIds[2]]);
    assert.deepEqual(await auditBooks(database.db, claim.notificationId), []);
  });

  test('inserted together for several batches are counted for each; two for one device are refused, and all with them', async () => {
    const claims = await Promise.all([claimed(3), claimed(3)]);
    const together = (groups: [claim: Claim, firstPosition: number, positions: string][]) =>
      sql`
        insert into delivery_groups (notification_id, batch_seq, first_position, positions, outcome, attempts, in_doubt)
        values ${sql.join(groups.map(([claim, at, positions]) => sql`(${claim.notificationId}, 1, ${at}, ${positions}, 'failed', 1, false)`))}
      `.execute(database.db);
    const [a, b] = claims as [Claim, Claim];
    await assert.rejects(
      together([
        [a, 0, '1'],
        [b, 0, '11'],
        [b, 1, '1'],
      ]),
      { code: '23505' },
    );
    assert.deepEqual([await recordedIds(a), await recordedIds(b)], [[], []]);
    await together([
      [a, 0, '1'],
      [b, 0, '11'],
      [a, 1, '11'],
      [b, 2, '1'],
    ]);
    assert.deepEqual(
      [await recordedIds(a), await recordedIds(b)],
      claims.map((claim) => claim.deviceIds),
    );
    for (const { notificationId } of claims) assert.deepEqual(await auditBooks(database.db, notificationId), []);
  });

  test('for devices that are not in the batch, or for a batch that is not there, are refused', async () => {
    const claim = await claimed(3);
    await assert.rejects(insertByHand(claim, 2, '11'), { code: '23505' });
    await assert.rejects(insertByHand(claim, 3, '1'), { code: '23505' });
    await assert.rejects(insertByHand(claim, -1, '1'), { code: '23514' });
    await assert.rejects(insertByHand(claim, 0, '1', 7), { code: '23505' });
    await assert.rejects(insertByHand(claim, 0, '01'), { code: '23514' });
    assert.deepEqual(await recordedIds(claim), []);
  });

  test('of a zombie are refused even where it does not look at the fence', async () => {
    const claim = await claimed(3);
    const newer = (await claimBatch(database.db, claim.notificationId, 1))!;
    await store(newer, [{ deviceId: claim.deviceIds[1]! }]);
    await assert.rejects(store({ ...claim, fence: newer.fence }, [{ deviceId: claim.deviceIds[1]! }]), {
      code: '23505',
    });
    assert.deepEqual(await auditBooks(database.db, claim.notificationId), []);
  });

  test('any text comes back as it was given', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(
          fc.string({ unit: 'grapheme', maxLength: 40 }).filter((text) => !text.includes('\u0000')),
          {
            minLength: 1,
            maxLength: 20,
          },
        ),
        async (texts) => {
          const claim = await claimed(texts.length);
          const given = texts.map((text, n) => ({
            deviceId: claim.deviceIds[n]!,
            reason: text,
            providerMessageId: text.split('').reverse().join('').toWellFormed(),
          }));
          await store(claim, given);
          const rows = await database.db
            .selectFrom('deliveries')
            .select(['device_id', 'reason', 'provider_message_id'])
            .where('notification_id', '=', claim.notificationId)
            .orderBy('device_id')
            .execute();
          assert.deepEqual(
            rows.map((row) => [row.device_id, row.reason, row.provider_message_id]),
            given.map((row) => {
              const id = row.providerMessageId;
              return [row.deviceId, row.reason, id === '' || id.includes(' ') ? null : id];
            }),
          );
        },
      ),
      { numRuns: 25 },
    );
  });
});

describe('a window', () => {
  test('reserved by many claims at once is granted to the newest alone', async () => {
    const claim = await claimed(100);
    const claims = [claim];
    for (let i = 0; i < 5; i++) claims.push((await claimBatch(database.db, claim.notificationId, 1))!);
    const answers = await Promise.all(claims.map((each) => reserve(each, [0, 1, 2])));
    assert.deepEqual(
      answers.map(({ answer }) => answer),
      ['fenced', 'fenced', 'fenced', 'fenced', 'fenced', 'go'],
    );
  });

  test('under a rate limit shared by many: never more than the rate is granted, and all of it is', async () => {
    await setProviderRate(database.db, 'shared', 100);
    const claims = await Promise.all(Array.from({ length: 4 }, () => claimed(400)));
    let granted = 0;
    const startedAt = performance.now();
    await Promise.all(
      claims.map(async (claim) => {
        for (let next = 0; performance.now() - startedAt < 400; ) {
          const positions = Array.from({ length: 50 }, (_, n) => next + n);
          const reservation = await reserve(claim, positions, [], 'shared');
          if (reservation.answer === 'go') {
            granted += reservation.granted;
            next += reservation.granted;
          } else {
            assert.equal(reservation.answer, 'wait');
            await new Promise((resolve) => setTimeout(resolve, 5));
          }
        }
      }),
    );
    const seconds = (performance.now() - startedAt) / 1000;
    assert.ok(granted <= seconds * 100 + 20, `${granted} in ${seconds} s`);
    assert.ok(granted >= 20, `${granted} in ${seconds} s`);
  });

  test('that waits for a rate limit reserves nothing', async () => {
    await setProviderRate(database.db, 'slow', 1);
    const claim = await claimed(10);
    assert.deepEqual(await reserve(claim, [0, 1, 2], [], 'slow'), { answer: 'go', granted: 1, hosts: [] });
    const reservation = await reserve(claim, [1, 2], [], 'slow');
    assert.equal(reservation.answer, 'wait');
    assert.equal((await claimBatch(database.db, claim.notificationId, 1))!.horizon, 1);
  });

  test('is reserved for workers of the version before, which know nothing of hosts', async () => {
    const claim = await claimed(10);
    const values = [claim.notificationId, claim.seq, claim.fence, '{0,1}', '{}', 'none'];
    const { rows } = await database.pool.query(
      'select answer, granted, wait_ms from reserve_window($1, $2, $3, $4::integer[], $5::bigint[], $6)',
      values,
    );
    assert.deepEqual(rows, [{ answer: 'go', granted: 2, wait_ms: 0 }]);
  });

  test('of deferred devices marks those that were granted, giving back unmarks them', async () => {
    await setProviderRate(database.db, 'ten', 20);
    const claim = await claimed(10);
    const ids = claim.deviceIds.slice(0, 5);
    await reserve(claim, [0, 1, 2, 3, 4]);
    await defer(
      claim,
      ids.map((id) => deferral(id)),
    );
    assert.deepEqual(await reserve(claim, [], ids, 'ten'), { answer: 'go', granted: 2, hosts: [] });
    const dispatched = async () => {
      const { rows } = await sql<{ device_id: number }>`
        select device_id from deferrals where notification_id = ${claim.notificationId} and dispatched order by 1
      `.execute(database.db);
      return rows.map((row) => row.device_id);
    };
    assert.deepEqual(await dispatched(), ids.slice(0, 2));
    await database.db
      .transaction()
      .execute((trx) => returnReserved(trx, claim, { position: undefined, deferredIds: [ids[1]!] }));
    assert.deepEqual(await dispatched(), ids.slice(0, 1));
  });
});

describe('deferrals', () => {
  test('are one row a device, renewed by a repeat, gone with the outcome', async () => {
    const claim = await claimed(5);
    const [a, b] = claim.deviceIds;
    await defer(claim, [deferral(a!), deferral(b!)]);
    await defer(claim, [deferral(a!, { attempts: 2, doubts: 1, reason: 'again', notBefore: new Date(2_000) })]);
    const stored = (await listDeferrals(database.db, claim.notificationId, 1)).toSorted(
      (x, y) => x.deviceId - y.deviceId,
    );
    assert.deepEqual(stored, [
      deferral(a!, { attempts: 2, doubts: 1, reason: 'again', notBefore: new Date(2_000) }),
      deferral(b!),
    ]);
    await recordDeliveries(database.pool, claim, [], { noLongerDeferred: [a!] });
    assert.deepEqual(await listDeferrals(database.db, claim.notificationId, 1), [deferral(b!)]);
  });

  test('after a crash hold every device that was reserved and left without an answer, each crash counted once', async () => {
    const claim = await claimed(6);
    const [recorded, waiting, reserved] = claim.deviceIds;
    await reserve(claim, [0, 1, 2]);
    await store(claim, [{ deviceId: recorded! }]);
    await defer(claim, [deferral(waiting!)]);
    const doubts = async () =>
      (await listDeferrals(database.db, claim.notificationId, 1))
        .map(({ deviceId, attempts, doubts }) => [deviceId, attempts, doubts])
        .sort((x, y) => x[0]! - y[0]!);

    const second = (await claimBatch(database.db, claim.notificationId, 1))!;
    await noteDoubts(database.db, second);
    await noteDoubts(database.db, second);
    assert.deepEqual(await doubts(), [
      [waiting, 1, 0],
      [reserved, 1, 1],
    ]);
    await reserve(second, [], [waiting!, reserved!]);
    const third = (await claimBatch(database.db, claim.notificationId, 1))!;
    await noteDoubts(database.db, second);
    assert.deepEqual((await doubts())[0], [waiting, 1, 0], 'a zombie counts nothing');
    await noteDoubts(database.db, third);
    await noteDoubts(database.db, third);
    assert.deepEqual(await doubts(), [
      [waiting, 2, 1],
      [reserved, 2, 2],
    ]);
  });
});

test('doubts that are noted late, after their claim was made again, count no device that was reserved since', async () => {
  const claim = await claimed(3);
  await reserve(claim, [0]);
  const { notificationId } = claim;
  const again = (await claimToSend(database.db, notificationId, 1))!;
  const [first, second] = claim.deviceIds;
  await reserve(again, [1]);
  await noteDoubts(database.db, { ...again, fence: again.fence - 1 });
  const deferrals = await listDeferrals(database.db, notificationId, 1);
  assert.deepEqual(
    deferrals.map(({ deviceId, doubts }) => [deviceId, doubts]),
    [[first, 1]],
    `not ${second}`,
  );
});

describe('settling a batch', () => {
  test('records every device that has no outcome, those in doubt as unknown, and closes it', async () => {
    const claim = await claimed(8);
    const [done, inFlight, refused, doubted, dispatched] = claim.deviceIds;
    await reserve(claim, [0, 1, 2, 3, 4]);
    await store(claim, [{ deviceId: done! }]);
    await defer(claim, [
      deferral(refused!, { attempts: 3 }),
      deferral(doubted!, { attempts: 2, doubts: 1 }),
      deferral(dispatched!, { attempts: 1 }),
    ]);
    await reserve(claim, [], [dispatched!]);
    await transactionWithClient(database.pool, (trx, client) => settleBatch(trx, client, claim, 'cancelled'));
    const rows = await database.db
      .selectFrom('deliveries')
      .select(['device_id', 'outcome', 'attempts', 'in_doubt'])
      .where('notification_id', '=', claim.notificationId)
      .orderBy('device_id')
      .execute();
    const nothing = ['cancelled', 0, false];
    assert.deepEqual(
      rows.map((row) => [row.device_id, row.outcome, row.attempts, row.in_doubt]),
      [
        [done, 'accepted', 1, false],
        [inFlight, 'unknown', 1, true],
        [refused, 'cancelled', 3, false],
        [doubted, 'unknown', 2, true],
        [dispatched, 'unknown', 2, true],
        ...claim.deviceIds.slice(5).map((id) => [id, ...nothing]),
      ],
    );
    assert.deepEqual(await listDeferrals(database.db, claim.notificationId, 1), []);
    assert.deepEqual(await auditBooks(database.db, claim.notificationId), []);
    assert.equal(await claimBatch(database.db, claim.notificationId, 1), undefined);
  });
});

describe('the audit finds', () => {
  async function finished(): Promise<Claim> {
    const claim = await claimed(10);
    await store(
      claim,
      claim.deviceIds.map((deviceId, n) => ({ deviceId, outcome: outcomes[n % outcomes.length]! })),
    );
    assert.deepEqual(await auditBooks(database.db, claim.notificationId), []);
    return claim;
  }
  const tampered = async (statement: (claim: Claim) => ReturnType<typeof sql>) => {
    const claim = await finished();
    await statement(claim).execute(database.db);
    return auditBooks(database.db, claim.notificationId);
  };

  test('a group that is missing', async () => {
    const faults = await tampered(
      ({ notificationId }) =>
        sql`delete from delivery_groups where notification_id = ${notificationId} and first_position = 4`,
    );
    assert.deepEqual(faults, [{ seq: 1, size: 10, counted: 10, recorded: 9, isFinished: true }]);
  });

  test('a device that is in no group any more', async () => {
    const faults = await tampered(
      ({ notificationId }) =>
        sql`update delivery_groups set positions = B'1' where notification_id = ${notificationId} and first_position = 0`,
    );
    assert.deepEqual(faults, [{ seq: 1, size: 10, counted: 10, recorded: 9, isFinished: true }]);
  });

  test('a bitmap and a count that were changed; one alone is refused', async () => {
    const uncounted = sql`accepted = accepted - 1, finished_at = null`;
    const faults = await tampered(
      ({ notificationId }) =>
        sql`update batches set ${uncounted}, recorded = set_bit(recorded, 0, 0) where notification_id = ${notificationId}`,
    );
    assert.equal(faults.length, 1);
    await assert.rejects(
      tampered(({ notificationId }) => sql`update batches set ${uncounted} where notification_id = ${notificationId}`),
      /batches_counts_check/,
    );
  });

  test('counts exchanged between two outcomes', async () => {
    const faults = await tampered(
      ({ notificationId }) =>
        sql`update batches set accepted = accepted - 1, failed = failed + 1 where notification_id = ${notificationId}`,
    );
    assert.equal(faults.length, 1);
  });

  test('a group whose outcome was changed', async () => {
    const faults = await tampered(
      ({ notificationId }) =>
        sql`update delivery_groups set outcome = 'accepted' where notification_id = ${notificationId} and first_position = 1`,
    );
    assert.equal(faults.length, 1);
  });

  test('a group that was moved to another device: one has two outcomes, one has none', async () => {
    const faults = await tampered(
      ({ notificationId }) =>
        sql`update delivery_groups set first_position = 8 where notification_id = ${notificationId} and first_position = 2`,
    );
    assert.equal(faults.length, 1);
  });

  test('a group of a batch that does not exist', async () => {
    const faults = await tampered(
      ({ notificationId }) =>
        sql`update delivery_groups set batch_seq = 7 where notification_id = ${notificationId} and first_position = 4`,
    );
    assert.deepEqual(
      faults.map(({ seq, size, recorded }) => [seq, size, recorded]),
      [
        [1, 10, 9],
        [7, 0, 1],
      ],
    );
  });

  test('a batch that is full and not closed', async () => {
    const faults = await tampered(
      ({ notificationId }) => sql`update batches set finished_at = null where notification_id = ${notificationId}`,
    );
    assert.equal(faults.length, 1);
  });
});
