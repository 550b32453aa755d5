import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { apnsToken, createTestApi, type TestApi } from '../api/harness.ts';
import { readMetrics, sumOf } from './families.ts';

describe('requests to the API', () => {
  let api: TestApi;
  before(async () => {
    api = await createTestApi();
  });
  after(() => api.close());

  const requests = async (labels: Record<string, string>) =>
    sumOf(await readMetrics(), 'carillon_http_requests_total', labels);
  const device = { provider: 'apns', platform: 'ios', device_token: apnsToken(1) };

  test('are counted by the pattern of their route, its method and the status', async () => {
    await api.request('PUT', '/v1/devices/secret-id', device);
    await api.request('GET', '/v1/devices/secret-id');
    await api.request('GET', '/v1/devices/another-id');
    const route = '/v1/devices/:external_id';
    assert.equal(await requests({ route, method: 'PUT', status: '201' }), 1);
    assert.equal(await requests({ route, method: 'GET', status: '200' }), 1);
    assert.equal(await requests({ route, method: 'GET', status: '404' }), 1);
  });

  test('that are refused before they reach their route count for it all the same', async () => {
    await api.app.request('/v1/apps/anything');
    assert.equal(await requests({ route: '/v1/apps/:app', status: '401' }), 1);
  });

  test('whose path or method somebody made up make one series', async () => {
    const before = (await readMetrics()).get('carillon_http_requests_total')?.samples.length ?? 0;
    for (let n = 0; n < 20; n++) await api.request(`BREW${n}`, `/coffee/${n}`);
    const { samples = [] } = (await readMetrics()).get('carillon_http_requests_total') ?? {};
    assert.equal(samples.length, before + 1);
    assert.equal(await requests({ route: 'none', method: 'other' }), 20);
  });

  test('have their time measured, and none is under way at the end', async () => {
    const metrics = await readMetrics();
    const counts = metrics.get('carillon_http_request_duration_seconds')!.samples;
    const timed = counts.filter(({ name }) => name.endsWith('_count')).reduce((sum, { value }) => sum + value, 0);
    assert.equal(timed, sumOf(metrics, 'carillon_http_requests_total'));
    assert.equal(sumOf(metrics, 'carillon_http_requests_in_flight'), 0);
  });

  test('say nothing of ids and tokens', async () => {
    const labels = JSON.stringify([...(await readMetrics()).values()]);
    for (const secret of ['secret-id', 'another-id', 'coffee', apnsToken(1)])
      assert.ok(!labels.includes(secret), secret);
  });

  test('tell rows of an import by what became of them', async () => {
    const row = (id: string, n: number) => JSON.stringify({ ...device, external_id: id, device_token: apnsToken(n) });
    const lines = [row('a', 2), row('b', 3), row('a', 4), 'no JSON'].join('\n');
    const answer = await api.request('POST', '/v1/devices/import', lines, { 'content-type': 'application/x-ndjson' });
    const summary = JSON.parse(answer.text.trim().split('\n').at(-1)!);
    const metrics = await readMetrics();
    const rows = (result: string) => sumOf(metrics, 'carillon_import_rows_total', { result });
    assert.equal(rows('imported') + rows('superseded'), summary.imported);
    assert.equal(rows('superseded'), summary.superseded);
    assert.equal(rows('failed'), summary.failed);
    assert.deepEqual([rows('imported'), rows('superseded'), rows('failed')], [2, 1, 1]);
  });

  test('tell accepted messages by how they came, and no repeat', async () => {
    const message = { to: { external_id: 'a' }, message: { title: 'Hello' } };
    await api.request('POST', '/v1/messages', message);
    const line = JSON.stringify({ ...message, idempotency_key: 'k' });
    const type = { 'content-type': 'application/x-ndjson' };
    await api.request('POST', '/v1/messages', `${line}\n${JSON.stringify(message)}\n`, type);
    await api.request('POST', '/v1/messages', `${line}\n`, type);
    const metrics = await readMetrics();
    assert.equal(sumOf(metrics, 'carillon_messages_accepted_total', { by: 'request' }), 1);
    assert.equal(sumOf(metrics, 'carillon_messages_accepted_total', { by: 'stream' }), 2);
  });

  test('tell events by what became of them', async () => {
    const { body: sent } = await api.request('POST', '/v1/messages', {
      to: { external_id: 'a' },
      message: { title: 'Hello' },
    });
    const event = { type: 'opened', nid: sent.id, device: 'a' };
    await api.request('POST', '/v1/events', { events: [event, event, { ...event, device: 'nobody' }] });
    const metrics = await readMetrics();
    const events = (result: string) => sumOf(metrics, 'carillon_events_total', { result });
    assert.deepEqual([events('accepted'), events('repeated'), events('unknown'), events('refused')], [1, 1, 1, 0]);
  });
});
