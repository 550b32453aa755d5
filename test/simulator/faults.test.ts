import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { ClientHttp2Session } from 'node:http2';
import { connect as connectTcp } from 'node:net';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { apnsDeviceToken, fcmRegistrationToken } from '../../simulator/device-tokens.ts';
import type { Action } from '../../simulator/rules.ts';
import { openSession } from './clients.ts';
import { nid, useSimulator } from './fixture.ts';

const fixture = useSimulator({ settings: { apnsWarmUp: false, fcmMaxConcurrentStreams: 1000 } });
const device = apnsDeviceToken(1);

async function apnsSession(): Promise<ClientHttp2Session> {
  return fixture.open(fixture.simulator.apnsUrl);
}

/** Unlike `once`, not put off by the error that comes before. */
function closing(session: ClientHttp2Session): Promise<void> {
  return new Promise((resolve) => session.once('close', () => resolve()));
}

async function withRule(action: Action) {
  await fixture.control.addRule({}, action);
  return fixture.push(await apnsSession(), device);
}

describe('an action does what it says:', () => {
  test('respond: the exact answer of APNs for a reason', async () => {
    const answer = await withRule({ type: 'respond', status: 503, reason: 'Shutdown' });
    assert.deepEqual([answer.status, answer.body], [503, '{"reason":"Shutdown"}']);
    assert.equal(answer.headers['content-type'], 'application/json');
  });

  test('respond: a 410 with and without its timestamp', async () => {
    assert.equal(
      (await withRule({ type: 'respond', status: 410, reason: 'Unregistered', timestamp: 12345 })).body,
      '{"reason":"Unregistered","timestamp":12345}',
    );
    await fixture.control.removeRules();
    assert.equal(
      (await withRule({ type: 'respond', status: 410, reason: 'Unregistered' })).body,
      '{"reason":"Unregistered"}',
    );
  });

  test('respond: FCM’s shape for an error code, and Apple’s reason relayed', async () => {
    await fixture.control.addRule({}, { type: 'respond', status: 401, reason: 'THIRD_PARTY_AUTH_ERROR' }, 1);
    await fixture.control.addRule({}, { type: 'respond', status: 400, reason: 'ApnsUnregistered' }, 1);
    const session = await fixture.open(fixture.simulator.fcmUrl);
    const send = async () => JSON.parse((await fixture.pushFcm(session, fcmRegistrationToken(1))).body).error.details;
    assert.deepEqual(
      (await send()).map((one: Record<string, unknown>) => one.errorCode ?? one.reason),
      ['THIRD_PARTY_AUTH_ERROR', 'InvalidProviderToken'],
    );
    assert.equal((await send())[1].reason, 'Unregistered');
  });

  test('respond: any header and body, junk with a 200 included', async () => {
    const answer = await withRule({
      type: 'respond',
      status: 200,
      body: '}junk{',
      headers: { 'Content-Type': 'text/plain', 'retry-after': '7' },
    });
    assert.equal(answer.body, '}junk{');
    assert.equal(answer.headers['content-type'], 'text/plain');
    assert.equal(answer.headers['retry-after'], '7');
  });

  for (const delivery of ['split', 'bytes', 'truncated'] as const) {
    test(`respond: a body that comes ${delivery}`, async () => {
      const answer = await withRule({ type: 'respond', status: 400, reason: 'BadTopic', delivery });
      const whole = '{"reason":"BadTopic"}';
      assert.equal(answer.body, delivery === 'truncated' ? whole.slice(0, 11) : whole);
    });
  }

  test('respond: a body of 2 MB through windows of 64 KB', async () => {
    const answer = await withRule({ type: 'respond', status: 500, bodyBytes: 2_000_000 });
    assert.equal(answer.body.length, 2_000_000);
  });

  test('html: a page', async () => {
    const answer = await withRule({ type: 'html', status: 502 });
    assert.equal(answer.status, 502);
    assert.equal(answer.headers['content-type'], 'text/html; charset=UTF-8');
    assert.match(answer.body, /\[.*</);
  });

  test('delay: the ordinary answer, later', async () => {
    const startedAt = performance.now();
    const answer = await withRule({ type: 'delay', latency: { distribution: 'uniform', minMs: 40, maxMs: 60 } });
    assert.equal(answer.status, 200);
    assert.ok(performance.now() - startedAt >= 38);
  });

  test('rstStream: by name and by number', async () => {
    assert.equal((await withRule({ type: 'rstStream', code: 'REFUSED_STREAM' })).rstCode, 7);
    await fixture.control.removeRules();
    assert.equal((await withRule({ type: 'rstStream', code: 11 })).rstCode, 11);
  });

  for (const type of ['reset', 'end'] as const) {
    for (const accept of [true, false]) {
      test(`${type}: no answer, ${accept ? 'after' : 'before'} the message was taken`, async () => {
        const answer = await withRule({ type, accept });
        assert.equal(answer.status, undefined);
        const [entry] = await fixture.control.lookup(nid, [device]);
        assert.deepEqual([entry?.received, entry?.accepted], [1, accept ? 1 : 0]);
      });
    }
  }

  test('blackHole: no answer, not even to PING', async () => {
    const session = await apnsSession();
    await fixture.control.addRule({}, { type: 'blackHole' });
    const pending = fixture.push(session, device);
    while ((await fixture.control.ledgerSummary()).received === 0) await sleep(5);
    let isAcknowledged = false;
    session.ping(() => {
      isAcknowledged = true;
    });
    await sleep(50);
    assert.equal(isAcknowledged, false);
    session.destroy();
    assert.equal((await pending).status, undefined);
  });

  test('maxConcurrentStreams: the new limit, and the ordinary answer', async () => {
    const session = await apnsSession();
    await fixture.control.addRule({}, { type: 'maxConcurrentStreams', limit: 3 });
    const changed = once(session, 'remoteSettings');
    assert.equal((await fixture.push(session, device)).status, 200);
    await changed;
    assert.equal(session.remoteSettings.maxConcurrentStreams, 3);
  });

  test('goaway this: the request is answered, and the client hears why', async () => {
    const session = await apnsSession();
    const heard = once(session, 'goaway');
    await fixture.control.addRule({}, { type: 'goaway', reason: 'Shutdown' });
    assert.equal((await fixture.push(session, device)).status, 200);
    const [code, lastStreamId, data] = await heard;
    assert.deepEqual([code, lastStreamId, data.toString()], [0, 1, '{"reason":"Shutdown"}']);
  });

  test('goaway previous: the request is dropped as never processed', async () => {
    const session = await apnsSession();
    await fixture.push(session, apnsDeviceToken(2));
    await fixture.control.addRule({}, { type: 'goaway', last: 'previous', twice: true });
    const heard: number[][] = [];
    session.on('goaway', (code, lastStreamId) => heard.push([code, lastStreamId]));
    const answer = await fixture.push(session, device);
    assert.equal(answer.status, undefined);
    assert.deepEqual(heard, [
      [0, 2 ** 31 - 1],
      [0, 1],
    ]);
    assert.deepEqual(await fixture.control.lookup(nid, [device]), [{ token: device, received: 1, accepted: 0 }]);
  });
});

describe('a rule hits what it matches:', () => {
  const refuse: Action = { type: 'respond', status: 500, reason: 'InternalServerError' };

  async function statuses(count: number): Promise<string> {
    const session = await apnsSession();
    const found = [];
    for (let n = 0; n < count; n++) found.push((await fixture.push(session, apnsDeviceToken(n))).status);
    return found.map((status) => (status === 200 ? '.' : 'x')).join('');
  }

  test('the nth, every nth, a range, a number of times', async () => {
    for (const [match, times, expected] of [
      [{ nth: 3 }, undefined, '..x...'],
      [{ every: 2 }, undefined, '.x.x.x'],
      [{ from: 2, until: 4 }, undefined, '.xxx..'],
      [{}, 2, 'xx....'],
    ] as const) {
      await fixture.control.removeRules();
      await fixture.control.addRule(match, refuse, times);
      assert.equal(await statuses(6), expected);
    }
  });

  test('provider, app, token prefix, notification, connection', async () => {
    for (const [match, expected] of [
      [{ provider: 'fcm' }, '.'],
      [{ provider: 'apns' }, 'x'],
      [{ app: 'dev.carillon.demo' }, 'x'],
      [{ app: 'other' }, '.'],
      [{ tokenPrefix: apnsDeviceToken(0).slice(0, 8) }, 'x'],
      [{ tokenPrefix: '00000000' }, '.'],
      [{ notificationId: nid }, 'x'],
      [{ notificationId: '0198c0de-0002-7abc-8def-0123456789ab' }, '.'],
      [{ connection: 0 }, '.'],
    ] as const) {
      await fixture.control.removeRules();
      await fixture.control.addRule(match, refuse);
      assert.equal(await statuses(1), expected, JSON.stringify(match));
    }
  });

  test('a share of devices by hash is the same share every time', async () => {
    await fixture.control.addRule({ tokenHashPercent: 30 }, refuse);
    const first = await statuses(200);
    assert.equal(await statuses(200), first);
    const hit = first.replaceAll('.', '').length;
    assert.ok(hit > 35 && hit < 85, String(hit));
  });

  test('a probability is drawn from the seed', async () => {
    await fixture.control.addRule({ probability: 0.5 }, refuse);
    const hit = (await statuses(100)).replaceAll('.', '').length;
    assert.ok(hit > 25 && hit < 75, String(hit));
  });

  test('rules are listed with their counts, and removed one by one', async () => {
    const rule = await fixture.control.addRule({ every: 2 }, refuse);
    await statuses(4);
    const [listed] = await fixture.control.listRules();
    assert.deepEqual([listed?.id, listed?.seen, listed?.applied], [rule.id, 4, 2]);
    await fixture.control.removeRules(rule.id);
    assert.deepEqual(await fixture.control.listRules(), []);
  });
});

describe('connections are known and can be hit from outside:', () => {
  test('goaway, reset, close and a new stream limit', async () => {
    const sessions = [await apnsSession(), await apnsSession(), await apnsSession(), await apnsSession()];
    const connections = await fixture.control.listConnections();
    assert.equal(connections.length, 4);
    assert.ok(connections.every(({ listener, protocol }) => listener === 'apns-production' && protocol === 'h2'));
    const [first, second, third, fourth] = connections.map(({ id }) => ({ connection: id }));
    const heard = once(sessions[0]!, 'goaway');
    const closed = [sessions[1]!, sessions[2]!].map(closing);
    const changed = once(sessions[3]!, 'remoteSettings');
    assert.deepEqual(await fixture.control.goaway(first), { affected: 1 });
    await fixture.control.resetConnections(second);
    await fixture.control.closeConnections(third);
    await fixture.control.setMaxStreams(1, fourth);
    await Promise.all([heard, ...closed, changed]);
    assert.equal(sessions[3]!.remoteSettings.maxConcurrentStreams, 1);
    assert.deepEqual(await fixture.control.resetConnections(), { affected: 1 });
  });

  test('GOAWAY lets open requests end and takes no new ones', async () => {
    const session = await apnsSession();
    await fixture.control.addRule({ nth: 1 }, { type: 'delay', latency: 100 });
    const pending = fixture.push(session, device);
    while ((await fixture.control.ledgerSummary()).received === 0) await sleep(5);
    const closed = closing(session);
    await fixture.control.goaway();
    assert.equal((await pending).status, 200);
    await closed;
    assert.deepEqual(await fixture.control.listConnections(), []);
  });

  test('a connection with token authentication starts with one stream and is opened up by a success', async () => {
    await fixture.control.changeSettings({ apnsWarmUp: true });
    const session = await apnsSession();
    assert.equal(session.remoteSettings.maxConcurrentStreams, 1);
    await fixture.push(session, apnsDeviceToken(1, 'badToken'));
    assert.equal(session.remoteSettings.maxConcurrentStreams, 1);
    const changed = once(session, 'remoteSettings');
    await fixture.push(session, device);
    await changed;
    assert.equal(session.remoteSettings.maxConcurrentStreams, 1000);
    await fixture.control.changeSettings({ apnsWarmUp: false });
  });

  test('options some have seen in life: 1 stream after a 400, GOAWAY after bad tokens, a wedged connection', async () => {
    const { control } = fixture;
    await control.changeSettings({ throttlesAfterError: true });
    const session = await apnsSession();
    await fixture.push(session, device);
    const lowered = once(session, 'remoteSettings');
    await fixture.push(session, apnsDeviceToken(1, 'badToken'));
    await lowered;
    assert.equal(session.remoteSettings.maxConcurrentStreams, 1);
    const raised = once(session, 'remoteSettings');
    await fixture.push(session, device);
    await raised;
    assert.equal(session.remoteSettings.maxConcurrentStreams, 1000);
    await control.changeSettings({ throttlesAfterError: false, badDeviceTokenLimit: 2 });
    const second = await apnsSession();
    const heard = once(second, 'goaway');
    await fixture.push(second, apnsDeviceToken(1, 'badToken'));
    await fixture.push(second, apnsDeviceToken(1, 'badToken'));
    await heard;
    await control.changeSettings({ badDeviceTokenLimit: 0, stickyExpiredProviderToken: true });
    const third = await apnsSession();
    await control.setClock(2 * 3_600_000);
    assert.equal((await fixture.push(third, device)).status, 403);
    await control.setClock(0);
    assert.equal((await fixture.push(third, device)).status, 403);
    assert.equal((await fixture.push(await apnsSession(), device)).status, 200);
    await control.changeSettings({ stickyExpiredProviderToken: false });
  });

  test('new connections are refused, stalled, spoilt or sent away', async () => {
    const { control, simulator } = fixture;
    const url = new URL(simulator.apnsUrl);
    const tcp = async () => {
      const socket = connectTcp(Number(url.port), url.hostname);
      socket.on('error', () => {});
      let text = '';
      socket.on('data', (part) => {
        text += part.toString('latin1');
      });
      await once(socket, 'connect').catch(() => {});
      return { socket, text: () => text };
    };
    await control.changeSettings({ admission: 'refuse', admissionListener: 'apns-production' });
    const refused = await tcp();
    if (!refused.socket.destroyed) await once(refused.socket, 'close');
    await control.changeSettings({ admission: 'garbage' });
    const spoilt = await tcp();
    await once(spoilt.socket, 'close');
    assert.match(spoilt.text(), /^HTTP\/1\.1 400/);
    await control.changeSettings({ admission: 'stall' });
    const stalled = await tcp();
    stalled.socket.write(Buffer.from('16030100', 'hex'));
    await sleep(50);
    assert.equal(stalled.socket.readyState, 'open');
    stalled.socket.destroy();
    await control.changeSettings({ admission: 'goaway' });
    const session = await openSession(simulator.apnsUrl, simulator);
    if (!session.closed && !session.destroyed) await closing(session);
    await control.changeSettings({ admission: 'accept' });
    assert.equal((await fixture.push(await apnsSession(), device)).status, 200);
  });
});

test('the last requests are shown as they were received', async () => {
  await fixture.push(await apnsSession(), device, { 'apns-collapse-id': 'c1' });
  await fixture.pushFcm(await fixture.open(fixture.simulator.fcmUrl), fcmRegistrationToken(1));
  const [apns, fcm] = await fixture.control.recentRequests(nid);
  assert.equal(apns?.headers['apns-collapse-id'], 'c1');
  assert.equal(apns?.headers['apns-topic'], 'dev.carillon.demo');
  assert.equal(apns?.device_token, device);
  assert.equal(apns?.notification_id, nid);
  assert.match(apns?.authorization ?? '', /^[\w-]+\.[\w-]+\.[\w-]+$/);
  assert.equal(JSON.parse(apns?.body ?? '').nid, nid);
  assert.equal(apns?.body_bytes, apns?.body.length);
  assert.equal(fcm?.device_token, fcmRegistrationToken(1));
  assert.equal(fcm?.path, '/v1/projects/carillon-demo/messages:send');
  assert.equal(JSON.parse(fcm?.body ?? '').message.token, fcmRegistrationToken(1));
});

test('a request is in the ledger even if the sender never names a notification in the body', async () => {
  const session = await apnsSession();
  await fixture.push(session, device, { 'apns-id': '0198c0de-0009-8abc-8def-000000000001' }, '{"aps":{}}');
  const summary = await fixture.control.ledgerSummary('0198c0de-0009-7abc-8def-0123456789ab');
  assert.equal(summary.accepted, 1);
  await fixture.push(session, device, { 'apns-id': undefined }, '{"aps":{}}');
  assert.equal((await fixture.control.ledgerSummary('')).accepted, 1);
});

test('an unknown route or a body that is no JSON is the caller’s fault', async () => {
  const url = fixture.simulator.controlUrl;
  assert.equal((await fetch(`${url}/nothing`)).status, 404);
  assert.equal((await fetch(`${url}/rules`, { method: 'POST', body: '{' })).status, 400);
});
