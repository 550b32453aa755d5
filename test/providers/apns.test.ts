import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { after, afterEach, before, describe, test } from 'node:test';
import { decodeJwt, decodeProtectedHeader, importSPKI, jwtVerify } from 'jose';
import type { Logger } from '../../domain/logger.ts';
import type { Message } from '../../domain/message.ts';
import { normaliseApnsCertificate } from '../../providers/apns/certificate.ts';
import { normaliseApnsKey } from '../../providers/apns/key.ts';
import { type ApnsProviderOptions, createApnsProvider } from '../../providers/apns/provider.ts';
import { type ApnsReason, apnsReasons } from '../../providers/apns/reasons.ts';
import { measureMessage } from '../../providers/payload/check.ts';
import { PayloadError } from '../../providers/payload/payload-error.ts';
import type { PushProvider, UnregisteredVerdict, Verdict } from '../../providers/provider.ts';
import { silentLogger } from '../../providers/throttled-log.ts';
import { createApnsClientCertificate, createAuthority } from '../../simulator/certificates.ts';
import { InMemoryProviderTokenStore } from '../support/in-memory-token-store.ts';
import { until } from '../support/until.ts';
import { FakeClock } from './fake-clock.ts';
import { type FakeProvider, type FakeRequest, startFakeProvider } from './fake-provider.ts';

const notificationId = '01890000-0000-7000-8000-000000000001';
const keys = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const credential = normaliseApnsKey({
  privateKey: keys.privateKey.export({ type: 'pkcs8', format: 'pem' }) as string,
  keyId: 'ABC123DEFG',
  teamId: 'TEAM123456',
});
const deviceToken = 'ab'.repeat(32);
const ok = { status: 200 };
const refusal = (status: number, reason: string, more: object = {}) => ({ status, body: { reason, ...more } });
const jwtOf = (request: FakeRequest): string => request.headers.authorization!.replace('bearer ', '');

let fake: FakeProvider;
let opened: PushProvider[] = [];

before(async () => {
  fake = await startFakeProvider(() => ok);
});
afterEach(async () => {
  await Promise.all(opened.map((provider) => provider.close()));
  opened = [];
  fake.requests.length = 0;
  fake.handler = () => ok;
});
after(() => fake.close());

function open(options: Partial<ApnsProviderOptions> = {}): PushProvider {
  const provider = createApnsProvider({
    credential,
    apnsTopic: 'com.example.app',
    urls: { production: fake.url, sandbox: fake.url },
    ca: fake.ca,
    providerTokenStore: new InMemoryProviderTokenStore(),
    pool: { tickMs: 20, backoffMs: 10 },
    ...options,
  });
  opened.push(provider);
  return provider;
}

function sendOne(provider: PushProvider, message: Message = { title: 't' }, deviceId = 255): Promise<Verdict> {
  const prepared = provider.prepare({ notificationId, message });
  return provider.send(prepared, { deviceId, deviceToken, apnsEnvironment: null });
}

function sendMany(provider: PushProvider, count: number): Promise<Verdict[]> {
  const prepared = provider.prepare({ notificationId, message: { title: 't' } });
  const send = (deviceId: number) => provider.send(prepared, { deviceId, deviceToken, apnsEnvironment: null });
  return Promise.all(Array.from({ length: count }, (_, i) => send(i + 1)));
}

const kinds = (verdicts: Verdict[]): string[] => [...new Set(verdicts.map(({ kind }) => kind))];

