/** What devices tell of sends: each counted once, whatever is told again, late or by many at once. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import fc from 'fast-check';
import { sql } from 'kysely';
import { acceptMessages } from '../../db/accept-messages.ts';
import { deleteContents } from '../../db/app-contents.ts';
import { beginAppDeletion } from '../../db/app-deletion.ts';
import { dropEventMonths, listEventCounts, listEventHours } from '../../db/event-counts.ts';
import { insertNotification } from '../../db/notification-drafts.ts';
import { launchNotification } from '../../db/notification-moves.ts';
import { planNextPage } from '../../db/plan.ts';
import { eventIntake, recordEvents } from '../../db/record-events.ts';
import { maxOwnEventTypes, type NewEvent } from '../../domain/event.ts';
import { uuidV7 } from '../../domain/uuid-v7.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { until } from '../support/until.ts';

let database: TestDatabase;
before(async () => {
  database = await createTestDatabase({ maxConnections: 20 });
  await addDevices(1, 'd', 1, 30, 'apns');
  await addDevices(1, 'd', 31, 50, 'fcm');
});
after(() => database.close());

const query = async (text: string, values: unknown[] = []) => (await database.pool.query(text, values)).rows;

function addDevices(appId: number, prefix: string, from: number, to: number, provider: string) {
  return query(
    `insert into devices (app_id, external_id, provider, platform, device_token)
     select $1::bigint, $2 || n, $5, case $5 when 'apns' then 'ios' else 'android' end, 't' || $1::bigint || $2 || n from generate_series($3::integer, $4) n`,
    [appId, prefix, from, to, provider],
  );
}

async function addApp(name: string): Promise<number> {
  return (await query('insert into apps (name) values ($1) returning id', [name]))[0].id;
}

/** A launched notification to the devices, in batches of `batchSize`. */
async function send(externalIds: string[], { appId = 1, batchSize = 100_000, id = uuidV7() } = {}): Promise<string> {
  const { db } = database;
  await insertNotification(db, {
    ...{ id, appId, title: null, message: { title: 't' }, audience: { externalIds } },
    ...{ inDoubtPolicy: 'redeliver', ratePerSecond: null },
  });
  await launchNotification(db, appId, id);
  await db.transaction().execute((trx) => planNextPage(trx, id, batchSize));
  return id;
}

const devices = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, n) => `d${from + n}`);

function event(sendId: string, device: string, more: Partial<NewEvent> = {}): NewEvent {
  return { appId: 1, sendId, device, type: 'opened', at: Date.now(), ...more };
}

const record = (...events: NewEvent[]) => recordEvents(database.pool, events);
const countsOf = async (sendId: string, appId = 1) =>
  Object.fromEntries(
    (await listEventCounts(database.db, appId, sendId)).map(({ type, events, devices }) => [type, [events, devices]]),
  );
const hoursOf = (sendId: string) => listEventHours(database.db, 1, sendId, { cursor: undefined, limit: 100 });

