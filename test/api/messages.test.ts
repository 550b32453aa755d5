import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { after, afterEach, before, describe, test } from 'node:test';
import { serve } from '@hono/node-server';
import { createApp } from '../../api/app.ts';
import { insertApiKey } from '../../db/api-keys.ts';
import { connect } from '../../db/connect.ts';
import { appScopes } from '../../domain/scopes.ts';
import { endMessage, messageBooks } from '../support/message-outcomes.ts';
import { until } from '../support/until.ts';
import { type Answer, apnsToken, createTestApi, type TestApi } from './harness.ts';

const message = { title: 'Your parcel is here' };

describe('messages', () => {
  let api: TestApi;
  let otherKey: string;
  before(async () => {
    api = await createTestApi();
    await put('phone', { platform: 'ios', device_token: apnsToken(1), user_id: 'anna' });
    await put('tablet', { platform: 'android', device_token: 'fcm-tablet', user_id: 'anna' });
    await put('watch', { platform: 'ios', device_token: apnsToken(2), user_id: 'bert' });
    await put('silent', { platform: 'ios', user_id: 'cleo' });
    await put('old', { platform: 'ios', device_token: apnsToken(3), user_id: 'dora' });
    await api.database.pool.query(
      `update devices set retired_at = now(), retired_reason = 'x' where external_id = 'old'`,
    );
    const { rows } = await api.database.pool.query(`insert into apps (name) values ('other') returning id`);
    otherKey = await insertApiKey(api.database.db, { appId: rows[0].id, name: 'other', scopes: appScopes });
  });
  after(() => api.close());
  afterEach(async () => {
    const { counts, stored } = await messageBooks(api.database.pool);
    assert.deepEqual(counts, stored, 'entered = outcomes + pending, as the rows say');
    assert.deepEqual(api.errors.splice(0), []);
  });

  const put = async (id: string, body: object) =>
    assert.equal((await api.request('PUT', `/v1/devices/${id}`, body)).status, 201);
  const post = (body: object, headers: Record<string, string> = {}) =>
    api.request('POST', '/v1/messages', body, headers);
  const send = async (to: object, more: object = {}): Promise<string> => {
    const answer = await post({ to, message, ...more });
    assert.equal(answer.status, 202, answer.text);
    return answer.body.id;
  };
  const show = (id: string, query = '') => api.request('GET', `/v1/messages/${id}${query}`);
  const end = (id: string, outcome?: string, reason?: string) => endMessage(api.database.pool, id, outcome, reason);
  const stored = async () => (await api.database.pool.query('select count(*) from messages')).rows[0].count as number;
  const refused = async (answer: Promise<Answer>, status: number, field?: string, code?: string) => {
    const { status: got, body, text } = await answer;
    assert.deepEqual([got, body.field], [status, field], text);
    if (code) assert.equal(body.code, code);
    return body;
  };

  describe('accepting', () => {
    test('is answered with a delivery for each device, and shown as it was said', async () => {
      const said = { to: { user_ids: ['anna', 'bert'] }, message: { ...message, ttl: 60 }, in_doubt_policy: 'skip' };
      const answer = await post(said);
      assert.equal(answer.status, 202, answer.text);
      const { id, created_at, expires_at, deliveries } = answer.body;
      assert.equal(answer.headers.get('location'), `/v1/messages/${id}`);
      assert.equal(Date.parse(expires_at) - Date.parse(created_at), 60_000);
      assert.deepEqual(
        deliveries.map((d: Record<string, unknown>) => [
          d.external_id,
          d.provider,
          d.outcome,
          d.attempts,
          d.finished_at,
        ]),
        [
          ['phone', 'apns', null, 0, null],
          ['tablet', 'fcm', null, 0, null],
          ['watch', 'apns', null, 0, null],
        ],
      );
      assert.deepEqual((await show(id)).body, { ...answer.body, ...said });
    });

    test('a recipient without a live device is skipped, with the reason', async () => {
      const ids = ['phone', 'nobody', 'silent', 'old', 'phone'];
      const { body } = await post({ to: { external_ids: ids }, message });
      const lines = (deliveries: Record<string, unknown>[]) =>
        deliveries.map(({ external_id, user_id, outcome, reason }) => [external_id, user_id, outcome, reason]);
      assert.deepEqual(lines(body.deliveries), [
        ['phone', undefined, null, null],
        ['nobody', undefined, 'skipped', 'unknown_recipient'],
        ['silent', undefined, 'skipped', 'device_gone'],
        ['old', undefined, 'skipped', 'device_gone'],
      ]);
      assert.equal(body.deliveries[1].finished_at, body.created_at);
      const users = await post({ to: { user_ids: ['cleo', 'dora', 'nobody'] }, message });
      assert.deepEqual(lines(users.body.deliveries), [
        [null, 'cleo', 'skipped', 'device_gone'],
        [null, 'dora', 'skipped', 'device_gone'],
        [null, 'nobody', 'skipped', 'unknown_recipient'],
      ]);
      assert.deepEqual((await show(users.body.id)).body.deliveries, users.body.deliveries);
    });

    test('with unknown_recipient: error an unknown one is named and nothing is stored; a device that is gone is none', async () => {
      const before = await stored();
      for (const [to, field] of [
        [{ external_id: 'nobody' }, 'to.external_id'],
        [{ user_id: 'nobody' }, 'to.user_id'],
        [{ external_ids: ['phone', 'phone', 'old', 'nobody'] }, 'to.external_ids[3]'],
        [{ user_ids: ['dora', 'nobody'] }, 'to.user_ids[1]'],
      ] as const) {
        await refused(post({ to, message, unknown_recipient: 'error' }), 422, field, 'invalid_input');
      }
      assert.equal(await stored(), before);
      await send({ external_ids: ['old', 'silent', 'phone'] }, { unknown_recipient: 'error' });
    });

    test('a hundred devices are the most', async () => {
      await api.database.pool.query(`
        insert into devices (app_id, external_id, user_id, provider, platform, device_token)
        select 1, 'crowd-' || n, case when n < 101 then 'hundred' else 'more' end, 'fcm', 'android', 'crowd-' || n
        from generate_series(1, 201) n`);
      assert.equal((await post({ to: { user_id: 'hundred' }, message })).body.deliveries.length, 100);
      await refused(post({ to: { user_id: 'more' }, message }), 422, 'to');
      await refused(post({ to: { user_ids: ['hundred', 'anna'] }, message }), 422, 'to');
      await refused(
        post({ to: { external_ids: Array.from({ length: 101 }, (_, n) => `x${n}`) }, message }),
        422,
        'to.external_ids',
      );
    });

    test('what is wrong is refused by its field', async () => {
      const before = await stored();
      const to = { external_id: 'phone' };
      const long = 'x'.repeat(256);
      for (const [body, field] of [
        [{ message }, 'to'],
        [{ to: {}, message }, 'to'],
        [{ to: { external_id: 'phone', user_id: 'anna' }, message }, 'to'],
        [{ to: { external_ids: ['phone'], user_ids: ['anna'] }, message }, 'to'],
        [{ to: { external_ids: [] }, message }, 'to.external_ids'],
        [{ to: { external_id: '' }, message }, 'to.external_id'],
        [{ to: { external_id: long }, message }, 'to.external_id'],
        [{ to: { user_ids: ['anna', long] }, message }, 'to.user_ids[1]'],
        [{ to: { user_id: 'a\u0000' }, message }, 'to.user_id'],
        [{ to: { user_id: '\ud800' }, message }, 'to.user_id'],
        [{ to: { device: 'x' }, message }, 'to.device'],
        [{ to: 'phone', message }, 'to'],
        [{ to }, 'message'],
        [{ to, message: { title: 'a\u0000b' } }, 'message.title'],
        [{ to, message: { ...message, ttl: -1 } }, 'message.ttl'],
        [{ to, message, unknown_recipient: 'fail' }, 'unknown_recipient'],
        [{ to, message, in_doubt_policy: 'maybe' }, 'in_doubt_policy'],
        [{ to, message, idempotency_key: 'x' }, 'idempotency_key'],
      ] as const) {
        await refused(post(body), 422, field);
      }
      assert.equal(await stored(), before);
    });

    test('what a provider would never take is refused, whatever the devices are', async () => {
      for (const to of [{ external_id: 'phone' }, { external_id: 'tablet' }]) {
        const large = { ...message, data: { text: 'x'.repeat(4_100) } };
        await refused(post({ to, message: large }), 422, 'message', 'payload_invalid');
        const reserved = { ...message, data: { aps: {} } };
        assert.equal((await post({ to, message: reserved })).body.code, 'payload_invalid');
      }
    });

    test('255 characters are an id, and a ttl of 0 has a minute', async () => {
      await put('long', { platform: 'android', device_token: 'long', user_id: 'ü'.repeat(255) });
      const { body } = await post({ to: { user_id: 'ü'.repeat(255) }, message: { ...message, ttl: 0 } });
      assert.equal(body.deliveries[0].external_id, 'long');
      assert.equal(Date.parse(body.expires_at) - Date.parse(body.created_at), 60_000);
      assert.equal((await post({ to: { user_id: 'nobody' }, message })).body.expires_at, null);
    });

    test('one that PostgreSQL refuses fails alone in its group', async (t) => {
      const { pool } = api.database;
      await pool.query(`
        create function refuse_poison() returns trigger language plpgsql as $$
        begin
          if new.message ->> 'title' = 'poison' then raise data_exception; end if;
          return new;
        end $$;
        create trigger refuse_poison before insert on messages for each row execute function refuse_poison()`);
      t.after(() => pool.query('drop function refuse_poison cascade'));
      const before = await stored();
      const titles = Array.from({ length: 20 }, (_, n) => (n === 11 ? 'poison' : 'fine'));
      const answers = await Promise.all(
        titles.map((title) => post({ to: { external_id: 'phone' }, message: { title } })),
      );
      assert.deepEqual(
        answers.map(({ status }) => status),
        titles.map((title) => (title === 'fine' ? 202 : 422)),
      );
      assert.equal(await stored(), before + 19);
    });
  });

  describe('Idempotency-Key', () => {
    const to = { external_id: 'phone' };

    test('a repeat answers the same message as it is by then, another body is a conflict', async () => {
      const key = { 'idempotency-key': 'order-1' };
      const first = await post({ to, message }, key);
      await end(first.body.id);
      const again = await post({ message, to, unknown_recipient: 'skip' }, key);
      assert.deepEqual([again.status, again.body.id], [202, first.body.id]);
      assert.equal(again.headers.get('location'), first.headers.get('location'));
      assert.equal(again.body.deliveries[0].outcome, 'accepted');
      const { message_id } = await refused(
        post({ to, message: { title: 'Another' } }, key),
        409,
        undefined,
        'idempotency_key_reused',
      );
      assert.equal(message_id, first.body.id);
    });

    test('twenty at the same moment are one message', async () => {
      const before = await stored();
      const answers = await Promise.all(
        Array.from({ length: 20 }, () => post({ to, message }, { 'idempotency-key': 'at-once' })),
      );
      assert.deepEqual([...new Set(answers.map(({ status }) => status))], [202]);
      assert.equal(new Set(answers.map(({ body }) => body.id)).size, 1);
      assert.equal(await stored(), before + 1);
    });

    test('of another app, or of a notification, it is another key', async () => {
      const key = { 'idempotency-key': 'shared' };
      const first = await post({ to, message }, key);
      const other = await post({ to, message }, { ...key, authorization: `Bearer ${otherKey}` });
      assert.notEqual(other.body.id, first.body.id);
      assert.equal(other.body.deliveries[0].reason, 'unknown_recipient', 'the device is of the first app');
      assert.equal((await api.request('POST', '/v1/notifications', { message, audience: {} }, key)).status, 201);
    });

    test('a repeat is one although its recipient is gone by then', async () => {
      await put('short-lived', { platform: 'android', device_token: 'short-lived' });
      const body = { to: { external_id: 'short-lived' }, message, unknown_recipient: 'error' };
      const key = { 'idempotency-key': 'short-lived' };
      const first = await post(body, key);
      await api.request('DELETE', '/v1/devices/short-lived');
      const again = await post(body, key);
      assert.deepEqual([again.status, again.body.id], [202, first.body.id]);
      assert.equal(again.body.deliveries[0].external_id, null);
      await refused(post(body, { 'idempotency-key': 'another' }), 422, 'to.external_id');
      await refused(post({ ...body, message: { title: 'Another' } }, key), 409);
    });

    test('that is none is refused', async () => {
      for (const key of ['x'.repeat(256), 'with blank', 'ü']) {
        await refused(post({ to, message }, { 'idempotency-key': key }), 422, 'idempotency-key');
      }
    });
  });

  describe('Prefer: wait', () => {
    const to = { user_id: 'anna' };

    /** The id of the message that is posted by `posting`, before its answer. */
    async function postedBy(posting: () => Promise<Answer>): Promise<{ id: string; answer: Promise<Answer> }> {
      const before = await stored();
      const answer = posting();
      await until(async () => (await stored()) > before);
      const { rows } = await api.database.pool.query('select id from messages order by created_at desc limit 1');
      return { id: rows[0].id, answer };
    }

    test('answers 200 once every device has its outcome', async () => {
      const { id, answer } = await postedBy(() => post({ to, message }, { prefer: 'respond-async, wait="20"' }));
      await end(id, 'rejected', 'PayloadTooLarge');
      const { status, headers, body } = await answer;
      assert.deepEqual([status, headers.get('preference-applied'), body.id], [200, 'wait=20', id]);
      assert.deepEqual(
        body.deliveries.map((d: Record<string, unknown>) => [d.outcome, d.reason, d.http_status, d.attempts]),
        Array(2).fill(['rejected', 'PayloadTooLarge', 200, 1]),
      );
    });

    test('answers 202 after that time, and does not end with one of two outcomes', async () => {
      const { id, answer } = await postedBy(() => post({ to, message }, { prefer: 'wait=1' }));
      await api.database.pool.query(
        `update message_entries set outcome = 'accepted', finished_at = now() where message_id = $1
          and device_id = (select id from devices where external_id = 'phone')`,
        [id],
      );
      const { status, body } = await answer;
      assert.deepEqual([status, body.deliveries.map((d: { outcome: string }) => d.outcome)], [202, ['accepted', null]]);
      await api.database.pool.query(
        `select count_ended(array_agg(lane_id), array_agg(message_id), array_agg(outcome), array_agg(reason), array_agg(false))
          from message_entries where message_id = $1 and outcome is not null`,
        [id],
      );
    });

    test('answers at once where nobody is left to wait for, also of an earlier request', async () => {
      const skipped = await post({ to: { user_id: 'nobody' }, message }, { prefer: 'wait=30' });
      assert.deepEqual([skipped.status, skipped.body.deliveries[0].outcome], [200, 'skipped']);
      const key = { 'idempotency-key': 'waited-for' };
      const { body } = await post({ to, message }, key);
      await end(body.id);
      const again = await post({ to, message }, { ...key, prefer: 'wait=30' });
      assert.deepEqual([again.status, again.body.id], [200, body.id]);
    });

    test('is cut to thirty seconds; what cannot be read is not there', async () => {
      const { id, answer } = await postedBy(() => post({ to, message }, { prefer: 'foo="x, wait=5"; y, wait=31' }));
      await end(id);
      assert.equal((await answer).headers.get('preference-applied'), 'wait=30');
      for (const prefer of [
        'wait',
        'wait=',
        'wait=x',
        'wait=-1',
        'wait=1.5',
        'wait=1s',
        '"wait=5"',
        'a="wait=5',
        ';,=',
      ]) {
        const { status, headers } = await post({ to, message }, { prefer });
        assert.deepEqual([status, headers.get('preference-applied')], [202, null], prefer);
      }
      const none = await post({ to, message }, { prefer: 'wait=0' });
      assert.deepEqual([none.status, none.headers.get('preference-applied')], [202, 'wait=0']);
    });

    test('ends when the caller goes, and when the service stops', async () => {
      const stopping = new AbortController();
      const bare = createApp({ ...api.database, waker: undefined as never, log: silent, stopping: stopping.signal });
      const gone = new AbortController();
      const ask = (signal?: AbortSignal) =>
        bare.request('/v1/messages', {
          method: 'POST',
          headers: { authorization: `Bearer ${api.key}`, 'content-type': 'application/json', prefer: 'wait=30' },
          body: JSON.stringify({ to, message }),
          ...(signal && { signal }),
        });
      const began = performance.now();
      const [first, second] = [ask(gone.signal), ask()];
      setTimeout(() => gone.abort(), 100);
      assert.equal((await first).status, 202);
      setTimeout(() => stopping.abort(), 100);
      assert.equal((await second).status, 202);
      assert.equal((await ask()).status, 202, 'and nobody begins to wait');
      assert.ok(performance.now() - began < 5_000);
    });

    test('ends when the caller hangs up', async (t) => {
      const waits: boolean[] = [];
      const query = ((statement: { name?: string }, ...rest: []) => {
        if (statement.name === 'find_pending_messages') waits.push(true);
        return api.database.pool.query(statement as never, ...rest);
      }) as unknown as typeof api.database.pool.query;
      const { db } = api.database;
      const { fetch: handle } = createApp({ db, pool: { query } as never, waker: undefined as never, log: silent });
      const server = serve({ fetch: handle, port: 0, hostname: '127.0.0.1' });
      t.after(() => server.close());
      await once(server, 'listening');
      const { port } = server.address() as AddressInfo;
      const caller = new AbortController();
      const asked = fetch(`http://127.0.0.1:${port}/v1/messages`, {
        method: 'POST',
        headers: { authorization: `Bearer ${api.key}`, 'content-type': 'application/json', prefer: 'wait=30' },
        body: JSON.stringify({ to, message }),
        signal: caller.signal,
      });
      await until(() => waits.length > 2);
      caller.abort();
      await assert.rejects(asked);
      await until(async () => {
        const before = waits.length;
        await new Promise((resolve) => setTimeout(resolve, 100));
        return waits.length === before;
      });
    });

    test('a hundred wait by one statement each 20 ms; where the database is away they have their answer', async () => {
      const own = connect(api.database.url, { maxConnections: 4 });
      let questions = 0;
      let isAway = false;
      const query = ((statement: { name?: string }, ...rest: []) => {
        if (statement.name === 'find_pending_messages') {
          questions++;
          if (isAway) return Promise.reject(Object.assign(new Error('gone'), { code: 'ECONNREFUSED' }));
        }
        return own.pool.query(statement as never, ...rest);
      }) as unknown as typeof own.pool.query;
      const bare = createApp({ db: own.db, pool: { query } as never, waker: undefined as never, log: silent });
      const ask = async () =>
        bare.request('/v1/messages', {
          method: 'POST',
          headers: { authorization: `Bearer ${api.key}`, 'content-type': 'application/json', prefer: 'wait=30' },
          body: JSON.stringify({ to: { external_id: 'watch' }, message }),
        });
      const before = await stored();
      const answers = Array.from({ length: 100 }, ask);
      await until(async () => (await stored()) === before + 100);
      const began = performance.now();
      questions = 0;
      await new Promise((resolve) => setTimeout(resolve, 300));
      assert.ok(questions > 1 && questions <= (performance.now() - began) / 20 + 1, `${questions} questions`);
      isAway = true;
      assert.deepEqual([...new Set((await Promise.all(answers)).map(({ status }) => status))], [202]);
      const asked = questions;
      await new Promise((resolve) => setTimeout(resolve, 100));
      assert.equal(questions, asked, 'nobody waits, nobody asks');
      await own.db.destroy();
    });
  });

  describe('finding', () => {
    test('only those of the app, by an id', async () => {
      const id = await send({ external_id: 'phone' });
      for (const method of ['GET', 'DELETE']) {
        const other = await api.request(method, `/v1/messages/${id}`, undefined, {
          authorization: `Bearer ${otherKey}`,
        });
        assert.equal(other.status, 404);
        for (const path of ['x', 'stats2', id.replace(/.$/, (last) => (last === '0' ? '1' : '0'))]) {
          assert.equal((await api.request(method, `/v1/messages/${path}`)).status, 404, path);
        }
      }
      assert.equal((await show(id)).body.deliveries[0].outcome, null);
    });

    test('the list of a user or a device goes by cursor, newest first', async () => {
      await put('l1', { platform: 'android', device_token: 'l1', user_id: 'lena' });
      await put('l2', { platform: 'ios', device_token: apnsToken(11), user_id: 'lena' });
      const ids: string[] = [];
      for (let n = 0; n < 5; n++) {
        ids.unshift(await send(n % 2 ? { external_id: 'l1' } : { user_id: 'lena' }));
        await new Promise((resolve) => setTimeout(resolve, 2));
      }
      const list = async (query: string) => (await api.request('GET', `/v1/messages?${query}`)).body;
      const idsOf = ({ messages }: { messages: { id: string }[] }) => messages.map(({ id }) => id);
      assert.deepEqual(idsOf(await list('user_id=lena')), ids);
      assert.deepEqual(idsOf(await list('external_id=l2')), [ids[0], ids[2], ids[4]]);
      const first = await list('user_id=lena&limit=2');
      const second = await list(`user_id=lena&limit=2&cursor=${first.next_cursor}`);
      const third = await list(`user_id=lena&limit=2&cursor=${second.next_cursor}`);
      assert.deepEqual([...idsOf(first), ...idsOf(second), ...idsOf(third)], ids);
      assert.equal(third.next_cursor, null);
      assert.deepEqual(first.messages[0], (await show(ids[0]!)).body);
      const since = first.messages[1].created_at;
      const after = idsOf(await list(`user_id=lena&since=${since}`));
      assert.ok(after.includes(ids[0]!) && !after.includes(ids[2]!));
      assert.deepEqual(idsOf(await list('user_id=lena&since=0001-01-01T00:00:00Z')), ids);
      assert.deepEqual(await list('user_id=nobody'), { messages: [], next_cursor: null });
      const other = await api.request('GET', '/v1/messages?user_id=lena', undefined, {
        authorization: `Bearer ${otherKey}`,
      });
      assert.deepEqual(other.body.messages, []);
    });

    test('a list asks for one of the two, and says what is wrong', async () => {
      for (const [query, field] of [
        ['', 'external_id'],
        ['?user_id=a&external_id=b', 'user_id'],
        ['?user_id=', 'user_id'],
        [`?external_id=${'x'.repeat(256)}`, 'external_id'],
        ['?user_id=%00', 'user_id'],
        ['?user_id=a&since=yesterday', 'since'],
        ['?user_id=a&cursor=1', 'cursor'],
        ['?user_id=a&limit=101', 'limit'],
        ['?user_id=a&offset=1', 'offset'],
      ]) {
        await refused(api.request('GET', `/v1/messages${query}`), 422, field);
      }
    });

    test("a device's history has messages and notifications, those with an outcome, by cursor", async () => {
      await put('story', { platform: 'android', device_token: 'story' });
      const { pool } = api.database;
      const { rows } = await pool.query(`select id from devices where external_id = 'story'`);
      const kinds: string[] = [];
      for (let n = 0; n < 6; n++) {
        await new Promise((resolve) => setTimeout(resolve, 2));
        if (n % 3 === 1) {
          const { body } = await api.request('POST', '/v1/notifications', { message, audience: {} });
          await pool.query(`update notifications set state = 'cancelled', finished_at = now() where id = $1`, [
            body.id,
          ]);
          await pool.query(
            `insert into batches (notification_id, seq, provider, first_device_id, device_offsets, size, recorded)
              values ($1, 1, 'fcm', $2, '{0}', 1, B'0')`,
            [body.id, rows[0].id],
          );
          await pool.query(
            `insert into delivery_groups (notification_id, batch_seq, first_position, positions, outcome, attempts, in_doubt)
              values ($1, 1, 0, B'1', 'accepted', 1, false)`,
            [body.id],
          );
          kinds.unshift(`notification ${body.id}`);
        } else {
          const id = await send({ external_id: 'story' });
          await end(id, 'expired', 'late');
          kinds.unshift(`message ${id}`);
        }
      }
      await send({ external_id: 'story' });
      const nameOf = (line: { notification_id: string | null; message_id: string | null }) =>
        line.message_id === null ? `notification ${line.notification_id}` : `message ${line.message_id}`;
      for (const limit of [1, 2, 4, 6, 100]) {
        const seen: string[] = [];
        for (let cursor = ''; ; ) {
          const { body, text } = await api.request('GET', `/v1/devices/story/notifications?limit=${limit}${cursor}`);
          assert.ok(body.deliveries.length <= limit, text);
          seen.push(...body.deliveries.map(nameOf));
          if (body.next_cursor === null) break;
          cursor = `&cursor=${body.next_cursor}`;
        }
        assert.deepEqual(seen, kinds, `limit ${limit}`);
      }
      const { body } = await api.request('GET', '/v1/devices/story/notifications?limit=1');
      assert.deepEqual(
        [body.deliveries[0].outcome, body.deliveries[0].reason, body.deliveries[0].external_id],
        ['expired', 'late', 'story'],
      );
    });
  });

  describe('cancelling', () => {
    test('ends what was not handed over, says what was, and a repeat is harmless', async () => {
      const id = await send({ external_ids: ['phone', 'tablet', 'nobody'] });
      // The first device's worker has reserved all that stands in its lane.
      await api.database.pool.query(`
        update lanes set horizon = next_position from lane_ends
        where lane_id = id and provider = 'apns'`);
      const first = await api.request('DELETE', `/v1/messages/${id}`);
      const outcomesOf = ({ body }: Answer) => body.deliveries.map((d: { outcome: string }) => d.outcome);
      assert.deepEqual(
        [first.status, first.body.cancelled, outcomesOf(first)],
        [200, 1, [null, 'cancelled', 'skipped']],
      );
      const again = await api.request('DELETE', `/v1/messages/${id}`);
      assert.deepEqual(
        [again.status, again.body.cancelled, outcomesOf(again)],
        [200, 0, [null, 'cancelled', 'skipped']],
      );
      await end(id);
      const late = await api.request('DELETE', `/v1/messages/${id}`);
      assert.deepEqual([late.body.cancelled, outcomesOf(late)], [0, ['accepted', 'cancelled', 'skipped']]);
      assert.deepEqual((await show(id)).body.deliveries, late.body.deliveries);
    });

    test('what the provider may have got already ends as unknown', async () => {
      const id = await send({ external_id: 'phone' });
      await api.database.pool.query(
        `update message_entries set doubts = 1, attempts = 1, not_before = now() + interval '1 hour', reason = 'in_doubt' where message_id = $1`,
        [id],
      );
      const waiting = (await show(id)).body.deliveries[0];
      assert.deepEqual(
        [waiting.outcome, waiting.reason, waiting.attempts, waiting.in_doubt],
        [null, 'in_doubt', 1, true],
      );
      assert.ok(Date.parse(waiting.not_before) > Date.now());
      const { body } = await api.request('DELETE', `/v1/messages/${id}`);
      assert.deepEqual(
        [body.cancelled, body.deliveries[0].outcome, body.deliveries[0].not_before],
        [1, 'unknown', null],
      );
    });

    test('twenty at once cancel it once', async () => {
      const id = await send({ user_ids: ['anna', 'bert'] });
      await api.database.pool.query('update lanes set horizon = 0, settled = 0');
      const answers = await Promise.all(Array.from({ length: 20 }, () => api.request('DELETE', `/v1/messages/${id}`)));
      assert.deepEqual([...new Set(answers.map(({ status }) => status))], [200]);
      assert.equal(
        answers.reduce((sum, { body }) => sum + body.cancelled, 0),
        3,
      );
    });
  });

  describe('the books', () => {
    const stats = (query = '') => api.request('GET', `/v1/messages/stats${query}`);

    test('say by day and provider how it stands, and what waits in each lane', async () => {
      const other = await createTestApi();
      const ask = (method: string, path: string, body?: object) => other.request(method, path, body);
      await ask('PUT', '/v1/devices/a', { platform: 'ios', device_token: apnsToken(1) });
      await ask('PUT', '/v1/devices/b', { platform: 'web', device_token: 'b' });
      assert.deepEqual((await ask('GET', '/v1/messages/stats')).body, { days: [], lanes: [] });
      const to = { external_ids: ['a', 'b', 'nobody'] };
      const ids = [];
      for (let n = 0; n < 4; n++) ids.push((await ask('POST', '/v1/messages', { to, message })).body.id);
      await endMessage(other.database.pool, ids[0], 'accepted');
      await endMessage(other.database.pool, ids[1], 'rejected', 'BadTopic');
      const { days, lanes } = (await ask('GET', '/v1/messages/stats')).body;
      const none = {
        rejected: 0,
        unregistered: 0,
        expired: 0,
        failed: 0,
        skipped: 0,
        cancelled: 0,
        unknown: 0,
        accepted: 0,
      };
      const day = new Date().toISOString().slice(0, 10);
      const ofProvider = {
        ...{ day, entered: 4, pending: 2, outcomes: { ...none, accepted: 1, rejected: 1 } },
        ...{ reasons: { rejected: { BadTopic: 1 } }, in_doubt: 0 },
      };
      assert.deepEqual(days, [
        {
          ...{ day, provider: null, entered: 4, pending: 0, outcomes: { ...none, skipped: 4 }, in_doubt: 0 },
          reasons: { skipped: { unknown_recipient: 4 } },
        },
        { ...ofProvider, provider: 'apns' },
        { ...ofProvider, provider: 'fcm' },
      ]);
      assert.deepEqual(
        lanes.map((lane: { provider: string; number: number }) => [lane.provider, lane.number]),
        [
          ['apns', 0],
          ['fcm', 0],
        ],
      );
      assert.deepEqual(
        lanes.map(({ waiting }: { waiting: number }) => waiting),
        [2, 2],
      );
      await other.close();
    });

    test('of days: both ends count, and what is no span is refused', async () => {
      assert.equal((await stats('?since=2020-01-01&until=2020-12-31')).status, 200);
      const today = new Date().toISOString().slice(0, 10);
      assert.ok((await stats(`?since=${today}&until=${today}`)).body.days.length > 0);
      for (const [query, field] of [
        ['?since=2020-01-01&until=2021-01-01', 'since'],
        ['?since=2020-01-02&until=2020-01-01', 'since'],
        ['?since=2999-01-01', 'since'],
        ['?until=2021-02-29', 'until'],
        ['?until=0000-02-28', 'until'],
        ['?since=today', 'since'],
        ['?from=2020-01-01', 'from'],
      ]) {
        await refused(stats(query), 422, field);
      }
      assert.equal((await stats('?until=0001-01-01')).status, 200);
      assert.equal((await stats('?until=9999-12-31')).status, 200);
    });

    test('a halted lane is shown, also by /readyz, and resumes when it is asked to', async () => {
      await send({ external_id: 'phone' });
      const { pool } = api.database;
      const { rows } = await pool.query(`
        update lanes set halt_reason = 'topic', halt_detail = 'The topic is wrong.', halted_at = now()
        where app_id = 1 and provider = 'apns' and number = 0 returning id, changes`);
      const lane = (await stats()).body.lanes.find(({ halt }: { halt: unknown }) => halt);
      assert.deepEqual(
        [lane.provider, lane.number, lane.halt.reason, lane.halt.detail],
        ['apns', 0, 'topic', 'The topic is wrong.'],
      );
      const ready = await api.app.request('/readyz');
      const { status, halted_lanes } = (await ready.json()) as { status: string; halted_lanes: object[] };
      assert.deepEqual([ready.status, status], [200, 'ready']);
      assert.deepEqual(halted_lanes, [{ app: 'default', provider: 'apns', number: 0, ...lane.halt }]);

      const listener = await pool.connect();
      const woken: string[] = [];
      listener.on('notification', ({ payload }) => woken.push(payload!));
      await listener.query('listen carillon_lanes');
      const other = await api.request('POST', '/v1/messages/resume', undefined, {
        authorization: `Bearer ${otherKey}`,
      });
      assert.equal(other.status, 200, other.text);
      assert.equal(
        (await stats()).body.lanes.filter(({ halt }: { halt: unknown }) => halt).length,
        1,
        'of another app',
      );
      for (let repeat = 0; repeat < 2; repeat++) {
        const { status, body } = await api.request('POST', '/v1/messages/resume');
        assert.equal(status, 200);
        assert.deepEqual(body.lanes, (await stats()).body.lanes);
        assert.ok(body.lanes.every(({ halt }: { halt: unknown }) => halt === null));
      }
      await until(() => woken.length > 0);
      assert.deepEqual(woken, [String(rows[0].id)]);
      listener.release(true);
      const after = await pool.query('select changes from lanes where id = $1', [rows[0].id]);
      assert.equal(after.rows[0].changes, rows[0].changes + 1);
    });
  });
});

const nothing = () => {};
const silent = { debug: nothing, info: nothing, warn: nothing, error: nothing };