describe('the request', () => {
  test('carries path, headers, signed provider token and payload', async () => {
    const provider = open();
    const expiresAt = new Date(1_900_000_000_400);
    const prepared = provider.prepare({ notificationId, message: { title: 'Grüße', collapseId: 'c' }, expiresAt });
    const verdict = await provider.send(prepared, { deviceId: 255, deviceToken, apnsEnvironment: 'production' });
    assert.deepEqual(verdict, { kind: 'accepted', httpStatus: 200 });

    const request = fake.requests[0]!;
    assert.equal(request.method, 'POST');
    assert.equal(request.path, `/3/device/${deviceToken}`);
    assert.equal(request.headers['apns-id'], '01890000-0000-8000-8000-0000000000ff');
    assert.equal(request.headers['apns-topic'], 'com.example.app');
    assert.equal(request.headers['apns-push-type'], 'alert');
    assert.equal(request.headers['apns-priority'], '10');
    assert.equal(request.headers['apns-expiration'], '1900000000');
    assert.equal(request.headers['apns-collapse-id'], 'c');
    assert.deepEqual(JSON.parse(request.body), { aps: { alert: { title: 'Grüße' } }, nid: notificationId });
    assert.equal(Buffer.byteLength(request.body), measureMessage({ title: 'Grüße', collapseId: 'c' }, 'apns'));

    const spki = await importSPKI(keys.publicKey.export({ type: 'spki', format: 'pem' }) as string, 'ES256');
    const { payload, protectedHeader } = await jwtVerify(jwtOf(request), spki);
    assert.deepEqual(Object.keys(payload).sort(), ['iat', 'iss']);
    assert.equal(payload.iss, 'TEAM123456');
    assert.ok(Math.abs(payload.iat! - Date.now() / 1000) < 5);
    assert.deepEqual(protectedHeader, { alg: 'ES256', kid: 'ABC123DEFG' });
  });

  for (const [pushType, suffix] of [
    ['voip', '.voip'],
    ['complication', '.complication'],
    ['fileprovider', '.pushkit.fileprovider'],
    ['location', '.location-query'],
    ['liveactivity', '.push-type.liveactivity'],
    ['pushtotalk', '.voip-ptt'],
    ['widgets', '.push-type.widgets'],
    ['controls', '.push-type.controls'],
    ['background', ''],
    ['alert', ''],
  ] as const) {
    test(`push type ${pushType} goes to the topic with "${suffix}"`, async () => {
      const message: Message =
        pushType === 'background'
          ? { pushType }
          : { pushType, title: 't', apns: { payload: { aps: { event: 'update', timestamp: 1 } } } };
      await sendOne(open(), message);
      assert.equal(fake.requests[0]!.headers['apns-topic'], `com.example.app${suffix}`);
      assert.equal(fake.requests[0]!.headers['apns-push-type'], pushType);
      assert.equal(fake.requests[0]!.headers['apns-priority'], pushType === 'background' ? '5' : '10');
    });
  }

  test('a collapse id that no header can carry goes as its hash, the same every time', async () => {
    const provider = open();
    await sendOne(provider, { title: 't', collapseId: 'Spielstand Köln' });
    await sendOne(provider, { title: 'u', collapseId: 'Spielstand Köln' });
    const [first, second] = fake.requests.map(({ headers }) => headers['apns-collapse-id']);
    assert.equal(first, second);
    assert.match(first!, /^[\w-]{43}$/);
  });

  test('sandbox and production devices go to their own hosts', async () => {
    const sandbox = await startFakeProvider(() => ok);
    try {
      const provider = open({ urls: { production: fake.url, sandbox: sandbox.url } });
      const prepared = provider.prepare({ notificationId, message: { title: 't' } });
      await provider.send(prepared, { deviceId: 1, deviceToken, apnsEnvironment: 'sandbox' });
      await provider.send(prepared, { deviceId: 2, deviceToken, apnsEnvironment: 'production' });
      await provider.send(prepared, { deviceId: 3, deviceToken, apnsEnvironment: null });
      assert.deepEqual([sandbox.requests.length, fake.requests.length], [1, 2]);
      assert.equal(jwtOf(sandbox.requests[0]!), jwtOf(fake.requests[0]!));
    } finally {
      await Promise.all(opened.map((provider) => provider.close()));
      await sandbox.close();
    }
  });

  test('one provider token and few connections serve a thousand sends', async () => {
    const verdicts = await sendMany(open(), 1_000);
    assert.deepEqual(kinds(verdicts), ['accepted']);
    assert.equal(new Set(fake.requests.map(jwtOf)).size, 1);
    assert.ok(new Set(fake.requests.map(({ connection }) => connection)).size <= 4);
    assert.equal(new Set(fake.requests.map(({ headers }) => headers['apns-id'])).size, 1_000);
  });

  test('a device token that cannot be sent fails alone, without a call', async () => {
    const provider = open();
    const prepared = provider.prepare({ notificationId, message: { title: 't' } });
    const tokens = Array.from({ length: 50 }, (_, i) => (i === 25 ? '../../evil\r\n' : deviceToken));
    const verdicts = await Promise.all(
      tokens.map((token, i) => provider.send(prepared, { deviceId: i, deviceToken: token, apnsEnvironment: null })),
    );
    assert.equal(verdicts.filter(({ kind }) => kind === 'accepted').length, 49);
    const expected = { kind: 'rejected', httpStatus: null, reason: 'MalformedDeviceToken', isPayloadFault: false };
    assert.deepEqual(verdicts[25], expected);
    assert.equal(fake.requests.length, 49);
  });

  test('a message too large is refused before any call', () => {
    assert.throws(() => open().prepare({ notificationId, message: { body: '漢'.repeat(1_400) } }), PayloadError);
  });
});

