import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { fcmRegistrationToken } from '../../simulator/device-tokens.ts';
import { fcmHeaders, fetchAccessToken, post, send } from './clients.ts';
import { nid, useSimulator } from './fixture.ts';

const fixture = useSimulator();
const device = fcmRegistrationToken(1);

interface ErrorBody {
  code: number;
  message: string;
  status: string;
  details?: ({ '@type': string } & Record<string, unknown>)[];
}

function errorOf(body: string): ErrorBody {
  return JSON.parse(body).error;
}

function detail(error: ErrorBody, type: string): Record<string, unknown> | undefined {
  return error.details?.find((one) => one['@type'].endsWith(type));
}

test('a correct message is accepted with a name of its own', async () => {
  const session = await fixture.open(fixture.simulator.fcmUrl);
  const first = await fixture.pushFcm(session, device);
  const second = await fixture.pushFcm(session, device);
  assert.equal(first.status, 200);
  assert.equal(first.headers['content-type'], 'application/json; charset=UTF-8');
  assert.match(JSON.parse(first.body).name, /^projects\/carillon-demo\/messages\/0:\d+%[0-9a-f]{16}$/);
  assert.notEqual(JSON.parse(first.body).name, JSON.parse(second.body).name);
  assert.deepEqual(await fixture.control.lookup(nid, [device]), [{ token: device, received: 2, accepted: 2 }]);
});

