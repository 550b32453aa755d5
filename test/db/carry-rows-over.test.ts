/** The upgrade from the release that stored a row for each device. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type Kysely, sql } from 'kysely';
import { Migrator } from 'kysely/migration';
import { auditBooks } from '../../db/audit.ts';
import { carryRowsOver } from '../../db/carry-rows-over.ts';
import { claimToSend } from '../../db/claim-to-send.ts';
import { countTotals } from '../../db/close-books.ts';
import { databaseFault } from '../../db/database-error.ts';
import { findDelivery, listDeliveries } from '../../db/deliveries.ts';
import { migrate, migrations } from '../../db/migrate.ts';
import type { Database } from '../../db/schema.ts';
import { emptyOutcomeCounts, type Outcome, outcomes } from '../../domain/outcome.ts';
import { uuidV7 } from '../../domain/uuid-v7.ts';
import { createRandom } from '../../simulator/random.ts';
import { withEmptyDatabase } from '../support/empty-database.ts';

const random = createRandom(7);
const below = (limit: number) => Math.floor(random() * limit);

interface OldRow {
  device_id: number;
  outcome: Outcome;
  reason: string | null;
  http_status: number | null;
  attempts: number;
  in_doubt: boolean;
  provider_message_id: string | null;
  finished_at: string;
}

/** Like the release before: as recorded in chunks of some devices, in no order. */
function someRows(deviceIds: number[]): OldRow[] {
  return deviceIds
    .toSorted(() => random() - 0.5)
    .map((device_id, n) => {
      const outcome = random() < 0.8 ? 'accepted' : outcomes[below(outcomes.length)]!;
      return {
        ...{ device_id, outcome, attempts: 1 + below(2), in_doubt: random() < 0.1 },
        reason: outcome === 'accepted' ? null : `reason ${below(3)}`,
        http_status: random() < 0.1 ? null : 200 + below(3),
        provider_message_id: random() < 0.3 ? null : `0:17${below(1e9)}%${device_id}`,
        finished_at: new Date(Date.UTC(2026, 10, 3, 4, 5, Math.floor(n / 17))).toISOString(),
      };
    });
}

interface OldBatch {
  seq: number;
  deviceIds: number[];
  rows: OldRow[];
}

async function storeOld(db: Kysely<unknown>, id: string, state: 'completed' | 'sending', batches: OldBatch[]) {
  const size = batches.reduce((sum, { deviceIds }) => sum + deviceIds.length, 0);
  await sql`
    insert into notifications (id, app_id, state, message, audience, audience_size, device_ceiling, planned_at, batch_count,
      launched_at, finished_at)
    values (${id}, 1, ${state}, '{}', '{}', ${size}, 1000000, now(), ${batches.length}, now(),
      ${state === 'completed' ? sql`now()` : null})
  `.execute(db);
  for (const { seq, deviceIds, rows } of batches) {
    const counts = emptyOutcomeCounts();
    for (const { outcome } of rows) counts[outcome] += 1;
    await sql`
      insert into batches (notification_id, seq, provider, device_ids, size, fence, horizon, ${sql.join(outcomes.map((name) => sql.ref(name)))},
        finished_at)
      values (${id}, ${seq}, 'fcm', ${deviceIds}::bigint[], ${deviceIds.length}, 3, ${rows.length}, ${sql.join(outcomes.map((name) => counts[name]))},
        ${rows.length === deviceIds.length ? sql`'2026-11-03T05:00:00Z'::timestamptz` : null})
    `.execute(db);
    await sql`
      insert into deliveries (notification_id, batch_seq, device_id, outcome, reason, http_status, attempts, in_doubt, provider_message_id,
        finished_at)
      select ${id}, ${seq}, r.* from json_to_recordset(${JSON.stringify(rows)}) as r (device_id bigint, outcome delivery_outcome, reason text,
        http_status smallint, attempts smallint, in_doubt boolean, provider_message_id text, finished_at timestamptz)
    `.execute(db);
  }
}

async function migrateTo(name: keyof typeof migrations, db: Kysely<Database>): Promise<void> {
  const { error } = await new Migrator({ db, provider: { getMigrations: async () => migrations } }).migrateTo(name);
  if (error) throw error;
}

const idsFrom = (first: number, count: number, step: number) =>
  Array.from({ length: count }, (_, n) => first + n * step);

async function withOldDatabase(
  use: (old: {
    db: Kysely<Database>;
    finished: string;
    sending: string;
    expected: Map<string, OldRow[]>;
  }) => Promise<void>,
): Promise<void> {
  await withEmptyDatabase(async (db) => {
    const untyped = db as unknown as Kysely<unknown>;
    await migrateTo('0008-drop-first-dispatch', db);
    const [finished, sending] = [uuidV7(Date.UTC(2026, 10, 3)), uuidV7(Date.UTC(2026, 10, 4))];
    await sql`
      select create_delivery_partitions('2026-11-01', 1);
      insert into devices (app_id, external_id, provider, platform) select 1, n::text, 'fcm', 'android' from generate_series(1, 30000) n
    `.execute(untyped);
    const whole = [idsFrom(1, 300, 1), idsFrom(400, 5_000, 3)].map((deviceIds, i) => ({
      ...{ seq: i + 1, deviceIds, rows: someRows(deviceIds) },
    }));
    const half = idsFrom(400, 200, 2);
    const part = [
      { ...whole[0]! },
      { seq: 2, deviceIds: half, rows: someRows(half.slice(0, 90)) },
      { seq: 3, deviceIds: idsFrom(900, 50, 1), rows: [] },
    ];
    await storeOld(untyped, finished, 'completed', whole);
    await storeOld(untyped, sending, 'sending', part);
    const expected = new Map([
      [finished, whole.flatMap(({ rows }) => rows)],
      [sending, part.flatMap(({ rows }) => rows)],
    ]);
    await use({ db, finished, sending, expected });
  });
}

