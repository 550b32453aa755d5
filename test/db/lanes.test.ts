/** What PostgreSQL holds of messages and lanes, whoever calls: places, claims, windows, cancels, weeks. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { sql } from 'kysely';
import { acceptMessages } from '../../db/accept-messages.ts';
import { transactionWithClient } from '../../db/connect.ts';
import { FencedError } from '../../db/fenced-error.ts';
import { type EndedEntry, readEntries, recordEntries, reserveLaneWindow } from '../../db/lane-entries.ts';
import { claimLane, openLanesOfAllApps } from '../../db/lanes.ts';
import { dropMessageWeeks } from '../../db/message-partitions.ts';
import type { NewDirectMessage } from '../../domain/direct-message.ts';
import { uuidV7 } from '../../domain/uuid-v7.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';

const dayMs = 24 * 60 * 60_000;
let database: TestDatabase;
before(async () => {
  database = await createTestDatabase({ maxConnections: 20 });
  await sql`
    insert into devices (app_id, external_id, user_id, provider, platform, device_token)
    select 1, 'd' || n, 'u' || n, 'apns', 'ios', 't' || n from generate_series(1, 100) n
  `.execute(database.db);
});
afterEach(() =>
  sql`truncate messages, message_entries, message_counts, message_keys, lane_ends, lanes restart identity`.execute(
    database.db,
  ),
);
after(() => database.close());

function messageTo(n: number, more: Partial<NewDirectMessage> = {}): NewDirectMessage {
  return {
    ...{ id: uuidV7(), appId: 1, message: { title: 'Shipped' }, to: { externalIds: [`d${n}`] } },
    ...{ inDoubtPolicy: 'redeliver', idempotency: undefined, unknownRecipient: 'skip', ...more },
  };
}

const read = (from = 0) => readEntries(database.pool, 1, { from, limit: 100, positions: [] });
const ended = (messageId: string, deviceId: number): EndedEntry => ({
  ...{ messageId, deviceId, outcome: 'accepted', httpStatus: 200, attempts: 1, inDoubt: false, reason: null },
  providerMessageId: undefined,
});
const window = (positions: number[]) => ({
  ...{ changes: 0, settled: 0, positions, deferred: [], hosts: [], credential: '' },
});

describe('places', () => {
  test('messages that are accepted at once by many callers stand in a lane without a gap', async () => {
    await openLanesOfAllApps(database.db, 'apns', 1);
    const callers = Array.from({ length: 20 }, (_, n) =>
      acceptMessages(database.pool, [messageTo(n + 1), messageTo(n + 21)]),
    );
    await Promise.all(callers);
    const { entries, nextPosition } = await read();
    assert.deepEqual(
      entries.map(({ position }) => position),
      Array.from({ length: 40 }, (_, n) => n),
    );
    assert.equal(nextPosition, 40);
  });

  test('what is accepted later is never visible before what stands in front of it', async () => {
    await openLanesOfAllApps(database.db, 'apns', 1);
    let second: Promise<unknown> | undefined;
    await transactionWithClient(database.pool, async (_trx, client) => {
      await acceptMessages(client, [messageTo(1)]);
      second = acceptMessages(database.pool, [messageTo(2)]);
      assert.equal((await read()).entries.length, 0);
    });
    await second;
    assert.equal((await read()).entries.length, 2);
  });

  test('a device stays in its lane or moves to a new one when lanes are doubled', async () => {
    await openLanesOfAllApps(database.db, 'apns', 2);
    const laneOf = async () => {
      await sql`truncate messages, message_entries`.execute(database.db);
      await acceptMessages(
        database.pool,
        Array.from({ length: 100 }, (_, n) => messageTo(n + 1)),
      );
      const { rows } = await sql<{ device_id: number; number: number }>`
        select device_id, number from message_entries join lanes on id = lane_id order by device_id
      `.execute(database.db);
      return rows;
    };
    const before = await laneOf();
    await openLanesOfAllApps(database.db, 'apns', 4);
    const after = await laneOf();
    assert.ok(after.some(({ number }) => number > 1));
    after.forEach(({ number }, i) => {
      assert.equal(number % 2, before[i]!.number);
    });
  });
});

describe('a claim', () => {
  test('only the latest one reserves and records', async () => {
    await openLanesOfAllApps(database.db, 'apns', 1);
    const message = messageTo(1);
    await acceptMessages(database.pool, [message]);
    const first = (await claimLane(database.db, 1))!;
    const second = (await claimLane(database.db, 1))!;
    assert.deepEqual(await reserveLaneWindow(database.pool, first, window([0])), { answer: 'fenced' });
    const { entries } = await read();
    const { deviceId } = entries[0]!;
    await assert.rejects(recordEntries(database.pool, first, [ended(message.id, deviceId)]), FencedError);
    await recordEntries(database.pool, second, [ended(message.id, deviceId)]);
    await assert.rejects(
      recordEntries(database.pool, second, [ended(message.id, deviceId)]),
      /has its outcome already/,
    );
  });

  test('what the one before it reserved is in doubt once, whatever claims follow', async () => {
    await openLanesOfAllApps(database.db, 'apns', 1);
    await acceptMessages(database.pool, [messageTo(1), messageTo(2)]);
    const claim = (await claimLane(database.db, 1))!;
    await reserveLaneWindow(database.pool, claim, window([0]));
    await claimLane(database.db, 1);
    await claimLane(database.db, 1);
    const { entries } = await read();
    assert.deepEqual(
      entries.map(({ attempts, doubts, reason }) => ({ attempts, doubts, reason })),
      [
        { attempts: 1, doubts: 1, reason: 'in_doubt' },
        { attempts: 0, doubts: 0, reason: null },
      ],
    );
  });

  test('a window that was read before a cancel is refused, and nothing of it is reserved', async () => {
    await openLanesOfAllApps(database.db, 'apns', 1);
    const message = messageTo(1);
    await acceptMessages(database.pool, [message]);
    const claim = (await claimLane(database.db, 1))!;
    const { entries, changes } = await read();
    await sql`select cancel_message(${message.id}, ${entries.map(({ deviceId }) => deviceId)}::bigint[])`.execute(
      database.db,
    );
    const answer = await reserveLaneWindow(database.pool, claim, { ...window([0]), changes });
    assert.deepEqual(answer, { answer: 'changed' });
    const { rows } = await sql<{ horizon: number }>`select horizon from lanes`.execute(database.db);
    assert.equal(rows[0]!.horizon, 0);
  });
});

describe('weeks', () => {
  test('old ones are dropped as a whole, unless something in them is pending; their counts stay', async () => {
    await openLanesOfAllApps(database.db, 'apns', 1);
    const at = (days: number) => uuidV7(Date.now() - days * dayMs);
    const [ancient, old, fresh] = [messageTo(1, { id: at(80) }), messageTo(2, { id: at(60) }), messageTo(3)];
    await acceptMessages(database.pool, [ancient, old, fresh]);
    const claim = (await claimLane(database.db, 1))!;
    const { entries } = await read();
    const deviceOf = (id: string) => entries.find(({ messageId }) => messageId === id)!.deviceId;
    await recordEntries(database.pool, claim, [ended(old.id, deviceOf(old.id)), ended(fresh.id, deviceOf(fresh.id))]);
    assert.equal((await dropMessageWeeks(database.db, 30)).length, 1);
    const { rows } = await sql<{ id: string }>`select id from messages order by id`.execute(database.db);
    assert.deepEqual(
      rows.map(({ id }) => id),
      [ancient.id, fresh.id],
    );
    const { rows: counts } = await sql<{ devices: number }>`
      select sum(devices)::integer as devices from message_counts where outcome = 'entered'
    `.execute(database.db);
    assert.equal(counts[0]!.devices, 3);
  });
});
