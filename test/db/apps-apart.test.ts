import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { sql } from 'kysely';
import { addToAudienceList, beginAudienceList, finishAudienceList } from '../../db/audience-lists.ts';
import { findDelivery, listDeliveries } from '../../db/deliveries.ts';
import { insertNotification } from '../../db/notification-drafts.ts';
import { findNotification } from '../../db/notifications.ts';
import { uuidV7 } from '../../domain/uuid-v7.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';

let database: TestDatabase;
let otherAppId: number;
before(async () => {
  database = await createTestDatabase();
  const { rows } = await sql<{ id: number }>`insert into apps (name) values ('other') returning id`.execute(
    database.db,
  );
  otherAppId = rows[0]!.id;
});
after(() => database.close());

async function addDraft(): Promise<string> {
  const id = uuidV7();
  await insertNotification(database.db, {
    ...{ id, appId: 1, title: null, message: { title: 't' }, audience: { uploaded: true } },
    ...{ inDoubtPolicy: 'redeliver', ratePerSecond: null },
  });
  return id;
}

test("outcomes of another app's notification are not listed", async () => {
  const id = await addDraft();
  await sql`
    insert into batches (notification_id, seq, provider, first_device_id, device_offsets, size, recorded)
    values (${id}, 1, 'fcm', 1, '{0}', 1, B'0')
  `.execute(database.db);
  await sql`
    insert into delivery_groups (notification_id, batch_seq, first_position, positions, outcome, attempts, in_doubt)
    values (${id}, 1, 0, B'1', 'accepted', 1, false)
  `.execute(database.db);
  const listed = async (appId: number) => (await listDeliveries(database.db, appId, id, {}, { limit: 10 })).length;
  const found = (appId: number) => findDelivery(database.db, appId, id, 1);
  assert.equal(await listed(1), 1);
  assert.equal(await listed(otherAppId), 0);
  assert.equal((await found(1))?.outcome, 'accepted');
  assert.equal(await found(otherAppId), undefined);
});

test("an uploaded list is not given to another app's draft", async () => {
  const { db } = database;
  const id = await addDraft();
  const listId = (await beginAudienceList(db, 1, id))!;
  const counts = await addToAudienceList(db, 1, listId, [{ externalId: 'a' }]);
  const finish = (appId: number) =>
    db.transaction().execute((trx) => finishAudienceList(trx, appId, id, listId, counts));
  assert.equal(await finish(otherAppId), false);
  assert.equal((await findNotification(db, 1, id))?.listed, null);
});
