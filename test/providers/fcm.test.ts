import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { after, afterEach, before, describe, test } from 'node:test';
import { importSPKI, jwtVerify } from 'jose';
import { type Platform, platforms } from '../../domain/device.ts';
import type { Message } from '../../domain/message.ts';
import { type FcmErrorCode, fcmErrorCodes } from '../../providers/fcm/errors.ts';
import { PreparedFcmMessage } from '../../providers/fcm/prepared-message.ts';
import { createFcmProvider, type FcmProviderOptions } from '../../providers/fcm/provider.ts';
import { normaliseServiceAccount } from '../../providers/fcm/service-account.ts';
import type { MisconfiguredVerdict, PushProvider, UnregisteredVerdict, Verdict } from '../../providers/provider.ts';
import { until } from '../support/until.ts';
import { FakeClock } from './fake-clock.ts';
import { type FakeAnswer, type FakeHandler, type FakeProvider, startFakeProvider } from './fake-provider.ts';

const notificationId = '01890000-0000-7000-8000-000000000001';
const keys = generateKeyPairSync('rsa', { modulusLength: 2048 });
const deviceToken = 'dQw4w9WgXcQ:APA91b"\\é';
const ok: FakeAnswer = { status: 200, body: { name: 'projects/project-1/messages/0:1500%abc' } };

interface Detail {
  '@type': string;
  [key: string]: unknown;
}
const fcmError = (errorCode: string): Detail => ({
  '@type': 'type.googleapis.com/google.firebase.fcm.v1.FcmError',
  errorCode,
});
const apnsError = (statusCode: number, reason: string): Detail => ({
  '@type': 'type.googleapis.com/google.firebase.fcm.v1.ApnsError',
  statusCode,
  reason,
});
const rpc = (type: string, fields: object): Detail => ({
  '@type': `type.googleapis.com/google.rpc.${type}`,
  ...fields,
});
const errorInfo = (reason: string): Detail => rpc('ErrorInfo', { reason, domain: 'googleapis.com', metadata: {} });
const refusal = (code: number, status: string, message: string, ...details: Detail[]): FakeAnswer => ({
  status: code,
  body: { error: { code, message, status, ...(details.length > 0 && { details }) } },
});

let fake: FakeProvider;
let opened: PushProvider[] = [];
/** What the token endpoint answers; the rest goes to `fake.handler`. */
let oauth: () => FakeAnswer | 'reset';
let send: FakeHandler;
let minted = 0;

const isToken = ({ path }: { path: string }): boolean => path === '/token';
const sends = () => fake.requests.filter((request) => !isToken(request));
const tokenRequests = () => fake.requests.filter(isToken);

before(async () => {
  fake = await startFakeProvider((request) => (isToken(request) ? oauth() : send(request)));
  reset();
});
afterEach(async () => {
  await Promise.all(opened.map((provider) => provider.close()));
  opened = [];
  reset();
});
after(() => fake.close());

function reset(): void {
  fake.requests.length = 0;
  minted = 0;
  oauth = () => ({ status: 200, body: { access_token: `ya29.${++minted}`, expires_in: 3599, token_type: 'Bearer' } });
  send = () => ok;
}

function open(options: Partial<FcmProviderOptions> = {}): PushProvider {
  const tokenUri = `${fake.url}/token`;
  const file = JSON.stringify({
    type: 'service_account',
    project_id: 'project-1',
    private_key_id: 'kid-1',
    private_key: keys.privateKey.export({ type: 'pkcs8', format: 'pem' }),
    client_email: 'sender@project-1.iam.gserviceaccount.com',
    token_uri: tokenUri,
  });
  const account = normaliseServiceAccount(file, { allowedTokenUris: [tokenUri] });
  const provider = createFcmProvider({ account, url: fake.url, ca: fake.ca, pool: { tickMs: 20 }, ...options });
  opened.push(provider);
  return provider;
}

function sendOne(provider: PushProvider, message: Message = { title: 't' }): Promise<Verdict> {
  const prepared = provider.prepare({ notificationId, message });
  return provider.send(prepared, { deviceId: 1, deviceToken, apnsEnvironment: null });
}

function sendMany(provider: PushProvider, count: number): Promise<Verdict[]> {
  return Promise.all(Array.from({ length: count }, () => sendOne(provider)));
}

