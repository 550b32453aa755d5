/** What happens, and what is told of it: in the transaction of the change, where somebody wants to know, and nothing that is secret. */
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { sql } from 'kysely';
import { acceptMessages } from '../../db/accept-messages.ts';
import { closeBooksOfAnyApp } from '../../db/close-books.ts';
import { claimLane, haltLane } from '../../db/lanes.ts';
import { cancelMessage } from '../../db/messages.ts';
import { insertNotification } from '../../db/notification-drafts.ts';
import {
  cancelNotification,
  haltNotificationOfAnyApp,
  launchNotification,
  resumeNotification,
} from '../../db/notification-moves.ts';
import { getNotificationOfAnyApp } from '../../db/notifications.ts';
import { collectFeedOfAllApps, dropWebhookWeeks } from '../../db/webhook-feed.ts';
import { emptyOutcomeCounts } from '../../domain/outcome.ts';
import { uuidV7 } from '../../domain/uuid-v7.ts';
import { webhookTypes } from '../../domain/webhook.ts';
import { endMessage } from '../support/message-outcomes.ts';
import { createWebhookBench, type WebhookBench } from './harness.ts';

const token = 'c0ffee'.repeat(10);
const message = { title: 'A secret offer', body: 'Only for you' };

let bench: WebhookBench;
before(async () => {
  bench = await createWebhookBench();
  await bench.rows(`
    insert into devices (app_id, external_id, user_id, provider, platform, device_token)
    select 1, 'd' || n, 'u' || n, 'apns', 'ios', '${token}' || n from generate_series(1, 20) n`);
});
after(() => bench.close());
beforeEach(() =>
  bench.rows(
    'delete from webhooks; delete from webhook_feed; delete from webhook_deliveries; delete from webhook_events',
  ),
);

const fed = () => bench.rows('select app_id, type, subject, data from webhook_feed order by id');
const events = () => bench.rows('select * from webhook_events order by id');

async function draft(): Promise<string> {
  const id = uuidV7();
  await insertNotification(bench.database.db, {
    ...{ id, appId: 1, title: 'Sale', message, audience: {}, inDoubtPolicy: 'redeliver', ratePerSecond: null },
  });
  return id;
}

async function accept(...externalIds: string[]): Promise<string> {
  const id = uuidV7();
  for (const externalId of externalIds) {
    await acceptMessages(bench.database.pool, [
      { id, appId: 1, message, to: { externalId }, inDoubtPolicy: 'redeliver', idempotency: undefined },
    ]);
  }
  return id;
}

/** All that can happen to be told, once each. */
async function everything(): Promise<void> {
  const { db, pool } = bench.database;
  const id = await draft();
  await launchNotification(db, 1, id);
  await cancelNotification(db, 1, id);
  await endMessage(pool, await accept('d1'));
  await bench.rows(`update devices set retired_at = now(), retired_reason = 'Unregistered' where external_id = 'd2'`);
  await bench.rows(`update devices set retired_at = null, retired_reason = null where external_id = 'd2'`);
}

test('nothing is fed where nobody wants it: no webhook, another type, another app, a disabled one', async () => {
  await everything();
  assert.deepEqual(await fed(), []);
  await bench.add(['webhook.disabled']);
  const [{ id: other }] = await bench.rows(`insert into apps (name) values ('other') returning id`);
  await bench.add([...webhookTypes], { appId: other });
  const { id } = await bench.add([...webhookTypes]);
  await bench.rows(`update webhooks set disabled_at = now(), disabled_reason = 'gone' where id = $1`, [id]);
  await everything();
  assert.deepEqual(await fed(), []);
});

test('a change that is rolled back is told to nobody', async () => {
  const { db } = bench.database;
  await bench.add([...webhookTypes]);
  const id = await draft();
  const undone = new Error('undone');
  await assert.rejects(
    db.transaction().execute(async (trx) => {
      await launchNotification(trx, 1, id);
      await sql`update devices set retired_at = now(), retired_reason = 'Unregistered' where external_id = 'd3'`.execute(
        trx,
      );
      assert.equal((await trx.selectFrom('webhook_feed').selectAll().execute()).length, 2);
      throw undone;
    }),
    undone,
  );
  assert.deepEqual(await fed(), []);
});

