import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { loadDocsAssets } from '../../api/document/docs-assets.ts';
import { createTestApi, type TestApi } from './harness.ts';

describe('OpenAPI and its reference page', () => {
  let api: TestApi;
  before(async () => {
    api = await createTestApi({ docsAssets: await loadDocsAssets() });
  });
  after(() => api.close());

  test('the document is OpenAPI 3.1 and has every route of the app', async () => {
    const response = await api.app.request('/openapi.json');
    // biome-ignore lint/suspicious/noExplicitAny: an OpenAPI document.
    const document = (await response.json()) as any;
    assert.equal(document.openapi, '3.1.0');
    const described = new Set<string>();
    for (const [path, methods] of Object.entries<object>(document.paths)) {
      for (const method of Object.keys(methods)) described.add(`${method.toUpperCase()} ${path}`);
    }
    const served = api.app.routes
      .filter(
        ({ method, path }) =>
          !['ALL', 'OPTIONS'].includes(method) && !path.startsWith('/docs') && path !== '/openapi.json',
      )
      .map(({ method, path }) => `${method} ${path.replaceAll(/:(\w+)/g, '{$1}')}`);
    assert.deepEqual([...described].sort(), [...new Set(served)].sort());
    assert.deepEqual(document.security, [{ bearer: [] }]);
    assert.equal(document.components.securitySchemes.bearer.scheme, 'bearer');
  });

  test('every reference in it points to something, and the schemas are the ones that validate', async () => {
    // biome-ignore lint/suspicious/noExplicitAny: an OpenAPI document.
    const document = (await (await api.app.request('/openapi.json')).json()) as any;
    const references = JSON.stringify(document).matchAll(/"\$ref":"#\/components\/schemas\/(\w+)"/g);
    for (const [, name] of references) assert.ok(document.components.schemas[name!], name);
    assert.doesNotMatch(JSON.stringify(document), /"allOf"/, 'strict objects in allOf exclude each other');
    const { Message, Condition, NewNotification, DeviceRegistration } = document.components.schemas;
    assert.deepEqual(Object.keys(Message.properties).slice(0, 4), ['title', 'subtitle', 'body', 'image_url']);
    assert.equal(Message.additionalProperties, false);
    assert.deepEqual([Message.properties.ttl.minimum, Message.properties.ttl.maximum], [0, 2_419_200]);
    assert.match(JSON.stringify(Condition), /schemas\/Condition/, 'conditions hold conditions');
    assert.deepEqual(NewNotification.required, ['message', 'audience']);
    assert.deepEqual(DeviceRegistration.required, ['platform']);
  });

  test('a null is in the document wherever an answer may have one', async () => {
    // biome-ignore lint/suspicious/noExplicitAny: an OpenAPI document.
    const document = (await (await api.app.request('/openapi.json')).json()) as any;
    const { Notification, NotificationSummary, Device } = document.components.schemas;
    for (const { properties } of [Notification, NotificationSummary]) {
      for (const name of ['scheduled_at', 'launched_at', 'expires_at', 'finished_at']) {
        assert.deepEqual([properties[name].type, properties[name].format], [['string', 'null'], 'date-time'], name);
      }
    }
    assert.deepEqual(Device.properties.retired_at.type, ['string', 'null']);
  });

  test('the example of every body is one that its route takes', async () => {
    // biome-ignore lint/suspicious/noExplicitAny: an OpenAPI document.
    const document = (await (await api.app.request('/openapi.json')).json()) as any;
    const exampleOf = (path: string, method: string) => {
      const [content] = Object.values<{ schema: { $ref: string } }>(document.paths[path][method].requestBody.content);
      return document.components.schemas[content!.schema.$ref.split('/').at(-1)!].example;
    };
    const device = '/v1/devices/{external_id}';
    const notification = '/v1/notifications/{id}';
    const send = (method: string, path: string, id: string) =>
      api.request(method, path.replace(/\{\w+\}/, id), exampleOf(path, method.toLowerCase()));
    assert.equal((await send('PUT', device, 'phone-1')).status, 201);
    assert.equal((await send('PATCH', `${device}/properties`, 'phone-1')).status, 200);
    const row = `${JSON.stringify(document.components.schemas.ImportRow.example)}\n`;
    const imported = await api.request('POST', '/v1/devices/import', row, { 'content-type': 'application/x-ndjson' });
    assert.match(imported.text, /"imported":1,"superseded":0,"failed":0,"warnings":0/);
    assert.equal((await send('POST', '/v1/devices/search', '')).status, 200);
    assert.equal((await send('POST', '/v1/audience/estimate', '')).status, 200);
    assert.equal((await send('POST', '/v1/messages', '')).status, 202);
    const line = `${JSON.stringify(document.components.schemas.MessageLine.example)}\n`;
    const accepted = await api.request('POST', '/v1/messages', line, { 'content-type': 'application/x-ndjson' });
    assert.match(accepted.text, /"accepted":1,"repeated":0,"failed":0/);
    const created = await send('POST', '/v1/notifications', '');
    assert.equal(created.status, 201, created.text);
    assert.equal((await send('PATCH', notification, created.body.id)).status, 200);
    assert.equal((await send('POST', `${notification}/launch`, created.body.id)).status, 202);
  });

  test('/docs asks no other host', async () => {
    const page = await api.app.request('/docs');
    const html = await page.text();
    assert.match(page.headers.get('content-security-policy') ?? '', /default-src 'none'.*connect-src 'self'/);
    assert.doesNotMatch(html, /https?:\/\//);
    for (const [, path] of html.matchAll(/(?:src|href)="([^"]+)"/g)) {
      const asset = await api.app.request(path!);
      assert.equal(asset.status, 200, path);
      assert.ok((await asset.arrayBuffer()).byteLength > 100, path);
    }
    assert.equal((await api.app.request('/docs/assets/package.json')).status, 404);
    assert.equal((await api.app.request('/docs/assets/..%2Fpackage.json')).status, 404);
  });
});