const kinds = (verdicts: Verdict[]): string[] => [...new Set(verdicts.map(({ kind }) => kind))].sort();

describe('the request', () => {
  test('carries the access token, the project and the message', async () => {
    const verdict = await sendOne(open(), { title: 'Grüße', data: { n: 1 } });
    assert.deepEqual(verdict, { kind: 'accepted', httpStatus: 200, providerMessageId: '0:1500%abc' });
    const [request] = sends();
    assert.equal(request!.method, 'POST');
    assert.equal(request!.path, '/v1/projects/project-1/messages:send');
    assert.equal(request!.headers.authorization, 'Bearer ya29.1');
    assert.equal(request!.headers['content-type'], 'application/json');
    const { message } = JSON.parse(request!.body);
    assert.equal(message.token, deviceToken);
    assert.deepEqual(message.notification, { title: 'Grüße' });
    assert.deepEqual(message.data, { n: '1', nid: notificationId });
  });

  test('the project may be another than the account', async () => {
    await sendOne(open({ projectId: 'other' }));
    assert.equal(sends()[0]!.path, '/v1/projects/other/messages:send');
  });

  test('the access token is asked for with a signed assertion, once for a hundred sends', async () => {
    assert.deepEqual(kinds(await sendMany(open(), 100)), ['accepted']);
    assert.equal(tokenRequests().length, 1);
    const form = new URLSearchParams(tokenRequests()[0]!.body);
    assert.equal(form.get('grant_type'), 'urn:ietf:params:oauth:grant-type:jwt-bearer');
    const spki = await importSPKI(keys.publicKey.export({ type: 'spki', format: 'pem' }) as string, 'RS256');
    const { payload, protectedHeader } = await jwtVerify(form.get('assertion')!, spki);
    assert.deepEqual(protectedHeader, { alg: 'RS256', typ: 'JWT', kid: 'kid-1' });
    assert.equal(payload.iss, 'sender@project-1.iam.gserviceaccount.com');
    assert.equal(payload.scope, 'https://www.googleapis.com/auth/firebase.messaging');
    assert.equal(payload.aud, `${fake.url}/token`);
    assert.equal(payload.exp! - payload.iat!, 3_600);
  });

  describe('the time to live', () => {
    const start = Date.parse('2026-03-01T12:00:00Z');
    const expiresAt = new Date(start + 60_000);
    const message = { title: 't', ttlSeconds: 60 };
    const address = (deviceId: number) => ({ deviceId, deviceToken: `device-${deviceId}`, apnsEnvironment: null });
    const times = () =>
      sends().map(({ body }) => {
        const { android, webpush, apns, token } = JSON.parse(body).message;
        assert.match(token, /^device-/);
        assert.equal(apns.headers['apns-expiration'], String(expiresAt.getTime() / 1000));
        assert.equal(android.ttl, `${webpush.headers.TTL}s`);
        return android.ttl;
      });

    test('is worked out for each request, not for each batch', async () => {
      const provider = open();
      let now = start;
      const prepared = provider.prepare({ notificationId, message, expiresAt }, () => now);
      for (const [i, ms] of [0, 0.5, 999, 1_000, 1_000.4, 30_000, 59_000, 59_999, 12_000].entries()) {
        now = start + ms;
        await provider.send(prepared, address(i));
      }
      assert.deepEqual(times(), ['60s', '59s', '59s', '59s', '58s', '30s', '1s', '1s', '48s']);
    });

    test('is never longer than what is left', () => {
      let now = start;
      const prepared = new PreparedFcmMessage({ notificationId, message, expiresAt }, 'shop-1', () => now);
      for (let ms = 0; ms < 59_000; ms += 137.3) {
        now = start + ms;
        const { android } = JSON.parse(prepared.body('x').toString()).message;
        const seconds = Number.parseInt(android.ttl, 10);
        assert.ok(seconds * 1000 <= 60_000 - ms && seconds * 1000 > 60_000 - ms - 1_001, `${seconds} at ${ms}`);
      }
    });

    test('is the rest of when the request is written, not of when it began to wait for a stream', async (t) => {
      let answerFirst = () => {};
      const firstAnswer = new Promise<void>((resolve) => {
        answerFirst = resolve;
      });
      const narrow = await startFakeProvider(() => firstAnswer.then(() => ok), { maxConcurrentStreams: 1 });
      t.after(() => narrow.close());
      const provider = open({ url: narrow.url, pool: { tickMs: 20, maxConnections: 1 } });
      let now = start;
      const prepared = provider.prepare({ notificationId, message, expiresAt }, () => now);
      const both = [provider.send(prepared, address(1)), provider.send(prepared, address(2))];
      await until(() => narrow.requests.length === 1, 'the first is written');
      now = start + 20_000;
      answerFirst();
      assert.deepEqual(kinds(await Promise.all(both)), ['accepted']);
      const ttls = narrow.requests.map(({ body }) => JSON.parse(body).message.android.ttl);
      assert.deepEqual(ttls, ['60s', '40s']);
    });

    test('that is over ends the send: nothing is written', async () => {
      const provider = open();
      const prepared = provider.prepare({ notificationId, message, expiresAt }, () => expiresAt.getTime());
      assert.deepEqual(await provider.send(prepared, address(1)), { kind: 'unsent', reason: 'expired', afterMs: 0 });
      assert.equal(sends().length, 0);
    });
  });

  test('200 with junk is accepted, without an id', async () => {
    for (const body of ['', 'junk', '{"name":"x/messages/\0"}', '{"name":"x/messages/', '[]']) {
      send = () => ({ status: 200, body });
      assert.deepEqual(await sendOne(open()), { kind: 'accepted', httpStatus: 200 });
    }
  });
});

