import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type Kysely, sql } from 'kysely';
import { createDeliveryPartitions } from '../../db/delivery-partitions.ts';
import { migrate } from '../../db/migrate.ts';
import * as books from '../../db/migrations/0001-books.ts';
import * as windows from '../../db/migrations/0002-windows.ts';
import * as liveTokenIndex from '../../db/migrations/0003-live-token-index.ts';
import * as registry from '../../db/migrations/0004-registry.ts';
import type { Database } from '../../db/schema.ts';
import { uuidV7 } from '../../domain/uuid-v7.ts';
import { withEmptyDatabase } from '../support/empty-database.ts';

/** Names and definitions of all that the migrations made. */
async function describeSchema(db: Kysely<Database>): Promise<string[]> {
  const { rows } = await sql<{ line: string }>`
    select format('%s.%s %s', table_name, column_name, data_type) as line
      from information_schema.columns where table_schema = 'public'
    union all select indexdef from pg_indexes where schemaname = 'public'
    union all select conrelid::regclass || ' ' || conname from pg_constraint where connamespace = 'public'::regnamespace
    union all select proname from pg_proc where pronamespace = 'public'::regnamespace
    order by 1
  `.execute(db);
  return rows.map((row) => row.line);
}

describe('migrations', () => {
  test('from nothing, then again: the second run applies nothing and changes nothing', async () => {
    await withEmptyDatabase(async (db) => {
      const applied = await migrate(db!);
      assert.ok(applied.length >= 2);
      const schema = await describeSchema(db!);
      assert.deepEqual(await migrate(db!), []);
      assert.deepEqual(await describeSchema(db!), schema);
    });
  });

  test('are a transaction each: workers that run meanwhile see one before the next begins', async () => {
    await withEmptyDatabase(async (db) => {
      const applied = await migrate(db!);
      const { rows } = await sql<{ transactions: number }>`
          select count(distinct xmin::text) as transactions from kysely_migration
        `.execute(db!);
      assert.deepEqual(rows, [{ transactions: applied.length }]);
    });
  });

  test('by several processes at once: each is applied once, none of them fails', async () => {
    await withEmptyDatabase(async (...dbs) => {
      const applied = await Promise.all(dbs.map((db) => migrate(db)));
      const names = applied.flat().sort();
      assert.deepEqual(names, [...new Set(names)]);
      assert.deepEqual(await migrate(dbs[0]!), []);
      const { rows } = await sql<{ name: string }>`select name from apps`.execute(dbs[0]!);
      assert.deepEqual(rows, [{ name: 'default' }]);
    }, 4);
  });
});

test('devices from before values had one form get it; those without a token are not live', async () => {
  await withEmptyDatabase(async (only) => {
    const db = only as unknown as Kysely<unknown>;
    for (const earlier of [books, windows, liveTokenIndex]) await earlier.up(db);
    await sql`
        insert into devices (app_id, external_id, provider, platform, device_token, time_zone, locale, registered_at)
        select 1, n::text, 'fcm', 'android', token, time_zone, locale, '2026-01-02T03:04:05.678901Z'
        from (values (1, '', 'america/new_york', 'DE-de'), (2, '(null)', 'Asia/Calcutta', 'iw'), (3, 'good', '', ''),
          (4, 'other', 'Mars/Olympus', 'x-y'), (5, 'fine', 'Europe/Berlin', 'pt-BR'), (6, null, null, null)
        ) as old (n, token, time_zone, locale)
      `.execute(db);
    await registry.up(db);
    const { rows } = await sql<{ line: string }>`
        select concat_ws(' ', external_id, coalesce(device_token, '-'), coalesce(time_zone, '-'), coalesce(locale, '-'),
          extract(microseconds from registered_at)) as line
        from devices order by external_id
      `.execute(db);
    assert.deepEqual(
      rows.map(({ line }) => line),
      [
        '1 - America/New_York de-DE 5678901',
        '2 - Asia/Kolkata he 5678901',
        '3 good - - 5678901',
        '4 other Mars/Olympus x-y 5678901',
        '5 fine Europe/Berlin pt-BR 5678901',
        '6 - - - 5678901',
      ],
    );
    await assert.rejects(sql`update devices set device_token = '' where external_id = '1'`.execute(db));
  });
});

describe('partitions of deliveries', () => {
  test('are there for this month and three more; asked for again, or by several at once, nothing changes', async () => {
    await withEmptyDatabase(async (...dbs) => {
      const [db] = dbs;
      await migrate(db!);
      const names = async () => {
        const { rows } = await sql<{ name: string }>`
            select inhrelid::regclass::text as name from pg_inherits where inhparent = 'delivery_groups'::regclass order by 1
          `.execute(db!);
        return rows.map((row) => row.name);
      };
      const before = await names();
      assert.ok(before.length >= 4 && before.length <= 5, before.join());
      await Promise.all(dbs.map((each) => createDeliveryPartitions(each)));
      assert.deepEqual(await names(), before);
    }, 3);
  });

  test('take every notification of their month, to the last millisecond, and follow each other without a gap', async () => {
    await withEmptyDatabase(async (db) => {
      await migrate(db!);
      await sql`select create_delivery_partitions('2031-11-15', 4)`.execute(db!);
      const instants = [
        ...['2031-11-01T00:00:00.000Z', '2031-11-30T23:59:59.999Z', '2031-12-01T00:00:00.000Z'],
        ...['2031-12-31T23:59:59.999Z', '2032-01-01T00:00:00.000Z', '2032-02-29T23:59:59.999Z'],
      ];
      await sql`alter table delivery_groups disable trigger record_inserted_groups`.execute(db!);
      for (const [n, instant] of instants.entries()) {
        await sql`
            insert into delivery_groups (batch_seq, notification_id, first_position, positions, outcome, attempts, in_doubt)
            values (${n}, ${uuidV7(Date.parse(instant))}, 0, B'1', 'accepted', 1, false)
          `.execute(db!);
      }
      const { rows } = await sql<{ name: string }>`
          select tableoid::regclass::text as name from delivery_groups order by batch_seq
        `.execute(db!);
      assert.deepEqual(
        rows.map((row) => row.name),
        instants.map((instant) => `delivery_groups_${instant.slice(0, 7).replace('-', '_')}`),
      );
    });
  });
});