describe('events of a notification', () => {
  test('count each telling, and each device once', async () => {
    const id = await send(devices(1, 50));
    assert.deepEqual(await record(event(id, 'd3'), event(id, 'd40'), event(id, 'd3')), [
      'accepted',
      'accepted',
      'repeated',
    ]);
    assert.deepEqual(await record(event(id, 'd3'), event(id, 'd3', { type: 'received' })), ['repeated', 'accepted']);
    assert.deepEqual(await countsOf(id), { opened: [4, 2], received: [1, 1] });
  });

  test('of a device that was not in it, or that there is none, or of another app, are unknown and leave nothing', async () => {
    const other = await addApp('other');
    await addDevices(other, 'd', 1, 5, 'apns');
    const id = await send(devices(1, 10));
    const theirs = await send(devices(1, 5), { appId: other });
    assert.deepEqual(
      await record(
        event(id, 'd11'),
        event(id, 'd45'),
        event(id, 'nobody'),
        event(uuidV7(), 'd1'),
        event(theirs, 'd1'),
        event(id, 'd1', { appId: other }),
        event(theirs, 'd1', { appId: other }),
      ),
      [...Array(6).fill('unknown'), 'accepted'],
    );
    assert.deepEqual(
      [await countsOf(id), await countsOf(theirs), await countsOf(theirs, other)],
      [{}, {}, { opened: [1, 1] }],
    );
    const draft = uuidV7();
    await insertNotification(database.db, {
      ...{ id: draft, appId: 1, title: null, message: { title: 't' }, audience: {} },
      ...{ inDoubtPolicy: 'redeliver', ratePerSecond: null },
    });
    assert.deepEqual(await record(event(draft, 'd1')), ['unknown']);
  });

  test('of a device that is retired, or has changed its provider since, count as before', async () => {
    await addDevices(1, 'moved', 1, 2, 'apns');
    const id = await send(['d1', 'd31', 'moved1', 'moved2']);
    await query(
      `update devices set provider = 'fcm', platform = 'android' where external_id = 'moved1' and app_id = 1`,
    );
    await query(
      `update devices set retired_at = now(), retired_reason = 'Unregistered' where external_id = 'moved2' and app_id = 1`,
    );
    assert.deepEqual(await record(event(id, 'moved1'), event(id, 'moved2')), ['accepted', 'accepted']);
    assert.deepEqual(await record(event(id, 'moved1')), ['repeated']);
    await query(`delete from devices where external_id like 'moved%'`);
    assert.deepEqual(await record(event(id, 'moved1')), ['unknown']);
    assert.deepEqual(await countsOf(id), { opened: [3, 2] });
  });

  test('by hour: late ones in their hour, those of a clock that is behind at the start, those of one ahead now', async () => {
    const id = await send(devices(1, 9));
    await query(`update notifications set launched_at = date_trunc('hour', now()) - interval '5 hours' where id = $1`, [
      id,
    ]);
    const hourMs = 3_600_000;
    const hour = Math.floor(Date.now() / hourMs) * hourMs;
    await record(
      event(id, 'd1', { at: hour - 2 * hourMs }),
      event(id, 'd2', { at: 0 }),
      event(id, 'd3', { at: Date.now() + 1_000 * hourMs }),
      event(id, 'd1', { at: hour - hourMs }),
    );
    const hours = await hoursOf(id);
    assert.deepEqual(
      hours.map((counted) => [(Number(counted.hour) - hour) / hourMs, counted.events, counted.devices]),
      [
        [-5, 1, 1],
        [-2, 1, 1],
        [-1, 1, 0],
        [0, 1, 1],
      ],
    );
    const page = await listEventHours(database.db, 1, id, { cursor: hours[1], limit: 1 });
    assert.deepEqual(page, [hours[2]]);
  });

  test('are told exactly, whatever is told in whatever order and company', async () => {
    const told = fc.record({
      device: fc.integer({ min: 1, max: 55 }).map((n) => `d${n}`),
      type: fc.constantFrom('received', 'opened', 'screen.seen'),
      send: fc.nat(2),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(fc.array(told, { minLength: 1, maxLength: 40 }), { maxLength: 6 }), async (chunks) => {
        const sends = await Promise.all([send(devices(1, 50), { batchSize: 7 }), send(devices(20, 40)), send(['d31'])]);
        await finishPlan(sends[0]!, 7);
        const isMember = [(n: number) => n <= 50, (n: number) => n >= 20 && n <= 40, (n: number) => n === 31];
        const model = new Map<string, Set<string>>();
        const tellings = new Map<string, number>();
        for (const chunk of chunks) {
          const expected = chunk.map(({ device, type, send }) => {
            if (!isMember[send]!(Number(device.slice(1)))) return 'unknown';
            const key = `${send} ${type}`;
            const seen = model.get(key) ?? new Set();
            model.set(key, seen);
            tellings.set(key, (tellings.get(key) ?? 0) + 1);
            const isNew = !seen.has(device);
            seen.add(device);
            return isNew ? 'accepted' : 'repeated';
          });
          assert.deepEqual(
            await record(...chunk.map(({ send, ...rest }) => event(sends[send]!, rest.device, rest))),
            expected,
          );
        }
        for (const [n, id] of sends.entries()) {
          const expected = [...model].flatMap(([key, seen]) => {
            const [send, type] = key.split(' ');
            return Number(send) === n ? [[type, [tellings.get(key), seen.size]]] : [];
          });
          assert.deepEqual(await countsOf(id), Object.fromEntries(expected));
        }
        assert.deepEqual(await disagreements(), []);
      }),
      { numRuns: 15 },
    );
  });

  test('by many at once: every device counts once, nobody waits in a circle', async () => {
    const ids = await Promise.all([send(devices(1, 50)), send(devices(1, 50)), send(devices(1, 50))]);
    const types = ['received', 'opened', 'dismissed', 'by.many'];
    const all = ids.flatMap((id) =>
      devices(1, 50).flatMap((device) => types.map((type) => event(id, device, { type }))),
    );
    const writers = Array.from({ length: 16 }, (_, n) => all.toSorted((a, b) => order(a, n) - order(b, n)));
    let deadlocks = 0;
    const pool = {
      query: (...given: Parameters<typeof database.pool.query>) =>
        (database.pool.query(...given) as unknown as Promise<unknown>).catch((error) => {
          deadlocks++;
          throw error;
        }),
    } as unknown as typeof database.pool;
    const answers = await Promise.all(
      writers.map(async (events) => {
        const told = [];
        for (let from = 0; from < events.length; from += 100)
          told.push(...(await recordEvents(pool, events.slice(from, from + 100))));
        return told;
      }),
    );
    assert.equal(deadlocks, 0);
    assert.equal(answers.flat().filter((answer) => answer === 'accepted').length, all.length);
    for (const id of ids) {
      assert.deepEqual(await countsOf(id), Object.fromEntries(types.map((type) => [type, [16 * 50, 50]])));
    }
    assert.deepEqual(await disagreements(), []);
  });

  test('that come at once are recorded by few statements, and each caller hears of its own', async () => {
    const id = await send(devices(1, 50));
    let statements = 0;
    const pool = {
      query: (...given: Parameters<typeof database.pool.query>) => {
        statements++;
        return database.pool.query(...given);
      },
    } as unknown as typeof database.pool;
    const intake = eventIntake(pool);
    const answers = await Promise.all(
      devices(1, 50).map((device) => intake([event(id, device), event(id, 'd7'), event(id, 'no')])),
    );
    assert.ok(statements <= 2, `${statements}`);
    assert.ok(answers.every(([, , unknown]) => unknown === 'unknown'));
    assert.equal(answers.flat().filter((answer) => answer === 'accepted').length, 50);
  });
});