describe('every reason of APNs has its verdict', () => {
  const payloadFault = (httpStatus: number) => ({ kind: 'rejected', httpStatus, isPayloadFault: true });
  const deviceFault = (httpStatus: number) => ({ kind: 'rejected', httpStatus, isPayloadFault: false });
  const dead = (httpStatus: number, suspicion?: string) => ({
    ...{ kind: 'unregistered', httpStatus },
    ...(suspicion && { suspicion }),
  });
  const config = (httpStatus: number, fault: string) => ({ kind: 'misconfigured', httpStatus, fault });
  const later = (httpStatus: number, scope: string, afterMs?: number) => ({
    kind: 'later',
    httpStatus,
    scope,
    ...(afterMs && { afterMs }),
  });

  const table = {
    BadCollapseId: payloadFault(400),
    BadDeviceToken: dead(400, 'environment'),
    BadExpirationDate: payloadFault(400),
    BadMessageId: payloadFault(400),
    BadPriority: payloadFault(400),
    BadTopic: config(400, 'topic'),
    DeviceTokenNotForTopic: { ...dead(400, 'topic'), isOtherTopic: true },
    DuplicateHeaders: payloadFault(400),
    IdleTimeout: { kind: 'unsent', httpStatus: 400, afterMs: 1_000 },
    InvalidPushType: payloadFault(400),
    MissingDeviceToken: deviceFault(400),
    MissingTopic: config(400, 'topic'),
    PayloadEmpty: payloadFault(400),
    TopicDisallowed: config(400, 'topic'),
    BadCertificate: config(403, 'credentials'),
    BadCertificateEnvironment: config(403, 'environment'),
    ExpiredProviderToken: config(403, 'clock'),
    Forbidden: config(403, 'credentials'),
    InvalidProviderToken: config(403, 'credentials'),
    MissingProviderToken: config(403, 'credentials'),
    UnrelatedKeyIdInToken: config(403, 'credentials'),
    BadEnvironmentKeyIdInToken: config(403, 'environment'),
    BadEnvironmentKeyInToken: config(403, 'environment'),
    BadPath: deviceFault(404),
    MethodNotAllowed: payloadFault(405),
    ExpiredToken: dead(410),
    Unregistered: dead(410),
    PayloadTooLarge: payloadFault(413),
    TooManyProviderTokenUpdates: later(429, 'account', 60_000),
    TooManyRequests: later(429, 'device', 60_000),
    InternalServerError: { kind: 'unanswered', httpStatus: 500, scope: 'provider' },
    ServiceUnavailable: later(503, 'provider'),
    Shutdown: later(503, 'provider', 3_000),
  } satisfies Record<ApnsReason, object>;

  for (const reason of apnsReasons) {
    test(reason, async () => {
      const { httpStatus, ...rest }: { httpStatus: number } = table[reason];
      fake.handler = () => refusal(httpStatus, reason);
      const verdict = await sendOne(open({ random: () => 0.5 }));
      const { detail, suspicion, ...seen } = verdict as unknown as Record<string, unknown> & UnregisteredVerdict;
      assert.deepEqual(
        { ...seen, ...(suspicion && { suspicion: suspicion.fault }) },
        { ...rest, ...(verdict.kind !== 'unsent' && { httpStatus }), reason },
      );
      if (verdict.kind === 'misconfigured') assert.match(String(detail), /\.$/);
    });
  }

  test('410 says when: milliseconds, and only if it is a time', async () => {
    fake.handler = () => refusal(410, 'Unregistered', { timestamp: 1_700_000_000_123 });
    const verdict = await sendOne(open());
    assert.deepEqual(verdict, {
      kind: 'unregistered',
      httpStatus: 410,
      reason: 'Unregistered',
      invalidAt: new Date(1_700_000_000_123),
    });
    for (const timestamp of ['soon', -1, 9e99, null]) {
      fake.handler = () => refusal(410, 'Unregistered', { timestamp });
      assert.ok(!('invalidAt' in (await sendOne(open()))), String(timestamp));
    }
  });

  test('410 by a clock that is not ours: what counts is how long ago it was', async () => {
    const appleNow = Date.parse('2026-03-01T12:00:00Z');
    const answerOf = (secondsAgo: number) => ({
      ...refusal(410, 'Unregistered', { timestamp: appleNow - secondsAgo * 1_000 }),
      headers: { date: new Date(appleNow).toUTCString() },
    });
    const invalidAtBy = async (aheadMs: number) => {
      fake.handler = () => answerOf(60);
      const provider = open();
      const prepared = provider.prepare({ notificationId, message: { title: 't' } }, () => appleNow + aheadMs);
      const verdict = await provider.send(prepared, { deviceId: 1, deviceToken, apnsEnvironment: null });
      assert.ok(verdict.kind === 'unregistered');
      return verdict.invalidAt!.getTime() - appleNow;
    };
    assert.equal(await invalidAtBy(1_500), -60_000, 'as good as one clock');
    assert.equal(await invalidAtBy(240_000), 240_000 - 60_000 - 2_000);
    assert.equal(await invalidAtBy(-240_000), -240_000 - 60_000 - 2_000);
  });

  test('a request whose time is over is not written', async () => {
    const provider = open();
    const expiresAt = new Date(1_900_000_000_000);
    const prepared = provider.prepare({ notificationId, message: { title: 't' }, expiresAt }, () => 1_900_000_000_000);
    const verdict = await provider.send(prepared, { deviceId: 1, deviceToken, apnsEnvironment: null });
    assert.deepEqual(verdict, { kind: 'unsent', reason: 'expired', afterMs: 0 });
    assert.equal(fake.requests.length, 0);
  });

  test('an answer that leaves the delivery open says how long to wait, where it was told', async () => {
    fake.handler = () => ({ ...refusal(500, 'InternalServerError'), headers: { 'retry-after': '7' } });
    assert.deepEqual(await sendOne(open()), {
      kind: 'unanswered',
      httpStatus: 500,
      reason: 'InternalServerError',
      scope: 'provider',
      afterMs: 7_000,
    });
  });

  test('Retry-After, should APNs ever send one, is followed', async () => {
    fake.handler = () => ({ ...refusal(503, 'ServiceUnavailable'), headers: { 'retry-after': '7' } });
    assert.deepEqual(await sendOne(open()), {
      kind: 'later',
      httpStatus: 503,
      reason: 'ServiceUnavailable',
      scope: 'provider',
      afterMs: 7_000,
    });
  });

  test('an unknown reason fails the message, drops nobody, and is logged once', async () => {
    const lines: object[] = [];
    const logger: Logger = { ...silentLogger, warn: (details) => lines.push(details) };
    fake.handler = () => refusal(400, 'BrandNew\u0000Reason');
    const provider = open({ logger });
    for (let i = 0; i < 3; i++) {
      const verdict = await sendOne(provider);
      assert.equal(verdict.kind === 'rejected' && verdict.isPayloadFault, true);
      assert.equal(verdict.kind === 'rejected' && verdict.reason, 'BrandNewReason');
    }
    assert.equal(lines.length, 1);
    fake.handler = () => refusal(599, 'BrandNew');
    assert.equal((await sendOne(provider)).kind, 'unanswered');
    fake.handler = () => refusal(503, 'BrandNew');
    assert.equal((await sendOne(provider)).kind, 'later');
  });
});

