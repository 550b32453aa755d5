import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { sql } from 'kysely';
import { audienceFilter } from '../../db/audience.ts';
import { addToAudienceList, beginAudienceList, finishAudienceList } from '../../db/audience-lists.ts';
import { listOpenBatches } from '../../db/batches.ts';
import { deviceRegistrar } from '../../db/device-registration.ts';
import { deleteDevice } from '../../db/devices.ts';
import { insertNotification } from '../../db/notification-drafts.ts';
import { launchNotification } from '../../db/notification-moves.ts';
import { findPlan, planNextPage } from '../../db/plan.ts';
import type { Audience } from '../../domain/audience.ts';
import { uuidV7 } from '../../domain/uuid-v7.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';

let database: TestDatabase;
before(async () => {
  database = await createTestDatabase();
});
after(() => database.close());

/** Devices of an app of their own, so that tests do not see each other's. */
async function addApp(devices: number, fcmEvery = 0): Promise<number> {
  const { db } = database;
  const { rows } = await sql<{ id: number }>`insert into apps (name) values (${uuidV7()}) returning id`.execute(db);
  const appId = rows[0]!.id;
  await sql`
    insert into devices (app_id, external_id, provider, platform, device_token)
    select ${appId}, 'd' || n, case when f.is then 'fcm' else 'apns' end, case when f.is then 'android' else 'ios' end, 't' || n
    from generate_series(1, ${devices}::integer) n
    cross join lateral (select ${fcmEvery} > 0 and n % greatest(${fcmEvery}, 1) = 0 as is) f
  `.execute(db);
  return appId;
}

async function launch(appId: number, audience: Audience = {}): Promise<string> {
  const id = uuidV7();
  await insertNotification(database.db, {
    ...{ id, appId, title: null, message: { title: 't' }, audience, inDoubtPolicy: 'redeliver', ratePerSecond: null },
  });
  await launchNotification(database.db, appId, id);
  return id;
}

const planPage = (id: string, batchSize: number | 'growing' = 100, scanSize?: number) =>
  database.db
    .transaction()
    .execute((trx) => planNextPage(trx, id, batchSize === 'growing' ? undefined : batchSize, scanSize));

/** The number of pages that it took. */
async function planAll(id: string, batchSize: number | 'growing' = 100, scanSize?: number): Promise<number> {
  let pages = 0;
  for (; !(await findPlan(database.db, id)).isPlanned; pages++) await planPage(id, batchSize, scanSize);
  return pages;
}

async function plannedIds(id: string): Promise<number[]> {
  const rows = await database.db
    .selectFrom('batches')
    .select(['first_device_id', 'device_offsets'])
    .where('notification_id', '=', id)
    .orderBy('seq')
    .execute();
  return rows.flatMap((row) => row.device_offsets.map((offset) => row.first_device_id + offset));
}

async function audienceIds(appId: number): Promise<number[]> {
  const rows = await database.db.selectFrom('devices').select('id').where('app_id', '=', appId).orderBy('id').execute();
  return rows.map((row) => row.id);
}

const register = (appId: number, externalId: string) =>
  deviceRegistrar(database)(appId, {
    ...{ externalId, userId: null, provider: 'apns', platform: 'ios', deviceToken: `token-${externalId}` },
    ...{ apnsEnvironment: null, properties: undefined, locale: null, timeZone: null },
  });

