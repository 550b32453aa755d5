import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  apnsDeviceToken,
  deviceBehaviours,
  fcmRegistrationToken,
  isPlainApnsDeviceToken,
  mixedAudience,
  readApnsDeviceToken,
  readFcmRegistrationToken,
} from '../../simulator/device-tokens.ts';

const numbers = [0, 1, 63, 64, 4095, 2 ** 32 - 1, 2 ** 32, 2 ** 48 - 1];

test('a token tells number, behaviour, environment and parameter back', () => {
  for (const n of numbers) {
    for (const behaviour of deviceBehaviours) {
      assert.deepEqual(readApnsDeviceToken(apnsDeviceToken(n, behaviour, { environment: 'sandbox', parameter: 7 })), {
        n,
        behaviour,
        environment: 'sandbox',
        parameter: 7,
      });
      assert.deepEqual(readFcmRegistrationToken(fcmRegistrationToken(n, behaviour, { parameter: 7 })), {
        n,
        behaviour,
        environment: null,
        parameter: 7,
      });
    }
  }
});

test('tokens look real: 64 lower-case hex digits, 163 characters with APA91b', () => {
  for (const n of numbers) {
    assert.match(apnsDeviceToken(n, 'slow'), /^[0-9a-f]{64}$/);
    assert.match(fcmRegistrationToken(n, 'slow'), /^[\w-]{22}:APA91b[\w-]{134}$/);
  }
});

test('a hundred thousand numbers give as many tokens', () => {
  const tokens = new Set<string>();
  for (let n = 0; n < 100_000; n++) tokens.add(apnsDeviceToken(n)).add(fcmRegistrationToken(n));
  assert.equal(tokens.size, 200_000);
});

test('an upper-case APNs token is the same device', () => {
  const token = apnsDeviceToken(5, 'unregistered');
  assert.equal(readApnsDeviceToken(token.toUpperCase())?.behaviour, 'unregistered');
});

test('any other token is unmarked', () => {
  assert.equal(readApnsDeviceToken('ab'.repeat(32)), undefined);
  assert.equal(readApnsDeviceToken('ab'.repeat(80)), undefined);
  assert.equal(readFcmRegistrationToken('x'.repeat(163)), undefined);
});

test('only a device that accepts in both environments is plain', () => {
  assert.equal(isPlainApnsDeviceToken(apnsDeviceToken(5)), true);
  assert.equal(isPlainApnsDeviceToken(apnsDeviceToken(5, 'accept', { environment: 'sandbox' })), false);
  for (const behaviour of deviceBehaviours.slice(1)) {
    assert.equal(isPlainApnsDeviceToken(apnsDeviceToken(5, behaviour)), false, behaviour);
  }
});

test('numbers and parameters out of range are refused', () => {
  for (const n of [-1, 1.5, 2 ** 48, Number.NaN]) {
    assert.throws(() => apnsDeviceToken(n), RangeError);
    assert.throws(() => fcmRegistrationToken(n), RangeError);
  }
  assert.throws(() => apnsDeviceToken(1, 'slow', { parameter: 1_048_576 }), RangeError);
});

test('a mixed audience keeps its shares, and each device its fate', () => {
  const shares = { unregistered: 3, rateLimitedOnce: 1, unavailableOnce: 1 };
  const counts: Record<string, number> = {};
  for (let n = 0; n < 100_000; n++) {
    const behaviour = mixedAudience(n, 20, shares);
    counts[behaviour] = (counts[behaviour] ?? 0) + 1;
    if (n < 100) assert.equal(mixedAudience(n, 20, shares), behaviour);
  }
  assert.ok(Math.abs(counts.unregistered! - 3000) < 300, JSON.stringify(counts));
  assert.ok(Math.abs(counts.rateLimitedOnce! - 1000) < 150, JSON.stringify(counts));
  assert.equal(counts.accept! + counts.unregistered! + counts.rateLimitedOnce! + counts.unavailableOnce!, 100_000);
});
