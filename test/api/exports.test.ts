/** Listings as streams: whole, in order, resumed wherever they were cut, and never taken for whole where they were not. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { insertApiKey } from '../../db/api-keys.ts';
import { uuidV7 } from '../../domain/uuid-v7.ts';
import { apnsToken, createTestApi, type TestApi } from './harness.ts';

const counts = { devices: 4_500, deliveries: 21_000, notifications: 451, messages: 11_000, audit: 5_200 };
const sendId = uuidV7();
let api: TestApi;
let admin: string;
before(async () => {
  api = await createTestApi();
  const { db, pool } = api.database;
  admin = await insertApiKey(db, { appId: null, name: 'admin', scopes: ['admin'] });
  const { rows } = await pool.query(`insert into apps (name) values ('other') returning id`);
  const otherApp = rows[0].id;
  // Every other device is of another app; some names are awkward for a spreadsheet, or for one that splits lines.
  await pool.query(
    `insert into devices (app_id, external_id, user_id, provider, platform, device_token, properties)
      select case n % 2 when 0 then 1 else $1 end, (array['phone ', '=cmd"', E'two\\r\\nlines,'])[1 + n / 2 % 3] || n,
        'user-' || n, 'fcm', 'android', 'token-' || n, jsonb_build_object('city', 'Kyoto, "old"', 'n', n)
      from generate_series(0, $2) n order by n`,
    [otherApp, 2 * counts.devices - 1],
  );
  await pool.query(
    `insert into notifications (id, app_id, state, message, audience, in_doubt_policy, title, finished_at, planned_at)
      select case n when 1 then $1 else gen_random_uuid() end, case when n <= $3 then 1 else $2 end, 'cancelled', '{}', '{}', 'redeliver',
        '-title ' || n, now(), now()
      from generate_series(1, $3 + 10) n`,
    [sendId, otherApp, counts.notifications],
  );
  await pool.query(
    `insert into batches (notification_id, seq, provider, first_device_id, device_offsets, size, recorded)
      select $1, seq, 'fcm', 1, array(select generate_series(0, 6999)), 7000, repeat('0', 7000)::bit varying
      from generate_series(1, 3) seq`,
    [sendId],
  );
  await pool.query(
    `insert into delivery_groups (notification_id, batch_seq, first_position, positions, outcome, attempts, in_doubt, reason, http_status)
      select $1, seq, 0, repeat('1', 7000)::bit varying, 'accepted', 1, false, null, 200 from generate_series(1, 3) seq`,
    [sendId],
  );
  for (const [lane, appId] of [1, 1, otherApp].entries()) {
    const added = await pool.query(
      `insert into lanes (app_id, provider, number) values ($1, $2, 0) returning id, create_message_partitions(now())`,
      [appId, lane === 1 ? 'apns' : 'fcm'],
    );
    await pool.query(
      `insert into message_entries (message_id, device_id, lane_id, position, attempts, outcome, finished_at)
        select uuid_v7_floor(now() - n * interval '1 millisecond'), (select id from devices where app_id = $3 offset n % 50 limit 1), $1, $2 - n,
          1, case when n % 3 > 0 then 'accepted'::delivery_outcome end, case when n % 3 > 0 then now() end
        from generate_series(1, $2::integer) n`,
      [added.rows[0].id, counts.messages / 2, appId],
    );
  }
  await pool.query(
    `select record_audit_entry((overlay(gen_random_uuid()::text placing left(uuid_v7_floor(now() - n * interval '1 ms')::text, 13) from 1 for 13))::uuid,
        1, 'operator', 'o', null, null, 'export.test', 'thing', n::text, '{"a": "b,c"}') from generate_series(1, $1) n`,
    [counts.audit],
  );
});
after(() => api.close());

interface Case {
  path: string;
  lines: number;
  /** Tells the lines apart. */
  nameOf(line: Record<string, unknown>): unknown;
}

const cases: Record<string, () => Case> = {
  devices: () => ({ path: '/v1/devices', lines: counts.devices, nameOf: (line) => line.external_id }),
  deliveries: () => ({
    path: `/v1/notifications/${sendId}/deliveries`,
    lines: counts.deliveries,
    nameOf: (line) => line.cursor,
  }),
  notifications: () => ({ path: '/v1/notifications', lines: counts.notifications, nameOf: (line) => line.id }),
  'deliveries of messages': () => ({
    path: '/v1/messages/deliveries',
    lines: counts.messages,
    nameOf: (line) => line.cursor,
  }),
  audit: () => ({ path: '/v1/audit?action=export.test', lines: counts.audit, nameOf: (line) => line.id }),
};

const withQuery = (path: string, query: string) => `${path}${path.includes('?') ? '&' : '?'}${query}`;
const authorization = (path: string) => ({ authorization: `Bearer ${path.startsWith('/v1/audit') ? admin : api.key}` });

/** The answer's text, read no further than so many bytes. */
async function readUpTo(path: string, bytes: number): Promise<string> {
  const answer = await api.app.request(path, { headers: authorization(path) });
  assert.equal(answer.status, 200);
  let text = '';
  const decoder = new TextDecoder();
  for await (const block of answer.body!) {
    text += decoder.decode(block as Uint8Array, { stream: true });
    if (text.length > bytes) break;
  }
  return text.slice(0, bytes);
}