describe('planning', () => {
  test('puts every device of the audience into exactly one batch, by provider, in even slices, within the size', async () => {
    const appId = await addApp(1_050, 4);
    const id = await launch(appId);
    await planAll(id);
    const planned = await plannedIds(id);
    assert.deepEqual(
      planned.toSorted((a, b) => a - b),
      await audienceIds(appId),
    );
    const batches = await listOpenBatches(database.db, id, 0, 1_000);
    assert.deepEqual(
      batches.map((batch) => batch.seq),
      batches.map((_, i) => i + 1),
    );
    for (const provider of ['apns', 'fcm']) {
      const sizes = batches.filter((batch) => batch.provider === provider).map((batch) => batch.size);
      assert.ok(Math.max(...sizes) <= 100);
      assert.ok(Math.max(...sizes) - Math.min(...sizes) <= 1, `${provider}: ${sizes}`);
    }
    const { rows } = await sql<{ wrong: number }>`
      select count(*) as wrong from batches b cross join unnest(b.device_offsets) as member (device_offset)
      join devices d on d.id = b.first_device_id + member.device_offset
      where b.notification_id = ${id} and d.provider <> b.provider
    `.execute(database.db);
    assert.equal(rows[0]!.wrong, 0);
    assert.deepEqual(await findPlan(database.db, id), { isPlanned: true, audienceSize: 1_050 });
  });

  test('makes larger batches the more devices it has planned, where no size is set', async () => {
    const appId = await addApp(450_000);
    const id = await launch(appId);
    await planAll(id, 'growing');
    const sizes = (await listOpenBatches(database.db, id, 0, 1_000)).map(({ size }) => size);
    // Page by page: nothing, 100 000, 200 000, 300 000 and 400 000 were planned before.
    const pages = [10, 4, 4, 4, 2].flatMap((batches, page) =>
      Array.from({ length: batches }, () => (page < 4 ? 100_000 : 50_000) / batches),
    );
    assert.deepEqual(sizes, pages);
  });

  test('again, when all is planned, changes nothing', async () => {
    const id = await launch(await addApp(30));
    await planAll(id);
    const before = await plannedIds(id);
    await planPage(id);
    assert.deepEqual(await plannedIds(id), before);
    assert.equal((await findPlan(database.db, id)).audienceSize, 30);
  });

  test('by many at once is the same as by one', async () => {
    const appId = await addApp(2_000, 3);
    const id = await launch(appId);
    await Promise.all(Array.from({ length: 8 }, () => planPage(id)));
    const planned = await plannedIds(id);
    assert.deepEqual(
      planned.toSorted((a, b) => a - b),
      await audienceIds(appId),
    );
  });

  test('over many pages leaves no gap and no overlap between them', async () => {
    const appId = await addApp(120_000, 7);
    const id = await launch(appId);
    await planPage(id, 10_000);
    assert.deepEqual(await findPlan(database.db, id), { isPlanned: false, audienceSize: 100_000 });
    await planAll(id, 10_000);
    const planned = await plannedIds(id);
    assert.equal(planned.length, 120_000);
    assert.deepEqual(
      planned.toSorted((a, b) => a - b),
      await audienceIds(appId),
    );
  });

  test('of few among many looks at a bounded number of devices each time, and misses none of them', async () => {
    const appId = await addApp(1_000);
    await addApp(1_000);
    const few = ['d1', 'd100', 'd101', 'd350', 'd999', 'd1000'];
    const id = await launch(appId, { condition: { field: 'external_id', operator: 'in', value: few } });
    assert.ok((await planAll(id, 100, 500)) >= 2);
    const planned = await plannedIds(id);
    const rows = await database.db.selectFrom('devices').select('external_id').where('id', 'in', planned).execute();
    assert.deepEqual(rows.map((row) => row.external_id).toSorted(), few.toSorted());
    assert.deepEqual(await findPlan(database.db, id), { isPlanned: true, audienceSize: few.length });
  });

  test('of listed devices looks for them alone, however many others there are', async () => {
    const appId = await addApp(1_000);
    const id = await launch(appId, { externalIds: ['d1', 'd999'] });
    assert.equal(await planAll(id, 100, 100), 1);
    assert.equal((await plannedIds(id)).length, 2);
  });

  test('of listed devices takes their own index, even with no statistics of the table', async () => {
    const unanalyzed = await createTestDatabase();
    try {
      await sql`alter table devices set (autovacuum_enabled = off)`.execute(unanalyzed.db);
      await sql`
        insert into devices (app_id, external_id, provider, platform, device_token)
        select 1, 'd' || n, 'fcm', 'android', 't' || n from generate_series(1, 100000) n
      `.execute(unanalyzed.db);
      const { rows } = await sql<{ 'QUERY PLAN': string }>`
        explain select id from devices where ${audienceFilter(1, { externalIds: ['d1', 'd999'] })}
      `.execute(unanalyzed.db);
      assert.match(rows.map((row) => row['QUERY PLAN']).join('\n'), / devices_app_external_id_key /);
    } finally {
      await unanalyzed.close();
    }
  });

  test('of an uploaded list reads it a page at a time, by keys alone, and forgets what it has planned', async () => {
    const unanalyzed = await createTestDatabase();
    try {
      const { db } = unanalyzed;
      for (const table of ['devices', 'audience_members']) {
        await sql`alter table ${sql.ref(table)} set (autovacuum_enabled = off)`.execute(db);
      }
      await sql`
        insert into devices (app_id, external_id, provider, platform, device_token)
        select 1, 'd' || n, 'fcm', 'android', 't' || n from generate_series(1, 50000) n
      `.execute(db);
      const id = uuidV7();
      await insertNotification(db, {
        ...{ id, appId: 1, title: null, message: { title: 't' }, audience: { uploaded: true } },
        ...{ inDoubtPolicy: 'redeliver', ratePerSecond: null },
      });
      const listId = (await beginAudienceList(db, 1, id))!;
      const ids = Array.from({ length: 10_000 }, (_, n) => ({ externalId: `d${n * 5 + 1}` }));
      const counts = await addToAudienceList(db, 1, listId, ids);
      await db.transaction().execute((trx) => finishAudienceList(trx, 1, id, listId, counts));
      await launchNotification(db, 1, id);
      let pages = 0;
      for (; !(await findPlan(db, id)).isPlanned; pages++) {
        await db.transaction().execute(async (trx) => {
          await planNextPage(trx, id, 1_000, 3_000);
          const { rows } = await sql<{ rows_read: number }>`
            select coalesce(sum(pg_stat_get_xact_tuples_returned(oid)), 0)::integer as rows_read from pg_class
            where relname in ('devices', 'audience_members')
          `.execute(trx);
          assert.equal(rows[0]!.rows_read, 0, 'no table is read from end to end');
        });
      }
      assert.equal(pages, 4);
      assert.deepEqual(await findPlan(db, id), { isPlanned: true, audienceSize: 10_000 });
      const { rows } = await sql<{ left: number }>`select count(*) as left from audience_members`.execute(db);
      assert.equal(rows[0]!.left, 0);
    } finally {
      await unanalyzed.close();
    }
  });

  test('that was rolled back begins again at the same place', async () => {
    const appId = await addApp(300);
    const id = await launch(appId);
    const rollback = new Error('crash');
    await assert.rejects(
      database.db.transaction().execute(async (trx) => {
        await planNextPage(trx, id, 100);
        throw rollback;
      }),
      rollback,
    );
    assert.deepEqual(await plannedIds(id), []);
    await planAll(id);
    assert.deepEqual(await plannedIds(id), await audienceIds(appId));
  });

  test('does not see devices that registered after the launch, also while it runs', async () => {
    const appId = await addApp(60_000);
    const id = await launch(appId);
    const frozen = await audienceIds(appId);
    await Promise.all([
      planAll(id, 1_000),
      ...Array.from({ length: 40 }, (_, n) => register(appId, `late-${n}`)),
      ...Array.from({ length: 40 }, (_, n) => register(appId, `d${1 + n * 1_000}`)),
    ]);
    assert.deepEqual(
      (await plannedIds(id)).toSorted((a, b) => a - b),
      frozen,
    );
  });

  test('leaves out devices that are deleted before their page is read, and no others', async () => {
    const appId = await addApp(500);
    const id = await launch(appId);
    for (const n of [1, 250, 500]) await deleteDevice(database.db, appId, `d${n}`);
    await planAll(id);
    assert.deepEqual(await plannedIds(id), await audienceIds(appId));
    assert.equal((await findPlan(database.db, id)).audienceSize, 497);
  });

  test('of an audience without devices ends with no batch', async () => {
    for (const audience of [{}, { externalIds: ['nobody'] }]) {
      const id = await launch(await addApp(0), audience);
      await planAll(id);
      assert.deepEqual(await plannedIds(id), []);
      assert.deepEqual(await findPlan(database.db, id), { isPlanned: true, audienceSize: 0 });
    }
  });

  test('of one that was never launched does nothing', async () => {
    const id = uuidV7();
    const content = { title: null, message: { title: 't' }, audience: {}, ratePerSecond: null };
    await insertNotification(database.db, { id, appId: 1, ...content, inDoubtPolicy: 'redeliver' });
    await planPage(id);
    assert.deepEqual(await findPlan(database.db, id), { isPlanned: false, audienceSize: 0 });
  });
});
