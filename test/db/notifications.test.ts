import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { closeBooksOfAnyApp } from '../../db/close-books.ts';
import { insertNotification } from '../../db/notification-drafts.ts';
import {
  beginScheduledOfAnyApp,
  cancelNotification,
  launchNotification,
  pauseNotification,
  unscheduleNotification,
} from '../../db/notification-moves.ts';
import { listUnfinishedOfAllApps, readForWorkflowOfAnyApp } from '../../db/notification-steering.ts';
import { getNotificationOfAnyApp } from '../../db/notifications.ts';
import { emptyOutcomeCounts } from '../../domain/outcome.ts';
import { uuidV7 } from '../../domain/uuid-v7.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';

let database: TestDatabase;
before(async () => {
  database = await createTestDatabase();
});
after(() => database.close());

describe('the time to live', () => {
  after(() => database.pool.query('delete from notifications'));
  const minutesAgo = (minutes: number) => new Date(Date.now() - minutes * 60_000);
  async function add(ttlSeconds: number, scheduledAt?: Date) {
    const id = uuidV7();
    const content = { title: null, message: { title: 't', ttlSeconds }, audience: {} };
    await insertNotification(database.db, {
      ...{ id, appId: 1, ...content, inDoubtPolicy: 'redeliver', ratePerSecond: null },
    });
    if (scheduledAt) await launchNotification(database.db, 1, id, scheduledAt);
    return id;
  }
  const read = (id: string) => getNotificationOfAnyApp(database.db, id);

  test('counts from the time a send was scheduled for, however late it begins', async () => {
    const scheduledAt = minutesAgo(10);
    const id = await add(3_600, scheduledAt);
    assert.equal(await beginScheduledOfAnyApp(database.db, id), true);
    const { expiresAt, launchedAt } = await read(id);
    assert.equal(expiresAt!.getTime(), scheduledAt.getTime() + 3_600_000);
    assert.ok(launchedAt!.getTime() > scheduledAt.getTime() + 500_000);
  });

  test('counts from a launch by hand, also of what was scheduled', async () => {
    for (const id of [await add(60), await add(60, minutesAgo(10)), await add(60, minutesAgo(-10))]) {
      await launchNotification(database.db, 1, id);
      const { expiresAt, launchedAt } = await read(id);
      assert.ok(Math.abs(expiresAt!.getTime() - launchedAt!.getTime() - 60_000) < 100);
    }
  });

  test('of 0 is one attempt, however late', async () => {
    const id = await add(0, minutesAgo(10));
    await beginScheduledOfAnyApp(database.db, id);
    assert.equal((await read(id)).expiresAt, null);
  });
});

test('a notification that is finished, a draft, or seen in a state that waits, needs no looking after; page after page', async () => {
  const { db } = database;
  const ids: Record<string, string> = {};
  const add = async (name: string) => {
    const id = uuidV7();
    ids[name] = id;
    const content = { title: name, message: { title: name }, audience: {} };
    await insertNotification(db, { id, appId: 1, ...content, inDoubtPolicy: 'redeliver', ratePerSecond: null });
    return id;
  };
  const seen = async (id: string) => void (await readForWorkflowOfAnyApp(db, id));
  const totals = { outcomes: emptyOutcomeCounts(), reasons: {}, inDoubt: 0 };

  await add('draft');
  for (const name of ['completed', 'cancelled']) {
    const id = await add(name);
    await launchNotification(db, 1, id);
    if (name === 'cancelled') await cancelNotification(db, 1, id);
    await closeBooksOfAnyApp(db, id, totals);
    await seen(id);
  }
  const paused = await add('paused, seen');
  await launchNotification(db, 1, paused);
  await pauseNotification(db, 1, paused);
  await seen(paused);
  const later = await add('scheduled, seen');
  await launchNotification(db, 1, later, new Date(Date.now() + 3_600_000));
  await seen(later);
  assert.equal(await beginScheduledOfAnyApp(db, later), false);

  const unseen = await add('paused, unseen');
  await launchNotification(db, 1, unseen);
  await pauseNotification(db, 1, unseen);
  const sending = await add('sending');
  await launchNotification(db, 1, sending);
  await seen(sending);
  const settling = await add('cancelled, not settled');
  await launchNotification(db, 1, settling);
  await cancelNotification(db, 1, settling);
  await seen(settling);
  const due = await add('due');
  await launchNotification(db, 1, due, new Date(Date.now() - 1_000));
  await seen(due);

  const listed: string[] = [];
  for (let cursor: string | undefined; ; ) {
    const page = await listUnfinishedOfAllApps(db, { after: cursor, limit: 2, graceMs: 0 });
    listed.push(...page.map(({ id }) => id));
    assert.ok(listed.length <= 4, 'a page must not come twice');
    if (page.length < 2) break;
    cursor = page.at(-1)!.id;
  }
  const nameOf = (id: string) => Object.keys(ids).find((name) => ids[name] === id);
  const expected = ['paused, unseen', 'sending', 'cancelled, not settled', 'due'];
  assert.deepEqual(listed.map(nameOf).sort(), expected.sort());
  assert.deepEqual(await listUnfinishedOfAllApps(db, { after: undefined, limit: 10, graceMs: 60_000 }), [], 'not yet');
});

test('a schedule that is taken back in the moment in which it begins either begins or is a draft, never both', async () => {
  const { db } = database;
  for (let round = 0; round < 20; round++) {
    const id = uuidV7();
    const content = { title: null, message: { title: 'x' }, audience: {} };
    await insertNotification(db, { id, appId: 1, ...content, inDoubtPolicy: 'redeliver', ratePerSecond: null });
    await launchNotification(db, 1, id, new Date(Date.now() - 1_000));
    const [begun, taken] = await Promise.all([beginScheduledOfAnyApp(db, id), unscheduleNotification(db, 1, id)]);
    assert.notEqual(begun, taken?.ok);
    const row = await readForWorkflowOfAnyApp(db, id);
    assert.equal(row?.state, begun ? 'sending' : 'draft');
  }
});
