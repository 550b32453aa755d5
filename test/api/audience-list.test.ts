import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { findPlan, planNextPage } from '../../db/plan.ts';
import { until } from '../support/until.ts';
import { apnsToken, createTestApi, type TestApi } from './harness.ts';

const ndjson = { 'content-type': 'application/x-ndjson' };

describe('an audience lists devices', () => {
  let api: TestApi;
  before(async () => {
    api = await createTestApi();
    const rows = Array.from({ length: 300 }, (_, n) => ({
      ...{ external_id: `d${n}`, platform: n % 3 === 0 ? 'android' : 'ios', user_id: `u${n % 100}` },
      device_token: n % 3 === 0 ? `fcm-${n}` : apnsToken(n + 1),
      properties: { n },
    }));
    // Known, and not live.
    rows.push({ external_id: 'silent', platform: 'web', user_id: 'quiet', properties: { n: -1 } } as never);
    const body = rows.map((row) => JSON.stringify(row)).join('\n');
    const imported = await api.request('POST', '/v1/devices/import', body, ndjson);
    assert.equal(JSON.parse(imported.text).imported, 301);
  });
  after(() => api.close());

  const create = async (audience: object) => {
    const created = await api.request('POST', '/v1/notifications', { message: { title: 't' }, audience });
    assert.equal(created.status, 201, created.text);
    return created.body;
  };
  const upload = (id: string, lines: object[] | string | Uint8Array, headers: Record<string, string> = {}) =>
    api.request(
      'PUT',
      `/v1/notifications/${id}/audience-list`,
      Array.isArray(lines) ? lines.map((line) => JSON.stringify(line)).join('\n') : lines,
      { ...ndjson, ...headers },
    );
  const show = async (id: string) => (await api.request('GET', `/v1/notifications/${id}`)).body;
  async function plan(id: string): Promise<string[]> {
    const { db, pool } = api.database;
    while (!(await findPlan(db, id)).isPlanned) {
      await db.transaction().execute((trx) => planNextPage(trx, id, 50));
    }
    const { rows } = await pool.query(
      `select external_id from batches cross join unnest(device_offsets) as member join devices on id = first_device_id + member
        where notification_id = $1 order by id`,
      [id],
    );
    return rows.map((row: { external_id: string }) => row.external_id);
  }
  const launchAndPlan = async (id: string) => {
    const launched = await api.request('POST', `/v1/notifications/${id}/launch`);
    assert.equal(launched.status, 202, launched.text);
    return plan(id);
  };

  test('and says how many of the ids have a device, and one that can be sent to', async () => {
    const external_ids = ['d1', 'd1', 'd2', 'silent', 'nobody', 'no one'];
    const created = await create({ external_ids, user_ids: ['u1', 'quiet', 'x'] });
    assert.deepEqual(created.listed, {
      external_ids: { listed: 5, matched: 3, live: 2 },
      user_ids: { listed: 3, matched: 2, live: 1 },
      uploaded: null,
    });
    assert.equal((await create({})).listed, null);
    const estimate = await api.request('POST', '/v1/audience/estimate', { external_ids });
    assert.deepEqual([estimate.body.devices, estimate.body.listed.external_ids], [2, created.listed.external_ids]);
    const path = `/v1/notifications/${created.id}`;
    const changed = await api.request('PATCH', path, { audience: { external_ids: ['no one', 'd3'] } });
    assert.deepEqual(changed.body.listed.external_ids, { listed: 2, matched: 1, live: 1 });
    await api.request('PUT', '/v1/devices/no%20one', { platform: 'android', device_token: 'no-one' });
    const launched = await api.request('POST', `${path}/launch`);
    assert.deepEqual(
      launched.body.listed.external_ids,
      { listed: 2, matched: 2, live: 2 },
      'counted again at the launch',
    );
    await api.request('DELETE', '/v1/devices/no%20one');
  });

  describe('by an upload', () => {
    test('which is sent to alone, each device once, also where it stands several times', async () => {
      const { id } = await create({ uploaded: true });
      const lines = [
        ...['d7', 'd7', 'd299', 'silent', 'nobody'].map((external_id) => ({ external_id })),
        ...['u5', 'u7', 'nobody'].map((user_id) => ({ user_id })),
      ];
      const answer = await upload(id, lines);
      assert.deepEqual([answer.status, answer.body], [200, { listed: 8, matched: 6, live: 5 }]);
      assert.deepEqual((await show(id)).listed.uploaded, answer.body);
      const planned = await launchAndPlan(id);
      assert.deepEqual(planned, ['d5', 'd7', 'd105', 'd107', 'd205', 'd207', 'd299']);
    });

    test('and the other parts of the audience hold as well', async () => {
      const condition = { property: 'n', operator: 'lt', value: 100 };
      const { id } = await create({ uploaded: true, condition, external_ids: ['d1', 'd2', 'd150'] });
      await upload(id, [{ external_id: 'd2' }, { external_id: 'd3' }, { external_id: 'd150' }]);
      assert.deepEqual(await launchAndPlan(id), ['d2']);
    });

    test('again, or anew, the last whole one counts', async () => {
      const { id } = await create({ uploaded: true });
      const first = [{ external_id: 'd1' }, { external_id: 'd2' }];
      assert.deepEqual((await upload(id, first)).body, (await upload(id, first)).body);
      assert.equal((await upload(id, [{ external_id: 'd10' }, { external_id: 'd11' }])).status, 200);
      for (const [broken, status, field] of [
        ['{"external_id":"d12"}\n{"external":"d13"}', 422, /^line 2: external/],
        ['{"external_id":"d12"}\n\nnot json', 400, /^line 3$/],
        ['{"external_id":"d12","user_id":"u1"}', 422, /^line 1: /],
        ['"d12"', 422, /^line 1$/],
        ['{"external_id":"a\\u0000"}', 422, /^line 1: external_id$/],
      ] as const) {
        const answer = await upload(id, broken);
        assert.equal(answer.status, status, answer.text);
        assert.match(answer.body.field, field);
      }
      assert.deepEqual(await launchAndPlan(id), ['d10', 'd11']);
      const { rows } = await api.database.pool.query('select from audience_lists where notification_id = $1', [id]);
      assert.equal(rows.length, 0, 'what is planned leaves nothing behind');
    });

    test('of gzip is one', async () => {
      const { id } = await create({ uploaded: true });
      const lines = Array.from({ length: 30_000 }, (_, n) => `{"external_id":"d${n}"}`).join('\n');
      const answer = await upload(id, gzipSync(lines), { 'content-encoding': 'gzip' });
      assert.deepEqual(answer.body, { listed: 30_000, matched: 300, live: 300 });
      assert.equal((await launchAndPlan(id)).length, 300);
    });

    test('that was never made has no device, not every device', async () => {
      const { id } = await create({ uploaded: true });
      assert.deepEqual(await launchAndPlan(id), []);
    });

    test('of a user leaves out a phone that went to another user since', async () => {
      const { id } = await create({ uploaded: true });
      await upload(id, [{ user_id: 'u20' }, { external_id: 'd220' }]);
      for (const [device, token] of [
        ['d20', apnsToken(21)],
        ['d220', apnsToken(221)],
      ]) {
        await api.request('PUT', `/v1/devices/${device}`, { platform: 'ios', device_token: token, user_id: 'other' });
      }
      assert.deepEqual(await launchAndPlan(id), ['d120', 'd220']);
    });

    test('is only for a draft that asks for one', async () => {
      const plain = await create({});
      assert.deepEqual(pick(await upload(plain.id, [])), [422, 'audience.uploaded']);
      assert.equal((await upload('019c0000-0000-7000-8000-000000000000', [])).status, 404);
      const launched = await create({ uploaded: true });
      await api.request('POST', `/v1/notifications/${launched.id}/launch`);
      assert.deepEqual(pick(await upload(launched.id, [{ external_id: 'd1' }])), [409, undefined]);
      const wrong = await upload(plain.id, '', { 'content-type': 'application/json' });
      assert.equal(wrong.status, 415);
      for (const path of ['/v1/audience/estimate', '/v1/devices/search']) {
        assert.equal((await api.request('POST', path, { uploaded: true })).status, 422);
      }
    });

    test('that is overtaken by a launch or another upload changes nothing', async () => {
      for (const overtake of [
        (id: string) => api.request('POST', `/v1/notifications/${id}/launch`),
        (id: string) => upload(id, [{ external_id: 'd4' }]),
      ]) {
        const { id } = await create({ uploaded: true });
        let finish = () => {};
        const body = new ReadableStream<Uint8Array>({
          start(controller) {
            controller.enqueue(Buffer.from('{"external_id":"d9"}\n'));
            finish = () => controller.close();
          },
        });
        const slow = api.app.request(`/v1/notifications/${id}/audience-list`, {
          method: 'PUT',
          headers: { ...ndjson, authorization: `Bearer ${api.key}` },
          body,
          ...({ duplex: 'half' } as object),
        });
        await until(async () => {
          const lists = await api.database.pool.query('select from audience_lists where notification_id = $1', [id]);
          return lists.rows.length > 0;
        });
        assert.ok((await overtake(id)).status < 300);
        finish();
        const answer = await slow;
        assert.equal(answer.status, 409, await answer.text());
        const left = await api.database.pool.query(
          `select list_id from audience_members join devices on id = device_id
            where external_id = 'd9' and list_id in (select id from audience_lists where notification_id = $1)`,
          [id],
        );
        assert.deepEqual(left.rows, []);
      }
    });

    test('of a draft that is deleted, cancelled or no longer asks for it leaves nothing behind', async () => {
      const ends: ((id: string) => Promise<unknown>)[] = [
        (id) => api.request('DELETE', `/v1/notifications/${id}`),
        (id) => api.request('POST', `/v1/notifications/${id}/cancel`),
      ];
      for (const end of ends) {
        const { id } = await create({ uploaded: true });
        await upload(id, [{ external_id: 'd1' }]);
        await end(id);
        const { rows } = await api.database.pool.query('select from audience_lists where notification_id = $1', [id]);
        assert.equal(rows.length, 0);
      }
      const { id } = await create({ uploaded: true });
      await upload(id, [{ external_id: 'd1' }]);
      const changed = await api.request('PATCH', `/v1/notifications/${id}`, { audience: { external_ids: ['d2'] } });
      assert.equal(changed.body.listed.uploaded, null);
      assert.deepEqual(await launchAndPlan(id), ['d2']);
    });
  });
});

const pick = ({ status, body }: { status: number; body: { field?: string } }) => [status, body.field];