/** Any order, the same for the same writer. */
function order({ device, type, sendId }: NewEvent, writer: number): number {
  let hash = writer + 1;
  for (const char of `${device}${type}${sendId}`) hash = (hash * 31 + char.charCodeAt(0) * (writer + 7)) % 1_000_003;
  return hash;
}

async function finishPlan(id: string, batchSize: number): Promise<void> {
  for (let planned = false; !planned; ) {
    await database.db.transaction().execute((trx) => planNextPage(trx, id, batchSize));
    planned = (await query('select planned_at from notifications where id = $1', [id]))[0].planned_at !== null;
  }
}

/** Sends and types whose counts and bits differ. */
const disagreements = () =>
  query(`
    select * from (
      select send_id, type, sum(bit_count(devices)) as bits from event_devices group by 1, 2
    ) b full join (
      select send_id, type, sum(devices) as counted from event_counts group by 1, 2
    ) c using (send_id, type) where bits is distinct from counted`);

describe('events of a message to one person', () => {
  test('count by its devices, and by those alone', async () => {
    const id = uuidV7();
    const to = { externalIds: ['d2', 'd33'] };
    await acceptMessages(database.pool, [
      { id, appId: 1, message: { title: 't' }, to, inDoubtPolicy: 'redeliver', idempotency: undefined },
    ]);
    assert.deepEqual(
      await record(event(id, 'd33'), event(id, 'd2'), event(id, 'd33'), event(id, 'd4'), event(id, 'd2', { appId: 2 })),
      ['accepted', 'accepted', 'repeated', 'unknown', 'unknown'],
    );
    assert.deepEqual(await countsOf(id), { opened: [3, 2] });
  });
});

describe("types of an app's own", () => {
  test('are so many: one more is refused, whatever it is told of, and those there are go on', async () => {
    const appId = await addApp('chatty');
    await addDevices(appId, 'd', 1, 3, 'apns');
    const id = await send(devices(1, 3), { appId });
    const ofType = (type: string, more: Partial<NewEvent> = {}) => event(id, 'd1', { appId, type, ...more });
    const types = Array.from({ length: maxOwnEventTypes }, (_, n) => `own_${n}`);
    assert.deepEqual(await record(ofType('stray', { sendId: uuidV7() })), ['unknown'], 'takes no place');
    const all = await Promise.all([...types, ...types].map((type) => record(ofType(type))));
    assert.deepEqual(all.flat().toSorted(), [...Array(20).fill('accepted'), ...Array(20).fill('repeated')]);
    assert.deepEqual(
      await record(
        ofType('one_more'),
        ofType('opened'),
        ofType('own_3', { device: 'd2' }),
        ofType('one_more', { sendId: uuidV7() }),
      ),
      ['refused', 'accepted', 'accepted', 'refused'],
    );
    assert.deepEqual(await query('select count(*)::integer from event_types where app_id = $1', [appId]), [
      { count: 20 },
    ]);
  });

  test('are not more where many come at once', async () => {
    const appId = await addApp('racing');
    await addDevices(appId, 'd', 1, 3, 'apns');
    const id = await send(devices(1, 3), { appId });
    const answers = await Promise.all(
      Array.from({ length: 30 }, (_, n) => record(event(id, 'd1', { appId, type: `own_${n}` }))),
    );
    assert.equal(answers.flat().filter((answer) => answer === 'accepted').length, maxOwnEventTypes);
    assert.equal(answers.flat().filter((answer) => answer === 'refused').length, 10);
  });
});