describe('every error of FCM has its verdict', () => {
  const dead = { kind: 'unregistered' };
  const suspicious = { kind: 'unregistered', suspicion: 'environment' };
  const payloadFault = { kind: 'rejected', isPayloadFault: true };
  const payloadFaultOfOnePlatform = { ...payloadFault, isOnePlatform: true };
  const config = (fault: string) => ({ kind: 'misconfigured', fault });
  const configOfOnePlatform = (fault: string) => ({ ...config(fault), isOnePlatform: true });
  const later = (scope: string, afterMs: number) => ({ kind: 'later', scope, afterMs });
  const unanswered = (scope: string, afterMs: number) => ({ kind: 'unanswered', scope, afterMs });

  const codes = {
    UNSPECIFIED_ERROR: [refusal(400, 'UNKNOWN', 'x', fcmError('UNSPECIFIED_ERROR')), payloadFault],
    INVALID_ARGUMENT: [
      refusal(400, 'INVALID_ARGUMENT', 'Request contains an invalid argument.', fcmError('INVALID_ARGUMENT')),
      payloadFault,
    ],
    UNREGISTERED: [refusal(404, 'NOT_FOUND', 'Requested entity was not found.', fcmError('UNREGISTERED')), dead],
    SENDER_ID_MISMATCH: [
      refusal(403, 'PERMISSION_DENIED', 'SenderId mismatch', fcmError('SENDER_ID_MISMATCH')),
      { ...suspicious, suspicion: 'project' },
    ],
    QUOTA_EXCEEDED: [
      refusal(429, 'RESOURCE_EXHAUSTED', 'Quota.', fcmError('QUOTA_EXCEEDED')),
      later('account', 60_000),
    ],
    UNAVAILABLE: [refusal(503, 'UNAVAILABLE', 'x', fcmError('UNAVAILABLE')), unanswered('provider', 10_000)],
    INTERNAL: [refusal(500, 'INTERNAL', 'x', fcmError('INTERNAL')), unanswered('provider', 10_000)],
    THIRD_PARTY_AUTH_ERROR: [
      refusal(
        401,
        'UNAUTHENTICATED',
        'Request had invalid authentication credentials.',
        fcmError('THIRD_PARTY_AUTH_ERROR'),
        apnsError(403, 'InvalidProviderToken'),
      ),
      configOfOnePlatform('credentials'),
    ],
    APNS_AUTH_ERROR: [
      refusal(401, 'UNAUTHENTICATED', 'x', fcmError('APNS_AUTH_ERROR')),
      configOfOnePlatform('credentials'),
    ],
  } satisfies Record<FcmErrorCode, [FakeAnswer, object]>;

  const violation = (...fields: string[]) =>
    rpc('BadRequest', { fieldViolations: fields.map((field) => ({ field, description: 'Invalid value' })) });
  const invalid = (message: string, ...details: Detail[]) =>
    refusal(400, 'INVALID_ARGUMENT', message, fcmError('INVALID_ARGUMENT'), ...details);
  const quota = (description: string) => rpc('QuotaFailure', { violations: [{ subject: 'project:1', description }] });
  const rows: Record<string, [FakeAnswer, object]> = {
    'a malformed registration token': [
      invalid('The registration token is not a valid FCM registration token'),
      suspicious,
    ],
    'a malformed registration token, named as field': [invalid('x', violation('message.token')), suspicious],
    'a bad field': [
      invalid("Invalid value at 'message.data[0].value'", violation('message.data[0].value')),
      payloadFault,
    ],
    'a bad field and the token': [invalid('x', violation('message.token', 'message.data')), payloadFault],
    'a bad body, without FcmError': [
      refusal(400, 'INVALID_ARGUMENT', 'Invalid JSON payload received.', violation('message')),
      payloadFault,
    ],
    'a dead iOS token reported as 400': [
      invalid('APNs device token is disabled.', apnsError(410, 'Unregistered')),
      dead,
    ],
    'a bad iOS token reported as 400': [invalid('x', apnsError(400, 'BadDeviceToken')), suspicious],
    'an iOS token of another app': [
      invalid('x', apnsError(400, 'DeviceTokenNotForTopic')),
      { ...suspicious, suspicion: 'topic', isOtherTopic: true },
    ],
    'a payload too large for iOS': [invalid('x', apnsError(413, 'PayloadTooLarge')), payloadFaultOfOnePlatform],
    'a bad field of one platform': [invalid('x', violation('message.apns.payload')), payloadFaultOfOnePlatform],
    'bad fields of a platform and of all': [invalid('x', violation('message.apns', 'message.data')), payloadFault],
    'an Apple server that broke': [
      refusal(500, 'UNKNOWN', 'x', apnsError(500, 'InternalServerError')),
      unanswered('device', 10_000),
    ],
    'an Apple server that is busy': [
      refusal(503, 'UNKNOWN', 'x', apnsError(503, 'ServiceUnavailable')),
      later('device', 10_000),
    ],
    aborted: [refusal(409, 'ABORTED', 'x'), later('provider', 10_000)],
    cancelled: [refusal(499, 'CANCELLED', 'x'), unanswered('provider', 10_000)],
    'an iOS device with too many requests': [
      refusal(429, 'RESOURCE_EXHAUSTED', 'x', apnsError(429, 'TooManyRequests')),
      later('device', 60_000),
    ],
    'a dead iOS token, ApnsError only': [refusal(404, 'NOT_FOUND', 'x', apnsError(410, 'Unregistered')), dead],
    'a wrong APNs key in the Firebase project, ApnsError only': [
      refusal(401, 'UNAUTHENTICATED', 'x', apnsError(403, 'BadEnvironmentKeyInToken')),
      configOfOnePlatform('credentials'),
    ],
    'no permission': [
      refusal(
        403,
        'PERMISSION_DENIED',
        "Permission 'cloudmessaging.messages.create' denied",
        errorInfo('IAM_PERMISSION_DENIED'),
      ),
      config('project'),
    ],
    'API off': [refusal(403, 'PERMISSION_DENIED', 'x', errorInfo('SERVICE_DISABLED')), config('project')],
    'API off, in words only': [
      refusal(
        403,
        'PERMISSION_DENIED',
        'Firebase Cloud Messaging API has not been used in project 1 before or it is disabled.',
      ),
      config('project'),
    ],
    'too little scope': [
      refusal(403, 'PERMISSION_DENIED', 'x', errorInfo('ACCESS_TOKEN_SCOPE_INSUFFICIENT')),
      config('credentials'),
    ],
    'bare PERMISSION_DENIED': [refusal(403, 'PERMISSION_DENIED', 'SenderId mismatch'), config('project')],
    'bare NOT_FOUND': [refusal(404, 'NOT_FOUND', 'Requested entity was not found.'), config('project')],
    'bare UNAUTHENTICATED': [
      refusal(401, 'UNAUTHENTICATED', 'Request had invalid authentication credentials.'),
      config('credentials'),
    ],
    'project quota without FcmError': [
      refusal(
        429,
        'RESOURCE_EXHAUSTED',
        "Quota exceeded for quota metric 'Send requests'",
        errorInfo('RATE_LIMIT_EXCEEDED'),
      ),
      later('account', 60_000),
    ],
    'quota of a device': [
      refusal(429, 'RESOURCE_EXHAUSTED', 'x', fcmError('QUOTA_EXCEEDED'), quota('Device message rate exceeded')),
      later('device', 60_000),
    ],
    'quota of a project': [
      refusal(429, 'RESOURCE_EXHAUSTED', 'x', fcmError('QUOTA_EXCEEDED'), quota('Project message rate exceeded')),
      later('account', 60_000),
    ],
    'a retry delay in the details': [
      refusal(503, 'UNAVAILABLE', 'x', rpc('RetryInfo', { retryDelay: '26s' })),
      unanswered('provider', 26_000),
    ],
    'an error code nobody knows': [refusal(400, 'INVALID_ARGUMENT', 'x', fcmError('BRAND_NEW')), payloadFault],
    'a status nobody knows': [refusal(418, 'TEAPOT', 'x'), config('project')],
    'gateway time-out in JSON': [refusal(504, 'DEADLINE_EXCEEDED', 'x'), unanswered('provider', 10_000)],
    'a dead token in a gateway’s answer': [
      refusal(502, 'NOT_FOUND', 'x', fcmError('UNREGISTERED')),
      unanswered('provider', 10_000),
    ],
  };

  const all = { ...Object.fromEntries(fcmErrorCodes.map((code) => [code, codes[code]] as const)), ...rows };
  for (const [name, [answer, expected]] of Object.entries(all)) {
    test(name, async () => {
      send = () => answer;
      const verdict = await sendOne(open());
      const { reason, detail, suspicion, ...seen } = verdict as unknown as Record<string, unknown> &
        UnregisteredVerdict;
      const shown = { ...seen, ...(suspicion && { suspicion: suspicion.fault }) };
      assert.deepEqual(shown, { ...expected, httpStatus: answer.status });
      assert.match(String(reason), /^\w+$/);
      if (verdict.kind === 'misconfigured') assert.match(String(detail), /\.$/);
    });
  }

  test('a refused key of Apple or of the web push service is described by whom it concerns', async () => {
    send = () => codes.THIRD_PARTY_AUTH_ERROR[0];
    const detailFor = async (platform?: Platform) => {
      const provider = open();
      const prepared = provider.prepare({ notificationId, message: { title: 't' } });
      const address = { deviceId: 1, deviceToken, apnsEnvironment: null, ...(platform && { platform }) };
      return ((await provider.send(prepared, address)) as MisconfiguredVerdict).detail;
    };
    assert.match(await detailFor('ios'), /^Apple refused the APNs key/);
    assert.match(await detailFor('web'), /^The web push service refused/);
    assert.match(await detailFor('android'), /registered as android: their tokens belong to another platform/);
    for (const platform of [...platforms, undefined]) {
      const detail = await detailFor(platform);
      assert.match(detail, /Cloud Messaging, in the Firebase console\.$/);
      assert.doesNotMatch(detail, /not affected/);
    }
  });

  test("FCM's field text is shown", async () => {
    send = () => invalid('Invalid value', violation('message.android.ttl'));
    const verdict = await sendOne(open());
    assert.equal(verdict.kind === 'rejected' && verdict.detail, 'Invalid value [message.android.ttl: Invalid value]');
  });

  test('Retry-After comes before every other wait, and only if it is well-formed', async () => {
    for (const [text, afterMs] of [
      ['120', 120_000],
      ['1.5', 60_000],
      ['-3', 60_000],
      ['999999', 3_600_000],
      [new Date(Date.now() - 60_000).toUTCString(), 0],
    ] as const) {
      send = () => ({ ...refusal(429, 'RESOURCE_EXHAUSTED', 'x'), headers: { 'retry-after': text } });
      const verdict = await sendOne(open());
      assert.equal(verdict.kind === 'later' && verdict.afterMs, afterMs, text);
    }
  });
});

