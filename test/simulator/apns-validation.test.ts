import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { apnsPushTypes } from '../../domain/message.ts';
import { topicSuffixes } from '../../simulator/apns/topics.ts';
import { apnsDeviceToken } from '../../simulator/device-tokens.ts';
import { apnsHeaders, createProviderToken, send } from './clients.ts';
import { apnsBody, nid, useSimulator } from './fixture.ts';

const fixture = useSimulator();
const device = apnsDeviceToken(1);

interface Row {
  rule: string;
  changes?: Record<string, string | undefined>;
  body?: string | Buffer;
  status: number;
  reason?: string;
}

const bytes = (size: number) => {
  const frame = JSON.stringify({ aps: { alert: '' } }).length;
  return JSON.stringify({ aps: { alert: 'x'.repeat(size - frame) } });
};

const rows: Row[] = [
  { rule: 'a correct request', status: 200 },
  { rule: 'an upper-case token', changes: { ':path': `/3/device/${device.toUpperCase()}` }, status: 200 },
  { rule: 'a token of 160 digits', changes: { ':path': `/3/device/${'ab'.repeat(80)}` }, status: 200 },
  {
    rule: 'no optional header at all',
    changes: {
      'apns-id': undefined,
      'apns-expiration': undefined,
      'apns-priority': undefined,
      'apns-push-type': undefined,
    },
    status: 200,
  },
  { rule: 'PUT', changes: { ':method': 'PUT' }, status: 405, reason: 'MethodNotAllowed' },
  { rule: 'another path', changes: { ':path': '/3/devices/abc' }, status: 404, reason: 'BadPath' },
  { rule: 'a stray slash', changes: { ':path': `/3/device/${device}/` }, status: 404, reason: 'BadPath' },
  { rule: 'a token that is no hex', changes: { ':path': '/3/device/xyz' }, status: 404, reason: 'BadPath' },
  { rule: 'no token', changes: { ':path': '/3/device/' }, status: 400, reason: 'MissingDeviceToken' },
  {
    rule: 'a token of odd length',
    changes: { ':path': `/3/device/${device.slice(1)}` },
    status: 400,
    reason: 'BadDeviceToken',
  },
  { rule: 'an apns-id that is no UUID', changes: { 'apns-id': '42' }, status: 400, reason: 'BadMessageId' },
  {
    rule: 'an expiration with a fraction',
    changes: { 'apns-expiration': '1700000000.5' },
    status: 400,
    reason: 'BadExpirationDate',
  },
  { rule: 'an expiration below zero', changes: { 'apns-expiration': '-1' }, status: 400, reason: 'BadExpirationDate' },
  { rule: 'priority 7', changes: { 'apns-priority': '7' }, status: 400, reason: 'BadPriority' },
  { rule: 'priority 1', changes: { 'apns-priority': '1' }, status: 200 },
  {
    rule: 'a background push with priority 10',
    changes: { 'apns-push-type': 'background' },
    status: 400,
    reason: 'BadPriority',
  },
  {
    rule: 'a background push without priority',
    changes: { 'apns-push-type': 'background', 'apns-priority': undefined },
    status: 400,
    reason: 'BadPriority',
  },
  {
    rule: 'a background push with priority 5',
    changes: { 'apns-push-type': 'background', 'apns-priority': '5' },
    status: 200,
  },
  { rule: 'an unknown push type', changes: { 'apns-push-type': 'loud' }, status: 400, reason: 'InvalidPushType' },
  { rule: 'no topic', changes: { 'apns-topic': undefined }, status: 400, reason: 'MissingTopic' },
  { rule: 'a topic with a space', changes: { 'apns-topic': 'dev carillon' }, status: 400, reason: 'BadTopic' },
  {
    rule: 'the topic of another team',
    changes: { 'apns-topic': 'com.example.other' },
    status: 400,
    reason: 'TopicDisallowed',
  },
  { rule: 'a collapse id of 64 bytes', changes: { 'apns-collapse-id': 'x'.repeat(64) }, status: 200 },
  {
    rule: 'a collapse id of 65 bytes',
    changes: { 'apns-collapse-id': 'x'.repeat(65) },
    status: 400,
    reason: 'BadCollapseId',
  },
  { rule: 'no body', body: '', status: 400, reason: 'PayloadEmpty' },
  { rule: 'a body that is no JSON', body: '{"aps":', status: 400, reason: 'PayloadEmpty' },
  { rule: 'a body that is no UTF-8', body: Buffer.from([0x22, 0xff, 0x22]), status: 400, reason: 'PayloadEmpty' },
  { rule: 'a JSON list', body: '[]', status: 400, reason: 'PayloadEmpty' },
  { rule: '4096 bytes', body: bytes(4096), status: 200 },
  { rule: '4097 bytes', body: bytes(4097), status: 413, reason: 'PayloadTooLarge' },
  {
    rule: '5120 bytes by voip',
    changes: { 'apns-push-type': 'voip', 'apns-topic': 'dev.carillon.demo.voip' },
    body: bytes(5120),
    status: 200,
  },
  {
    rule: '5121 bytes by voip',
    changes: { 'apns-push-type': 'voip', 'apns-topic': 'dev.carillon.demo.voip' },
    body: bytes(5121),
    status: 413,
    reason: 'PayloadTooLarge',
  },
  { rule: '200 000 bytes', body: bytes(200_000), status: 413, reason: 'PayloadTooLarge' },
];