/** RFC 4180: the records, each with its text, up to one that is not whole. */
function recordsOf(csv: string): { cells: string[]; text: string }[] {
  const records: { cells: string[]; text: string }[] = [];
  let cells: string[] = [];
  let start = 0;
  for (const { 0: text, 1: cell = '', 2: end, index } of csv.matchAll(/("(?:[^"]|"")*"|[^",\r\n]*)(,|\r\n)/gy)) {
    cells.push(cell.startsWith('"') ? cell.slice(1, -1).replaceAll('""', '"') : cell);
    if (end === ',') continue;
    records.push({ cells, text: csv.slice(start, index + text.length) });
    start = index + text.length;
    cells = [];
  }
  return records;
}

for (const [name, make] of Object.entries(cases)) {
  describe(name, () => {
    const { path, lines, nameOf } = make();

    test('come whole as NDJSON, once each, as the document says', async () => {
      const answer = await api.request('GET', withQuery(path, 'format=ndjson&limit=3'), undefined, authorization(path));
      assert.equal(answer.headers.get('content-type'), 'application/x-ndjson');
      const names = answer.text
        .trimEnd()
        .split('\n')
        .map((line) => nameOf(JSON.parse(line)));
      assert.deepEqual([names.length, new Set(names).size], [lines, lines]);
    });

    test('come whole as CSV: a header, and as many cells in every record', async () => {
      const answer = await api.request('GET', withQuery(path, 'format=csv'), undefined, authorization(path));
      const [header, ...records] = recordsOf(answer.text);
      assert.equal(header!.cells.at(-1), 'cursor');
      assert.equal(records.length, lines);
      for (const { cells } of records) assert.equal(cells.length, header!.cells.length);
      for (const { cells } of records)
        assert.ok(
          cells.every((cell) => !/^[=+@]/.test(cell)),
          'no formula',
        );
    });

    test('cut anywhere and resumed by the last whole line, NDJSON is the same as uncut', async () => {
      const whole = await readUpTo(withQuery(path, 'format=ndjson'), Number.POSITIVE_INFINITY);
      let text = '';
      let cursor = '';
      for (let cuts = 0; text.length < whole.length; cuts++) {
        assert.ok(cuts < 50);
        const bytes = cuts < 6 ? Math.floor((Math.random() * whole.length) / 4) : Number.POSITIVE_INFINITY;
        const part = await readUpTo(withQuery(path, `format=ndjson${cursor}`), bytes);
        const kept = part.slice(0, part.lastIndexOf('\n') + 1);
        text += kept;
        if (kept !== '') cursor = `&cursor=${JSON.parse(kept.trimEnd().split('\n').at(-1)!).cursor}`;
      }
      assert.ok(text === whole);
    });

    test('cut anywhere and resumed by the last whole record, CSV is the same as uncut', async () => {
      const whole = await readUpTo(withQuery(path, 'format=csv'), Number.POSITIVE_INFINITY);
      let text = '';
      let cursor = '';
      for (let cuts = 0; text.length < whole.length; cuts++) {
        assert.ok(cuts < 50);
        const bytes = cuts < 4 ? 200 + Math.floor((Math.random() * whole.length) / 4) : Number.POSITIVE_INFINITY;
        const records = recordsOf(await readUpTo(withQuery(path, `format=csv${cursor}`), bytes));
        text += records.map((record) => record.text).join('');
        const last = records.at(-1)?.cells.at(-1);
        if (last !== undefined && last !== 'cursor') cursor = `&cursor=${last}`;
        else text = '';
      }
      assert.ok(text === whole);
    });

    test('a cursor of the last line is followed by nothing', async () => {
      const whole = await readUpTo(withQuery(path, 'format=ndjson'), Number.POSITIVE_INFINITY);
      const { cursor } = JSON.parse(whole.trimEnd().split('\n').at(-1)!);
      for (const format of ['ndjson', 'csv']) {
        assert.equal(await readUpTo(withQuery(path, `format=${format}&cursor=${cursor}`), 1_000), '');
      }
    });

    test('a process that stops breaks the stream off, so that it is not taken for whole', async () => {
      const stopping = new AbortController();
      const { db, pool } = api.database;
      const other = await createTestApi({ db, pool, stopping: stopping.signal });
      try {
        const answer = await other.app.request(withQuery(path, 'format=ndjson'), { headers: authorization(path) });
        const reader = answer.body!.getReader();
        await reader.read();
        stopping.abort();
        await assert.rejects(async () => {
          while (!(await reader.read()).done);
        });
      } finally {
        await other.close();
      }
    });
  });
}

