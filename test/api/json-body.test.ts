import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Hono } from 'hono';
import type { ApiEnv } from '../../api/http/env.ts';
import { readJsonBody } from '../../api/http/json-body.ts';
import { handleError } from '../../api/http/problems.ts';

function appWith(options: { maxBytes?: number; timeoutMs?: number }) {
  const app = new Hono<ApiEnv>();
  app.onError(handleError);
  app.use(readJsonBody(options));
  app.post('/', async (c) => c.json(await c.req.json()));
  return app;
}

const send = (app: ReturnType<typeof appWith>, body: unknown) =>
  app.request('/', {
    method: 'POST',
    headers: { 'content-type': 'application/json; charset=utf-8' },
    body: body as string,
    ...({ duplex: 'half' } as object),
  });

test('a body that never ends is given up after its time', async () => {
  const body = new ReadableStream({
    start(controller) {
      controller.enqueue(new TextEncoder().encode('{"a":'));
    },
  });
  const answer = await send(appWith({ timeoutMs: 30 }), body);
  assert.equal(answer.status, 408);
  assert.equal(((await answer.json()) as { code: string }).code, 'body_timeout');
});

test('a body without a length is refused as soon as it is too long', async () => {
  let blocks = 0;
  const body = new ReadableStream({
    pull(controller) {
      blocks++;
      controller.enqueue(new Uint8Array(100).fill(0x20));
    },
  });
  assert.equal((await send(appWith({ maxBytes: 1_000 }), body)).status, 413);
  assert.ok(blocks < 20, 'and not read on');
});

test('a caller that hangs up in mid-body is no failure of the database', async () => {
  const body = new ReadableStream({
    pull(controller) {
      controller.error(Object.assign(new Error('aborted'), { code: 'ECONNRESET' }));
    },
  });
  const answer = await send(appWith({}), body);
  assert.equal(answer.status, 400);
  assert.equal(((await answer.json()) as { code: string }).code, 'malformed_request');
});

test('the limit itself is allowed, in bytes of UTF-8', async () => {
  const text = JSON.stringify({ a: 'ü'.repeat(10) });
  const bytes = Buffer.byteLength(text);
  assert.equal((await send(appWith({ maxBytes: bytes }), text)).status, 200);
  assert.equal((await send(appWith({ maxBytes: bytes - 1 }), text)).status, 413);
});

test('blocks come together, also inside a character', async () => {
  const bytes = new TextEncoder().encode('{"a":"ü漢🔔"}');
  const body = new ReadableStream({
    start(controller) {
      for (const byte of bytes) controller.enqueue(new Uint8Array([byte]));
      controller.close();
    },
  });
  assert.deepEqual(await (await send(appWith({}), body)).json(), { a: 'ü漢🔔' });
});

test('a body whose length is said is the same as one whose length is not', async () => {
  const withLength = (text: string, options = {}) =>
    appWith(options).request('/', {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'content-length': String(Buffer.byteLength(text)) },
      body: text,
    });
  assert.deepEqual(await (await withLength('{"a":"ü漢🔔"}')).json(), { a: 'ü漢🔔' });
  assert.equal((await withLength('{"a":1}', { maxBytes: 6 })).status, 413);
  assert.equal((await withLength('{"a":')).status, 400);
});