describe('an answer without a reason is read by its status, and nobody is dropped', () => {
  const html = '<html><body>[Error]</body></html>';
  for (const [name, answer, expected] of [
    ['502 with HTML', { status: 502, body: html }, 'unanswered'],
    ['504 with JSON', { status: 504, body: { reason: 'InternalServerError' } }, 'unanswered'],
    ['500 with HTML', { status: 500, body: html }, 'unanswered'],
    ['504 with a refusal in it', { status: 504, body: { reason: 'Unregistered' } }, 'unanswered'],
    ['500 with nothing', { status: 500 }, 'unanswered'],
    ['503 with nothing', { status: 503 }, 'unanswered'],
    ['503 with HTML', { status: 503, body: html }, 'unanswered'],
    ['429 with HTML', { status: 429, body: html }, 'later'],
    ['408 with nothing', { status: 408 }, 'later'],
    ['400 with nothing', { status: 400 }, 'rejected'],
    ['403 with HTML', { status: 403, body: html }, 'misconfigured'],
    ['404 with HTML', { status: 404, body: html }, 'misconfigured'],
    ['410 with HTML', { status: 410, body: html }, 'misconfigured'],
    ['410 with another JSON', { status: 410, body: ['["Unregistered"]'] }, 'misconfigured'],
    ['410 with a reason that is no text', { status: 410, body: { reason: 7 } }, 'misconfigured'],
    ['a redirect', { status: 302, headers: { location: '/' } }, 'misconfigured'],
    ['200 with junk', { status: 200, body: '\u0000{[' }, 'accepted'],
    ['200 with a refusal in it', { status: 200, body: { reason: 'Unregistered' } }, 'accepted'],
    ['a reason in three pieces', { status: 400, body: ['{"rea', 'son":"BadDevi', 'ceToken"}'] }, 'unregistered'],
    ['a refusal of 200 KB', { status: 400, body: html.repeat(6_000) }, 'later'],
  ] as const) {
    test(name, async () => {
      fake.handler = () => answer as never;
      assert.equal((await sendOne(open())).kind, expected);
      assert.equal(fake.requests.length, 1);
    });
  }

  test('the text kept is cut to 2 KiB and free of NUL', async () => {
    fake.handler = () => ({ status: 400, body: `\u0000${'x'.repeat(5_000)}` });
    const verdict = await sendOne(open());
    assert.ok(verdict.kind === 'rejected');
    assert.ok(verdict.detail!.length <= 2_048 && !verdict.detail!.includes('\0'));
  });
});

