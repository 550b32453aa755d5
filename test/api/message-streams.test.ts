import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { createApp } from '../../api/app.ts';
import { connect } from '../../db/connect.ts';
import { messageBooks } from '../support/message-outcomes.ts';
import { until } from '../support/until.ts';
import { apnsToken, createTestApi, type TestApi } from './harness.ts';

type Line = Record<string, unknown>;

const message = { title: 'Your parcel is here' };
const nothing = () => {};
const silent = { debug: nothing, info: nothing, warn: nothing, error: nothing };

describe('messages as lines', () => {
  let api: TestApi;
  before(async () => {
    api = await createTestApi();
    for (const [n, id] of ['phone', 'watch'].entries()) {
      const body = { platform: 'ios', device_token: apnsToken(n), user_id: 'anna' };
      await api.request('PUT', `/v1/devices/${id}`, body);
    }
  });
  after(() => api.close());
  afterEach(async () => {
    const { counts, stored } = await messageBooks(api.database.pool);
    assert.deepEqual(counts, stored, 'entered = outcomes + pending, as the rows say');
  });

  const headers = () => ({ 'content-type': 'application/x-ndjson', authorization: `Bearer ${api.key}` });
  const post = (
    body: string | Uint8Array | ReadableStream<Uint8Array>,
    more: Record<string, string> = {},
    app = api.app,
  ) =>
    app.request('/v1/messages', {
      method: 'POST',
      headers: { ...headers(), ...more },
      body: body as string,
      ...({ duplex: 'half' } as object),
    });
  const parsed = (text: string): Line[] =>
    text
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
  /** Lines of the answer, and the summary that ends it. */
  async function send(...given: Parameters<typeof post>): Promise<{ lines: Line[]; summary: Line }> {
    const response = await post(...given);
    assert.equal(response.status, 200);
    const lines = parsed(await response.text());
    return { summary: lines.pop()!, lines };
  }
  const lineTo = (externalId: string, more: object = {}) =>
    JSON.stringify({ to: { external_id: externalId }, message, ...more });
  const rows = async (query: string, values: unknown[] = []) => (await api.database.pool.query(query, values)).rows;
  const stored = async () => Number((await rows('select count(*) from messages'))[0].count);
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

  test('each is answered in its order, as a registered document says', async () => {
    const answer = await api.request(
      'POST',
      '/v1/messages',
      [
        lineTo('phone'),
        '',
        '{"to":{"user_ids":["anna","nobody"]},"message":{"title":"x"}}',
        '{not json',
        lineTo('nobody', { unknown_recipient: 'error' }),
        lineTo('nobody'),
        lineTo('x'.repeat(256)),
        '{"to":{"external_id":"phone","user_id":"anna"},"message":{"title":"x"}}',
        lineTo('a\u0000'),
        '{"to":{"external_id":"phone"},"message":{"title":"x","data":{"aps":1}}}',
        lineTo('phone', { idempotency_key: 'with blank' }),
        '[]',
        lineTo('watch'),
      ].join('\n'),
      { 'content-type': 'application/x-ndjson' },
    );
    const lines = parsed(answer.text);
    assert.deepEqual(lines.pop(), { accepted: 4, repeated: 0, failed: 8, lines: 12, complete: true });
    assert.deepEqual(
      lines.map(({ line, deliveries, code, field }) => [
        line,
        deliveries ?? code,
        ...(field === undefined ? [] : [field]),
      ]),
      [
        [1, 1],
        [3, 2],
        [4, 'malformed_json', ''],
        [5, 'invalid_input', 'to.external_id'],
        [6, 0],
        [7, 'invalid_input', 'to.external_id'],
        [8, 'invalid_input', 'to'],
        [9, 'invalid_input', 'to.external_id'],
        [10, 'payload_invalid', 'message.data.aps'],
        [11, 'invalid_input', 'idempotency_key'],
        [12, 'invalid_input', ''],
        [13, 1],
      ],
    );
    assert.deepEqual(lines[1]!.skipped, [{ external_id: null, user_id: 'nobody', reason: 'unknown_recipient' }]);
    assert.deepEqual(lines[4]!.skipped, [{ external_id: 'nobody', reason: 'unknown_recipient' }]);
    assert.equal('skipped' in lines[0]!, false);
    const shown = await api.request('GET', `/v1/messages/${lines[1]!.id}`);
    assert.equal(shown.body.deliveries.length, 3);
  });

  test('one broken among thousands fails alone, and a device gets its messages in the order of the lines', async () => {
    const bodies = Array.from({ length: 5_000 }, (_, n) =>
      n === 3_210 ? '{"to":' : lineTo(n % 2 ? 'phone' : 'watch'),
    );
    const { lines, summary } = await send(bodies.join('\n'));
    assert.deepEqual(summary, { accepted: 4_999, repeated: 0, failed: 1, lines: 5_000, complete: true });
    assert.deepEqual(
      lines.map(({ line }) => line),
      bodies.map((_, n) => n + 1),
    );
    assert.equal(lines[3_210]!.code, 'malformed_json');
    const ids = lines.filter((_, n) => n % 2).map(({ id }) => id);
    const entries = await rows(
      `select message_id from message_entries where device_id = (select id from devices where external_id = 'phone')
        and message_id = any ($1) order by position`,
      [ids],
    );
    assert.deepEqual(
      entries.map(({ message_id }) => message_id),
      ids,
    );
  });

  test('one that PostgreSQL refuses fails alone', async (t) => {
    await rows(`
      create function refuse_poison() returns trigger language plpgsql as $$
      begin
        if new.message ->> 'title' = 'poison' then raise check_violation; end if;
        return new;
      end $$`);
    await rows('create trigger refuse_poison before insert on messages for each row execute function refuse_poison()');
    t.after(() => rows('drop function refuse_poison cascade'));
    const bodies = Array.from({ length: 500 }, (_, n) =>
      lineTo('phone', n === 17 || n === 333 ? { message: { title: 'poison' } } : { idempotency_key: `poison-${n}` }),
    );
    const { lines, summary } = await send(bodies.join('\n'));
    assert.deepEqual(summary, { accepted: 498, repeated: 0, failed: 2, lines: 500, complete: true });
    assert.deepEqual(
      lines.filter(({ code }) => code).map(({ line, code }) => [line, code]),
      [
        [18, 'internal'],
        [334, 'internal'],
      ],
    );
  });

  test('a key that comes again answers the first message, with another body an error, in one stream and in the next', async () => {
    const keyed = (more: object = {}) => lineTo('phone', { idempotency_key: 'twice', ...more });
    const body = [keyed(), lineTo('watch'), keyed(), keyed({ message: { title: 'Another' } })].join('\n');
    for (const accepted of [2, 1]) {
      const { lines, summary } = await send(body);
      assert.deepEqual(summary, { accepted, repeated: 3 - accepted, failed: 1, lines: 4, complete: true });
      assert.equal(lines[2]!.id, lines[0]!.id);
      assert.deepEqual(lines[2], { line: 3, id: lines[0]!.id, repeated: true });
      assert.deepEqual([lines[3]!.code, lines[3]!.field], ['idempotency_key_reused', 'idempotency_key']);
    }
    const single = await api.request(
      'POST',
      '/v1/messages',
      { to: { external_id: 'phone' }, message },
      { 'idempotency-key': 'twice' },
    );
    const { lines } = await send(keyed());
    assert.equal(single.body.id, lines[0]!.id, 'a line is the same request as a body of its own');
  });

  test('four streams with the same keys at once accept each message once', async () => {
    const before = await stored();
    const body = (turn: number) =>
      Array.from({ length: 600 }, (_, n) =>
        lineTo('phone', { idempotency_key: `race-${(n * 7 + turn * 150) % 600}` }),
      ).join('\n');
    const answers = await Promise.all([0, 1, 2, 3].map((turn) => send(body(turn))));
    assert.equal(await stored(), before + 600);
    for (const { summary } of answers) assert.deepEqual([summary.failed, summary.complete], [0, true]);
    assert.equal(
      answers.reduce((sum, { summary }) => sum + Number(summary.accepted), 0),
      600,
    );
    const ids = new Set(answers.flatMap(({ lines }) => lines.map(({ id }) => id)));
    assert.equal(ids.size, 600);
  });

  test('a caller that sends a line and waits has its answer before it sends the next', async () => {
    const { body, write, close } = writable();
    const reader = (await post(body)).body!.getReader();
    const next = async () => parsed(Buffer.from((await reader.read()).value!).toString());
    for (let line = 1; line <= 3; line++) {
      write(`${lineTo('phone')}\n`);
      assert.deepEqual(
        (await next()).map((answer) => [answer.line, answer.deliveries]),
        [[line, 1]],
      );
    }
    close();
    assert.equal((await next())[0]!.complete, true);
    assert.equal((await reader.read()).done, true);
  });

  test('of a body that breaks off, what was complete is accepted and answered', async () => {
    const { body, write, error } = writable();
    const whole = Array.from({ length: 1_000 }, () => `${lineTo('phone')}\n`).join('');
    const sending = send(body);
    write(`${whole}${lineTo('phone').slice(0, 20)}`);
    // A stream that fails drops what was not read.
    await new Promise((resolve) => setTimeout(resolve, 50));
    error(new Error('ECONNRESET'));
    const { lines, summary } = await sending;
    assert.equal(lines.length, 1_000);
    assert.deepEqual([summary.accepted, summary.lines, summary.complete], [1_000, 1_000, false]);
    assert.ok(summary.code && summary.message);
  });

  test('what was read is accepted although the caller no longer listens', async () => {
    const before = await stored();
    const { body, write } = writable();
    const reader = (await post(body)).body!.getReader();
    write(Array.from({ length: 700 }, () => `${lineTo('phone')}\n`).join(''));
    await reader.read();
    await reader.cancel();
    await until(async () => (await stored()) === before + 700);
  });

  test('a service that stops ends the stream, also one that is silent', async () => {
    const stopping = new AbortController();
    const bare = createApp({ ...api.database, waker: undefined as never, log: silent, stopping: stopping.signal });
    const { body, write } = writable();
    const sending = send(body, {}, { request: async (...given) => bare.request(...given), routes: bare.routes });
    write(`${lineTo('phone')}\n`);
    setTimeout(() => stopping.abort(), 100);
    const { lines, summary } = await sending;
    assert.equal(lines.length, 1);
    assert.deepEqual(
      [summary.accepted, summary.complete, summary.message],
      [1, false, 'The service is stopping: send the lines without an answer again.'],
    );
  });

  test('a database that goes away ends the stream: what has no answer is not accepted', async () => {
    const own = connect(api.database.url);
    let groups = 0;
    const query = ((statement: { name?: string }, ...rest: []) => {
      if (statement.name === 'accept_messages' && ++groups > 2) {
        return Promise.reject(Object.assign(new Error('gone'), { code: 'ECONNREFUSED' }));
      }
      return own.pool.query(statement as never, ...rest);
    }) as unknown as typeof own.pool.query;
    const bare = createApp({ db: own.db, pool: { query } as never, waker: undefined as never, log: silent });
    const before = await stored();
    const { lines, summary } = await send(
      Array.from({ length: 1_000 }, () => lineTo('phone')).join('\n'),
      {},
      { request: async (...given) => bare.request(...given), routes: bare.routes },
    );
    assert.deepEqual([summary.complete, summary.code], [false, 'database_unavailable']);
    assert.equal(lines.length, 400);
    assert.equal(await stored(), before + 400);
    await own.db.destroy();
  });

  test('gzip is understood; an empty body, other types and a key for all are said', async () => {
    const { summary } = await send(gzipSync(`${lineTo('phone')}\n${lineTo('watch')}`), { 'content-encoding': 'gzip' });
    assert.deepEqual([summary.accepted, summary.complete], [2, true]);
    assert.deepEqual((await send('')).summary, { accepted: 0, repeated: 0, failed: 0, lines: 0, complete: true });
    assert.equal((await post(lineTo('phone'), { 'content-type': 'text/plain' })).status, 415);
    const keyed = await post(lineTo('phone'), { 'idempotency-key': 'x' });
    assert.deepEqual([keyed.status, ((await keyed.json()) as Line).field], [422, 'idempotency-key']);
    assert.equal((await post(lineTo('phone'), { authorization: '' })).status, 401);
    const { lines } = await send(`${lineTo('phone', { message: { title: 'y'.repeat(70_000) } })}\n${lineTo('phone')}`);
    assert.deepEqual([lines[0]!.code, lines[1]!.deliveries], ['body_too_large', 1]);
  });
});
