import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { createTestApi, type TestApi } from './harness.ts';

/** Every route, and one valid body where it takes one. */
const someId = '019c0000-0000-7000-8000-000000000000';
const message = { title: 'x' };
const withBody: [string, string, object][] = [
  ['PUT', '/v1/devices/bad', { platform: 'web', properties: { a: 1 } }],
  ['PATCH', '/v1/devices/bad/properties', { a: 1 }],
  ['POST', '/v1/devices/search', { external_ids: ['a'] }],
  ['POST', '/v1/audience/estimate', { external_ids: ['a'] }],
  ['POST', '/v1/messages', { to: { user_id: 'a' }, message }],
  ['POST', '/v1/notifications', { message, audience: {} }],
  ['PATCH', `/v1/notifications/${someId}`, { title: 'x' }],
  ['POST', `/v1/notifications/${someId}/launch`, {}],
];
const withoutBody: [string, string][] = [
  ['GET', '/v1/devices/bad'],
  ['DELETE', '/v1/devices/bad'],
  ['GET', '/v1/devices/bad/notifications'],
  ['GET', '/v1/messages'],
  ['GET', '/v1/messages/stats'],
  ['POST', '/v1/messages/resume'],
  ['GET', `/v1/messages/${someId}`],
  ['DELETE', `/v1/messages/${someId}`],
  ['GET', '/v1/notifications'],
  ['GET', `/v1/notifications/${someId}`],
  ['DELETE', `/v1/notifications/${someId}`],
  ['POST', `/v1/notifications/${someId}/pause`],
  ['POST', `/v1/notifications/${someId}/resume`],
  ['POST', `/v1/notifications/${someId}/cancel`],
  ['GET', `/v1/notifications/${someId}/deliveries`],
  ['GET', `/v1/notifications/${someId}/progress`],
  ['POST', '/v1/devices/import'],
];

const nested = (open: string, close: string, levels: number) => open.repeat(levels) + close.repeat(levels);

/** What is sent in place of a body, and the statuses that are right for it. */
const bodies: [string, string | Uint8Array, number[]][] = [
  ['not JSON', '{"a":', [400]],
  ['two documents', '{} {}', [400]],
  ['invalid UTF-8', new Uint8Array([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d]), [400]],
  ['two megabytes', JSON.stringify({ title: 'x'.repeat(2_000_000) }), [413]],
  ['a list', '[]', [422]],
  ['a text', '"text"', [422]],
  ['a number', '17', [422]],
  ['null', 'null', [422]],
  ['a million brackets', nested('[', ']', 400_000), [422]],
  ['objects without end', `${'{"a":'.repeat(100_000)}1${'}'.repeat(100_000)}`, [422]],
  ['NUL', '{"title":"a\\u0000"}', [422]],
  ['NUL in a name', '{"a\\u0000":1}', [422]],
  ['half a surrogate pair', '{"title":"\\ud83d"}', [422]],
  ['a number beyond numbers', '{"a":1e999}', [422]],
];