describe('an answer that is no JSON is read by its status, and nobody is dropped', () => {
  const html = '<!DOCTYPE html><title>Error 404 (Not Found)!!1</title> [x]';
  for (const [name, answer, expected] of [
    ['502 with HTML', { status: 502, body: html }, 'unanswered'],
    ['500 with HTML', { status: 500, body: html }, 'unanswered'],
    ['500 with nothing', { status: 500 }, 'unanswered'],
    ['503 with nothing', { status: 503 }, 'unanswered'],
    ['503 with HTML', { status: 503, body: html }, 'unanswered'],
    ['429 with HTML', { status: 429, body: html }, 'later'],
    ['408 with nothing', { status: 408 }, 'later'],
    ['400 with HTML', { status: 400, body: html }, 'rejected'],
    ['401 with HTML', { status: 401, body: html }, 'misconfigured'],
    ['403 with HTML', { status: 403, body: html }, 'misconfigured'],
    ['404 with HTML', { status: 404, body: html }, 'misconfigured'],
    ['404 with JSON of another kind', { status: 404, body: { error: 'UNREGISTERED' } }, 'misconfigured'],
    [
      'an error in two pieces',
      { status: 404, body: splitInTwo(refusal(404, 'NOT_FOUND', 'x', fcmError('UNREGISTERED'))) },
      'unregistered',
    ],
    ['a refusal of 200 KB', { status: 404, body: html.repeat(4_000) }, 'later'],
  ] as const) {
    test(name, async () => {
      send = () => answer as FakeAnswer;
      assert.equal((await sendOne(open())).kind, expected);
    });
  }
});

