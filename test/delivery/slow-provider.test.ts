/** Batches through a provider that takes few requests a second and queues the rest, PINGs too. Nothing is broken. */
import assert from 'node:assert/strict';
import { after, before, beforeEach, test } from 'node:test';
import { SimulatorControl } from '../../simulator/control-client.ts';
import { apnsDeviceToken, fcmRegistrationToken } from '../../simulator/device-tokens.ts';
import { type Simulator, startSimulator } from '../../simulator/simulator.ts';
import { until } from '../support/until.ts';
import { createDeliveryBench, type DeliveryBench, type TestSend } from './harness.ts';
import { openApns, openFcm } from './real-providers.ts';

let bench: DeliveryBench;
let simulator: Simulator;
let control: SimulatorControl;
before(async () => {
  bench = await createDeliveryBench();
  simulator = await startSimulator({ settings: { queuesPings: true, apnsMaxConcurrentStreams: 1500 } });
  control = new SimulatorControl(simulator.controlUrl);
});
beforeEach(async () => {
  await control.resetFaults();
  await control.resetLedger();
});
after(async () => {
  await bench.close();
  await simulator.close();
});

/** Everybody was accepted, once, and nobody was ever in doubt; no connection was given up. */
async function checkSpotless(send: TestSend, devices: number): Promise<void> {
  await send.checkBooks({ accepted: devices });
  assert.ok((await send.rows()).every(({ inDoubt, attempts }) => !inDoubt && attempts === 1));
  const summary = await control.ledgerSummary(send.id);
  assert.equal(summary.received, devices);
  assert.equal(summary.repeats, 0);
  assert.equal(summary.connections_opened, 1);
}

for (const [name, open, tokenOf] of [
  ['apns', openApns, apnsDeviceToken],
  ['fcm', openFcm, fcmRegistrationToken],
] as const) {
  test(`${name}: a slow provider is given few requests at once, and nothing ends in doubt`, async (t) => {
    const provider = open(simulator);
    t.after(() => provider.close());
    await control.changeSettings({ answersPerSecond: 400 });
    const send = await bench.launch({ devices: 300, provider: name, tokenOf });
    await bench.worker({ provider }).deliverToEnd(send.batches[0]!);
    await checkSpotless(send, 300);
    const { max_in_flight: mostWaiting } = await control.ledgerSummary();
    assert.ok(mostWaiting <= 100, `${mostWaiting} at once`);
  });
}

test('a provider that becomes ten times slower in mid-send leaves nobody in doubt', async (t) => {
  const provider = openApns(simulator);
  t.after(() => provider.close());
  await control.changeSettings({ answersPerSecond: 1_500 });
  const send = await bench.launch({ devices: 500, tokenOf: (n) => apnsDeviceToken(1_000 + n) });
  const delivered = bench.worker({ provider }).deliverToEnd(send.batches[0]!);
  await until(async () => (await control.ledgerSummary(send.id)).accepted > 200);
  await control.changeSettings({ answersPerSecond: 150, answerBurstMs: 50 });
  await until(async () => (await control.ledgerSummary(send.id)).accepted > 350);
  await control.changeSettings({ answersPerSecond: 1_500 });
  await delivered;
  await checkSpotless(send, 500);
});

test('a provider that answers at once is given as many as it takes', async (t) => {
  const provider = openApns(simulator);
  t.after(() => provider.close());
  const send = await bench.launch({ devices: 2_000, tokenOf: (n) => apnsDeviceToken(5_000 + n) });
  await bench.worker({ provider }).deliverToEnd(send.batches[0]!);
  await checkSpotless(send, 2_000);
  const useful = provider.usefulRequests(provider.hosts[0]!);
  assert.ok(useful > 40 && useful < Number.POSITIVE_INFINITY, `${useful}`);
});
