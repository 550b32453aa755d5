/** A provider that takes only so many requests a second, and queues the others. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { apnsDeviceToken, fcmRegistrationToken } from '../../simulator/device-tokens.ts';
import { until } from '../support/until.ts';
import { useSimulator } from './fixture.ts';

const fixture = useSimulator({ settings: { apnsWarmUp: false } });

test('requests beyond the pace wait in line, are counted as in flight, and are answered in order', async () => {
  const { control, simulator } = fixture;
  await control.changeSettings({ answersPerSecond: 200 });
  const session = await fixture.open(simulator.apnsUrl);
  const order: number[] = [];
  const sent = Array.from({ length: 20 }, (_, n) =>
    fixture.push(session, apnsDeviceToken(n)).then((answer) => {
      assert.equal(answer.status, 200);
      order.push(n);
    }),
  );
  await Promise.all(sent);
  assert.deepEqual(
    order,
    order.toSorted((a, b) => a - b),
  );
  assert.ok((await control.ledgerSummary()).max_in_flight > 1);
});

test('a host has one line for all its connections, and another host one of its own', async () => {
  const { control, simulator } = fixture;
  await control.changeSettings({ answersPerSecond: 1, answerBurstMs: 60_000 });
  const [first, second] = [await fixture.open(simulator.apnsUrl), await fixture.open(simulator.apnsUrl)];
  const sent = [fixture.push(first, apnsDeviceToken(1)), fixture.push(second, apnsDeviceToken(2))];
  const fcm = fixture.pushFcm(await fixture.open(simulator.fcmUrl), fcmRegistrationToken(1));
  await until(async () => (await control.ledgerSummary()).in_flight === 3);
  for (const session of [first, second]) session.destroy();
  await Promise.allSettled(sent);
  await until(async () => (await control.ledgerSummary()).in_flight === 1);
  // As in life, a request that was given up while it waited is processed all the same.
  await control.changeSettings({ answersPerSecond: 0 });
  await fcm;
  await until(async () => (await control.ledgerSummary()).accepted === 3);
});

test('the pace may change while requests wait; without one they are answered at once', async () => {
  const { control, simulator } = fixture;
  await control.changeSettings({ answersPerSecond: 1, answerBurstMs: 60_000 });
  const session = await fixture.open(simulator.apnsUrl);
  const sent = Array.from({ length: 50 }, (_, n) => fixture.push(session, apnsDeviceToken(n)));
  await until(async () => (await control.ledgerSummary()).in_flight === 50);
  await control.changeSettings({ answersPerSecond: 0, answerBurstMs: 0 });
  for (const { status } of await Promise.all(sent)) assert.equal(status, 200);
});

test('PING is answered behind the requests before it, if wanted', async () => {
  const { control, simulator } = fixture;
  const session = await fixture.open(simulator.apnsUrl);
  const ping = () => new Promise<void>((resolve) => session.ping(() => resolve()));
  await control.changeSettings({ answersPerSecond: 1, answerBurstMs: 60_000 });
  const first = fixture.push(session, apnsDeviceToken(1));
  await until(async () => (await control.ledgerSummary()).in_flight === 1);
  await ping();
  assert.equal((await control.ledgerSummary()).in_flight, 1);
  await control.changeSettings({ queuesPings: true });
  let isPingAnswered = false;
  const pinged = ping().then(() => {
    isPingAnswered = true;
  });
  await control.ledgerSummary();
  assert.equal(isPingAnswered, false);
  await control.changeSettings({ answersPerSecond: 0 });
  await Promise.all([first, pinged]);
});
