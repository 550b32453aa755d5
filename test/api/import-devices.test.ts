import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { apnsToken, createTestApi, type TestApi } from './harness.ts';

describe('import', () => {
  let api: TestApi;
  before(async () => {
    api = await createTestApi();
  });
  after(() => api.close());

  const ndjson = { 'content-type': 'application/x-ndjson' };
  /** Answer lines, the summary last. */
  async function send(body: string | Uint8Array | ReadableStream<Uint8Array>) {
    const response = await api.app.request('/v1/devices/import', {
      method: 'POST',
      headers: { ...ndjson, authorization: `Bearer ${api.key}` },
      body: body as string,
      ...({ duplex: 'half' } as object),
    });
    assert.equal(response.status, 200);
    const lines = (await response.text()).trim().split('\n');
    return lines.map((line) => JSON.parse(line));
  }
  const lines = (...rows: object[]) => rows.map((row) => JSON.stringify(row)).join('\n');
  const show = async (id: string) => (await api.request('GET', `/v1/devices/${id}`)).body;

  test('rows are stored, each failing row is answered by its line, code and field', async () => {
    const answer = await send(
      [
        '{"external_id":"a","platform":"ios","device_token":"<AB CD>"}',
        '',
        '{"external_id":"b","platform":"web","properties":{"x":1}}',
        '{"external_id":"c","platform":"windows"}',
        '{not json',
        '{"external_id":"d\\u0000","platform":"web"}',
        '{"external_id":"e","platform":"web","colour":"red"}',
        '{"platform":"web"}',
        '[]',
        'null',
        '{"external_id":"f","platform":"android","device_token":"has blank"}\r',
        '{"external_id":"g","platform":"web","properties":{"n":1e999}}',
        '{"external_id":"h","platform":"web"}',
      ].join('\n'),
    );
    const summary = answer.pop();
    assert.deepEqual(summary, { imported: 2, failed: 10, lines: 12, complete: true });
    assert.deepEqual(
      answer.map(({ line, external_id, code, field }) => [line, external_id, code, field]),
      [
        [1, 'a', 'invalid_input', 'device_token'],
        [4, 'c', 'invalid_input', 'platform'],
        [5, undefined, 'malformed_json', ''],
        [6, 'd\u0000', 'invalid_input', 'external_id'],
        [7, 'e', 'invalid_input', 'colour'],
        [8, undefined, 'invalid_input', 'external_id'],
        [9, undefined, 'invalid_input', ''],
        [10, undefined, 'invalid_input', ''],
        [11, 'f', 'invalid_input', 'device_token'],
        [12, 'g', 'invalid_input', 'properties.n'],
      ],
    );
    assert.deepEqual((await show('b')).properties, { x: 1 });
    assert.equal((await show('c')).status, 404);
  });

  test('bytes that are not UTF-8, and lines beyond 64 KB, fail alone', async () => {
    const good = (id: string) => `{"external_id":"${id}","platform":"web"}\n`;
    const parts = [good('utf-1'), '{"external_id":"x', new Uint8Array([0xff, 0xfe]), '"}\n', good('utf-2')];
    parts.push(`{"external_id":"long","platform":"web","properties":{"x":"${'y'.repeat(70_000)}"}}\n`, good('utf-3'));
    const answer = await send(Buffer.concat(parts.map((part) => Buffer.from(part as string))));
    assert.deepEqual(answer.pop(), { imported: 3, failed: 2, lines: 5, complete: true });
    assert.deepEqual(
      answer.map(({ line, code }) => [line, code]),
      [
        [2, 'invalid_encoding'],
        [4, 'body_too_large'],
      ],
    );
    for (const id of ['utf-1', 'utf-2', 'utf-3']) assert.equal((await show(id)).external_id, id);
  });

  test('a line of many megabytes without an end is one failure and is not kept in memory', async () => {
    const block = new Uint8Array(65_536).fill(0x61);
    let sent = 0;
    const answer = await send(
      new ReadableStream({
        pull(controller) {
          if (sent++ < 320) controller.enqueue(block);
          else {
            controller.enqueue(Buffer.from('\n{"external_id":"after","platform":"web"}'));
            controller.close();
          }
        },
      }),
    );
    assert.deepEqual(answer.pop(), { imported: 1, failed: 1, lines: 2, complete: true });
  });

  test('lines cut anywhere between blocks come together again', async () => {
    const text = Buffer.from(
      Array.from({ length: 50 }, (_, i) => `{"external_id":"cut-${i}","platform":"web","user_id":"ü${i}"}`).join('\n'),
    );
    let offset = 0;
    const answer = await send(
      new ReadableStream({
        pull(controller) {
          controller.enqueue(new Uint8Array(text.subarray(offset, offset + 7)));
          offset += 7;
          if (offset >= text.length) controller.close();
        },
      }),
    );
    assert.deepEqual(answer.pop(), { imported: 50, failed: 0, lines: 50, complete: true });
    assert.equal((await show('cut-49')).user_id, 'ü49');
  });

  test('of repeated external ids the last row wins', async () => {
    const [summary] = await send(
      lines(
        { external_id: 'twice', platform: 'ios', device_token: apnsToken(1), properties: { n: 1 } },
        { external_id: 'other', platform: 'web' },
        { external_id: 'twice', platform: 'android', device_token: 'second', properties: { n: 2 } },
      ),
    );
    assert.deepEqual(summary, { imported: 3, failed: 0, lines: 3, complete: true });
    const device = await show('twice');
    assert.deepEqual([device.platform, device.device_token, device.properties.n], ['android', 'second', 2]);
  });

  test('B04 in bulk: a token moves to the last row that brings it, inside a statement and across them', async () => {
    await send(lines({ external_id: 'bulk-1', platform: 'ios', device_token: apnsToken(7) }));
    await send(
      lines(
        { external_id: 'bulk-2', platform: 'ios', device_token: apnsToken(7) },
        { external_id: 'bulk-3', platform: 'ios', device_token: apnsToken(7).toUpperCase() },
      ),
    );
    assert.equal((await show('bulk-1')).retired_reason, 'token_moved');
    const second = await show('bulk-2');
    assert.deepEqual([second.retired_reason, second.device_token], ['token_moved', apnsToken(7)]);
    assert.equal((await show('bulk-3')).retired_at, null);
  });

  test('devices that swap tokens inside one import both stay live', async () => {
    await send(
      lines(
        { external_id: 'sa', platform: 'ios', device_token: apnsToken(8) },
        { external_id: 'sb', platform: 'ios', device_token: apnsToken(9) },
      ),
    );
    await send(
      lines(
        { external_id: 'sa', platform: 'ios', device_token: apnsToken(9), properties: {} },
        { external_id: 'sb', platform: 'ios', device_token: apnsToken(8) },
      ),
    );
    const [a, b] = [await show('sa'), await show('sb')];
    assert.deepEqual(
      [a.device_token, a.retired_at, b.device_token, b.retired_at],
      [apnsToken(9), null, apnsToken(8), null],
    );
  });

  test('properties left out stay, properties given replace', async () => {
    await send(
      lines(
        { external_id: 'keep', platform: 'web', properties: { a: 1 } },
        { external_id: 'lose', platform: 'web', properties: { a: 1 } },
      ),
    );
    await send(
      lines(
        { external_id: 'keep', platform: 'web' },
        { external_id: 'lose', platform: 'web', properties: { b: null } },
      ),
    );
    assert.deepEqual((await show('keep')).properties, { a: 1 });
    assert.deepEqual((await show('lose')).properties, {});
  });

  test('B07: 12 000 rows with all their columns', async () => {
    const rows = Array.from({ length: 12_000 }, (_, i) => ({
      external_id: `many-${i}`,
      platform: 'ios',
      device_token: apnsToken(100_000 + i),
      apns_environment: 'sandbox',
      user_id: `user-${i}`,
      properties: { i },
      locale: 'en',
      time_zone: 'UTC',
    }));
    const [summary] = await send(lines(...rows));
    assert.deepEqual(summary, { imported: 12_000, failed: 0, lines: 12_000, complete: true });
  });

  test('four imports and forty registrations of the same devices and tokens at once leave one owner a token', async () => {
    const rows = (shift: number) =>
      lines(
        ...Array.from({ length: 200 }, (_, i) => ({
          external_id: `mix-${(i * 7) % 200}`,
          platform: 'ios',
          device_token: apnsToken(900_000 + ((i + shift) % 200)),
        })),
      );
    const work: Promise<unknown>[] = [0, 3, 50, 111].map(async (shift) => {
      const [summary] = await send(rows(shift));
      assert.deepEqual([summary.imported, summary.failed, summary.complete], [200, 0, true]);
    });
    for (let i = 0; i < 40; i++) {
      const body = { platform: 'ios', device_token: apnsToken(900_000 + i) };
      work.push(
        api
          .request('PUT', `/v1/devices/mix-${199 - i}`, body)
          .then(({ status, text }) => assert.ok(status < 300, text)),
      );
    }
    await Promise.all(work);
    const { rows: wrong } = await api.database.pool.query(
      `select device_token from devices where external_id like 'mix-%' and retired_at is null
        group by device_token having count(*) > 1`,
    );
    assert.deepEqual(wrong, []);
  });

  test('an empty import, a wrong media type, a body that breaks off', async () => {
    assert.deepEqual(await send(''), [{ imported: 0, failed: 0, lines: 0, complete: true }]);
    assert.equal((await api.request('POST', '/v1/devices/import', '{}')).status, 415);
    const answer = await send(
      new ReadableStream({
        start(controller) {
          controller.enqueue(Buffer.from('{"external_id":"broken-1","platform":"web"}\n'));
        },
        pull(controller) {
          controller.error(new Error('the client went away'));
        },
      }),
    );
    assert.equal(answer.at(-1).complete, false);
  });
});

test('a long import says how far it is, so that nobody gives up on a silent connection', async (t) => {
  const api = await createTestApi({ importProgressIntervalMs: 0 });
  t.after(() => api.close());
  const rows = Array.from({ length: 12_000 }, (_, n) => JSON.stringify({ external_id: `d-${n}`, platform: 'web' }));
  const response = await api.app.request('/v1/devices/import', {
    method: 'POST',
    headers: { 'content-type': 'application/x-ndjson', authorization: `Bearer ${api.key}` },
    body: rows.join('\n'),
  });
  const answers = (await response.text()).trimEnd().split('\n');
  const said = answers.map((line) => JSON.parse(line));
  assert.deepEqual(said.pop(), { imported: 12_000, failed: 0, lines: 12_000, complete: true });
  assert.ok(said.length > 0);
  const lines = said.map(({ progress }) => progress.lines);
  assert.deepEqual(
    lines,
    lines.toSorted((a, b) => a - b),
  );
});
