import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createDocument } from './document.ts';

const thing = { type: 'object', properties: { at: { type: 'string', format: 'date-time' } }, required: ['at'] };
const document = createDocument({
  paths: {
    '/things/{id}': {
      put: {
        requestBody: { required: true, content: { 'application/json': { schema: thing } } },
        responses: {
          200: {
            headers: { Location: { required: true, schema: { type: 'string' } } },
            content: { 'application/json': { schema: thing } },
          },
          202: {},
        },
      },
    },
  },
});
const answer = (status: number, body: unknown, headers: Record<string, string> = { Location: '/things/1' }) =>
  new Response(body === null ? null : JSON.stringify(body), {
    status,
    headers: { 'content-type': 'application/json', ...headers },
  });

test('an answer is held to the document by status, type, headers and body; a request that was taken, by its body', async () => {
  const check = (...given: Parameters<typeof answer>) => document.checkAnswer('PUT', '/things/1?x=1', answer(...given));
  await check(200, { at: '2026-01-01T00:00:00Z' });
  await check(202, null);
  await assert.rejects(check(200, { at: null }), /at must be string/);
  await assert.rejects(check(201, { at: '2026-01-01T00:00:00Z' }), /the 201 of PUT .* is not declared/);
  await assert.rejects(check(200, {}, {}), /has no Location/);
  await assert.rejects(check(202, {}), /has a body/);
  await assert.rejects(check(200, {}, { Location: '', 'content-type': 'text/csv' }), /the undeclared type text\/csv/);
  assert.throws(() => document.checkTaken('PUT', '/things/1', 'application/json', ''), /without its body/);
  assert.throws(() => document.checkTaken('PUT', '/things/1', 'application/json', '{}'), /required property 'at'/);
  assert.throws(() => document.checkTaken('POST', '/things/1', '', ''), /is not declared/);
});
