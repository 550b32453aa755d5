import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { sql } from 'kysely';
import { acceptMessages } from '../../db/accept-messages.ts';
import type { NewDirectMessage } from '../../domain/direct-message.ts';
import { uuidV7 } from '../../domain/uuid-v7.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';

let database: TestDatabase;
before(async () => {
  database = await createTestDatabase({ maxConnections: 20 });
});
after(() => database.close());

function messageTo(externalId: string, more: Partial<NewDirectMessage> = {}): NewDirectMessage {
  return {
    ...{ id: uuidV7(), appId: 1, message: { title: 'Shipped' }, to: { externalIds: [externalId] } },
    ...{ inDoubtPolicy: 'redeliver', idempotency: undefined, ...more },
  };
}

describe('accepting', () => {
  test('messages get their devices and a place in their lane', async () => {
    await sql`
      insert into devices (app_id, external_id, user_id, provider, platform, device_token)
      select 1, 'd' || n, 'u' || n / 2, 'apns', 'ios', 't' || n from generate_series(1, 10) n
    `.execute(database.db);
    const answers = await acceptMessages(database.pool, [
      messageTo('d1'),
      messageTo('d2'),
      messageTo('nobody'),
      messageTo('', { to: { userIds: ['u1', 'u2'] } }),
      messageTo('d1', { idempotency: { key: 'k', requestHash: 'h' } }),
      messageTo('d1', { idempotency: { key: 'k', requestHash: 'h' } }),
    ]);
    console.log(JSON.stringify(answers));
    const { rows } = await sql`select * from message_entries order by lane_id, position`.execute(database.db);
    console.log(rows.map((row) => JSON.stringify(row)).join('\n'));
    console.log((await sql`select * from message_counts`.execute(database.db)).rows);
    console.log((await sql`select * from lanes`.execute(database.db)).rows);
    console.log((await sql`select * from claim_lane(1)`.execute(database.db)).rows);
    console.log((await sql`select * from claim_lane(2)`.execute(database.db)).rows);
    console.log(
      (await sql`select * from reserve_lane_window(1, 1, 0, 0, '{0,1}', '{}', '{}', '{}', '')`.execute(database.db))
        .rows,
    );
    assert.equal(answers.length, 6);
  });
});