describe('what was not answered', () => {
  test('a stream that ends without an answer is unanswered', async () => {
    fake.handler = () => 'cancel';
    assert.equal((await sendOne(open())).kind, 'unanswered');
  });
  test('a torn connection is unanswered', async () => {
    fake.handler = () => 'reset';
    assert.equal((await sendOne(open())).kind, 'unanswered');
  });
  test('silence is unanswered at the deadline', async () => {
    fake.handler = () => 'hang';
    const verdict = await sendOne(open({ requestDeadlineMs: 150 }));
    assert.deepEqual(verdict, { kind: 'unanswered', httpStatus: null, reason: 'deadline' });
  });
  test('a refused stream is sent again and counts as nothing', async () => {
    fake.handler = ({ number }) => (number <= 2 ? 'refuse' : ok);
    assert.equal((await sendOne(open())).kind, 'accepted');
    assert.equal(fake.requests.length, 3);
    assert.equal(new Set(fake.requests.map(({ headers }) => headers['apns-id'])).size, 1);
  });
  test('no connection to be had is unsent', async () => {
    const verdict = await sendOne(open({ urls: { production: 'https://127.0.0.1:1' }, requestDeadlineMs: 100 }));
    assert.ok(verdict.kind === 'unsent' && verdict.afterMs > 0);
    assert.match(verdict.reason, /connect_failed/);
  });
  test('a closed provider sends nothing', async () => {
    const provider = open();
    await provider.close();
    assert.equal((await sendOne(provider)).kind, 'unsent');
    await provider.close();
  });
});

