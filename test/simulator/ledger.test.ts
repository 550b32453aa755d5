import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DeliveryTable } from '../../simulator/delivery-table.ts';
import { apnsDeviceToken } from '../../simulator/device-tokens.ts';
import { Ledger } from '../../simulator/ledger.ts';

const first = '0198c0de-0001-7abc-8def-0123456789ab';
const second = '0198c0de-0002-7abc-8def-0123456789ab';

test('received and accepted are counted per notification and device', () => {
  const ledger = new Ledger();
  const a = ledger.notification(first);
  const b = ledger.notification(second);
  assert.equal(ledger.receive(a, 't1', 'apns'), 0);
  assert.equal(ledger.receive(a, 't1', 'apns'), 1);
  ledger.accept(a, 't1', 'apns');
  assert.equal(ledger.receive(a, 't2', 'fcm'), 0);
  assert.equal(ledger.receive(b, 't1', 'apns'), 0);
  assert.deepEqual(ledger.read(first, 't1'), { received: 2, accepted: 1 });
  assert.deepEqual(ledger.read(first, 't2'), { received: 1, accepted: 0 });
  assert.deepEqual(ledger.read(second, 't1'), { received: 1, accepted: 0 });
  assert.deepEqual(ledger.read(second, 't2'), { received: 0, accepted: 0 });
  assert.equal(a.counts.received, 3);
  assert.equal(a.counts.distinctReceived, 2);
  assert.deepEqual(a.counts.receivedByProvider, { apns: 2, fcm: 1 });
});

test('only repeated acceptances keep the token', () => {
  const ledger = new Ledger();
  const notification = ledger.notification(first);
  for (const [token, times] of [
    ['once', 1],
    ['twice', 2],
    ['thrice', 3],
  ] as const) {
    for (let i = 0; i < times; i++) {
      ledger.receive(notification, token, 'apns');
      ledger.accept(notification, token, 'apns');
    }
  }
  assert.deepEqual(
    [...notification.repeated],
    [
      ['twice', 2],
      ['thrice', 3],
    ],
  );
  assert.equal(notification.counts.accepted, 6);
  assert.equal(notification.counts.distinctAccepted, 3);
  assert.equal(notification.counts.repeats, 3);
});

test('an id in full and the part of it in an apns-id are the same notification', () => {
  const ledger = new Ledger();
  assert.equal(ledger.notification(first), ledger.notification('0198c0de-0001-8abc-8def-'));
  assert.equal(ledger.notification(first.toUpperCase()), ledger.notification(first));
  assert.notEqual(ledger.notification(''), ledger.notification(first));
});

test('counts stay exact while the table grows through many sizes', () => {
  const ledger = new Ledger();
  const notification = ledger.notification(first);
  const size = 150_000;
  for (let n = 0; n < size; n++) {
    const token = apnsDeviceToken(n);
    ledger.receive(notification, token, 'apns');
    if (n % 3 === 0) ledger.accept(notification, token, 'apns');
  }
  assert.equal(notification.counts.distinctReceived, size);
  assert.equal(notification.counts.distinctAccepted, size / 3);
  for (let n = 0; n < size; n += 997) {
    assert.deepEqual(ledger.read(first, apnsDeviceToken(n)), { received: 1, accepted: n % 3 === 0 ? 1 : 0 });
  }
});

test('counters of a pair stop at 255', () => {
  const table = new DeliveryTable();
  for (let i = 0; i < 300; i++) {
    table.receive(7, 9);
    table.accept(7, 9);
  }
  assert.deepEqual(table.read(7, 9), { received: 255, accepted: 255 });
});

test('a reset forgets everything', () => {
  const ledger = new Ledger();
  const before = ledger.notification(first);
  ledger.receive(before, 't', 'apns');
  ledger.reset();
  assert.deepEqual(ledger.read(first, 't'), { received: 0, accepted: 0 });
  assert.equal(ledger.receive(ledger.notification(first), 't', 'apns'), 0);
  assert.equal(ledger.totals.received, 1);
});
