import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { type Answer, apnsToken, createTestApi, type TestApi } from './harness.ts';

describe('notifications', () => {
  let api: TestApi;
  before(async () => {
    api = await createTestApi();
    for (let i = 0; i < 5; i++) {
      const platform = i % 2 ? 'android' : 'ios';
      const device_token = i % 2 ? `fcm-${i}` : apnsToken(i);
      await api.request('PUT', `/v1/devices/d${i}`, { platform, device_token, properties: { n: i } });
    }
  });
  after(() => api.close());

  const message = { title: 'Hello', body: 'World' };
  const create = (body: object, headers = {}) => api.request('POST', '/v1/notifications', body, headers);
  const act = (id: string, verb: string, body?: object) => api.request('POST', `/v1/notifications/${id}/${verb}`, body);
  const show = async (id: string) => (await api.request('GET', `/v1/notifications/${id}`)).body;
  const draft = async () => (await create({ message, audience: {} })).body.id as string;
  const count = async () => (await api.database.pool.query('select count(*) from notifications')).rows[0].count;

  test('a title taken from the message is cut at whole characters', async () => {
    const { body } = await create({ message: { title: `${'x'.repeat(250)}👨‍👩‍👧‍👦 and more` }, audience: {} });
    assert.equal(body.title, 'x'.repeat(250));
  });

  test('a draft is stored as it was said, and nothing is woken', async () => {
    const said = {
      title: 'Autumn',
      message: {
        ...message,
        subtitle: 's',
        image_url: 'https://example.com/i.png',
        icon_url: 'https://example.com/o.png',
        deep_link: 'shop://cart/1',
        data: { n: 1, deep: { ok: [true, null] } },
        badge: 0,
        sound: 'default',
        category: 'c',
        thread_id: 't',
        collapse_id: 'k',
        ttl: 0,
        priority: 'normal',
        silent: false,
      },
      audience: {
        condition: {
          and: [
            { property: 'n', operator: 'gt', value: 1 },
            { not: { field: 'platform', operator: 'eq', value: 'web' } },
          ],
        },
        external_ids: ['d1'],
        user_ids: ['u'],
      },
      in_doubt_policy: 'skip',
      rate_per_second: 100,
    };
    const answer = await create(said);
    assert.equal(answer.status, 201, answer.text);
    assert.equal(answer.headers.get('location'), `/v1/notifications/${answer.body.id}`);
    const shown = await show(answer.body.id);
    for (const [key, value] of Object.entries(said)) assert.deepEqual(shown[key], value, key);
    assert.equal(shown.state, 'draft');
    assert.deepEqual(shown.books, {
      audience: 0,
      outcomes: {
        accepted: 0,
        rejected: 0,
        unregistered: 0,
        expired: 0,
        failed: 0,
        skipped: 0,
        cancelled: 0,
        unknown: 0,
      },
      pending: 0,
      balanced: true,
      is_planned: false,
      batches: 0,
      batches_finished: 0,
    });
    assert.deepEqual(api.woken, []);
    const { rows } = await api.database.pool.query('select message from notifications where id = $1', [answer.body.id]);
    assert.equal(rows[0].message.deepLink, 'shop://cart/1');
    assert.equal(rows[0].message.ttlSeconds, 0);
  });

  test('launch: true stores and launches in one step', async () => {
    const answer = await create({ message, audience: {}, launch: true });
    assert.equal(answer.status, 201);
    assert.equal(answer.body.state, 'sending');
    assert.equal(answer.body.title, 'Hello');
    assert.equal(api.woken.at(-1), answer.body.id);
    const { rows } = await api.database.pool.query('select device_ceiling from notifications where id = $1', [
      answer.body.id,
    ]);
    assert.equal(rows[0].device_ceiling, 5);
  });

  test('two launches at the same moment are one, repeats are harmless', async () => {
    const id = await draft();
    const answers = await Promise.all(Array.from({ length: 8 }, () => act(id, 'launch')));
    assert.deepEqual([...new Set(answers.map(({ status }) => status))], [202]);
    assert.equal(new Set(answers.map(({ body }) => body.launched_at)).size, 1);
    const { rows } = await api.database.pool.query('select version from notifications where id = $1', [id]);
    assert.equal(rows[0].version, 2, 'one move');
  });

  test('a launch needs no body and no media type, also where the server hands out an empty stream for it', async () => {
    const id = await draft();
    const response = await api.app.request(`/v1/notifications/${id}/launch`, {
      method: 'POST',
      headers: { authorization: `Bearer ${api.key}` },
      body: new ReadableStream({ start: (controller) => controller.close() }),
      ...({ duplex: 'half' } as object),
    });
    assert.equal(response.status, 202, await response.text());
  });

  test('pause, resume and cancel move the state; repeats are harmless; after a cancel 409 with the state', async () => {
    const id = await draft();
    assertConflict(await act(id, 'pause'), 'draft');
    assertConflict(await act(id, 'resume'), 'draft');
    await act(id, 'launch');
    for (const verb of ['pause', 'pause', 'resume', 'resume', 'pause', 'cancel', 'cancel']) {
      const answer = await act(id, verb);
      assert.ok(answer.status === 200 || answer.status === 202, `${verb}: ${answer.text}`);
    }
    assert.equal((await show(id)).state, 'cancelled');
    for (const verb of ['launch', 'pause', 'resume']) assertConflict(await act(id, verb), 'cancelled');
    assertConflict(await api.request('PATCH', `/v1/notifications/${id}`, { rate_per_second: 5 }), 'cancelled');
  });

  test('a repeated launch answers as the first and changes nothing, whatever became of the send since; only a cancel took it back', async () => {
    const id = await draft();
    const first = await act(id, 'launch');
    for (const state of ['paused', 'halted', 'completed', 'cancelled'] as const) {
      await api.database.pool.query(
        `update notifications set state = $2, halt_reason = case $2 when 'halted' then 'topic' end,
          finished_at = case when $2 in ('completed', 'cancelled') then now() end where id = $1`,
        [id, state],
      );
      const before = await show(id);
      const again = await act(id, 'launch');
      if (state === 'cancelled') assertConflict(again, state);
      else
        assert.deepEqual(
          [again.status, again.body.state, again.body.launched_at],
          [202, state, first.body.launched_at],
        );
      assert.deepEqual(await show(id), before);
    }
  });

  test('a repeated launch with its time answers as the first, also after that time; another time comes too late', async () => {
    const id = await draft();
    const at = new Date(Date.now() + 3_600_000).toISOString();
    await act(id, 'launch', { scheduled_at: at });
    const past = '2020-01-01T00:00:00.000Z';
    await api.database.pool.query('update notifications set scheduled_at = $2 where id = $1', [id, past]);
    assert.equal((await act(id, 'launch', { scheduled_at: past })).body.state, 'scheduled');
    await act(id, 'launch');
    await api.database.pool.query(`update notifications set state = 'completed', finished_at = now() where id = $1`, [
      id,
    ]);
    const again = await act(id, 'launch', { scheduled_at: past });
    assert.deepEqual([again.status, again.body.state], [202, 'completed']);
    assertConflict(await act(id, 'launch', { scheduled_at: at }), 'completed');
  });

  test('a completed notification takes no pause and no cancel; there is nothing left to resume', async () => {
    const id = await draft();
    await act(id, 'launch');
    await api.database.pool.query(`update notifications set state = 'completed', finished_at = now() where id = $1`, [
      id,
    ]);
    for (const verb of ['pause', 'cancel', 'unschedule']) assertConflict(await act(id, verb), 'completed');
    assert.equal((await act(id, 'resume')).body.state, 'completed');
  });

  test('a scheduled notification becomes a draft again, is changed, and scheduled once more', async () => {
    const soon = new Date(Date.now() + 3_600_000).toISOString();
    const { id } = (await create({ message, audience: {}, scheduled_at: soon })).body;
    const path = `/v1/notifications/${id}`;
    assertConflict(await api.request('PATCH', path, { title: 'Not yet' }), 'scheduled');
    const wakes = api.woken.length;
    const back = await act(id, 'unschedule');
    assert.deepEqual([back.status, back.body.state, back.body.scheduled_at], [200, 'draft', null]);
    assert.deepEqual(api.woken.slice(wakes), [id], 'its workflow is told');
    assert.equal((await act(id, 'unschedule')).body.state, 'draft', 'a repeat is harmless');
    assert.equal((await api.request('PATCH', path, { title: 'Changed' })).body.title, 'Changed');
    assert.deepEqual((await act(id, 'launch', { scheduled_at: soon })).body.scheduled_at, soon);
    await act(id, 'launch');
    assertConflict(await act(id, 'unschedule'), 'sending');
    assert.equal((await act('00000000-0000-7000-8000-000000000000', 'unschedule')).status, 404);
  });

  test('a notification can be scheduled, moved in time, launched early and cancelled', async () => {
    const soon = new Date(Date.now() + 3_600_000).toISOString();
    const later = new Date(Date.now() + 7_200_000).toISOString();
    const created = await create({ message, audience: {}, scheduled_at: soon });
    assert.deepEqual([created.body.state, created.body.scheduled_at], ['scheduled', soon]);
    const id = created.body.id;
    const moved = await api.request('PATCH', `/v1/notifications/${id}`, { scheduled_at: later, rate_per_second: 7 });
    assert.deepEqual([moved.status, moved.body.scheduled_at, moved.body.rate_per_second], [200, later, 7]);
    assert.equal((await act(id, 'launch')).body.state, 'sending');
    assertConflict(await api.request('PATCH', `/v1/notifications/${id}`, { scheduled_at: soon }), 'sending');
    const other = await draft();
    assert.equal((await act(other, 'launch', { scheduled_at: soon })).body.state, 'scheduled');
    assert.equal((await act(other, 'cancel')).body.state, 'cancelled');
    for (const scheduled_at of ['2020-01-01T00:00:00Z', '2999-01-01T00:00:00Z', '2026-12-24T18:00:00', 'soon', 5]) {
      assertInvalid(await create({ message, audience: {}, scheduled_at }), 'scheduled_at');
      assertInvalid(await act(await draft(), 'launch', { scheduled_at }), 'scheduled_at');
    }
    assertInvalid(await create({ message, audience: {}, scheduled_at: soon, launch: true }), 'scheduled_at');
  });

  test('a draft can be changed and deleted, what was launched cannot', async () => {
    const id = await draft();
    const changed = await api.request('PATCH', `/v1/notifications/${id}`, {
      title: 'New',
      message: { body: 'B' },
      rate_per_second: 9,
    });
    assert.deepEqual(
      [changed.status, changed.body.title, changed.body.message, changed.body.rate_per_second],
      [200, 'New', { body: 'B' }, 9],
    );
    assertInvalid(await api.request('PATCH', `/v1/notifications/${id}`, {}), '');
    assertInvalid(await api.request('PATCH', `/v1/notifications/${id}`, { message: { ttl: -1 } }), 'message.ttl');
    const launched = await draft();
    await act(launched, 'launch');
    assertConflict(await api.request('PATCH', `/v1/notifications/${launched}`, { message }), 'sending');
    assertConflict(await api.request('DELETE', `/v1/notifications/${launched}`), 'sending');
    const slower = await api.request('PATCH', `/v1/notifications/${launched}`, { rate_per_second: 3 });
    assert.equal(slower.body.rate_per_second, 3);
    assert.equal((await api.request('DELETE', `/v1/notifications/${id}`)).status, 204);
    assert.equal((await show(id)).code, 'not_found');
  });

  test('Idempotency-Key: the same request gives the same notification, another one 409', async () => {
    const headers = { 'idempotency-key': 'order-1' };
    const before = await count();
    const body = { message, audience: {}, launch: true };
    const answers = await Promise.all(Array.from({ length: 6 }, () => create(body, headers)));
    assert.deepEqual(answers.map(({ status }) => status).sort(), [200, 200, 200, 200, 200, 201]);
    assert.equal(new Set(answers.map((answer) => answer.body.id)).size, 1);
    const reordered = await create({ launch: true, audience: {}, message: { body: 'World', title: 'Hello' } }, headers);
    assert.equal(reordered.status, 200);
    const other = await create({ message: { title: 'Other' }, audience: {} }, headers);
    assert.deepEqual([other.status, other.body.code], [409, 'idempotency_key_reused']);
    assert.equal((await count()) - before, 1);
    assertInvalid(await create(body, { 'idempotency-key': 'x'.repeat(256) }), 'idempotency-key');
  });

  test('the list goes by cursor, newest first, and by state', async () => {
    const ids: string[] = [];
    for (let i = 0; i < 3; i++) ids.unshift(await draft());
    const first = await api.request('GET', '/v1/notifications?limit=2&state=draft');
    assert.deepEqual(
      first.body.notifications.map((n: { id: string }) => n.id),
      ids.slice(0, 2),
    );
    const second = await api.request('GET', `/v1/notifications?limit=2&cursor=${first.body.next_cursor}`);
    assert.equal(second.body.notifications[0].id, ids[2]);
    for (const [query, field] of [
      ['limit=0', 'limit'],
      ['limit=101', 'limit'],
      ['limit=x', 'limit'],
      ['state=gone', 'state'],
      ['cursor=abc', 'cursor'],
      ['colour=red', 'colour'],
      ['cursor=%00', 'cursor'],
    ]) {
      assertInvalid(await api.request('GET', `/v1/notifications?${query}`), field!);
    }
  });

  test('a message that no provider would take is refused with its field', async () => {
    const refused: [object, string][] = [
      [{}, 'message.body'],
      [{ badge: -1 }, 'message.badge'],
      [{ badge: 1.5 }, 'message.badge'],
      [{ ...message, ttl: 90.5 }, 'message.ttl'],
      [{ ...message, ttl: 2_419_201 }, 'message.ttl'],
      [{ ...message, ttl: '90' }, 'message.ttl'],
      [{ ...message, data: { from: 'x' } }, 'message.data.from'],
      [{ ...message, data: { message_type: 'x' } }, 'message.data.message_type'],
      [{ ...message, data: { 'google.x': 'x' } }, 'message.data.google.x'],
      [{ ...message, data: { aps: {} } }, 'message.data.aps'],
      [{ silent: true, priority: 'high' }, 'message.priority'],
      [{ silent: true, title: 'x' }, 'message.title'],
      [{ silent: true, body: '' }, 'message.body'],
      [{ silent: true, sound: 'default' }, 'message.sound'],
      [{ silent: true, badge: 0 }, 'message.badge'],
      [{ ...message, collapse_id: '漢'.repeat(22) }, 'message.collapse_id'],
      [{ ...message, collapse_id: 'x'.repeat(65) }, 'message.collapse_id'],
      [{ ...message, fcm: { android: { collapse_key: 'a\nb' } } }, 'message.fcm.android.collapse_key'],
      [{ ...message, image_url: 'http://example.com/a.png' }, 'message.image_url'],
      [{ ...message, deep_link: 'no scheme' }, 'message.deep_link'],
      [{ ...message, title: null }, 'message.title'],
      [{ ...message, title: 5 }, 'message.title'],
      [{ ...message, priority: 10 }, 'message.priority'],
      [{ ...message, colour: 'red' }, 'message.colour'],
      [{ ...message, data: [] }, 'message.data'],
      [{ ...message, apns: { headers: { 'apns-topic': 5 } } }, 'message.apns.headers.apns-topic'],
    ];
    const before = await count();
    for (const [bad, field] of refused) assertInvalid(await create({ message: bad, audience: {} }), field);
    const large = await create({ message: { body: '漢'.repeat(1_400) }, audience: {} });
    assertInvalid(large, 'message');
    assert.match(large.body.detail, /42\d\d bytes/);
    assert.equal(large.body.code, 'payload_invalid');
    assert.equal(await count(), before, 'nothing is stored');
    for (const good of [
      { badge: 0 },
      { silent: true },
      { silent: true, ttl: 0 },
      { body: '' },
      { title: 'x', data: { notification: 'x' } },
      { title: 'x', data: { google_id: 'x', gcmId: 'x' } },
    ]) {
      const answer = await create({ message: good, audience: {} });
      assert.equal(answer.status, 201, JSON.stringify(good) + answer.text);
    }
  });

  test('a message for one platform is measured for its provider only', async () => {
    const voip = { push_type: 'voip', data: { x: 'y'.repeat(4_500) } };
    assertInvalid(await create({ message: voip, audience: {} }), 'message');
    const condition = { field: 'provider', operator: 'eq', value: 'apns' };
    const answer = await create({ message: voip, audience: { condition } });
    assert.equal(answer.status, 201, answer.text);
  });

  test('the part of a platform is measured where the audience can hold that platform', async () => {
    const large = { ...message, fcm: { apns: { payload: { x: 'y'.repeat(5_000) } } } };
    assertInvalid(await create({ message: large, audience: {} }), 'message.fcm.apns.payload');
    const platform = (value: string) => ({ condition: { field: 'platform', operator: 'eq', value } });
    assertInvalid(await create({ message: large, audience: platform('ios') }), 'message.fcm.apns.payload');
    assert.equal((await create({ message: large, audience: platform('android') })).status, 201);
  });

  test('conditions are refused with the place of what is wrong', async () => {
    const refused: [object, string][] = [
      [{ property: 'a', operator: 'like', value: 1 }, 'operator'],
      [{ property: 'a', operator: 'eq' }, 'value'],
      [{ property: 'a', operator: 'eq', value: [1] }, 'value'],
      [{ property: 'a', operator: 'in', value: 1 }, 'value'],
      [{ property: 'a', operator: 'gt', value: true }, 'value'],
      [{ property: 'a', operator: 'exists', value: 1 }, 'value'],
      [{ property: 'a', operator: 'eq', value: { b: 1 } }, 'value'],
      [{ property: 'a', operator: 'eq', value: 1, extra: 1 }, 'extra'],
      [{ field: 'colour', operator: 'eq', value: 'red' }, 'field'],
      [{ field: 'platform', operator: 'eq', value: 'windows' }, 'value'],
      [{ field: 'bucket', operator: 'lt', value: 'ten' }, 'value'],
      [{ field: 'registered_at', operator: 'gt', value: 'yesterday' }, 'value'],
      [{ and: [] }, 'and'],
      [
        {
          and: [
            { property: 'a', operator: 'eq', value: 1 },
            { or: [{ not: { property: '', operator: 'eq', value: 1 } }] },
          ],
        },
        'and[1].or[0].not.property',
      ],
    ];
    for (const [condition, place] of refused) {
      assertInvalid(await api.request('POST', '/v1/audience/estimate', { condition }), `condition.${place}`);
    }
    let deep: object = { property: 'n', operator: 'gt', value: 0 };
    for (let i = 1; i < 16; i++) deep = { not: deep };
    assert.equal((await api.request('POST', '/v1/audience/estimate', { condition: deep })).status, 200);
    assertInvalid(await api.request('POST', '/v1/audience/estimate', { condition: { not: deep } }), 'condition');
    const wide = { or: Array.from({ length: 1_000 }, () => ({ property: 'n', operator: 'eq', value: 1 })) };
    assertInvalid(await api.request('POST', '/v1/audience/estimate', { condition: wide }), 'condition');
  });

  test('an estimate counts by provider and platform', async () => {
    const answer = await api.request('POST', '/v1/audience/estimate', {
      condition: { property: 'n', operator: 'lt', value: 3 },
    });
    assert.deepEqual(answer.body, {
      devices: 3,
      by_provider: { apns: 2, fcm: 1 },
      by_platform: { ios: 2, android: 1, web: 0 },
    });
    const ids = Array.from({ length: 70_000 }, (_, i) => `x${i}`);
    const many = await api.request('POST', '/v1/audience/estimate', { external_ids: [...ids, 'd1'] });
    assert.equal(many.body.devices, 1);
  });
});

function assertInvalid(answer: Answer, field: string): void {
  assert.equal(answer.status, 422, answer.text);
  assert.equal(answer.body.field, field, answer.text);
}

function assertConflict(answer: Answer, state: string): void {
  assert.deepEqual(
    [answer.status, answer.body.code, answer.body.state],
    [409, 'notification_state', state],
    answer.text,
  );
}
