import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { createTestApi, type TestApi } from './harness.ts';

describe('deliveries and progress', () => {
  let api: TestApi;
  let id: string;
  const external = (n: number) => `dev,"${n}"`;

  before(async () => {
    api = await createTestApi();
    const { pool } = api.database;
    await pool.query(
      `insert into devices (app_id, external_id, provider, platform, device_token)
        select 1, 'dev,"' || n || '"', 'fcm', 'android', 'token-' || n from generate_series(1, 25) n`,
    );
    const created = await api.request('POST', '/v1/notifications', {
      message: { title: '=cmd' },
      audience: {},
      launch: true,
    });
    id = created.body.id;
    await pool.query(
      `insert into batches (notification_id, seq, provider, first_device_id, device_offsets, size, recorded)
        select $1, seq, 'fcm', first, array(select generate_series(0, size - 1)), size, repeat('0', size)::bit varying
        from (values (1, 1, 10), (2, 11, 15)) as batch (seq, first, size)`,
      [id],
    );
    await pool.query(
      `insert into delivery_groups (notification_id, batch_seq, first_position, positions, outcome, attempts, in_doubt, reason)
        values ($1, 1, 0, B'1010101010', 'accepted', 1, false, null), ($1, 1, 1, B'101010101', 'accepted', 2, true, null),
          ($1, 2, 0, B'11111111', 'accepted', 1, false, null), ($1, 2, 8, B'11', 'unregistered', 1, false, '=UNREGISTERED')`,
      [id],
    );
  });
  after(() => api.close());

  const list = (query: string, headers = {}) =>
    api.request('GET', `/v1/notifications/${id}/deliveries${query}`, undefined, headers);

  test('pages go by cursor and filter by outcome and reason', async () => {
    const seen: string[] = [];
    let cursor = '';
    for (let pages = 0; pages < 4; pages++) {
      const page = (await list(`?limit=7${cursor}`)).body;
      seen.push(...page.deliveries.map((delivery: { external_id: string }) => delivery.external_id));
      if (page.next_cursor === null) break;
      cursor = `&cursor=${page.next_cursor}`;
    }
    assert.deepEqual(
      seen,
      Array.from({ length: 20 }, (_, i) => external(i + 1)),
    );
    assert.equal((await list('?outcome=unregistered')).body.deliveries.length, 2);
    assert.equal((await list('?reason=%3DUNREGISTERED')).body.deliveries.length, 2);
    assert.equal((await list('?outcome=accepted&reason=x')).body.deliveries.length, 0);
    for (const [query, field] of [
      ['outcome=sent', 'outcome'],
      ['limit=1001', 'limit'],
      ['cursor=x', 'cursor'],
      ['format=xml', 'format'],
      ['reason=%00', 'reason'],
    ]) {
      const answer = await list(`?${query}`);
      assert.deepEqual([answer.status, answer.body.field], [422, field]);
    }
  });

  test('NDJSON and CSV hold everything, by Accept or by format', async () => {
    for (const answer of [await list('?format=ndjson'), await list('', { accept: 'application/x-ndjson' })]) {
      assert.equal(answer.headers.get('content-type'), 'application/x-ndjson');
      const rows = answer.text
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line));
      assert.equal(rows.length, 20);
      assert.equal(rows[19].reason, '=UNREGISTERED');
    }
    for (const answer of [
      await list('?format=csv&outcome=unregistered'),
      await list('?outcome=unregistered', { accept: 'text/csv' }),
    ]) {
      const lines = answer.text.split('\r\n');
      assert.equal(lines.length, 4);
      assert.match(lines[0]!, /^notification_id,external_id,outcome,reason/);
      assert.match(lines[1]!, /,"dev,""19""",unregistered,'=UNREGISTERED,/, 'quoted, and no formula');
    }
  });

  test("a device's history shows what it was sent", async () => {
    const answer = await api.request('GET', `/v1/devices/${encodeURIComponent(external(19))}/notifications`);
    assert.equal(answer.status, 200, answer.text);
    assert.deepEqual(
      answer.body.deliveries.map((d: { notification_id: string; outcome: string }) => [d.notification_id, d.outcome]),
      [[id, 'unregistered']],
    );
    assert.equal((await api.request('GET', '/v1/devices/nobody/notifications')).status, 404);
  });

  test('one device of them is found by its external id; 404 says what is missing', async () => {
    const one = (externalId: string) =>
      api.request('GET', `/v1/notifications/${id}/deliveries/${encodeURIComponent(externalId)}`);
    const { body } = await one(external(4));
    assert.deepEqual(
      [body.external_id, body.outcome, body.attempts, body.in_doubt],
      [external(4), 'accepted', 2, true],
    );
    assert.equal((await one(external(20))).body.reason, '=UNREGISTERED');
    const noOutcome = await one(external(25));
    assert.deepEqual([noOutcome.status, noOutcome.body.detail], [404, 'There is no such delivery.']);
    const unknown = await one('nobody');
    assert.deepEqual([unknown.status, unknown.body.detail], [404, 'There is no such device.']);
  });

  test("a device's history goes on behind a cut: by its length, and by the newer sends that were looked at", async () => {
    const path = `/v1/devices/${encodeURIComponent(external(19))}/notifications`;
    const { pool } = api.database;
    await pool.query(`insert into notifications (id, app_id, state, message, audience, in_doubt_policy, finished_at)
      select ('7f000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 1, 'cancelled', '{}', '{}', 'redeliver', now()
      from generate_series(1, 2000) n`);
    const first = await api.request('GET', path);
    assert.deepEqual(first.body.deliveries, []);
    assert.notEqual(first.body.next_cursor, null);
    const second = await api.request('GET', `${path}?cursor=${first.body.next_cursor}`);
    const idsOf = ({ body }: typeof second) =>
      body.deliveries.map((d: { notification_id: string }) => d.notification_id);
    assert.deepEqual([idsOf(second), second.body.next_cursor], [[id], null]);

    const older = '01000000-0000-7000-8000-000000000001';
    await pool.query(`delete from notifications where id > '7f000000-0000-7000-8000-000000000000'`);
    await pool.query(
      `insert into notifications (id, app_id, state, message, audience, in_doubt_policy, finished_at)
        values ($1, 1, 'cancelled', '{}', '{}', 'redeliver', now())`,
      [older],
    );
    await pool.query(`create table delivery_groups_older partition of delivery_groups
      for values from ('01000000-0000-0000-0000-000000000000') to ('01000000-ffff-0000-0000-000000000000')`);
    await pool.query(
      `insert into batches (notification_id, seq, provider, first_device_id, device_offsets, size, recorded)
        values ($1, 1, 'fcm', 18, '{0,1,2}', 3, B'000')`,
      [older],
    );
    await pool.query(
      `insert into delivery_groups (notification_id, batch_seq, first_position, positions, outcome, attempts, in_doubt)
        values ($1, 1, 1, B'1', 'accepted', 1, false)`,
      [older],
    );
    const newest = await api.request('GET', `${path}?limit=1`);
    assert.deepEqual(idsOf(newest), [id]);
    const last = await api.request('GET', `${path}?limit=1&cursor=${newest.body.next_cursor}`);
    assert.deepEqual([idsOf(last), last.body.next_cursor], [[older], null]);
  });

  test('progress is told while it changes and ends with the books', async () => {
    const response = await api.app.request(`/v1/notifications/${id}/progress`, {
      headers: { authorization: `Bearer ${api.key}` },
    });
    assert.match(response.headers.get('content-type') ?? '', /^text\/event-stream/);
    const events = readEvents(response.body!);
    const first = (await events.next()).value!;
    assert.equal(first.event, 'progress');
    assert.deepEqual(
      [first.data.state, first.data.books.audience, first.data.books.pending, first.data.books.balanced],
      ['sending', 25, 5, true],
    );
    const { pool } = api.database;
    const accept = (firstPosition: number, positions: string) =>
      pool.query(
        `insert into delivery_groups (notification_id, batch_seq, first_position, positions, outcome, attempts, in_doubt)
          values ($1, 2, $2, $3, 'accepted', 1, false)`,
        [id, firstPosition, positions],
      );
    await accept(10, '11');
    assert.equal((await events.next()).value!.data.books.pending, 3);
    await accept(12, '111');
    await pool.query(`update notifications set state = 'completed', finished_at = now() where id = $1`, [id]);
    let last = (await events.next()).value!;
    while (last.event !== 'end') last = (await events.next()).value!;
    assert.deepEqual([last.data.state, last.data.books.pending], ['completed', 0]);
    assert.equal((await events.next()).done, true);
    const after = await api.request('GET', `/v1/notifications/${id}/progress`);
    assert.match(after.text, /^event: end/);
  });

  test('a stream ends when its reader goes, and when the process stops', async () => {
    const stopping = new AbortController();
    const other = await createTestApi({ stopping: stopping.signal });
    const created = await other.request('POST', '/v1/notifications', { message: { title: 'x' }, audience: {} });
    const open = () =>
      other.app.request(`/v1/notifications/${created.body.id}/progress`, {
        headers: { authorization: `Bearer ${other.key}` },
      });
    const left = readEvents((await open()).body!);
    await left.next();
    await left.return(undefined);
    const stopped = readEvents((await open()).body!);
    await stopped.next();
    stopping.abort();
    assert.equal((await stopped.next()).done, true);
    await other.close();
  });
});

// biome-ignore lint/suspicious/noExplicitAny: tests look into events of every shape.
async function* readEvents(body: ReadableStream<Uint8Array>): AsyncGenerator<{ event: string; data: any }> {
  let text = '';
  for await (const bytes of body.pipeThrough(new TextDecoderStream() as never) as unknown as AsyncIterable<string>) {
    text += bytes;
    for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n')) {
      const lines = text.slice(0, end).split('\n');
      text = text.slice(end + 2);
      const field = (name: string) => lines.find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
      const event = field('event');
      if (event !== undefined) yield { event, data: JSON.parse(field('data') ?? 'null') };
    }
  }
}
