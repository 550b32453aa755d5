import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { loadDocsAssets } from '../../api/document/docs-assets.ts';
import { apnsToken, createTestApi, type TestApi } from '../api/harness.ts';

/** The short suite that holds the app to both runtimes: `npm run test:deno` runs it on Deno, `npm test` on Node. */
describe('the app in the process', () => {
  let api: TestApi;
  before(async () => {
    api = await createTestApi({ docsAssets: await loadDocsAssets() });
  });
  after(() => api.close());

  test('devices: register, move a token, search by condition, forget', async () => {
    const device = { platform: 'ios', device_token: apnsToken(1).toUpperCase(), properties: { n: 1.5, tags: ['a'] } };
    assert.equal((await api.request('PUT', '/v1/devices/a%2Fb', device)).status, 201);
    assert.equal((await api.request('PUT', '/v1/devices/c', device)).status, 201);
    assert.equal((await api.request('GET', '/v1/devices/a%2Fb')).body.retired_reason, 'token_moved');
    const condition = {
      and: [
        { property: 'tags', operator: 'contains', value: 'a' },
        { field: 'bucket', operator: 'gte', value: 1 },
      ],
    };
    const found = await api.request('POST', '/v1/devices/search', { condition, live: true });
    assert.deepEqual(
      found.body.devices.map((one: { external_id: string }) => one.external_id),
      ['c'],
    );
    assert.equal((await api.request('DELETE', '/v1/devices/c')).status, 204);
  });

  test('an import streams both ways', async () => {
    const rows = Array.from(
      { length: 6_000 },
      (_, i) => `{"external_id":"i${i}","platform":"${i % 2 ? 'web' : 'tv'}"}`,
    );
    const body = new Blob([rows.join('\n')]).stream();
    const response = await api.app.request('/v1/devices/import', {
      method: 'POST',
      headers: { authorization: `Bearer ${api.key}`, 'content-type': 'application/x-ndjson' },
      body,
      ...({ duplex: 'half' } as object),
    });
    const lines = (await response.text()).trim().split('\n');
    assert.equal(lines.length, 3_001);
    const { imported, failed, complete } = JSON.parse(lines.at(-1)!);
    assert.deepEqual([imported, failed, complete], [3_000, 3_000, true]);
  });

  test('a body may be gzip', async () => {
    const line = '{"external_id":"gz","platform":"web","time_zone":"asia/calcutta"}';
    const body = new Uint8Array(
      await new Response(new Blob([line]).stream().pipeThrough(new CompressionStream('gzip'))).arrayBuffer(),
    );
    const headers = { 'content-type': 'application/x-ndjson', 'content-encoding': 'gzip' };
    const imported = await api.request('POST', '/v1/devices/import', body, headers);
    assert.match(imported.text, /"imported":1,.*"complete":true/);
    assert.equal((await api.request('GET', '/v1/devices/gz')).body.time_zone, 'Asia/Kolkata');
    const cut = await api.request('POST', '/v1/devices/import', body.subarray(0, 40), headers);
    assert.match(cut.text, /"complete":false,"code":"invalid_encoding"/);
  });

  test('a notification is created once under its key, launched, paused, followed and cancelled', async () => {
    const body = { message: { title: 'Hello', data: { n: 1 } }, audience: {}, launch: true };
    const headers = { 'idempotency-key': 'k' };
    const first = await api.request('POST', '/v1/notifications', body, headers);
    const again = await api.request('POST', '/v1/notifications', body, headers);
    assert.deepEqual([first.status, again.status, again.body.id], [201, 200, first.body.id]);
    const path = `/v1/notifications/${first.body.id}`;
    assert.equal((await api.request('POST', `${path}/pause`)).body.state, 'paused');
    assert.equal((await api.request('POST', `${path}/cancel`)).body.state, 'cancelled');
    assert.equal((await api.request('POST', `${path}/launch`)).status, 409);
    await api.database.pool.query('update notifications set finished_at = now() where id = $1', [first.body.id]);
    assert.match((await api.request('GET', `${path}/progress`)).text, /^event: end/);
    assert.equal((await api.request('GET', `${path}/deliveries?format=csv`)).text.split('\r\n').length, 2);
  });

  test('bad input is a problem document', async () => {
    for (const [body, status] of [
      ['{', 400],
      [new Uint8Array([0xff]), 400],
      ['{"title":"\\u0000"}', 422],
      ['x'.repeat(1_100_000), 413],
      [`${'['.repeat(400_000)}${']'.repeat(400_000)}`, 422],
    ] as const) {
      const answer = await api.request('POST', '/v1/notifications', body);
      assert.equal(answer.status, status, answer.text);
      assert.equal(answer.headers.get('content-type'), 'application/problem+json');
    }
    assert.equal((await api.app.request('/v1/notifications')).status, 401);
    assert.deepEqual(api.errors, []);
  });

  test('the document and the reference page are served', async () => {
    const document = await api.app.request('/openapi.json');
    assert.equal(((await document.json()) as { openapi: string }).openapi, '3.1.0');
    assert.equal((await api.app.request('/docs/assets/swagger-ui-bundle.js')).status, 200);
  });
});