describe('refusals that are about the connection', () => {
  for (const reason of ['IdleTimeout', 'UnrelatedKeyIdInToken']) {
    test(`${reason}: the same request on a new connection`, async () => {
      fake.handler = ({ number }) => (number === 1 ? refusal(reason === 'IdleTimeout' ? 400 : 403, reason) : ok);
      assert.equal((await sendOne(open())).kind, 'accepted');
      const [first, second] = fake.requests;
      assert.notEqual(first!.connection, second!.connection);
      assert.equal(first!.headers['apns-id'], second!.headers['apns-id']);
    });
  }
  for (const reason of ['Shutdown', 'TooManyProviderTokenUpdates', 'BadCertificate']) {
    test(`${reason}: the connection is not used again`, async () => {
      fake.handler = ({ number }) => (number === 1 ? refusal(503, reason) : ok);
      const provider = open();
      await sendOne(provider);
      await sendOne(provider);
      assert.notEqual(fake.requests[0]!.connection, fake.requests[1]!.connection);
    });
  }
  test('an ordinary refusal keeps it', async () => {
    fake.handler = ({ number }) => (number === 1 ? refusal(410, 'Unregistered') : ok);
    const provider = open();
    await sendOne(provider);
    await sendOne(provider);
    assert.equal(fake.requests[0]!.connection, fake.requests[1]!.connection);
  });
});