/** By the view. */
async function linesOf(db: Kysely<Database>, id: string): Promise<OldRow[]> {
  const lines = await db
    .selectFrom('deliveries')
    .selectAll()
    .where('notification_id', '=', id)
    .orderBy('device_id')
    .execute();
  return lines.map(({ notification_id, batch_seq, position, finished_at, ...line }) => ({
    ...line,
    finished_at: finished_at.toISOString(),
  }));
}

const inOrder = (rows: OldRow[]) => rows.toSorted((a, b) => a.device_id - b.device_id);

describe('a database of the release before', () => {
  test('comes through: every line as it was, totals and closing times unchanged, nothing else left of the rows', async () => {
    await withOldDatabase(async ({ db, finished, sending, expected }) => {
      const closedBefore = await sql`select notification_id, seq, finished_at from batches order by 1, 2`.execute(db);
      assert.equal((await migrate(db))[0], '0009-delivery-groups');
      for (const id of [finished, sending]) {
        assert.deepEqual(await linesOf(db, id), inOrder(expected.get(id)!));
        assert.deepEqual(await auditBooks(db, id), []);
        const { devices } = await countTotals(db, id);
        assert.equal(devices, expected.get(id)!.length);
      }
      const closedAfter = await sql`select notification_id, seq, finished_at from batches order by 1, 2`.execute(db);
      assert.deepEqual(closedAfter.rows, closedBefore.rows);
      const { rows } = await sql`select to_regclass('delivery_rows') as rows`.execute(db);
      assert.deepEqual(rows, [{ rows: null }]);
      assert.deepEqual(await migrate(db), []);
    });
  });

  test('a send that was under way goes on with the devices that have no outcome', async () => {
    await withOldDatabase(async ({ db, sending, expected }) => {
      await migrate(db);
      const claim = (await claimToSend(db, sending, 2))!;
      const recorded = claim.deviceIds.filter((_, position) => claim.recorded[position] === '1');
      const ofBatch = new Set(expected.get(sending)!.map((row) => row.device_id));
      assert.deepEqual(
        recorded,
        claim.deviceIds.filter((id) => ofBatch.has(id)),
      );
      assert.equal(await claimToSend(db, sending, 1), undefined);
    });
  });

  test('is readable between two steps, and a run that was stopped there is gone on with', async () => {
    await withOldDatabase(async ({ db, finished, expected }) => {
      const stop = new Error('stopped');
      await migrateTo('0011-chunk-in-one-statement', db);
      assert.deepEqual(await linesOf(db, finished), inOrder(expected.get(finished)!));
      await sql`select carry_rows_over(1)`.execute(db);
      assert.deepEqual(await linesOf(db, finished), inOrder(expected.get(finished)!));
      await assert.rejects(
        carryRowsOver(db, () => {
          throw stop;
        }),
        stop,
      );
      await carryRowsOver(db, () => {});
      assert.deepEqual(await linesOf(db, finished), inOrder(expected.get(finished)!));
      const [row] = expected.get(finished)!;
      const delivery = await findDelivery(db, 1, finished, row!.device_id);
      assert.deepEqual([delivery?.outcome, delivery?.providerMessageId], [row!.outcome, row!.provider_message_id]);
      assert.equal(
        (await listDeliveries(db, 1, finished, {}, { limit: 20_000 })).length,
        expected.get(finished)!.length,
      );
    });
  });

  test('whose counts and rows disagree stays as it is, and the message names the batch', async () => {
    await withOldDatabase(async ({ db, finished, expected }) => {
      await sql`update deliveries set outcome = 'failed' where ctid in (
        select ctid from deliveries where outcome = 'accepted' and notification_id = ${finished} limit 1)`.execute(db);
      await assert.rejects(migrate(db), new RegExp(`batch \\d of notification ${finished}`));
      assert.equal((await linesOf(db, finished)).length, expected.get(finished)!.length);
    });
  });

  test('whose month was dropped keeps its batches and their counts', async () => {
    await withOldDatabase(async ({ db, finished, sending }) => {
      await sql`delete from deliveries where notification_id = ${finished}`.execute(db);
      await migrate(db);
      const batches = await db
        .selectFrom('batches')
        .select(['size', 'recorded'])
        .where('notification_id', '=', finished)
        .execute();
      assert.deepEqual(
        batches.map(({ recorded }) => recorded),
        batches.map(({ size }) => '1'.repeat(size)),
      );
      assert.deepEqual(await auditBooks(db, sending), []);
    });
  });

  test('a worker of that release that still runs is told to wait, before it sends and when it records', async () => {
    await withOldDatabase(async ({ db, sending }) => {
      await migrate(db);
      const statements = [
        sql`select rehearse_recording(${sending}, 2)`,
        sql`insert into deliveries (notification_id, batch_seq, device_id, outcome, attempts, in_doubt) values (${sending}, 2, 590, 'accepted', 1, false)`,
      ];
      for (const statement of statements) {
        await assert.rejects(statement.execute(db), (error) => databaseFault(error) === 'away');
      }
    });
  });
});