test('HTTP/1.1 gets the same answers', async () => {
  const url = `${fixture.simulator.fcmUrl}/v1/projects/carillon-demo/messages:send`;
  const authorization = `Bearer ${await fetchAccessToken(fixture.simulator)}`;
  const message = { token: device, data: { nid } };
  const answer = await post(url, fixture.simulator, JSON.stringify({ message }), { authorization });
  assert.equal(answer.status, 200);
  assert.match(JSON.parse(answer.body).name, /^projects\/carillon-demo\/messages\//);
  const refused = await post(url, fixture.simulator, JSON.stringify({ message }), { authorization: 'Bearer x' });
  assert.equal(refused.status, 401);
  assert.equal((await fixture.control.ledgerSummary(nid)).accepted, 1);
});

test('validate_only delivers nothing', async () => {
  const session = await fixture.open(fixture.simulator.fcmUrl);
  const answer = await fixture.postFcm(session, JSON.stringify({ validate_only: true, message: { token: device } }));
  assert.equal(JSON.parse(answer.body).name, 'projects/carillon-demo/messages/fake_message_id');
  assert.equal((await fixture.control.ledgerSummary()).accepted, 0);
});

test('both spellings of a field name mean the same', async () => {
  const session = await fixture.open(fixture.simulator.fcmUrl);
  for (const options of [{ fcm_options: { analytics_label: 'a' } }, { fcmOptions: { analyticsLabel: 'a' } }]) {
    assert.equal((await fixture.pushFcm(session, device, options)).status, 200);
  }
  const android = {
    android: { collapseKey: 'k', notification: { bodyLocKey: 'b', notification_priority: 'PRIORITY_HIGH' } },
  };
  assert.equal((await fixture.pushFcm(session, device, android)).status, 200);
});

describe('access is refused in the shape that Google uses:', () => {
  const body = JSON.stringify({ message: { token: device } });

  test('no bearer, a wrong one, an expired one: 401 without an FcmError', async () => {
    const session = await fixture.open(fixture.simulator.fcmUrl);
    await fixture.control.setOauth({ expiresInSeconds: 1 });
    const expired = await fetchAccessToken(fixture.simulator);
    await fixture.control.setClock(2000);
    const { authorization: _, ...without } = fcmHeaders('');
    for (const headers of [without, fcmHeaders('ya29.unknown'), fcmHeaders(expired)]) {
      const answer = await send(session, headers, body);
      assert.equal(answer.status, 401);
      assert.equal(errorOf(answer.body).status, 'UNAUTHENTICATED');
      assert.equal(detail(errorOf(answer.body), 'FcmError'), undefined);
    }
  });

  test('another project: 403 with the permission that is missing', async () => {
    const session = await fixture.open(fixture.simulator.fcmUrl);
    const headers = fcmHeaders(await fetchAccessToken(fixture.simulator), 'somebody-else');
    const answer = await send(session, headers, body);
    assert.equal(answer.status, 403);
    assert.equal(detail(errorOf(answer.body), 'ErrorInfo')?.reason, 'IAM_PERMISSION_DENIED');
    assert.match(errorOf(answer.body).message, /\/projects\/somebody-else' \(or it may not exist\)\.$/);
  });

  test('another path: an HTML page', async () => {
    const session = await fixture.open(fixture.simulator.fcmUrl);
    const answer = await send(session, { ':method': 'POST', ':path': '/v1/messages' }, body);
    assert.equal(answer.status, 404);
    assert.match(answer.body, /^<!DOCTYPE html>/);
  });
});

interface Row {
  rule: string;
  changes: Record<string, unknown>;
  /** Undefined: accepted. */
  refused?: RegExp;
  /** The error comes from FCM itself, not from the JSON front end. */
  isFcmError?: boolean;
}

const data = (size: number) => ({ data: { k: 'x'.repeat(size - 1) }, notification: undefined });

const rows: Row[] = [
  {
    rule: 'no target',
    changes: { token: undefined },
    refused: /Recipient of the message is not set/,
    isFcmError: true,
  },
  { rule: 'two targets', changes: { topic: 'news' }, refused: /oneof/ },
  { rule: 'fid as target', changes: { token: undefined, fid: 'cVYh3r6dSXq0pKX1y2Jb0z' } },
  {
    rule: 'a token with a space',
    changes: { token: `${device} x` },
    refused: /not a valid FCM registration token/,
    isFcmError: true,
  },
  {
    rule: 'an unknown field',
    changes: { titel: 'x' },
    refused: /Unknown name "titel" at 'message': Cannot find field/,
  },
  {
    rule: 'a number in data',
    changes: { data: { nid, count: 12 } },
    refused: /Invalid value at 'message.data\[1\].value' \(TYPE_STRING\), 12/,
  },
  { rule: 'an object in data', changes: { data: { a: {} } }, refused: /TYPE_STRING/ },
  { rule: 'null in place of a field', changes: { android: null } },
  {
    rule: 'data key from',
    changes: { data: { from: 'x' } },
    refused: /Invalid data payload key: from/,
    isFcmError: true,
  },
  {
    rule: 'data key message_type',
    changes: { data: { message_type: 'x' } },
    refused: /message_type/,
    isFcmError: true,
  },
  { rule: 'data key google.x', changes: { data: { 'google.x': 'x' } }, refused: /google\.x/, isFcmError: true },
  {
    rule: 'data key gcm.notification.x',
    changes: { data: { 'gcm.notification.x': 'x' } },
    refused: /gcm/,
    isFcmError: true,
  },
  {
    rule: 'a reserved key in android.data',
    changes: { android: { data: { from: 'x' } } },
    refused: /from/,
    isFcmError: true,
  },
  { rule: 'data keys notification and collapse_key', changes: { data: { notification: 'x', collapse_key: 'x' } } },
  { rule: 'ttl 0s', changes: { android: { ttl: '0s' } } },
  { rule: 'ttl with a fraction', changes: { android: { ttl: '90.5s' } } },
  { rule: 'ttl of four weeks', changes: { android: { ttl: '2419200s' } } },
  { rule: 'ttl a second over', changes: { android: { ttl: '2419201s' } }, refused: /TTL/, isFcmError: true },
  { rule: 'ttl below zero', changes: { android: { ttl: '-1s' } }, refused: /TTL/, isFcmError: true },
  { rule: 'ttl without a unit', changes: { android: { ttl: '90' } }, refused: /Duration/ },
  { rule: 'ttl as a number', changes: { android: { ttl: 90 } }, refused: /Duration/ },
  { rule: 'an unknown priority', changes: { android: { priority: 'URGENT' } }, refused: /TYPE_ENUM/ },
  {
    rule: 'a title that is a number',
    changes: { notification: { title: 5 } },
    refused: /message\.notification\.title' \(TYPE_STRING\), 5/,
  },
  { rule: '4096 bytes of data', changes: data(4096) },
  { rule: '4097 bytes of data', changes: data(4097), refused: /too big/, isFcmError: true },
  {
    rule: '4097 bytes in the APNs payload',
    changes: { apns: { payload: { aps: { alert: 'x'.repeat(4096) } } } },
    refused: /APNs payload is too big/,
    isFcmError: true,
  },
  { rule: 'data keys google_id, gcm and gcm.x', changes: { data: { google_id: 'x', gcm: 'x', 'gcm.x': 'x' } } },
  { rule: '64 bytes of APNs collapse id', changes: { apns: { headers: { 'apns-collapse-id': 'x'.repeat(64) } } } },
  {
    rule: '65 bytes of APNs collapse id',
    changes: { apns: { headers: { 'apns-collapse-id': 'x'.repeat(65) } } },
    refused: /apns-collapse-id/,
    isFcmError: true,
  },
  {
    rule: 'an APNs collapse id that no header can carry',
    changes: { apns: { headers: { 'apns-collapse-id': 'Köln' } } },
    refused: /apns-collapse-id/,
    isFcmError: true,
  },
  {
    rule: 'an APNs collapse id of two lines',
    changes: { apns: { headers: { 'apns-collapse-id': 'a\nb' } } },
    refused: /apns-collapse-id/,
    isFcmError: true,
  },
  {
    rule: 'an empty APNs collapse id',
    changes: { apns: { headers: { 'apns-collapse-id': '' } } },
    refused: /apns-collapse-id/,
    isFcmError: true,
  },
  {
    rule: 'an APNs priority that is none',
    changes: { apns: { headers: { 'apns-priority': 'high' } } },
    refused: /apns-priority/,
    isFcmError: true,
  },
  {
    rule: 'an APNs expiration that is none',
    changes: { apns: { headers: { 'apns-expiration': 'soon' } } },
    refused: /apns-expiration/,
    isFcmError: true,
  },
  {
    rule: 'a link to the web without TLS',
    changes: { webpush: { fcm_options: { link: 'http://example.com' } } },
    refused: /HTTPS/,
    isFcmError: true,
  },
  {
    rule: 'a TTL for the web that is none',
    changes: { webpush: { headers: { TTL: '90s' } } },
    refused: /TTL/,
    isFcmError: true,
  },
  {
    rule: 'too much for the web alone',
    changes: { webpush: { data: { x: 'x'.repeat(4096) } } },
    refused: /WebPush message is too big/,
    isFcmError: true,
  },
  {
    rule: 'data of Android in place of the common data',
    changes: { data: { x: 'x'.repeat(3000) }, android: { data: { x: 'x'.repeat(3000) } } },
  },
  {
    rule: '2049 bytes to a topic',
    changes: { ...data(2049), token: undefined, topic: 'news' },
    refused: /too big/,
    isFcmError: true,
  },
  {
    rule: 'a silent push to iOS with priority 10',
    changes: {
      notification: undefined,
      apns: { headers: { 'apns-priority': '10' }, payload: { aps: { 'content-available': 1 } } },
    },
    refused: /priority 5/,
    isFcmError: true,
  },
  {
    rule: 'a silent push to iOS without priority',
    changes: { notification: undefined, apns: { payload: { aps: { 'content-available': 1 } } } },
    refused: /priority 5/,
    isFcmError: true,
  },
  {
    rule: 'a silent push to iOS with priority 5',
    changes: {
      notification: undefined,
      apns: { headers: { 'apns-priority': '5' }, payload: { aps: { 'content-available': 1 } } },
    },
  },
];

describe('a message is checked:', () => {
  for (const { rule, changes, refused, isFcmError = false } of rows) {
    test(`${rule}: ${refused === undefined ? 'accepted' : '400'}`, async () => {
      const session = await fixture.open(fixture.simulator.fcmUrl);
      const answer = await fixture.pushFcm(session, device, changes);
      if (refused === undefined) {
        assert.equal(answer.status, 200, answer.body);
        return;
      }
      const error = errorOf(answer.body);
      assert.deepEqual([answer.status, error.code, error.status], [400, 400, 'INVALID_ARGUMENT']);
      assert.match(error.message, refused);
      assert.equal(detail(error, 'FcmError')?.errorCode, isFcmError ? 'INVALID_ARGUMENT' : undefined);
      assert.ok(detail(error, 'BadRequest'));
      assert.equal((await fixture.control.ledgerSummary()).accepted, 0);
    });
  }

  for (const body of ['', '{', '[]', 'null', Buffer.from([0x7b, 0xff, 0x7d])]) {
    test(`a body of ${JSON.stringify(body.toString('latin1'))}: 400`, async () => {
      const session = await fixture.open(fixture.simulator.fcmUrl);
      const answer = await fixture.postFcm(session, body);
      assert.equal(answer.status, 400);
      assert.match(errorOf(answer.body).message, /^Invalid JSON payload received\./);
    });
  }
});

test('a message like one before, but for its token, is read as if in full', async () => {
  const session = await fixture.open(fixture.simulator.fcmUrl);
  const tokens = [1, 2, 3].map((n) => fcmRegistrationToken(n));
  // The same text as a data value must not be taken for the target.
  const body = (target: string, inData: string) =>
    `{"message":{"data":{"token":"${inData}","nid":"${nid}"},"token": "${target}"}}`;
  for (const token of tokens) assert.equal((await fixture.postFcm(session, body(token, tokens[0]!))).status, 200);
  for (const token of tokens) assert.equal((await fixture.postFcm(session, body(tokens[0]!, token))).status, 200);
  for (const token of tokens) assert.equal((await fixture.pushFcm(session, token)).status, 200);
  assert.deepEqual(
    (await fixture.control.lookup(nid, tokens)).map((entry) => entry.accepted),
    [5, 2, 2],
  );
  // What would be refused in full stays refused.
  const spoilt = JSON.stringify({ message: { token: 'bad token', notification: { title: 'Hello' }, data: { nid } } });
  assert.equal((await fixture.postFcm(session, spoilt)).status, 400);
});

describe('the project’s quota is a bucket refilled each minute:', () => {
  const forms = [
    ['seconds', /^\d{1,2}$/],
    ['date', /GMT$/],
    ['absent', undefined],
    ['malformed', /^soon$/],
    ['huge', /^31536000$/],
  ] as const;
  for (const [retryAfter, shape] of forms) {
    test(`Retry-After ${retryAfter}`, async () => {
      const session = await fixture.open(fixture.simulator.fcmUrl);
      await fixture.control.setQuota({ perMinute: 2, retryAfter });
      const answers = [];
      for (let n = 0; n < 3; n++) answers.push(await fixture.pushFcm(session, fcmRegistrationToken(n)));
      assert.deepEqual(
        answers.map((answer) => answer.status),
        [200, 200, 429],
      );
      const error = errorOf(answers[2]!.body);
      assert.equal(error.status, 'RESOURCE_EXHAUSTED');
      assert.equal(detail(error, 'FcmError'), undefined);
      assert.equal(detail(error, 'ErrorInfo')?.reason, 'RATE_LIMIT_EXCEEDED');
      const header = answers[2]!.headers['retry-after'];
      if (shape === undefined) assert.equal(header, undefined);
      else assert.match(header ?? '', shape);
      await fixture.control.setClock(60_000);
      assert.equal((await fixture.pushFcm(session, device)).status, 200);
    });
  }
});