describe('the provider token', () => {
  const minutes = (n: number): number => n * 60_000;
  const settle = () => new Promise((resolve) => setTimeout(resolve, 20));

  test('is renewed once between 20 and 60 minutes, for everybody', async () => {
    const clock = new FakeClock();
    const store = new InMemoryProviderTokenStore(() => clock.monotonicMs());
    const providers = [open({ clock, providerTokenStore: store }), open({ clock, providerTokenStore: store })];
    for (const age of [0, 20, 44]) {
      clock.pass(minutes(age - clock.monotonicOffsetMs / 60_000));
      for (const provider of providers) await sendMany(provider, 5);
      await settle();
      assert.equal(new Set(fake.requests.map(jwtOf)).size, 1, `at ${age} min`);
    }
    clock.pass(minutes(2));
    // The first ones go with the old token while the new one is on its way.
    const isNew = (jwt: string): boolean => decodeJwt(jwt).iat! > Date.now() / 1000 + 45 * 60;
    await until(async () => {
      fake.requests.length = 0;
      for (const provider of providers) assert.deepEqual(kinds(await sendMany(provider, 5)), ['accepted']);
      return fake.requests.map(jwtOf).every(isNew);
    }, 'everybody uses the new token');
    assert.equal(new Set(fake.requests.map(jwtOf)).size, 1);
  });

  test('is taken from the store after a restart', async () => {
    const providerTokenStore = new InMemoryProviderTokenStore();
    await sendOne(open({ providerTokenStore }));
    await sendOne(open({ providerTokenStore }));
    assert.equal(new Set(fake.requests.map(jwtOf)).size, 1);
  });

  test('works on while the store is away, and without one nothing is sent', async () => {
    const clock = new FakeClock();
    const real = new InMemoryProviderTokenStore(() => clock.monotonicMs());
    let isAway = false;
    const providerTokenStore: typeof real.getOrCreate = (...all) =>
      isAway ? Promise.reject(new Error('away')) : real.getOrCreate(...all);
    const provider = open({ clock, providerTokenStore: { getOrCreate: providerTokenStore } });
    await sendOne(provider);
    isAway = true;
    clock.pass(minutes(50));
    assert.equal((await sendOne(provider)).kind, 'accepted');
    clock.pass(minutes(15));
    assert.deepEqual(await sendOne(provider), { kind: 'unsent', reason: 'no_provider_token', afterMs: 2_000 });
    isAway = false;
    assert.equal((await sendOne(provider)).kind, 'accepted');
  });

  test('a token called expired is replaced once for all in flight, on a new connection', async () => {
    const provider = open();
    await sendOne(provider);
    const old = jwtOf(fake.requests[0]!);
    const wedged = new Set<number>();
    fake.handler = ({ headers, connection }) => {
      if (headers.authorization === `bearer ${old}`) wedged.add(connection);
      return wedged.has(connection) ? refusal(403, 'ExpiredProviderToken') : ok;
    };
    assert.deepEqual(kinds(await sendMany(provider, 200)), ['accepted']);
    assert.equal(new Set(fake.requests.map(jwtOf)).size, 2);
  });

  for (const [name, offsetMs, gap] of [
    ['65 minutes behind', -minutes(65), /65 min behind/],
    ['65 minutes ahead', minutes(65), /65 min ahead of/],
  ] as const) {
    test(`a clock ${name} ends as misconfigured, and no token is minted in a loop`, async () => {
      const clock = new FakeClock();
      clock.wallOffsetMs = offsetMs;
      fake.handler = (request) => {
        const iat = decodeJwt(jwtOf(request)).iat!;
        return Math.abs(Date.now() / 1000 - iat) > 3_600 ? refusal(403, 'ExpiredProviderToken') : ok;
      };
      const provider = open({ clock });
      const verdicts = await sendMany(provider, 50);
      assert.deepEqual(kinds(verdicts), ['misconfigured']);
      for (const verdict of verdicts) {
        assert.ok(verdict.kind === 'misconfigured' && verdict.fault === 'clock');
        assert.match(verdict.detail, gap);
      }
      await sendMany(provider, 50);
      assert.equal(new Set(fake.requests.map(jwtOf)).size, 2);

      // The clock is set right, the send resumed: one new token, and it goes on.
      clock.wallOffsetMs = 0;
      assert.deepEqual(kinds(await sendMany(provider, 50)), ['accepted']);
      assert.equal(new Set(fake.requests.map(jwtOf)).size, 3);
    });
  }

  test('a clock that jumps back while running cannot keep an old token alive', async () => {
    const clock = new FakeClock();
    const provider = open({ clock, providerTokenStore: new InMemoryProviderTokenStore(() => clock.monotonicMs()) });
    await sendOne(provider);
    clock.wallOffsetMs -= minutes(120);
    clock.pass(minutes(46));
    await until(async () => {
      await sendOne(provider);
      return jwtOf(fake.requests.at(-1)!) !== jwtOf(fake.requests[0]!);
    }, 'the token is renewed');
  });

  test('TooManyProviderTokenUpdates goes back to the token before', async () => {
    const clock = new FakeClock();
    const provider = open({ clock, providerTokenStore: new InMemoryProviderTokenStore(() => clock.monotonicMs()) });
    await sendOne(provider);
    clock.pass(minutes(46));
    await sendOne(provider);
    const first = jwtOf(fake.requests[0]!);
    fake.handler = (request) => (jwtOf(request) === first ? ok : refusal(429, 'TooManyProviderTokenUpdates'));
    await until(async () => (await sendOne(provider)).kind === 'later', 'the new token is refused');
    assert.equal((await sendOne(provider)).kind, 'accepted');
    assert.equal(new Set(fake.requests.map(jwtOf)).size, 2);
  });

  const counted = () => {
    const lines: { times: number; message: string }[] = [];
    const note = (details: object, message: string) => lines.push({ ...(details as { times: number }), message });
    return { lines, logger: { ...silentLogger, warn: note, error: note } };
  };

  test('TooManyProviderTokenUpdates is logged once a while, with a count, not for each request', async () => {
    const clock = new FakeClock();
    const { lines, logger } = counted();
    fake.handler = () => refusal(429, 'TooManyProviderTokenUpdates');
    const provider = open({ clock, logger });
    await sendMany(provider, 20);
    assert.deepEqual(
      lines.map(({ times }) => times),
      [1],
    );
    clock.pass(minutes(2));
    await sendMany(provider, 5);
    assert.deepEqual(
      lines.map(({ times }) => times),
      [1, 20],
    );
    assert.match(lines[0]!.message, /too many provider tokens/);
  });

  test('a store that is away is logged once a while, not for each request that waits for it', async () => {
    const { lines, logger } = counted();
    const provider = open({ logger, providerTokenStore: { getOrCreate: () => Promise.reject(new Error('away')) } });
    assert.deepEqual(kinds(await sendMany(provider, 20)), ['unsent']);
    assert.deepEqual(
      lines.map(({ times }) => times),
      [1],
    );
  });

  test('InvalidProviderToken is a fault of the credential, found without a second call', async () => {
    fake.handler = () => refusal(403, 'InvalidProviderToken');
    const verdict = await sendOne(open());
    assert.ok(verdict.kind === 'misconfigured' && verdict.fault === 'credentials');
    assert.match(verdict.detail, /key id and team id/);
    assert.equal(fake.requests.length, 1);
  });

  test('InvalidProviderToken with a clock far off is a fault of the clock', async () => {
    const clock = new FakeClock();
    clock.wallOffsetMs = minutes(65);
    fake.handler = () => refusal(403, 'InvalidProviderToken');
    const verdict = await sendOne(open({ clock }));
    assert.ok(verdict.kind === 'misconfigured' && verdict.fault === 'clock');
  });

  test('key and team are in the token as given', async () => {
    await sendOne(open());
    assert.equal(decodeProtectedHeader(jwtOf(fake.requests[0]!)).kid, 'ABC123DEFG');
  });
});

