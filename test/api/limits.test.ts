import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { insertApiKey } from '../../db/api-keys.ts';
import { appScopes } from '../../domain/scopes.ts';
import { until } from '../support/until.ts';
import { createTestApi, type TestApi } from './harness.ts';

describe('requests of a key', () => {
  let api: TestApi;
  let elapsedMs = 0;
  before(async () => {
    api = await createTestApi({ elapsedMs: () => elapsedMs, keyRequestsPerSecond: 2 });
  });
  after(() => api.close());

  const ask = (key: string) => api.request('GET', '/v1/devices/none', undefined, { authorization: `Bearer ${key}` });
  const newKey = (requestsPerSecond?: number) =>
    insertApiKey(api.database.db, { appId: 1, name: 'k', scopes: appScopes, requestsPerSecond });

  test('beyond the limit are refused with the time to wait, and every answer says what is left', async () => {
    const key = await newKey();
    for (const left of [1, 0]) {
      const { status, headers } = await ask(key);
      assert.deepEqual([status, headers.get('ratelimit')], [404, `"key";r=${left};t=1`]);
      assert.equal(headers.get('ratelimit-policy'), '"key";q=2;w=1');
    }
    const { status, body, headers } = await ask(key);
    assert.deepEqual([status, body.code, headers.get('retry-after')], [429, 'rate_limited', '1']);
    assert.equal(headers.get('ratelimit'), '"key";r=0;t=1');
    elapsedMs += 499;
    assert.equal((await ask(key)).status, 429);
    elapsedMs += 1;
    assert.deepEqual([(await ask(key)).status, (await ask(key)).status], [404, 429], 'two a second: one each half');
    elapsedMs += 60_000;
    assert.equal((await ask(key)).headers.get('ratelimit'), '"key";r=1;t=1', 'a second of them at once, and no more');
  });

  test("a key's own limit goes before, and keys do not share one", async () => {
    const [own, one, other] = [await newKey(5), await newKey(), await newKey()];
    const statuses = async (key: string, times: number) => {
      const answers: number[] = [];
      for (let time = 0; time < times; time++) answers.push((await ask(key)).status);
      return answers;
    };
    assert.deepEqual(await statuses(own, 6), [404, 404, 404, 404, 404, 429]);
    assert.deepEqual(await statuses(one, 3), [404, 404, 429]);
    assert.deepEqual(await statuses(other, 2), [404, 404]);
  });

  test('without a limit nothing is said of one', async () => {
    const free = await createTestApi();
    const { status, headers } = await free.request('GET', '/v1/devices/none');
    assert.deepEqual([status, headers.get('ratelimit'), headers.get('ratelimit-policy')], [404, null, null]);
    await free.close();
  });
});

describe('what an app may have under way', () => {
  let api: TestApi;
  let otherKey: string;
  before(async () => {
    api = await createTestApi({ importsPerApp: 2, exportsPerApp: 2 });
    const { rows } = await api.database.pool.query("insert into apps (name) values ('other') returning id");
    otherKey = await insertApiKey(api.database.db, { appId: rows[0].id, name: 'other', scopes: appScopes });
  });
  after(() => api.close());

  const ndjson = { 'content-type': 'application/x-ndjson' };
  const draft = async (audience = {}) =>
    (await api.request('POST', '/v1/notifications', { message: { title: 't' }, audience })).body.id as string;

  /** A body that stays open until it is closed. */
  function openBody() {
    let end = () => {};
    const body = new ReadableStream<Uint8Array>({
      start(controller) {
        end = () => controller.close();
      },
    });
    return { body, end };
  }

  function start(method: string, path: string, { body, key = api.key }: { body?: ReadableStream; key?: string } = {}) {
    const headers = { authorization: `Bearer ${key}`, ...ndjson };
    const init = { method, headers, ...(body && { body, duplex: 'half' }) };
    return api.app.request(path, init as RequestInit);
  }

  /** Also once the place of what ended a moment ago is free again. */
  const imports = async (key?: string) => {
    const answer = await start('POST', '/v1/devices/import', { body: new Blob(['']).stream(), key: key ?? api.key });
    await answer.text();
    return answer;
  };

  test('imports beyond it are refused until one has ended, whoever ends it; other apps have their own', async () => {
    const open = [openBody(), openBody()];
    const running = await Promise.all(open.map(({ body }) => start('POST', '/v1/devices/import', { body })));
    assert.deepEqual(
      running.map(({ status }) => status),
      [200, 200],
    );
    const refused = await imports();
    assert.deepEqual([refused.status, refused.headers.get('retry-after')], [429, '5']);
    const id = await draft({ uploaded: true });
    const list = await api.request('PUT', `/v1/notifications/${id}/audience-list`, '', ndjson);
    assert.deepEqual([list.status, list.body.code], [429, 'too_many_imports'], 'the upload of a list is one too');
    assert.equal((await imports(otherKey)).status, 200);

    open[0]!.end();
    assert.match(await running[0]!.text(), /"complete":true/);
    assert.equal((await imports()).status, 200);
    open[1]!.end();
    await running[1]!.body!.cancel();
    assert.equal((await api.request('PUT', `/v1/notifications/${id}/audience-list`, '', ndjson)).status, 200);
    for (let time = 0; time < 3; time++) assert.equal((await imports()).status, 200, 'each gives its place back');
  });

  test('an upload that is refused gives its place back', async () => {
    const id = await draft();
    for (let time = 0; time < 3; time++) {
      assert.equal((await api.request('PUT', `/v1/notifications/${id}/audience-list`, '', ndjson)).status, 422);
    }
  });

  test('progress streams and exports share their places, which come back when the reader goes', async () => {
    const id = await draft();
    const progress = `/v1/notifications/${id}/progress`;
    const deliveries = `/v1/notifications/${id}/deliveries?format=ndjson`;
    const open = [await start('GET', progress), await start('GET', progress)];
    for (const path of [progress, deliveries]) {
      const { status, body } = await api.request('GET', path);
      assert.deepEqual([status, body.code], [429, 'too_many_exports']);
    }
    assert.equal((await api.request('GET', `/v1/notifications/${id}/deliveries`)).status, 200, 'a page is no export');
    await open[0]!.body!.cancel();
    await until(async () => (await api.request('GET', deliveries)).status === 200);
    await open[1]!.body!.cancel();
    for (let time = 0; time < 3; time++) assert.equal((await api.request('GET', deliveries)).status, 200);
  });

  test('HEAD holds no place', async () => {
    const id = await draft();
    for (let time = 0; time < 3; time++) {
      for (const path of ['progress', 'deliveries?format=ndjson']) {
        const isDone = async () => (await api.request('HEAD', `/v1/notifications/${id}/${path}`)).status === 200;
        await until(isDone);
      }
    }
  });
});