test('what is new is told to webhooks that want it, all of a chunk at once', async () => {
  const appId = await addApp('listening');
  await addDevices(appId, 'd', 1, 3, 'apns');
  const id = await send(devices(1, 3), { appId });
  const ofDevice = (device: string, more: Partial<NewEvent> = {}) => event(id, device, { appId, ...more });
  const fed = () => query('select type, data from webhook_feed where app_id = $1 order by id', [appId]);
  const listen = (types: string[]) =>
    query(
      "insert into webhooks (id, app_id, url, types, secret_jwe) values (gen_random_uuid(), $1, 'https://h.test', $2, '')",
      [appId, types],
    );
  await listen(['notification.halted']);
  await record(ofDevice('d1'));
  assert.deepEqual(await fed(), [], 'nobody wants them');
  await listen(['events.received']);
  const at = Date.now() - 10;
  await query('update notifications set launched_at = to_timestamp(0) where id = $1', [id]);
  await record(
    ofDevice('d1'),
    ofDevice('d2', { at }),
    ofDevice('d9'),
    ofDevice('d3', { type: 'received', at }),
    ofDevice('d2'),
  );
  await record(ofDevice('d2'));
  const told = { nid: id, at: new Date(at).toISOString() };
  assert.deepEqual(await fed(), [
    {
      type: 'events.received',
      data: {
        events: [
          { ...told, type: 'opened', device: 'd2' },
          { ...told, type: 'received', device: 'd3' },
        ],
      },
    },
  ]);
});

test('of an app that is being deleted nothing is recorded any more', async () => {
  const appId = await addApp('ending');
  await addDevices(appId, 'd', 1, 3, 'apns');
  const id = await send(devices(1, 3), { appId });
  await beginAppDeletion(database.db, appId);
  assert.deepEqual(await record(event(id, 'd1', { appId, type: 'own' })), ['unknown']);
  assert.deepEqual(await query('select from event_types where app_id = $1', [appId]), []);
});

test('what is being recorded as the app is deleted is waited for, and deleted with the rest', async () => {
  const { db, pool } = database;
  const appId = await addApp('leaving');
  await addDevices(appId, 'd', 1, 3, 'apns');
  const id = await send(devices(1, 3), { appId });
  await record(event(id, 'd1', { appId }));
  const holder = await pool.connect();
  try {
    await holder.query('begin');
    assert.deepEqual(await recordEvents(holder, [event(id, 'd2', { appId, type: 'received' })]), ['accepted']);
    await beginAppDeletion(db, appId);
    const deletion = (async () => {
      for await (const _page of deleteContents(db, appId));
    })();
    const waiting = "select from pg_stat_activity where wait_event = 'advisory' and datname = current_database()";
    await until(async () => (await query(waiting)).length > 0);
    await holder.query('commit');
    await deletion;
  } finally {
    holder.release(true);
  }
  for (const table of ['event_devices', 'event_counts']) {
    assert.deepEqual(await query(`select from ${table} where app_id = $1`, [appId]), [], table);
  }
});

test('old months are dropped whole, unless one of their sends was launched lately', async () => {
  const long = (year: number) => uuidV7(Date.UTC(year, 0, 15));
  const [old, kept, young] = [long(2019), long(2020), uuidV7()];
  for (const id of [old, kept, young]) {
    await send(devices(1, 3), { id });
    await record(event(id, 'd1'));
  }
  await query(`update notifications set launched_at = '2019-01-16' where id = $1`, [old]);
  assert.deepEqual(await dropEventMonths(database.db, 3), ['2019_01']);
  assert.deepEqual(
    [await countsOf(old), await countsOf(kept), await countsOf(young)],
    [{}, { opened: [1, 1] }, { opened: [1, 1] }],
  );
  const { rows } = await sql<{ name: string }>`
    select relname as name from pg_class where relname like 'event%2019_01' and relkind = 'r'
  `.execute(database.db);
  assert.deepEqual(rows, []);
  assert.deepEqual(await record(event(old, 'd1')), ['accepted'], 'a late one makes its month again');
});