function splitInTwo({ body }: FakeAnswer): string[] {
  const text = JSON.stringify(body);
  return [text.slice(0, 40), text.slice(40)];
}

describe('the access token', () => {
  test('expires in mid-batch: one refresh for all in flight, the refused ones are sent again, none fails', async () => {
    const provider = open();
    await sendOne(provider);
    send = ({ headers }) => (headers.authorization === 'Bearer ya29.1' ? refusal(401, 'UNAUTHENTICATED', 'x') : ok);
    assert.deepEqual(kinds(await sendMany(provider, 50)), ['accepted']);
    assert.equal(tokenRequests().length, 2);
  });

  test('a token of two seconds is renewed as it goes', async () => {
    const clock = new FakeClock();
    oauth = () => ({ status: 200, body: { access_token: `ya29.${++minted}`, expires_in: 2 } });
    const provider = open({ clock });
    for (let i = 0; i < 10; i++) {
      assert.equal((await sendOne(provider)).kind, 'accepted');
      clock.pass(500);
    }
    assert.ok(minted >= 3 && minted <= 6, String(minted));
  });

  test('is renewed in the background five minutes early, and the old one works on while that fails', async () => {
    const clock = new FakeClock();
    const provider = open({ clock });
    await sendOne(provider);
    clock.pass(3_299_000 - 1_000);
    await sendOne(provider);
    assert.equal(tokenRequests().length, 1);
    clock.pass(2_000);
    oauth = () => ({ status: 503 });
    for (let i = 0; i < 3; i++) assert.equal((await sendOne(provider)).kind, 'accepted');
    await until(() => tokenRequests().length === 2);
    oauth = () => ({ status: 200, body: { access_token: 'new', expires_in: 3_599 } });
    await until(async () => {
      clock.pass(2_000);
      assert.equal((await sendOne(provider)).kind, 'accepted');
      return sends().at(-1)!.headers.authorization === 'Bearer new';
    }, 'the new token is used');
  });

  for (const [name, answer] of [
    ['503', { status: 503 }],
    ['429', { status: 429, body: { error: 'rate_limit' } }],
    ['an HTML page', { status: 502, body: '<html>' }],
    ['junk', { status: 200, body: 'junk' }],
    ['a token that no header can carry', { status: 200, body: { access_token: 'a\r\nb', expires_in: 1 } }],
    ['a torn connection', 'reset'],
  ] as const) {
    test(`${name} from the token endpoint: wait, nothing is sent, nobody asks twice`, async () => {
      oauth = () => answer as FakeAnswer;
      const provider = open();
      const verdicts = await sendMany(provider, 20);
      assert.deepEqual(kinds(verdicts), ['unsent']);
      for (const verdict of verdicts) assert.ok(verdict.kind === 'unsent' && verdict.afterMs >= 100);
      await sendMany(provider, 20);
      assert.equal(tokenRequests().length, 1);
      assert.equal(sends().length, 0);
    });
  }

  test('503 and then health: the send goes on by itself', async () => {
    const clock = new FakeClock();
    const provider = open({ clock });
    const healthy = oauth;
    oauth = () => ({ status: 503, headers: { 'retry-after': '3' } });
    const verdict = await sendOne(provider);
    assert.equal(verdict.kind === 'unsent' && verdict.afterMs, 3_000);
    oauth = healthy;
    clock.pass(3_001);
    assert.equal((await sendOne(provider)).kind, 'accepted');
  });

  test('invalid_grant is a fault of the credential', async () => {
    oauth = () => ({ status: 400, body: { error: 'invalid_grant', error_description: 'Invalid JWT Signature.' } });
    const verdict = await sendOne(open());
    assert.ok(verdict.kind === 'misconfigured' && verdict.fault === 'credentials');
    assert.match(verdict.detail, /Invalid JWT Signature/);
    assert.equal(sends().length, 0);
  });

  test('invalid_grant with a clock far off is a fault of the clock, with the gap', async () => {
    const clock = new FakeClock();
    clock.wallOffsetMs = 65 * 60_000;
    const error_description =
      'Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe.';
    oauth = () => ({ status: 400, body: { error: 'invalid_grant', error_description } });
    const verdict = await sendOne(open({ clock }));
    assert.ok(verdict.kind === 'misconfigured' && verdict.fault === 'clock');
    assert.match(verdict.detail, /65 min ahead/);
  });

  test('two tokens lost at once, the one in use and the one just fetched, are no fault of the credential', async () => {
    const provider = open();
    await sendOne(provider);
    send = ({ headers }) => (headers.authorization === 'Bearer ya29.3' ? ok : refusal(401, 'UNAUTHENTICATED', 'x'));
    assert.deepEqual(kinds(await sendMany(provider, 50)), ['accepted']);
    assert.equal(tokenRequests().length, 3);
  });

  test('a token refused again and again is misconfigured, without a loop of refreshes', async () => {
    send = () => refusal(401, 'UNAUTHENTICATED', 'x');
    const provider = open();
    assert.deepEqual(kinds(await sendMany(provider, 50)), ['misconfigured']);
    await sendMany(provider, 50);
    assert.ok(tokenRequests().length <= 3, String(tokenRequests().length));
  });
});