describe('APNs answers as its table says:', () => {
  for (const { rule, changes, body, status, reason } of rows) {
    test(`${rule}: ${status} ${reason ?? ''}`, async () => {
      const session = await fixture.open(fixture.simulator.apnsUrl);
      const answer = await fixture.push(session, device, changes, body);
      assert.equal(answer.status, status);
      assert.equal(answer.body, reason === undefined ? '' : JSON.stringify({ reason }));
      assert.match(answer.headers['apns-id'] ?? '', /^[0-9a-f-]{36}$/i);
      if (status !== 200) assert.ok(Number.isFinite(Date.parse(answer.headers.date ?? '')));
      const summary = await fixture.control.ledgerSummary();
      assert.equal(summary.received, 1);
      assert.equal(summary.accepted, status === 200 ? 1 : 0);
      assert.equal(summary.protocol_errors, 0);
    });
  }

  test('a header given twice: 400 DuplicateHeaders', async () => {
    const session = await fixture.open(fixture.simulator.apnsUrl);
    const headers: Record<string, string | string[]> = apnsHeaders(fixture.simulator, device, {
      authorization: `bearer ${createProviderToken(fixture.simulator)}`,
    });
    // node:http2 repeats a header for every value of a list, unless it knows the header to be single.
    headers['apns-topic'] = [fixture.simulator.apnsTopic, fixture.simulator.apnsTopic];
    const answer = await send(session, headers, apnsBody);
    assert.deepEqual([answer.status, answer.body], [400, '{"reason":"DuplicateHeaders"}']);
  });

  test('the same apns-id comes back, and the sandbox adds its own', async () => {
    const production = await fixture.push(await fixture.open(fixture.simulator.apnsUrl), device);
    assert.equal(production.headers['apns-id'], '0198c0de-0001-8abc-8def-00000000002a');
    assert.equal(production.headers['apns-unique-id'], undefined);
    const sandbox = await fixture.push(await fixture.open(fixture.simulator.apnsSandboxUrl), device);
    assert.match(sandbox.headers['apns-unique-id'] ?? '', /^[0-9a-f-]{36}$/);
  });
});

describe('a push type goes with its topic only:', () => {
  for (const pushType of apnsPushTypes) {
    test(pushType, async () => {
      const session = await fixture.open(fixture.simulator.apnsUrl);
      const right = `dev.carillon.demo${topicSuffixes[pushType]}`;
      const wrong = topicSuffixes[pushType] === '' ? 'dev.carillon.demo.voip' : 'dev.carillon.demo';
      const headers = { 'apns-push-type': pushType, 'apns-priority': '5' };
      assert.equal((await fixture.push(session, device, { ...headers, 'apns-topic': right })).status, 200);
      const refused = await fixture.push(session, device, { ...headers, 'apns-topic': wrong });
      assert.equal(refused.body, '{"reason":"TopicDisallowed"}');
    });
  }
});

describe('a device token is valid in its environment only', () => {
  test('sandbox and production', async () => {
    const production = await fixture.open(fixture.simulator.apnsUrl);
    const sandbox = await fixture.open(fixture.simulator.apnsSandboxUrl);
    const token = apnsDeviceToken(9, 'accept', { environment: 'sandbox' });
    assert.equal((await fixture.push(sandbox, token)).status, 200);
    const refused = await fixture.push(production, token);
    assert.deepEqual([refused.status, refused.body], [400, '{"reason":"BadDeviceToken"}']);
    assert.deepEqual(await fixture.control.lookup(nid, [token]), [{ token, received: 2, accepted: 1 }]);
  });
});