test('a send tells every move in order, why it was halted, and its totals', async () => {
  const { db } = bench.database;
  await bench.add(['notification.state_changed', 'notification.finished']);
  const id = await draft();
  await launchNotification(db, 1, id);
  await haltNotificationOfAnyApp(db, await getNotificationOfAnyApp(db, id), {
    reason: 'credentials',
    detail: 'No key.',
  });
  await resumeNotification(db, 1, id);
  await closeBooksOfAnyApp(db, id, { outcomes: { ...emptyOutcomeCounts(), accepted: 3 }, reasons: {}, inDoubt: 1 });
  const rows = await fed();
  assert.deepEqual(new Set(rows.map(({ subject }) => subject)), new Set([`notification:${id}`]));
  assert.deepEqual(
    rows.map(({ data: { from, to, state } }) => (state === undefined ? `${from} > ${to}` : state)),
    ['draft > sending', 'sending > halted', 'halted > sending', 'sending > completed', 'completed'],
  );
  assert.deepEqual(rows[1].data.halt, { reason: 'credentials', detail: 'No key.' });
  const { outcomes, in_doubt: inDoubt, title, finished_at: finishedAt } = rows[4].data;
  assert.deepEqual([outcomes.accepted, inDoubt, title], [3, 1, 'Sale']);
  assert.match(finishedAt, /^\d{4}-\d\d-\d\dT.*Z$/);
});

test('messages that end are told by those who ended them, with their outcome and device', async () => {
  const { db, pool } = bench.database;
  await bench.add(['messages.finished']);
  const rejected = await accept('d4');
  await endMessage(pool, rejected, 'rejected', 'PayloadTooLarge');
  const cancelled = await accept('d5');
  await cancelMessage(db, 1, cancelled);
  await bench.collect();
  const [event, ...rest] = await events();
  assert.deepEqual(rest, []);
  const told = event.data.messages;
  const { finished_at: finishedAt, ...first } = told[0];
  assert.deepEqual(first, {
    ...{ message_id: rejected, external_id: 'd4', provider: 'apns', outcome: 'rejected', reason: 'PayloadTooLarge' },
    ...{ http_status: 200, attempts: 1, in_doubt: false },
  });
  assert.ok(Math.abs(Date.parse(finishedAt) - Date.now()) < 60_000);
  assert.deepEqual(
    told.map((one: { message_id: string; outcome: string }) => [one.message_id, one.outcome]),
    [
      [rejected, 'rejected'],
      [cancelled, 'cancelled'],
    ],
  );
});

test('what is claimed, tried in advance and taken back is no end', async () => {
  const { db } = bench.database;
  await bench.add(['messages.finished']);
  await accept('d6');
  const [{ id: laneId }] = await bench.rows('select id from lanes where app_id = 1');
  assert.ok(await claimLane(db, laneId));
  assert.deepEqual(await fed(), []);
});

test('a lane tells that it is halted and that it goes on', async () => {
  const { db } = bench.database;
  await bench.add(['messages.halted', 'messages.resumed']);
  await accept('d7');
  const [{ id: laneId }] = await bench.rows('select id from lanes where app_id = 1');
  const claim = (await claimLane(db, laneId))!;
  await haltLane(db, claim, { reason: 'credentials', detail: 'Revoked.' });
  await haltLane(db, claim, { reason: 'credentials', detail: 'Revoked.' });
  await bench.rows('update lanes set halt_reason = null, halt_detail = null, halted_at = null where id = $1', [laneId]);
  const rows = await fed();
  assert.deepEqual(
    rows.map(({ type, subject, data }) => [type, subject, data.reason, data.detail]),
    [
      ['messages.halted', 'lane:apns:0', 'credentials', 'Revoked.'],
      ['messages.resumed', 'lane:apns:0', undefined, undefined],
    ],
  );
});