test('a key that is revoked ends the streams that it began, and an app has so many of them at once', async () => {
  const { db, pool } = api.database;
  const other = await createTestApi({ db, pool, keyCacheTtlMs: 0, exportsPerApp: 1 });
  try {
    const key = await insertApiKey(db, { appId: 1, name: 'short', scopes: ['devices:read', 'messages:read'] });
    const open = (path: string) =>
      other.app.request(withQuery(path, 'format=ndjson'), { headers: { authorization: `Bearer ${key}` } });
    const reader = (await open('/v1/devices')).body!.getReader();
    await reader.read();
    assert.equal((await open('/v1/messages/deliveries')).status, 429);
    await pool.query(`update api_keys set revoked_at = now() where name = 'short'`);
    await assert.rejects(async () => {
      while (!(await reader.read()).done);
    });
  } finally {
    await other.close();
  }
});

describe('devices', () => {
  test('are listed in pages too, and by whether they can be sent to', async () => {
    const { body } = await api.request('GET', '/v1/devices?limit=2');
    assert.equal(body.devices.length, 2);
    const next = await api.request('GET', `/v1/devices?limit=1&cursor=${body.next_cursor}`);
    assert.notEqual(next.body.devices[0].external_id, body.devices[1].external_id);
    assert.deepEqual((await api.request('GET', '/v1/devices?live=false')).body, { devices: [], next_cursor: null });
    assert.equal((await api.request('GET', '/v1/devices?live=true&limit=1')).body.devices.length, 1);
    for (const [query, field] of [['live=yes'], ['include=all'], ['cursor=x'], ['format=xml']].map(([query]) => [
      query,
      query!.split('=')[0],
    ])) {
      const answer = await api.request('GET', `/v1/devices?${query}`);
      assert.deepEqual([answer.status, answer.body.field], [422, field]);
    }
  });

  test('are found however far apart their ids are', async () => {
    const { pool } = api.database;
    await pool.query(`select setval(pg_get_serial_sequence('devices', 'id'), 7_654_321)`);
    assert.equal((await api.request('PUT', '/v1/devices/far', { platform: 'ios' })).status, 201);
    const { text } = await api.request('GET', '/v1/devices?format=ndjson');
    const lines = text
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
    assert.deepEqual([lines.length, lines.at(-1).external_id], [counts.devices + 1, 'far']);
    const { cursor } = lines.at(-2);
    const { body } = await api.request('GET', `/v1/devices?cursor=${cursor}`);
    assert.deepEqual([body.devices.length, body.next_cursor], [1, null]);
    assert.equal((await api.request('DELETE', '/v1/devices/far')).status, 204);
  });

  test('have their tokens only where these are asked for, and the audit tells who did', async () => {
    const tokensRead = async () =>
      (
        await api.request('GET', '/v1/audit?action=devices.read_tokens', undefined, {
          authorization: `Bearer ${admin}`,
        })
      ).body.entries.length;
    for (const format of ['json', 'ndjson', 'csv']) {
      assert.doesNotMatch((await api.request('GET', `/v1/devices?format=${format}`)).text, /token-|device_token/);
    }
    assert.equal(await tokensRead(), 0);
    for (const format of ['json', 'ndjson', 'csv']) {
      assert.match((await api.request('GET', `/v1/devices?include=device_token&format=${format}`)).text, /token-/);
    }
    assert.equal(await tokensRead(), 3);
  });

  test('registered while a stream runs come at its end', async () => {
    const answer = await api.app.request('/v1/devices?format=ndjson', { headers: authorization('/v1/devices') });
    const reader = answer.body!.getReader();
    await reader.read();
    const put = { platform: 'ios', device_token: apnsToken(1) };
    assert.equal((await api.request('PUT', '/v1/devices/late', put)).status, 201);
    let rest = '';
    for (let part = await reader.read(); !part.done; part = await reader.read())
      rest += new TextDecoder().decode(part.value);
    assert.equal(JSON.parse(rest.trimEnd().split('\n').at(-1)!).external_id, 'late');
    assert.equal((await api.request('DELETE', '/v1/devices/late')).status, 204);
  });
});

test('notifications have their books as columns in CSV', async () => {
  const { text } = await api.request('GET', '/v1/notifications?format=csv');
  const [header, ...records] = recordsOf(text);
  const send = records.find(({ cells }) => cells[0] === sendId)!;
  const cell = (name: string) => send.cells[header!.cells.indexOf(name)];
  assert.deepEqual(
    [cell('audience'), cell('accepted'), cell('pending'), cell('title')],
    ['21000', '21000', '0', "'-title 1"],
  );
});

test('deliveries of messages are those of the time that is asked for', async () => {
  const path = '/v1/messages/deliveries';
  const all = (await api.request('GET', `${path}?format=ndjson`)).text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
  const times = all.map(({ created_at }) => created_at).sort();
  const [since, until] = [times[3_000], times[7_000]];
  const { text } = await api.request('GET', `${path}?format=ndjson&since=${since}&until=${until}`);
  const found = text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
  const expected = all.filter(({ created_at }) => created_at >= since && created_at < until);
  assert.deepEqual(found, expected);
  assert.deepEqual((await api.request('GET', `${path}?until=2001-01-01T00:00:00Z`)).body.deliveries, []);
  assert.deepEqual((await api.request('GET', `${path}?since=2999-01-01T00:00:00Z`)).body.deliveries, []);
  assert.equal((await api.request('POST', path, {})).status, 405);
});