describe('certificate authentication', () => {
  const authority = createAuthority('Apple in miniature');
  const issued = createApnsClientCertificate(authority, { apnsTopic: 'com.example.app' });
  const own = normaliseApnsCertificate({ certificate: issued.certificate, privateKey: issued.privateKey }, new Date());

  test('says what the certificate is for', () => {
    assert.equal(own.apnsTopic, 'com.example.app');
    assert.deepEqual(own.environments, ['production', 'sandbox']);
    assert.ok(own.expiresAt > new Date());
    const sandbox = createApnsClientCertificate(authority, { apnsTopic: 'a.b', environments: ['sandbox'] });
    const both = `${sandbox.privateKey}${sandbox.certificate}`;
    assert.deepEqual(normaliseApnsCertificate({ certificate: both }, new Date()).environments, ['sandbox']);
  });

  test('another key, no key, an expired one are refused', () => {
    const other = createApnsClientCertificate(authority, { apnsTopic: 'x' });
    const { certificate, privateKey } = issued;
    assert.throws(
      () => normaliseApnsCertificate({ certificate, privateKey: other.privateKey }, new Date()),
      /does not belong/,
    );
    assert.throws(() => normaliseApnsCertificate({ certificate }, new Date()), /holds no private key/);
    assert.throws(
      () => normaliseApnsCertificate({ certificate: privateKey }, new Date()),
      /a private key without its certificate/,
    );
    const inTwoYears = new Date(Date.now() + 2 * 365 * 86_400_000);
    assert.throws(() => normaliseApnsCertificate({ certificate, privateKey }, inTwoYears), /expired on/);
  });

  test('sends without a provider token', async () => {
    const server = await startFakeProvider(() => ok, { clientCa: authority.certificate });
    try {
      const provider = open({ credential: own, urls: { production: server.url } });
      assert.equal((await sendOne(provider)).kind, 'accepted');
      assert.equal(server.requests[0]!.headers.authorization, undefined);
      await provider.close();
    } finally {
      await server.close();
    }
  });

  test('push types that need a key are refused before any call', () => {
    const provider = open({ credential: own });
    assert.throws(() => provider.prepare({ notificationId, message: { pushType: 'location' } }), PayloadError);
  });
});