describe('bad input, on every route', () => {
  let api: TestApi;
  before(async () => {
    api = await createTestApi();
  });
  after(() => api.close());

  async function rows() {
    const { rows: counted } = await api.database.pool.query(
      'select (select count(*) from devices) as devices, (select count(*) from notifications) as notifications, (select count(*) from messages) as messages',
    );
    return counted[0];
  }

  for (const [name, body, statuses] of bodies) {
    test(`${name}: a problem document, never a 500, nothing stored`, async () => {
      for (const [method, path] of withBody) {
        const answer = await api.request(method, path, body);
        assert.ok(statuses.includes(answer.status), `${method} ${path}: ${answer.status} ${answer.text}`);
        assert.equal(answer.headers.get('content-type'), 'application/problem+json');
        for (const member of ['type', 'title', 'status', 'detail', 'code', 'request_id']) {
          assert.ok(answer.body[member], `${member} in ${answer.text}`);
        }
        if (answer.status === 422) assert.equal(typeof answer.body.field, 'string', answer.text);
      }
      assert.deepEqual(await rows(), { devices: 0, notifications: 0, messages: 0 });
      assert.deepEqual(api.errors, []);
    });
  }

  test('a missing body is refused wherever the document requires one', async () => {
    const expected = [[422, 'platform'], [400], [400], [400], [422, 'to'], [422, 'message'], [422, ''], [404]];
    for (const [i, [method, path]] of withBody.entries()) {
      const answer = await api.request(method, path, '');
      assert.deepEqual(
        [answer.status, ...(answer.body.field === undefined ? [] : [answer.body.field])],
        expected[i],
        `${method} ${path}`,
      );
    }
  });

  test('an unknown field, and every known field of a wrong type, is named', async () => {
    for (const [method, path, valid] of withBody) {
      if (path.endsWith('/properties')) continue;
      const unknown = await api.request(method, path, { ...valid, surprise: 1 });
      assert.deepEqual([unknown.status, unknown.body.field], [422, 'surprise'], `${method} ${path}`);
      for (const field of Object.keys(valid)) {
        for (const wrong of [-1.5, true, [[]]]) {
          const answer = await api.request(method, path, { ...valid, [field]: wrong });
          assert.equal(answer.status, 422, `${method} ${path} ${field}: ${answer.text}`);
          assert.ok(answer.body.field.startsWith(field), answer.text);
        }
      }
    }
    assert.deepEqual(await rows(), { devices: 0, notifications: 0, messages: 0 });
  });

  test('a list of errors that is cut says how many are left out', async () => {
    const unknown = Object.fromEntries(Array.from({ length: 25 }, (_, n) => [`surprise${n}`, n]));
    const { body } = await api.request('PUT', '/v1/devices/bad', { platform: 'web', ...unknown });
    assert.deepEqual([body.errors.length, body.errors_left_out], [20, 5]);
    const few = await api.request('PUT', '/v1/devices/bad', { platform: 'web', surprise: 1 });
    assert.equal('errors_left_out' in few.body, false);
  });

  test('huge numbers are refused or stored, never a 500', async () => {
    for (const number of ['1e308', '-1e308', '9007199254740993', '1e-320', '123456789012345678901234567890']) {
      for (const body of [
        `{"message":{"title":"x","badge":${number}},"audience":{}}`,
        `{"message":{"title":"x","ttl":${number}},"audience":{}}`,
        `{"message":{"title":"x"},"audience":{},"rate_per_second":${number}}`,
      ]) {
        assert.equal((await api.request('POST', '/v1/notifications', body)).status, 422, body);
      }
      const isKept = number.includes('e');
      for (const leaf of ['"property":"n"', '"field":"bucket"']) {
        const body = `{"condition":{${leaf},"operator":"gt","value":${number}}}`;
        assert.equal((await api.request('POST', '/v1/audience/estimate', body)).status, isKept ? 200 : 422, body);
      }
      const stored = await api.request('PUT', '/v1/devices/huge', `{"platform":"web","properties":{"n":${number}}}`);
      assert.equal(stored.status < 300, isKept, stored.text);
    }
    await api.request('DELETE', '/v1/devices/huge');
  });

  test('ids that are not there, or are no ids, answer 404', async () => {
    for (const [method, path] of withoutBody.filter(([, path]) => path.includes(someId) || path.includes('/bad'))) {
      assert.equal((await api.request(method, path)).status, 404, `${method} ${path}`);
      if (!path.includes(someId)) continue;
      for (const id of ['1', 'not-a-uuid', `${someId}0`, '%27%3B--', '..%2F..']) {
        const answer = await api.request(method, path.replace(someId, id));
        assert.deepEqual([answer.status, answer.body.code], [404, 'not_found'], `${method} ${id}`);
      }
    }
  });

  test('URLs with NUL or escapes that are not UTF-8 are refused', async () => {
    for (const [method, path] of withoutBody.filter(([, path]) => path.includes('/bad'))) {
      assert.equal((await api.request(method, path.replace('bad', 'a%00'))).body.field, 'external_id');
      assert.equal((await api.request(method, path.replace('bad', 'a%FF'))).status, 400);
      assert.equal((await api.request(method, path.replace('bad', 'x'.repeat(256)))).body.field, 'external_id');
    }
    assert.equal((await api.request('GET', `/v1/notifications/${someId}%00`)).status, 422);
  });

  test('another media type is 415, another path 404, another method 405 with what is possible', async () => {
    for (const [method, path, valid] of withBody) {
      const answer = await api.request(method, path, JSON.stringify(valid), { 'content-type': 'text/plain' });
      assert.deepEqual([answer.status, answer.body.code], [415, 'unsupported_media_type'], `${method} ${path}`);
    }
    for (const path of ['/v1', '/nowhere', '/v1/notifications/x/sing']) {
      for (const method of ['GET', 'POST', 'OPTIONS', 'PURGE']) {
        const answer = await api.request(method, path);
        assert.deepEqual([answer.status, answer.body.code], [404, 'not_found'], `${method} ${path}`);
      }
    }
    const device = 'DELETE, GET, HEAD, OPTIONS, PUT';
    for (const [method, path, allow] of [
      ['POST', '/v1/devices/x', device],
      ['PURGE', '/v1/devices/x', device],
      ['GET', '/v1/notifications/x/launch', 'OPTIONS, POST'],
      ['HEAD', '/v1/notifications/x/launch', 'OPTIONS, POST'],
      ['PUT', '/v1/notifications?limit=1', 'GET, HEAD, OPTIONS, POST'],
      ['PUT', '/v1/messages', 'GET, HEAD, OPTIONS, POST'],
      ['POST', `/v1/messages/${someId}`, 'DELETE, GET, HEAD, OPTIONS'],
      ['DELETE', '/v1/messages/stats', 'GET, HEAD, OPTIONS'],
      ['GET', '/v1/messages/resume', 'OPTIONS, POST'],
      ['DELETE', '/openapi.json', 'GET, HEAD, OPTIONS'],
      ['POST', '/healthz', 'GET, HEAD, OPTIONS'],
    ] as const) {
      const answer = await api.request(method, path);
      assert.deepEqual([answer.status, answer.headers.get('allow')], [405, allow], `${method} ${path}`);
      if (method !== 'HEAD') assert.equal(answer.body.code, 'method_not_allowed');
      const options = await api.app.request(path, { method: 'OPTIONS' });
      assert.deepEqual([options.status, options.headers.get('allow')], [204, allow], `OPTIONS ${path}`);
    }
    assert.equal((await api.request('HEAD', '/v1/notifications')).status, 200);
  });

  test('without a key every route answers 401 before it reads anything', async () => {
    for (const [method, path] of [...withBody, ...withoutBody]) {
      for (const authorization of [
        undefined,
        'Bearer',
        'Bearer ck_wrong',
        'Basic x',
        `Bearer ${'x'.repeat(9_000)}`,
        'Bearer a b',
      ]) {
        const response = await api.app.request(path!, {
          method: method!,
          headers: authorization === undefined ? {} : { authorization },
        });
        assert.equal(response.status, 401, `${method} ${path} ${authorization}`);
        assert.match(response.headers.get('www-authenticate') ?? '', /^Bearer/);
        assert.equal(((await response.json()) as { code: string }).code, 'unauthorized');
      }
    }
  });
});
