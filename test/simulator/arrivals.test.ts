import assert from 'node:assert/strict';
import { test } from 'node:test';
import { apnsDeviceToken } from '../../simulator/device-tokens.ts';
import { nid, useSimulator } from './fixture.ts';

const fixture = useSimulator();

test('the first arrival of each of many notifications is told in one answer, in the order asked', async () => {
  const { control, simulator } = fixture;
  const session = await fixture.open(simulator.apnsUrl);
  const startedAt = Date.now();
  await fixture.push(session, apnsDeviceToken(1));
  const endedAt = Date.now();
  await control.setClock(60_000);
  await fixture.push(session, apnsDeviceToken(1));
  await control.setClock(0);
  // More than one page.
  const others = Array.from({ length: 10_001 }, (_, n) => `0198c0de-0002-7abc-8def-${String(n).padStart(12, '0')}`);
  const arrivals = await control.firstReceivedAtMs([...others, nid]);
  assert.equal(arrivals.length, others.length + 1);
  const arrival = arrivals.pop()!;
  assert.ok(startedAt <= arrival && arrival <= endedAt);
  assert.ok(arrivals.every((at) => at === null));
});