describe('what was not answered', () => {
  test('a torn connection and silence are unanswered, a refused stream is sent again', async () => {
    send = () => 'reset';
    assert.equal((await sendOne(open())).kind, 'unanswered');
    send = () => 'hang';
    assert.equal((await sendOne(open({ requestDeadlineMs: 200 }))).kind, 'unanswered');
    let calls = 0;
    send = () => (++calls === 1 ? 'refuse' : ok);
    assert.equal((await sendOne(open())).kind, 'accepted');
  });

  test('a closed provider sends nothing', async () => {
    const provider = open();
    await sendOne(provider);
    await provider.close();
    assert.equal((await sendOne(provider)).kind, 'unsent');
  });

  test('one strange token in a batch fails alone', async () => {
    send = ({ body }) =>
      JSON.parse(body).message.token === 'good'
        ? ok
        : refusal(
            400,
            'INVALID_ARGUMENT',
            'The registration token is not a valid FCM registration token',
            fcmError('INVALID_ARGUMENT'),
          );
    const provider = open();
    const prepared = provider.prepare({ notificationId, message: { title: 't' } });
    const tokens = Array.from({ length: 50 }, (_, i) => (i === 25 ? '\ud800"},"topic":"all' : 'good'));
    const verdicts = await Promise.all(
      tokens.map((token, deviceId) => provider.send(prepared, { deviceId, deviceToken: token, apnsEnvironment: null })),
    );
    assert.equal(verdicts.filter(({ kind }) => kind === 'accepted').length, 49);
    assert.equal(verdicts[25]!.kind, 'unregistered');
  });
});