test('a thousand devices that are retired are a few events, and one that lives again is told too', async () => {
  await bench.add(['devices.retired', 'devices.restored']);
  await bench.rows(`
    insert into devices (app_id, external_id, provider, platform, device_token)
    select 1, 'many-' || n, 'fcm', 'android', 'm' || n from generate_series(1, 1000) n`);
  await bench.rows(
    `update devices set retired_at = now(), retired_reason = 'UNREGISTERED' where external_id like 'many-%'`,
  );
  await bench.rows(`update devices set updated_at = now(), retired_at = retired_at where external_id like 'many-%'`);
  await bench.rows(`update devices set retired_at = null, retired_reason = null where external_id = 'many-1'`);
  await bench.collect();
  const told = await events();
  const devices = told.filter(({ type }) => type === 'devices.retired').flatMap(({ data }) => data.devices);
  assert.equal(new Set(devices.map(({ external_id: id }) => id)).size, 1_000);
  assert.deepEqual(
    [devices.length, devices[0].reason, devices[0].provider, told.length <= 12],
    [1_000, 'UNREGISTERED', 'fcm', true],
  );
  const restored = told.filter(({ type }) => type === 'devices.restored');
  assert.deepEqual(
    restored.flatMap(({ data }) => data.devices.map(({ external_id: id }: { external_id: string }) => id)),
    ['many-1'],
  );
});

test('no device token and no text of a message is in anything that is told', async () => {
  await bench.add([...webhookTypes]);
  await everything();
  const text = JSON.stringify(await fed());
  assert.ok((await fed()).length >= 5);
  for (const secret of ['c0ffee', 'secret offer', 'Only for you']) assert.ok(!text.includes(secret), secret);
});

describe('the collector', () => {
  test('is one at a time: another that comes meanwhile leaves it alone', async () => {
    const { db } = bench.database;
    await db.transaction().execute(async (trx) => {
      await sql`select pg_advisory_xact_lock(hashtext('collect_webhooks'))`.execute(trx);
      assert.equal(await collectFeedOfAllApps(db), undefined);
    });
    assert.deepEqual(await collectFeedOfAllApps(db), { changes: 0, webhookIds: [], deletedIds: [] });
  });

  test('makes each change one event however many collect, and keeps the order', async () => {
    await bench.add(['notification.state_changed']);
    for (let step = 0; step < 450; step++) await bench.feed('notification.state_changed', 'a', { step });
    const { db } = bench.database;
    let left = true;
    while (left) {
      const done = await Promise.all([1, 2, 3].map(() => collectFeedOfAllApps(db)));
      left = done.every((collected) => collected === undefined || collected.changes > 0);
    }
    const rows = await bench.rows(`
      select (e.data ->> 'step')::integer as step from webhook_deliveries d join webhook_events e on e.id = d.event_id order by d.seq`);
    assert.deepEqual(
      rows.map(({ step }) => step),
      Array.from({ length: 450 }, (_, step) => step),
    );
  });

  test('tells of deleted ones, and forgets what nobody wants any more', async () => {
    const { id } = await bench.add(['notification.state_changed']);
    await bench.feed('notification.state_changed', 'a');
    await bench.rows(`delete from webhooks where id = $1`, [id]);
    await bench.rows(`insert into webhook_feed (app_id, type, subject, data) values (1, 'webhook.deleted', $1, '{}')`, [
      id,
    ]);
    assert.deepEqual(await collectFeedOfAllApps(bench.database.db), { changes: 2, webhookIds: [], deletedIds: [id] });
    assert.deepEqual([await fed(), await events()], [[], []]);
  });
});

test('weeks of events that ended so many days ago are dropped with their deliveries', async () => {
  const { db } = bench.database;
  await bench.add(['notification.state_changed']);
  await bench.feed('notification.state_changed', 'a');
  await bench.collect();
  await bench.rows(`select create_webhook_partitions(now() - interval '60 days')`);
  assert.equal((await dropWebhookWeeks(db, 30)).length, 1);
  assert.deepEqual(await dropWebhookWeeks(db, 30), []);
  assert.equal((await events()).length, 1);
});
