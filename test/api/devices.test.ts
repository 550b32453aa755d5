import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { type Answer, apnsToken, createTestApi, type TestApi } from './harness.ts';

describe('devices', () => {
  let api: TestApi;
  before(async () => {
    api = await createTestApi();
  });
  after(() => api.close());

  const put = (id: string, body: object) => api.request('PUT', `/v1/devices/${encodeURIComponent(id)}`, body);
  const get = (id: string) => api.request('GET', `/v1/devices/${encodeURIComponent(id)}`);

  test('a device is created, shown, registered again and forgotten', async () => {
    const body = {
      platform: 'ios',
      device_token: apnsToken(1),
      user_id: 'anna',
      properties: { plan: 'pro', age: 41, none: null },
      locale: 'de_DE',
      time_zone: 'Europe/Berlin',
    };
    const created = await put('life', body);
    assert.equal(created.status, 201, created.text);
    assert.equal(created.body.provider, 'apns');
    assert.equal(created.body.locale, 'de-DE');
    assert.deepEqual(created.body.properties, { plan: 'pro', age: 41 });
    assert.ok(created.body.bucket >= 1 && created.body.bucket <= 10_000);
    assert.equal(created.body.retired_at, null);
    const again = await put('life', { platform: 'ios', device_token: apnsToken(2) });
    assert.equal(again.status, 200);
    assert.equal(again.body.bucket, created.body.bucket);
    assert.equal(again.body.user_id, null);
    assert.deepEqual(again.body.properties, { plan: 'pro', age: 41 }, 'properties left out stay');
    assert.deepEqual((await get('life')).body, again.body);
    assert.equal((await api.request('DELETE', '/v1/devices/life')).status, 204);
    assert.equal((await api.request('DELETE', '/v1/devices/life')).status, 404);
    assert.equal((await get('life')).body.code, 'not_found');
  });

  test('ids with slashes, blanks and percent signs are what they are', async () => {
    for (const id of ['a/b', 'a b', '100%', 'ä+ü', '%2F', '%2e%2e', '...', 'import?x', 'search']) {
      const answer = await put(id, { platform: 'web' });
      assert.equal(answer.status, 201, `${id}: ${answer.text}`);
      assert.equal(answer.body.external_id, id);
      assert.equal((await get(id)).body.external_id, id);
    }
  });

  test('the ways of writing an APNs token are one token, an FCM token is trimmed and keeps its case', async () => {
    const hex = 'ABCD1234'.repeat(8);
    const grouped = `<${(hex.toLowerCase().match(/.{8}/g) ?? []).join(' ')}>`;
    for (const [i, token] of [hex, hex.toLowerCase(), grouped].entries()) {
      const answer = await put(`b01-${i}`, { platform: 'ios', device_token: token });
      assert.equal(answer.body.device_token, hex.toLowerCase());
    }
    const search = await api.request('POST', '/v1/devices/search', {
      external_ids: ['b01-0', 'b01-1', 'b01-2'],
      live: true,
    });
    assert.deepEqual(search.body.devices.map(externalIdOf), ['b01-2']);
    assert.equal((await put('b01-f', { platform: 'android', device_token: 'AbC:def\n' })).body.device_token, 'AbC:def');
    assertInvalid(await put('b01-g', { platform: 'android', device_token: 'abc def' }), 'device_token');
    assert.equal((await get('b01-g')).status, 404);
  });

  test('tokens of 108, 160 and 400 hex digits are accepted, odd and non-hex ones are not', async () => {
    for (const digits of [64, 108, 160, 400]) {
      assert.equal(
        (await put(`b02-${digits}`, { platform: 'ios', device_token: 'a1'.repeat(digits / 2) })).status,
        201,
      );
    }
    for (const token of ['abc', 'a1'.repeat(32).slice(1), 'zz'.repeat(32), '']) {
      assertInvalid(await put('b02-bad', { platform: 'ios', device_token: token }), 'device_token');
    }
  });

  test('an FCM token too long for the index is refused, not a 500', async () => {
    const random = Array.from({ length: 3_000 }, (_, i) => String.fromCharCode(65 + ((i * i * 31) % 57))).join('');
    assertInvalid(
      await put('long', { platform: 'android', device_token: random.replace(/[^A-Za-z]/g, 'x') }),
      'device_token',
    );
    const longest = await put('longest', { platform: 'android', device_token: crypto.randomUUID().repeat(56) });
    assert.equal(longest.status, 201);
  });

  test('the last registration owns the token, the former owner is kept as history', async () => {
    await put('u1', { platform: 'ios', device_token: apnsToken(4), properties: { vip: true } });
    assert.equal((await put('u2', { platform: 'ios', device_token: apnsToken(4) })).status, 201);
    const former = (await get('u1')).body;
    assert.equal(former.retired_reason, 'token_moved');
    assert.equal(former.device_token, apnsToken(4));
    const size = async (audience: object) =>
      (await api.request('POST', '/v1/audience/estimate', audience)).body.devices;
    assert.equal(await size({ external_ids: ['u1', 'u2'] }), 1);
    assert.equal(
      await size({ external_ids: ['u1', 'u2'], condition: { property: 'vip', operator: 'eq', value: true } }),
      0,
    );
    const back = await put('u1', { platform: 'ios', device_token: apnsToken(4) });
    assert.equal(back.body.retired_at, null);
    assert.equal((await get('u2')).body.retired_reason, 'token_moved');
  });

  test('one token registered by fifty devices at once belongs to exactly one, and every request succeeds', async () => {
    const answers = await Promise.all(
      Array.from({ length: 50 }, (_, i) => put(`race-${i}`, { platform: 'ios', device_token: apnsToken(50) })),
    );
    assert.deepEqual([...new Set(answers.map(({ status }) => status))], [201]);
    const { rows } = await api.database.pool.query(
      `select count(*) filter (where retired_at is null) as live, count(*) as all from devices where device_token = $1`,
      [apnsToken(50)],
    );
    assert.deepEqual(rows, [{ live: 1, all: 50 }]);
  });

  test('devices that swap tokens in both directions at once all succeed', async () => {
    await put('swap-a', { platform: 'ios', device_token: apnsToken(61) });
    await put('swap-b', { platform: 'ios', device_token: apnsToken(62) });
    const answers = await Promise.all(
      Array.from({ length: 40 }, (_, i) =>
        put(i % 2 ? 'swap-a' : 'swap-b', { platform: 'ios', device_token: apnsToken(61 + ((i >> 1) % 2)) }),
      ),
    );
    assert.deepEqual([...new Set(answers.map(({ status }) => status))], [200]);
  });

  test('properties are set and removed by key, within their limits', async () => {
    await put('props', { platform: 'web', properties: { a: 1, b: 2 } });
    const patch = (change: object) => api.request('PATCH', '/v1/devices/props/properties', change);
    assert.deepEqual((await patch({ b: null, c: [1, 'x'], d: { deep: true } })).body.properties, {
      a: 1,
      c: [1, 'x'],
      d: { deep: true },
    });
    const many = Object.fromEntries(Array.from({ length: 99 }, (_, i) => [`k${i}`, i]));
    assertInvalid(await patch(many), '');
    assert.equal(Object.keys((await get('props')).body.properties).length, 3, 'nothing is half-written');
    assertInvalid(await patch({ ['x'.repeat(129)]: 1 }), '');
    assertInvalid(await patch({ big: 'x'.repeat(20_000) }), '');
    assert.equal((await api.request('PATCH', '/v1/devices/nobody/properties', { a: 1 })).status, 404);
    const proto = await api.request('PATCH', '/v1/devices/props/properties', '{"__proto__": {"x": 1}}');
    assert.equal(proto.status, 200);
    assert.match(proto.text, /"__proto__":\{"x":1\}/);
  });

  test('NUL is refused wherever it stands, with the field', async () => {
    assertInvalid(await put('b08', { platform: 'web', properties: { 'a\u0000': 1 } }), 'properties.a\\u0000');
    assertInvalid(await put('b08', { platform: 'web', properties: { a: ['x\u0000'] } }), 'properties.a[0]');
    assertInvalid(await put('b08', { platform: 'web', user_id: 'x\u0000' }), 'user_id');
    assertInvalid(await api.request('PUT', '/v1/devices/x%00y', { platform: 'web' }), 'external_id');
    assertInvalid(
      await api.request('PUT', '/v1/devices/b08', '{"platform":"web","properties":{"a":"\\ud800"}}'),
      'properties.a',
    );
    assert.equal((await get('b08')).status, 404);
  });

  test('search pages through devices by condition', async () => {
    for (let i = 0; i < 7; i++) await put(`page-${i}`, { platform: 'web', properties: { page: i } });
    const condition = { property: 'page', operator: 'gte', value: 2 };
    const first = await api.request('POST', '/v1/devices/search', { condition, limit: 3 });
    assert.deepEqual(first.body.devices.map(externalIdOf), ['page-2', 'page-3', 'page-4']);
    const second = await api.request('POST', '/v1/devices/search', {
      condition,
      limit: 3,
      cursor: first.body.next_cursor,
    });
    assert.deepEqual(second.body.devices.map(externalIdOf), ['page-5', 'page-6']);
    assert.equal(second.body.next_cursor, null);
    assertInvalid(await api.request('POST', '/v1/devices/search', { cursor: 'nonsense' }), 'cursor');
  });

  test('a search for 70 000 external ids works', async () => {
    const external_ids = Array.from({ length: 70_000 }, (_, i) => `n-${i}`);
    const answer = await api.request('POST', '/v1/devices/search', { external_ids: [...external_ids, 'page-1'] });
    assert.equal(answer.status, 200, answer.text.slice(0, 300));
    assert.deepEqual(answer.body.devices.map(externalIdOf), ['page-1']);
  });

  test('empty texts are the same as none', async () => {
    const empty = await put('empty', { platform: 'web', user_id: '', locale: '', time_zone: '' });
    assert.deepEqual(
      [empty.status, empty.body.user_id, empty.body.locale, empty.body.time_zone, empty.body.warnings],
      [201, null, null, null, undefined],
    );
  });

  test('an unknown locale or time zone is left out and said; the device is registered', async () => {
    const odd = { platform: 'web', locale: 'not a locale', time_zone: 'Mars/Olympus', user_id: 'anna' };
    const answer = await put('odd', odd);
    assert.equal(answer.status, 201, answer.text);
    assert.deepEqual(
      answer.body.warnings.map(({ field }: { field: string }) => field),
      ['locale', 'time_zone'],
    );
    assert.deepEqual([answer.body.locale, answer.body.time_zone, answer.body.user_id], [null, null, 'anna']);
    assertInvalid(await put('odd', { platform: 'web', locale: 7 }), 'locale');
  });

  test('what a program writes where it has no token is no token', async () => {
    const texts = ['(null)', 'undefined', 'null', 'nil', '<>', '<null>', 'NaN', '""', 'None', '{}', 'Optional("abc")'];
    for (const text of texts) {
      assertInvalid(await put('no-token', { platform: 'android', device_token: text }), 'device_token');
    }
  });

  describe('a device is found under every name of what it has', () => {
    const found = async (field: string, operator: string, value: unknown, id: string) => {
      const condition = {
        and: [
          { field, operator, value },
          { field: 'external_id', operator: 'eq', value: id },
        ],
      };
      const { status, body, text } = await api.request('POST', '/v1/audience/estimate', { condition });
      assert.equal(status, 200, text);
      return body.devices;
    };
    let tokens = 0;
    const reachable = (more: object) => ({ platform: 'android', device_token: `found-${++tokens}`, ...more });

    for (const [stored, shown, asked] of [
      ['america/new_york', 'America/New_York', 'US/Eastern'],
      ['Asia/Calcutta', 'Asia/Kolkata', 'Asia/Kolkata'],
      ['Asia/Kolkata', 'Asia/Kolkata', 'asia/calcutta'],
      ['Europe/Kyiv', 'Europe/Kyiv', 'Europe/Kiev'],
      ['Etc/UTC', 'UTC', 'GMT'],
      ['europe/berlin', 'Europe/Berlin', 'EUROPE/BERLIN'],
    ] as const) {
      test(`time zone ${stored}, asked for as ${asked}`, async () => {
        const id = `zone ${stored}`;
        assert.equal((await put(id, reachable({ time_zone: stored }))).body.time_zone, shown);
        assert.equal(await found('time_zone', 'eq', asked, id), 1);
        assert.equal(await found('time_zone', 'in', ['Asia/Tokyo', asked], id), 1);
        assert.equal(await found('time_zone', 'ne', asked, id), 0);
      });
    }

    for (const [stored, shown, asked] of [
      ['de_DE', 'de-DE', 'de_DE'],
      ['DE-de', 'de-DE', 'de-de'],
      ['zh_hans_cn', 'zh-Hans-CN', 'zh-Hans_CN'],
      ['iw', 'he', 'he'],
      ['en_US_POSIX', 'en-US-posix', 'en-us-POSIX'],
      ['sr-latn-rs', 'sr-Latn-RS', 'sr_Latn_RS'],
      ['en-u-ca-buddhist', 'en-u-ca-buddhist', 'EN-U-CA-BUDDHIST'],
    ] as const) {
      test(`locale ${stored}, asked for as ${asked}`, async () => {
        const id = `locale ${stored}`;
        assert.equal((await put(id, reachable({ locale: stored }))).body.locale, shown);
        assert.equal(await found('locale', 'eq', asked, id), 1);
        assert.equal(await found('locale', 'ne', asked, id), 0);
      });
    }

    test('zones of different countries stay two, also where one is a link of tzdb to the other', async () => {
      assert.equal((await put('oslo', reachable({ time_zone: 'Europe/Oslo' }))).body.time_zone, 'Europe/Oslo');
      assert.equal(await found('time_zone', 'eq', 'Europe/Berlin', 'oslo'), 0);
    });

    test('registered_at as it is shown', async () => {
      const { registered_at } = (await put('instant', reachable({}))).body;
      await api.database.pool.query(
        `update devices set registered_at = date_trunc('milliseconds', registered_at) + interval '999 microseconds'
          where external_id = 'instant'`,
      );
      assert.equal((await get('instant')).body.registered_at, registered_at);
      assert.equal(await found('registered_at', 'eq', registered_at, 'instant'), 1);
      assert.equal(await found('registered_at', 'in', [registered_at], 'instant'), 1);
      assert.equal(await found('registered_at', 'gt', registered_at, 'instant'), 0);
      assert.equal(await found('registered_at', 'gte', registered_at, 'instant'), 1);
      assert.equal(await found('registered_at', 'gt', '2026-01-01T00:00Z', 'instant'), 1, 'seconds may be left out');
    });

    test('a condition that no device can meet is refused', async () => {
      for (const leaf of [
        { field: 'time_zone', operator: 'eq', value: 'Mars/Olympus' },
        { field: 'time_zone', operator: 'in', value: ['UTC', ''] },
        { field: 'locale', operator: 'eq', value: 'not a locale' },
        { field: 'bucket', operator: 'eq', value: 0 },
        { field: 'bucket', operator: 'in', value: [1, 10_001] },
        { field: 'bucket', operator: 'eq', value: 1.5 },
        { field: 'user_id', operator: 'eq', value: '' },
        { field: 'external_id', operator: 'eq', value: 'x'.repeat(256) },
        { field: 'registered_at', operator: 'eq', value: '2026-02-30T00:00:00Z' },
      ]) {
        assertInvalid(await api.request('POST', '/v1/audience/estimate', { condition: leaf }), 'condition.value');
      }
    });
  });

  describe('a number is stored as it is written, or refused', () => {
    const cases: [string, boolean][] = [
      ['9007199254740991', true],
      ['-9007199254740991', true],
      ['9007199254740993', false],
      ['-9007199254740993', false],
      ['9007199254740993.0', false],
      ['9.007199254740993e15', false],
      ['90071992547409930e-1', false],
      ['123456789012345678901', false],
      ['1e400', false],
      ['1e20', true],
      ['9007199254740992', true],
      ['0.1', true],
      ['1e-7', true],
    ];
    for (const [number, isKept] of cases) {
      test(`${number} is ${isKept ? 'kept' : 'refused'} in properties, conditions and messages`, async () => {
        const refusal = (answer: Answer, field: string) => (isKept ? undefined : assertInvalid(answer, field));
        const put = await api.request(
          'PUT',
          '/v1/devices/n',
          `{"platform":"web","properties":{"a":[{"n": ${number}}]}}`,
        );
        refusal(put, 'properties.a[0].n');
        if (isKept) assert.equal(put.body.properties.a[0].n, Number(number));
        const patch = await api.request('PATCH', '/v1/devices/n/properties', `{"n":${number}}`);
        if (!isKept) assertInvalid(patch, 'n');
        const condition = `{"condition":{"property":"9007199254740993","operator":"in","value":["x",${number}]}}`;
        const estimate = await api.request('POST', '/v1/audience/estimate', condition);
        refusal(estimate, 'condition.value[1]');
        if (isKept) assert.equal(estimate.status, 200, estimate.text);
        for (const field of ['data', 'apns.payload', 'fcm.data']) {
          const [outer, inner] = field.split('.');
          const object = inner ? `{"${inner}":{"n":${number}}}` : `{"n":${number}}`;
          const body = `{"message":{"title":"t \\"9007199254740993","${outer}":${object}},"audience":{}}`;
          const created = await api.request('POST', '/v1/notifications', body);
          if (!isKept) assertInvalid(created, `message.${field}.n`);
        }
        const line = `{"external_id":"n-line","platform":"web","properties":{"n":${number}}}`;
        const imported = await api.request('POST', '/v1/devices/import', line, {
          'content-type': 'application/x-ndjson',
        });
        assert.equal(imported.text.includes('"field":"properties.n"'), !isKept);
      });
    }

    test('digits within a text are a text', async () => {
      const body = { platform: 'web', properties: { id: '9007199254740993', list: [':9007199254740993', '\\"'] } };
      assert.deepEqual((await put('digits', body)).body.properties, body.properties);
    });
  });

  test('rules between fields are named by field', async () => {
    assertInvalid(await put('x', { platform: 'android', provider: 'apns' }), 'provider');
    assertInvalid(await put('x', { platform: 'android', apns_environment: 'sandbox' }), 'apns_environment');
    assert.equal((await put('x', { platform: 'ios', provider: 'fcm', device_token: 'Xy' })).status, 201);
  });
});

const externalIdOf = (device: { external_id: string }) => device.external_id;

function assertInvalid(answer: Answer, field: string): void {
  assert.equal(answer.status, 422, answer.text);
  assert.equal(answer.headers.get('content-type'), 'application/problem+json');
  assert.equal(answer.body.field, field, answer.text);
}
