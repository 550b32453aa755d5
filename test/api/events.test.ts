/** `POST /v1/events` and what is read of it: single events, lists and lines, by backends and by keys that ship inside apps. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { insertApiKey } from '../../db/api-keys.ts';
import { planNextPage } from '../../db/plan.ts';
import type { Scope } from '../../domain/scopes.ts';
import { until } from '../support/until.ts';
import { type Answer, apnsToken, createTestApi, type TestApi } from './harness.ts';

type Line = Record<string, unknown>;

let api: TestApi;
let nid: string;
let messageId: string;
before(async () => {
  api = await createTestApi();
  for (const n of [1, 2, 3, 4, 5]) {
    await api.request('PUT', `/v1/devices/phone-${n}`, { platform: 'ios', device_token: apnsToken(n) });
  }
  nid = await send(['phone-1', 'phone-2', 'phone-3', 'phone-4']);
  const message = { to: { external_id: 'phone-5' }, message: { title: 'You' } };
  messageId = (await api.request('POST', '/v1/messages', message)).body.id;
});
after(() => api.close());

async function send(externalIds: string[]): Promise<string> {
  const body = { message: { title: 'Hello' }, audience: { external_ids: externalIds }, launch: true };
  const { body: sent, status } = await api.request('POST', '/v1/notifications', body);
  assert.equal(status, 201);
  await api.database.db.transaction().execute((trx) => planNextPage(trx, sent.id, undefined));
  return sent.id;
}

const newKey = (scopes: Scope[], requestsPerSecond?: number) =>
  insertApiKey(api.database.db, { appId: 1, name: 'k', scopes, ...(requestsPerSecond && { requestsPerSecond }) });
const tell = (body: unknown, headers: Record<string, string> = {}) => api.request('POST', '/v1/events', body, headers);
const read = async (path: string) => (await api.request('GET', path)).body;
const typesOf = async (id: string): Promise<Line> =>
  Object.fromEntries(
    (await read(`/v1/notifications/${id}/events`)).types.map(({ type, ...counts }: Line) => [type, counts]),
  );
const ndjson = { 'content-type': 'application/x-ndjson' };
const lines = (...events: object[]) => events.map((event) => JSON.stringify(event)).join('\n');
function parsed({ text }: Pick<Answer, 'text'>): { answers: Line[]; summary: Line } {
  const answers = text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Line);
  return { summary: answers.pop()!, answers };
}

describe('one event, or a list', () => {
  test('is counted, told again it is repeated, and of what is not known nothing is counted', async () => {
    const id = await send(['phone-1', 'phone-2']);
    const opened = { type: 'opened', nid: id, device: 'phone-1' };
    assert.deepEqual((await tell(opened)).body, { taken: 1, accepted: 1, repeated: 0, unknown: 0 });
    const list = [opened, { ...opened, device: 'phone-2', nid: id.toUpperCase() }, { ...opened, device: 'phone-3' }];
    assert.deepEqual((await tell({ events: list })).body, { taken: 3, accepted: 1, repeated: 1, unknown: 1 });
    assert.deepEqual(await typesOf(id), { opened: { events: 3, devices: 2 } });
  });

  test('of a message to one person counts by its id', async () => {
    await tell({ type: 'dismissed', nid: messageId, device: 'phone-5', at: new Date().toISOString() });
    const { types, hours, next_cursor } = await read(`/v1/messages/${messageId}/events?by=hour`);
    assert.deepEqual(types, [{ type: 'dismissed', events: 1, devices: 1 }]);
    assert.deepEqual([hours.length, hours[0].devices, next_cursor], [1, 1, null]);
    assert.match(hours[0].hour, /T\d\d:00:00\.000Z$/);
  });

  test('by hour comes page by page', async () => {
    const id = await send(['phone-1', 'phone-2']);
    await tell({ events: ['opened', 'received', 'own.word'].map((type) => ({ type, nid: id, device: 'phone-1' })) });
    const found: Line[] = [];
    let cursor = '';
    for (let pages = 0; pages < 3; pages++) {
      const page = await read(`/v1/notifications/${id}/events?by=hour&limit=1${cursor}`);
      found.push(...page.hours);
      cursor = `&cursor=${page.next_cursor}`;
    }
    assert.deepEqual(
      found.map(({ type }) => type),
      ['opened', 'own.word', 'received'],
    );
    assert.equal(cursor, '&cursor=null');
  });

  test('with a fault is refused by the name of the field, and nothing of its list is counted', async () => {
    const id = await send(['phone-1']);
    const good = { type: 'opened', nid: id, device: 'phone-1' };
    const faults: [unknown, string][] = [
      [{ ...good, type: 'Opened' }, 'type'],
      [{ ...good, type: 'x'.repeat(41) }, 'type'],
      [{ ...good, nid: 'not-a-uuid' }, 'nid'],
      [{ ...good, device: '' }, 'device'],
      [{ ...good, device: 'd\u0000' }, 'device'],
      [{ ...good, at: '2026-12-24T18:00:00' }, 'at'],
      [{ ...good, at: 1_764_000_000 }, 'at'],
      [{ ...good, colour: 'red' }, 'colour'],
      [{ type: 'opened', nid: id }, 'device'],
      [{ events: [] }, 'events'],
      [{ events: [good, { ...good, nid: 1 }] }, 'events[1].nid'],
      [{ events: Array(1_001).fill(good) }, 'events'],
    ];
    for (const [body, field] of faults) {
      const answer = await tell(body);
      assert.deepEqual([answer.status, answer.body.field], [422, field], JSON.stringify(body).slice(0, 100));
    }
    assert.deepEqual(await typesOf(id), {});
  });

  test('at any instant that a clock can show is taken', async () => {
    const id = await send(['phone-1']);
    for (const at of ['0001-01-01T00:00:00Z', '9999-12-31T23:59:59+14:00', '2026-02-28T10:00:00-08:00']) {
      const { body } = await tell({ type: 'received', nid: id, device: 'phone-1', at });
      assert.equal(body.taken, 1, at);
    }
    assert.deepEqual(await typesOf(id), { received: { events: 3, devices: 1 } });
  });

  test('of one type more than an app may have is refused by its place; the rest of the list counts', async () => {
    const { rows } = await api.database.pool.query("insert into apps (name) values ('full') returning id");
    await api.database.pool.query("insert into event_types select $1, 'own_' || n from generate_series(1, 20) n", [
      rows[0].id,
    ]);
    const key = await insertApiKey(api.database.db, { appId: rows[0].id, name: 'k', scopes: ['events:write'] });
    const event = { type: 'opened', nid, device: 'phone-1' };
    const headers = { authorization: `Bearer ${key}` };
    const one = await tell({ ...event, type: 'other' }, headers);
    assert.deepEqual([one.status, one.body.field, one.body.code], [422, 'type', 'invalid_input']);
    const { body } = await tell({ events: [event, { ...event, type: 'other' }] }, headers);
    assert.deepEqual([body.field, body.errors.length], ['events[1].type', 1]);
    const stream = parsed(await tell(lines(event, { ...event, type: 'other' }), { ...headers, ...ndjson }));
    assert.deepEqual(
      [stream.answers.map(({ line, field }) => [line, field]), stream.summary],
      [[[2, 'type']], { taken: 1, failed: 1, lines: 2, complete: true }],
    );
  });

  test('is asked for no send that the app has not', async () => {
    const unknown = '019c0000-0000-7000-8000-00000000abcd';
    for (const path of ['notifications', 'messages']) {
      assert.equal((await api.request('GET', `/v1/${path}/${unknown}/events`)).status, 404);
      assert.equal((await api.request('GET', `/v1/${path}/no-uuid/events`)).status, 404);
    }
  });
});

describe('a key that ships inside an app', () => {
  test('is told how much was taken, the same whatever is known of it', async () => {
    const authorization = `Bearer ${await newKey(['events:write'])}`;
    const event = { type: 'opened', nid, device: 'phone-1' };
    for (const one of [event, event, { ...event, device: 'phone-5' }, { ...event, device: 'nobody' }]) {
      const { status, body } = await tell(one, { authorization });
      assert.deepEqual([status, body], [200, { taken: 1 }]);
    }
    const { summary } = parsed(await tell(lines(event, { ...event, device: 'nobody' }), { ...ndjson, authorization }));
    assert.deepEqual(summary, { taken: 2, failed: 0, lines: 2, complete: true });
    assert.equal(
      (await api.request('GET', `/v1/notifications/${nid}/events`, undefined, { authorization })).status,
      403,
    );
  });

  test('has each thousand lines counted as a request', async (t) => {
    const frozen = await createTestApi({ elapsedMs: () => 0 });
    t.after(() => frozen.close());
    const scopes = ['events:write'] as const;
    const key = await insertApiKey(frozen.database.db, { appId: 1, name: 'k', scopes, requestsPerSecond: 10 });
    const headers = { authorization: `Bearer ${key}` };
    const body = lines(...Array(3_500).fill({ type: 'opened', nid, device: 'nobody' }));
    const { summary } = parsed(await frozen.request('POST', '/v1/events', body, { ...headers, ...ndjson }));
    assert.equal(summary.taken, 3_500);
    const answer = await frozen.request('POST', '/v1/events', { type: 'opened', nid, device: 'nobody' }, headers);
    assert.equal(answer.headers.get('ratelimit'), '"key";r=5;t=1', '1 + 3, and this one');
  });
});

describe('events as lines', () => {
  const post = (body: string | Uint8Array | ReadableStream<Uint8Array>, headers: Record<string, string> = {}) =>
    api.app.request('/v1/events', {
      method: 'POST',
      headers: { ...ndjson, authorization: `Bearer ${api.key}`, ...headers },
      body: body as string,
      ...({ duplex: 'half' } as object),
    });
  /** A body that is written piece by piece. */
  function writable() {
    let controller!: ReadableStreamDefaultController<Uint8Array>;
    const body = new ReadableStream<Uint8Array>({
      start(own) {
        controller = own;
      },
    });
    return {
      body,
      write: (text: string) => controller.enqueue(new Uint8Array(Buffer.from(text))),
      close: () => controller.close(),
      error: (error: Error) => controller.error(error),
    };
  }

  test('count but for the broken ones, each of which is answered by its number', async () => {
    const id = await send(['phone-1', 'phone-2']);
    const event = { type: 'opened', nid: id, device: 'phone-1' };
    const body = [
      JSON.stringify(event),
      '',
      '{not json',
      JSON.stringify({ ...event, device: 'phone-2' }),
      JSON.stringify({ ...event, nid: 7 }),
      JSON.stringify({ ...event, device: 'phone-3' }),
      JSON.stringify(event),
    ].join('\n');
    const { answers, summary } = parsed(await tell(body, ndjson));
    assert.deepEqual(
      answers.map(({ line, code, field }) => [line, code, field]),
      [
        [3, 'malformed_json', ''],
        [5, 'invalid_input', 'nid'],
      ],
    );
    assert.deepEqual(summary, { taken: 4, accepted: 2, repeated: 1, unknown: 1, failed: 2, lines: 6, complete: true });
    assert.deepEqual(await typesOf(id), { opened: { events: 3, devices: 2 } });
    const zipped = await post(gzipSync(body), { 'content-encoding': 'gzip' });
    assert.equal(parsed({ text: await zipped.text() }).summary.repeated, 3);
  });

  test('are many more than one statement takes', async () => {
    const id = await send(['phone-1', 'phone-2']);
    const events = Array.from({ length: 7_001 }, (_, n) => ({
      type: 'received',
      nid: id,
      device: `phone-${(n % 3) + 1}`,
    }));
    const { summary } = parsed(await tell(lines(...events), ndjson));
    assert.deepEqual([summary.taken, summary.accepted, summary.unknown], [7_001, 2, 2_333]);
    assert.deepEqual(await typesOf(id), { received: { events: 4_668, devices: 2 } });
  });

  test('whose caller sends no more for now are counted all the same', async () => {
    const id = await send(['phone-1', 'phone-2']);
    const { body, write, close } = writable();
    const answer = post(body);
    write(`${JSON.stringify({ type: 'opened', nid: id, device: 'phone-1' })}\n`);
    await until(async () => Object.keys(await typesOf(id)).length > 0);
    close();
    assert.equal(parsed({ text: await (await answer).text() }).summary.accepted, 1);
  });

  test('that break off in the middle count as far as they were read, and the summary says so', async () => {
    const id = await send(['phone-1', 'phone-2']);
    const { body, write, error } = writable();
    const answer = await post(body);
    write(`${JSON.stringify({ type: 'opened', nid: id, device: 'phone-1' })}\n{"type":"opened","nid"`);
    await until(async () => Object.keys(await typesOf(id)).length > 0);
    error(new Error('the caller has gone'));
    const { summary } = parsed({ text: await answer.text() });
    assert.deepEqual([summary.accepted, summary.complete], [1, false]);
    assert.deepEqual(await typesOf(id), { opened: { events: 1, devices: 1 } });
  });

  test('of an app come in so many streams at once', async () => {
    const open = Array.from({ length: 4 }, () => writable());
    const answers = await Promise.all(open.map(({ body }) => post(body)));
    const refused = await tell(lines({ type: 'opened', nid, device: 'phone-1' }), ndjson);
    assert.deepEqual([refused.status, refused.body.code], [429, 'too_many_event_streams']);
    for (const { close } of open) close();
    await Promise.all(answers.map((answer) => answer.text()));
    assert.equal((await tell(lines({ type: 'opened', nid, device: 'phone-1' }), ndjson)).status, 200);
  });
});
