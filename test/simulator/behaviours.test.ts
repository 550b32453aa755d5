import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  apnsDeviceToken,
  type DeviceBehaviour,
  deviceBehaviours,
  fcmRegistrationToken,
} from '../../simulator/device-tokens.ts';
import type { Answer } from './clients.ts';
import { nid, useSimulator } from './fixture.ts';

const fixture = useSimulator();

interface Row {
  /** "<status> <reason>" of three requests in turn; `rst <code>` where there is no answer. */
  apns: [string, string, string];
  fcm: [string, string, string];
  accepted: number;
}

const always = (text: string): [string, string, string] => [text, text, text];
const refused = (apns: string, fcm: string): Row => ({ apns: always(apns), fcm: always(fcm), accepted: 0 });
const once = (apns: string, fcm: string, accepted = 2): Row => ({
  apns: [apns, '200', '200'],
  fcm: [fcm, '200', '200'],
  accepted,
});

const rows: Record<Exclude<DeviceBehaviour, 'hang'>, Row> = {
  accept: { apns: always('200'), fcm: always('200'), accepted: 3 },
  unregistered: refused('410 Unregistered', '404 UNREGISTERED'),
  badToken: refused('400 BadDeviceToken', '400 INVALID_ARGUMENT'),
  wrongTopic: refused('400 DeviceTokenNotForTopic', '403 SENDER_ID_MISMATCH'),
  senderMismatch: refused('400 DeviceTokenNotForTopic', '403 SENDER_ID_MISMATCH'),
  rateLimitedOnce: once('429 TooManyRequests', '429 QUOTA_EXCEEDED'),
  unavailableOnce: once('503 ServiceUnavailable', '503 UNAVAILABLE'),
  internalErrorTwice: {
    apns: ['500 InternalServerError', '500 InternalServerError', '200'],
    fcm: ['500 INTERNAL', '500 INTERNAL', '200'],
    accepted: 1,
  },
  alwaysUnavailable: refused('503 ServiceUnavailable', '503 UNAVAILABLE'),
  slow: { apns: always('200'), fcm: always('200'), accepted: 3 },
  acceptThenClose: { apns: always('rst 2'), fcm: always('rst 2'), accepted: 3 },
  acceptOnceUnanswered: once('rst 2', 'rst 2', 3),
  refusedOnce: once('rst 7', 'rst 7'),
  htmlError: once('502', '502'),
  expiredToken: refused('410 ExpiredToken', '404 UNREGISTERED'),
};

function summarize(answer: Answer): string {
  if (answer.status === undefined) return `rst ${answer.rstCode}`;
  if (!answer.body.startsWith('{')) return String(answer.status);
  const { reason, error } = JSON.parse(answer.body);
  const name = reason ?? error?.details?.[0]?.errorCode;
  return name === undefined ? String(answer.status) : `${answer.status} ${name}`;
}

describe('three requests in turn for one device:', () => {
  for (const behaviour of deviceBehaviours) {
    if (behaviour === 'hang') continue;
    const row = rows[behaviour];
    const parameter = behaviour === 'slow' ? { parameter: 20 } : {};

    test(`APNs, ${behaviour}`, async () => {
      const token = apnsDeviceToken(1, behaviour, parameter);
      for (const expected of row.apns) {
        const session = await fixture.open(fixture.simulator.apnsUrl);
        assert.equal(summarize(await fixture.push(session, token)), expected);
      }
      assert.deepEqual(await fixture.control.lookup(nid, [token]), [{ token, received: 3, accepted: row.accepted }]);
    });

    test(`FCM, ${behaviour}`, async () => {
      const token = fcmRegistrationToken(1, behaviour, parameter);
      for (const expected of row.fcm) {
        const session = await fixture.open(fixture.simulator.fcmUrl);
        assert.equal(summarize(await fixture.pushFcm(session, token)), expected);
      }
      assert.deepEqual(await fixture.control.lookup(nid, [token]), [{ token, received: 3, accepted: row.accepted }]);
    });
  }
});

test('"once" starts anew with another notification', async () => {
  const session = await fixture.open(fixture.simulator.apnsUrl);
  const token = apnsDeviceToken(1, 'rateLimitedOnce');
  const other = JSON.stringify({ aps: { alert: 'x' }, nid: '0198c0de-0002-7abc-8def-0123456789ab' });
  const statuses = [];
  for (const body of [undefined, other, undefined, other]) {
    statuses.push((await fixture.push(session, token, {}, body)).status);
  }
  assert.deepEqual(statuses, [429, 429, 200, 200]);
});

test('a device that hangs is accepted and never answered, and others go on', async () => {
  for (const provider of ['apns', 'fcm'] as const) {
    const hang = provider === 'apns' ? apnsDeviceToken(1, 'hang') : fcmRegistrationToken(1, 'hang');
    const plain = provider === 'apns' ? apnsDeviceToken(2) : fcmRegistrationToken(2);
    const session = await fixture.open(provider === 'apns' ? fixture.simulator.apnsUrl : fixture.simulator.fcmUrl);
    const send = (token: string) =>
      provider === 'apns' ? fixture.push(session, token) : fixture.pushFcm(session, token);
    // The first success opens the connection for more than one stream.
    await send(plain);
    let isAnswered = false;
    const hanging = send(hang).then(() => {
      isAnswered = true;
    });
    assert.equal((await send(plain)).status, 200);
    assert.equal(isAnswered, false);
    assert.deepEqual(await fixture.control.lookup(nid, [hang]), [{ token: hang, received: 1, accepted: 1 }]);
    session.destroy();
    await hanging;
  }
});

test('the timestamp of a 410 is milliseconds, as long ago as the token says', async () => {
  const session = await fixture.open(fixture.simulator.apnsUrl);
  const timestampFor = async (parameter?: number) => {
    const token = apnsDeviceToken(1, 'unregistered', parameter === undefined ? {} : { parameter });
    return Date.now() - JSON.parse((await fixture.push(session, token)).body).timestamp;
  };
  assert.ok(Math.abs(await timestampFor()) < 2000);
  assert.ok(Math.abs((await timestampFor(3600)) - 3_600_000) < 2000);
});

test('a summary counts every ending', async () => {
  const session = await fixture.open(fixture.simulator.apnsUrl);
  for (const behaviour of ['accept', 'accept', 'unregistered', 'refusedOnce'] as const) {
    await fixture.push(session, apnsDeviceToken(1, behaviour));
  }
  await fixture.pushFcm(await fixture.open(fixture.simulator.fcmUrl), fcmRegistrationToken(1));
  const summary = await fixture.control.ledgerSummary(nid);
  assert.deepEqual(summary.by_status_reason, { '200': 3, '410 Unregistered': 1, 'rst REFUSED_STREAM': 1 });
  assert.deepEqual(summary.by_provider, { apns: { received: 4, accepted: 2 }, fcm: { received: 1, accepted: 1 } });
  assert.deepEqual([summary.distinct_accepted, summary.repeats], [2, 1]);
  assert.equal(
    Object.values(summary.per_second).reduce((sum, count) => sum + count, 0),
    5,
  );
  assert.deepEqual(await fixture.control.repeatedEntries(nid), [
    { notification_id: nid, token: apnsDeviceToken(1), accepted: 2 },
  ]);
});
