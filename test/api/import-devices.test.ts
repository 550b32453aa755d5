import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { apnsToken, createTestApi, type TestApi } from './harness.ts';

const summaryOf = (counts: object) => ({
  ...{ imported: 0, superseded: 0, failed: 0, warnings: 0, ...counts },
  complete: true,
});

describe('import', () => {
  let api: TestApi;
  before(async () => {
    api = await createTestApi();
  });
  after(() => api.close());

  const ndjson = { 'content-type': 'application/x-ndjson' };
  /** Answer lines, the summary last. */
  async function send(
    body: string | Uint8Array | ReadableStream<Uint8Array>,
    { query = '', headers = {} }: { query?: string; headers?: Record<string, string> } = {},
  ) {
    const response = await api.app.request(`/v1/devices/import${query}`, {
      method: 'POST',
      headers: { ...ndjson, ...headers, authorization: `Bearer ${api.key}` },
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
    assert.deepEqual(summary, summaryOf({ imported: 2, failed: 10, lines: 12 }));
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
    assert.deepEqual(answer.pop(), summaryOf({ imported: 3, failed: 2, lines: 5 }));
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
    assert.deepEqual(answer.pop(), summaryOf({ imported: 1, failed: 1, lines: 2 }));
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
    assert.deepEqual(answer.pop(), summaryOf({ imported: 50, lines: 50 }));
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
    assert.deepEqual(summary, summaryOf({ imported: 3, superseded: 1, lines: 3 }));
    const device = await show('twice');
    assert.deepEqual([device.platform, device.device_token, device.properties.n], ['android', 'second', 2]);
  });

  test('a token moves to the last row that brings it, inside a statement and across them', async () => {
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

  test('two lines for one device mean the same wherever they stand, and are counted', async () => {
    const others = Array.from({ length: 7_000 }, (_, i) => ({ external_id: `apart-${i}`, platform: 'web' }));
    for (const between of [[], others]) {
      await api.request('DELETE', '/v1/devices/two-lines');
      const [summary] = await send(
        lines(
          { external_id: 'two-lines', platform: 'web', properties: { kept: 1 }, user_id: 'anna', locale: 'de' },
          ...between,
          { external_id: 'two-lines', platform: 'web', locale: 'fr' },
        ),
      );
      const count = between.length + 2;
      assert.deepEqual(summary, summaryOf({ imported: count, superseded: 1, lines: count }));
      const { properties, user_id, locale } = await show('two-lines');
      assert.deepEqual([properties, user_id, locale], [{ kept: 1 }, null, 'fr'], `${between.length} lines apart`);
    }
  });

  describe('a row is a copy of what the app registered', () => {
    const retire = (id: string, reason = 'UNREGISTERED') =>
      api.database.pool.query(
        `update devices set retired_at = now(), retired_reason = $2, registered_at = now() - interval '10 days'
          where external_id = $1`,
        [id, reason],
      );
    const daysAgo = (days: number) => new Date(Date.now() - days * 86_400_000).toISOString();
    const row = (id: string, token: number, more: object = {}) => ({
      ...{ external_id: id, platform: 'ios', device_token: apnsToken(token), ...more },
    });

    test('with the same token it moves neither registered_at nor the retirement, and stores the rest', async () => {
      await send(lines(row('copy', 2_001)));
      await retire('copy');
      const before = await show('copy');
      await send(lines(row('copy', 2_001, { user_id: 'new', apns_environment: 'sandbox' })));
      const after = await show('copy');
      assert.deepEqual(
        [after.registered_at, after.retired_at, after.retired_reason],
        [before.registered_at, before.retired_at, 'UNREGISTERED'],
      );
      assert.deepEqual([after.user_id, after.apns_environment], ['new', 'sandbox']);
    });

    test('with another token, or of a new device, it registers', async () => {
      await send(lines(row('rotated', 2_002)));
      await retire('rotated');
      await send(lines(row('rotated', 2_003)));
      const { retired_at, registered_at } = await show('rotated');
      assert.equal(retired_at, null);
      assert.ok(Date.parse(registered_at) > Date.now() - 60_000);
    });

    test('that says when it was registered brings a retired device back only if that is news', async () => {
      await send(lines(row('revived', 2_004)));
      await retire('revived');
      await send(lines(row('revived', 2_004, { registered_at: daysAgo(11) })));
      assert.equal((await show('revived')).retired_reason, 'UNREGISTERED');
      const newer = daysAgo(2);
      await send(lines(row('revived', 2_004, { registered_at: newer })));
      assert.deepEqual(
        [(await show('revived')).retired_at, (await show('revived')).registered_at],
        [null, newer],
        'a 410 dated before it retires no more',
      );
    });

    test('that says it is older than what is stored does not bring an old token back', async () => {
      await send(lines(row('older', 2_005)));
      await send(lines(row('older', 2_006, { registered_at: daysAgo(3), properties: { stored: 'all the same' } })));
      const device = await show('older');
      assert.equal(device.device_token, apnsToken(2_005));
      assert.deepEqual(device.properties, { stored: 'all the same' });
    });

    test('does not take a token from a device that registered it later, in whatever order the rows stand', async () => {
      const older = row('was-mine', 2_007, { registered_at: daysAgo(5) });
      const newer = row('is-mine', 2_007, { registered_at: daysAgo(4) });
      for (const rows of [[older, newer], [newer, older], [older], [newer]]) {
        await send(lines(...rows));
        if (rows.length === 2 || rows[0] === older) assert.equal((await show('is-mine')).retired_at, null);
        assert.equal((await show('was-mine')).retired_reason, 'token_moved');
      }
      await send(lines(row('was-mine', 2_007)));
      assert.equal((await show('was-mine')).retired_reason, 'token_moved', 'nor without a word of its age');
      await send(lines(row('was-mine', 2_007, { registered_at: daysAgo(3) })));
      assert.equal((await show('was-mine')).retired_at, null);
      assert.equal((await show('is-mine')).retired_reason, 'token_moved');
    });

    test('unless the import says that its rows are registrations', async () => {
      await send(lines(row('forced', 2_008)));
      await retire('forced');
      await send(lines(row('forced', 2_008)), { query: '?register=true' });
      assert.equal((await show('forced')).retired_at, null);
      const wrong = await api.request('POST', '/v1/devices/import?register=yes', '', ndjson);
      assert.deepEqual([wrong.status, wrong.body.field], [422, 'register']);
    });

    test('of the future it is refused', async () => {
      const [failure] = await send(lines(row('future', 2_009, { registered_at: daysAgo(-1) })));
      assert.deepEqual([failure.field, failure.code], ['registered_at', 'invalid_input']);
    });
  });

  test('an unknown locale or time zone is left out and said, the device is stored', async () => {
    const [warning, summary] = await send(
      lines({ external_id: 'odd', platform: 'web', time_zone: 'Mars/Olympus', locale: 'EN_us' }),
    );
    assert.deepEqual(
      [warning.warning.line, warning.warning.external_id, warning.warning.field],
      [1, 'odd', 'time_zone'],
    );
    assert.deepEqual(summary, summaryOf({ imported: 1, warnings: 1, lines: 1 }));
    const device = await show('odd');
    assert.deepEqual([device.time_zone, device.locale], [null, 'en-US']);
  });

  test('ids that no URL can have are refused', async () => {
    const answer = await send(lines(...['.', '..'].map((external_id) => ({ external_id, platform: 'web' }))));
    assert.deepEqual(answer.pop(), summaryOf({ failed: 2, lines: 2 }));
    assert.deepEqual([answer[0].field, answer[1].field], ['external_id', 'external_id']);
  });

  test('what is shown of a line that failed ends between characters', async () => {
    const family = '👨‍👩‍👧';
    const [failure] = await send(lines({ external_id: `${'x'.repeat(505)}${family}`, platform: 'web' }));
    assert.equal(failure.external_id, 'x'.repeat(505));
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

  test('12 000 rows are stored with all their columns', async () => {
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
    assert.deepEqual(summary, summaryOf({ imported: 12_000, lines: 12_000 }));
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

  describe('with Content-Encoding', () => {
    const gzip = { headers: { 'content-encoding': 'gzip' } };

    test('gzip, it is the same as without', async () => {
      const rows = Array.from({ length: 6_000 }, (_, i) => ({ external_id: `gz-${i}`, platform: 'web' }));
      const [summary] = await send(gzipSync(lines(...rows)), gzip);
      assert.deepEqual(summary, summaryOf({ imported: 6_000, lines: 6_000 }));
      const body = gzipSync('{"platform":"web"}');
      assert.equal((await api.request('PUT', '/v1/devices/gz-put', body, gzip.headers)).status, 201);
    });

    test('gzip that is none, or is cut off, ends the import', async () => {
      const whole = gzipSync(
        lines(...Array.from({ length: 500 }, (_, i) => ({ external_id: `${i}`, platform: 'web' }))),
      );
      for (const body of ['{"external_id":"x","platform":"web"}', whole.subarray(0, whole.length - 50)]) {
        const summary = (await send(body, gzip)).at(-1);
        assert.deepEqual([summary.complete, summary.code], [false, 'invalid_encoding']);
        assert.equal((await api.request('PUT', '/v1/devices/x', body, gzip.headers)).status, 400);
      }
    });

    test('gzip, a body that grows to a thousand times its size ends early', async () => {
      const bomb = gzipSync(Buffer.alloc(256 * 1_048_576, '\n'));
      const before = process.memoryUsage().rss;
      const summary = (await send(bomb, gzip)).at(-1);
      assert.deepEqual([summary.complete, summary.code], [false, 'body_too_large']);
      assert.ok(process.memoryUsage().rss - before < 100 * 1_048_576);
      assert.equal((await api.request('POST', '/v1/devices/search', bomb, gzip.headers)).status, 413);
    });

    test('another one, it is refused', async () => {
      for (const encoding of ['br', 'gzip, gzip', 'x']) {
        const headers = { ...ndjson, 'content-encoding': encoding };
        assert.equal((await api.request('POST', '/v1/devices/import', '', headers)).status, 415);
        const json = { 'content-encoding': encoding };
        assert.equal((await api.request('PUT', '/v1/devices/x', { platform: 'web' }, json)).status, 415);
      }
    });
  });

  test('an empty import, a wrong media type, a body that breaks off', async () => {
    assert.deepEqual(await send(''), [summaryOf({ imported: 0, lines: 0 })]);
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

test('a long import says how far it is, so that no client gives up on a silent connection', async (t) => {
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
  assert.deepEqual(said.pop(), summaryOf({ imported: 12_000, lines: 12_000 }));
  assert.ok(said.length > 0);
  const lines = said.map(({ progress }) => progress.lines);
  assert.deepEqual(
    lines,
    lines.toSorted((a, b) => a - b),
  );
});
