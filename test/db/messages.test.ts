import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { acceptMessages, messageIntake } from '../../db/accept-messages.ts';
import { listDeviceHistory } from '../../db/device-history.ts';
import { listLanes, listMessageDays } from '../../db/message-counts.ts';
import { cancelMessage, findPendingOfAllApps, listMessages, messageReader } from '../../db/messages.ts';
import type { NewDirectMessage } from '../../domain/direct-message.ts';
import { sumOfOutcomes } from '../../domain/outcome.ts';
import { uuidV7 } from '../../domain/uuid-v7.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { endMessage, messageBooks } from '../support/message-outcomes.ts';

describe('messages in the database', () => {
  let database: TestDatabase;
  before(async () => {
    database = await createTestDatabase();
    await database.pool.query(`
      insert into devices (app_id, external_id, user_id, provider, platform, device_token)
      select 1, 'd' || n, 'u' || n / 2, 'apns', 'ios', 't' || n from generate_series(1, 40) n`);
  });
  after(() => database.close());

  const messageTo = (to: NewDirectMessage['to'], more: Partial<NewDirectMessage> = {}): NewDirectMessage => ({
    ...{
      id: uuidV7(),
      appId: 1,
      message: { title: 'Shipped' },
      to,
      inDoubtPolicy: 'redeliver',
      idempotency: undefined,
    },
    ...more,
  });
  const accept = async (message: NewDirectMessage) => {
    const [answer] = await acceptMessages(database.pool, [message]);
    assert.equal(answer!.kind, 'accepted');
    return message.id;
  };

  test('what is answered at once is what is found afterwards', async () => {
    const message = messageTo({ userIds: ['u1', 'u2', 'nobody'] }, { message: { title: 'x', ttlSeconds: 90 } });
    const [answer] = await acceptMessages(database.pool, [message]);
    assert.ok(answer?.kind === 'accepted');
    const found = await messageReader(database.pool)(1, message.id);
    assert.deepEqual([found!.createdAt, found!.expiresAt], [answer.createdAt, answer.expiresAt]);
    assert.deepEqual(found!.skipped, answer.skipped);
    assert.deepEqual(
      found!.entries.map(({ externalId }) => externalId),
      answer.devices.map(({ externalId }) => externalId),
    );
    assert.equal(await messageReader(database.pool)(2, message.id), undefined, 'of another app');
  });

  test('those that are asked for at once are found by few statements, each its own', async () => {
    const ids: string[] = [];
    for (let n = 1; n <= 30; n++) ids.push(await accept(messageTo({ externalId: `d${n}` })));
    let statements = 0;
    const query = ((...given: Parameters<typeof database.pool.query>) => {
      statements++;
      return database.pool.query(...given);
    }) as unknown as typeof database.pool.query;
    const read = messageReader({ query } as never);
    const found = await Promise.all([...ids, uuidV7()].map((id) => read(1, id)));
    assert.deepEqual(
      found.map((message) => message?.id),
      [...ids, undefined],
    );
    assert.equal(statements, 2);
  });

  test('pending are those that have a device without an outcome', async () => {
    const [none, two, ended] = [
      await accept(messageTo({ externalId: 'nobody' })),
      await accept(messageTo({ userId: 'u3' })),
      await accept(messageTo({ userId: 'u4' })),
    ];
    await endMessage(database.pool, ended);
    assert.deepEqual(await findPendingOfAllApps(database.pool, [none, two, ended, uuidV7()]), new Set([two]));
    await database.pool.query(
      `update message_entries set outcome = 'accepted', finished_at = now() where message_id = $1
        and device_id = (select min(device_id) from message_entries where message_id = $1)`,
      [two],
    );
    await database.pool.query(
      `select count_ended(array_agg(lane_id), array_agg(message_id), array_agg(outcome), array_agg(reason), array_agg(false))
        from message_entries where message_id = $1 and outcome is not null`,
      [two],
    );
    assert.deepEqual(await findPendingOfAllApps(database.pool, [two]), new Set([two]));
  });

  test('lists and histories reach over the weeks, newest first', async () => {
    const weekMs = 7 * 86_400_000;
    const ids: string[] = [];
    for (let week = 0; week < 5; week++) {
      const id = await accept(messageTo({ userId: 'u19' }, { id: uuidV7(Date.now() - week * weekMs) }));
      await endMessage(database.pool, id);
      ids.push(id);
    }
    const page = { since: undefined, cursor: undefined, limit: 3 };
    const idsOf = (messages: { id: string }[]) => messages.map(({ id }) => id);
    const list = (more: object) => listMessages(database.db, database.pool, 1, { userId: 'u19' }, { ...page, ...more });
    assert.deepEqual(idsOf(await list({})), ids.slice(0, 3));
    assert.deepEqual(idsOf(await list({ cursor: ids[2] })), ids.slice(3));
    assert.deepEqual(idsOf(await list({ since: new Date(Date.now() - 1.5 * weekMs) })), ids.slice(0, 2));
    assert.deepEqual(idsOf(await list({ limit: 10, since: new Date('0001-01-01') })), ids);
    const { rows } = await database.pool.query(`select id from devices where external_id = 'd38'`);
    const history = await listDeviceHistory(database.db, 1, rows[0].id, {
      cursor: ids[0],
      limit: 3,
      notifications: 10,
    });
    assert.deepEqual(
      history.lines.map(({ messageId }) => messageId),
      ids.slice(1, 4),
    );
    assert.equal(history.cursor, ids[3]);
  });

  test('a group answers for each in order, whatever is wrong with some', async () => {
    await database.pool.query(`
      insert into devices (app_id, external_id, user_id, provider, platform, device_token)
      select 1, 'many' || n, 'many', 'fcm', 'web', 'many' || n from generate_series(1, 101) n`);
    const keyed = (to: NewDirectMessage['to'], requestHash: string) =>
      messageTo(to, { idempotency: { key: 'group', requestHash } });
    const intake = messageIntake(database.pool);
    const answers = await Promise.all(
      [
        messageTo({ externalId: 'd1' }),
        messageTo({ userId: 'many' }),
        keyed({ externalId: 'd1' }, 'first'),
        messageTo({ externalIds: ['d1', 'nobody'] }, { unknownRecipient: 'error' }),
        keyed({ externalId: 'd2' }, 'second'),
        messageTo({ externalIds: ['d1', 'nobody'] }),
      ].map(intake),
    );
    assert.deepEqual(
      answers.map((answer) => [
        answer.kind,
        'at' in answer ? answer.at : 'requestHash' in answer && answer.requestHash,
      ]),
      [
        ['accepted', false],
        ['tooManyDevices', false],
        ['accepted', false],
        ['unknownRecipient', 1],
        ['repeat', 'first'],
        ['accepted', false],
      ],
    );
  });

  test('while many are accepted, cancelled and ended at once, the books stay right', async () => {
    const intake = messageIntake(database.pool);
    const outcomes = ['accepted', 'rejected', 'expired'];
    await Promise.all(
      Array.from({ length: 300 }, async (_, n) => {
        const message = messageTo({ userIds: [`u${n % 20}`, `u${(n + 3) % 20}`, 'nobody'] });
        await intake(message);
        if (n % 3 === 0) await cancelMessage(database.db, 1, message.id);
        if (n % 3 === 1) await endMessage(database.pool, message.id, outcomes[n % 2]!, n % 2 ? 'a reason' : null);
      }),
    );
    const { counts, stored } = await messageBooks(database.pool);
    assert.deepEqual(counts, stored);
    const today = new Date().toISOString().slice(0, 10);
    const days = await listMessageDays(database.db, 1, { since: '2000-01-01', until: '9999-12-31' });
    assert.equal(days.at(-1)!.day, today);
    for (const { entered, pending, outcomes } of days) assert.equal(entered, pending + sumOfOutcomes(outcomes));
    const sum = (numbers: number[]) => numbers.reduce((a, b) => a + b, 0);
    assert.equal(sum(days.map(({ entered }) => entered)), stored!.entered);
    const waiting = sum((await listLanes(database.db, 1)).map((lane) => lane.waiting));
    assert.equal(waiting, stored!.entered - stored!.ended);
    assert.equal(waiting, sum(days.map(({ pending }) => pending)));
  });

  test('a message of another app cannot be cancelled', async () => {
    const id = await accept(messageTo({ externalId: 'd5' }));
    assert.equal(await cancelMessage(database.db, 2, id), undefined);
    assert.equal(await cancelMessage(database.db, 1, id), 1);
    assert.equal(await cancelMessage(database.db, 1, id), 0);
  });
});
