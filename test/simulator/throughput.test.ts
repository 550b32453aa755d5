/**
 * How much the simulator takes. It must never be what a bench measures: the goal is 15 000 requests a second on one
 * core. The figures are printed, not asserted, since they depend on what else the machine is doing.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import type { Http2Request } from '../../http2/exchange.ts';
import { HeaderTemplate } from '../../http2/header-template.ts';
import { Http2Pool } from '../../http2/pool.ts';
import { apnsId } from '../../providers/apns/apns-id.ts';
import { SimulatorControl } from '../../simulator/control-client.ts';
import { apnsDeviceToken, fcmRegistrationToken } from '../../simulator/device-tokens.ts';
import { type LaunchedSimulator, launchSimulator } from '../../simulator/launch.ts';
import { createProviderToken, fetchAccessToken } from './clients.ts';
import { nid } from './fixture.ts';

const requests = 40_000;
const inFlight = 1000;
let simulator: LaunchedSimulator;
before(async () => {
  simulator = await launchSimulator({ settings: { fcmMaxConcurrentStreams: inFlight } });
});
after(() => simulator.close());

test('APNs: every request is counted once, and how fast', async (t) => {
  const authority = new URL(simulator.apnsUrl).host;
  const fields = [
    { name: 'authorization', value: `bearer ${createProviderToken(simulator)}` },
    { name: 'apns-topic', value: simulator.apnsTopic },
    { name: 'apns-push-type', value: 'alert' },
    { name: 'apns-priority', value: '10' },
  ];
  const template = new HeaderTemplate({ authority, fields, ownNames: ['apns-id'] });
  const body = JSON.stringify({
    aps: { alert: { title: 'Hello', body: 'A message of ordinary size' }, sound: 'default', badge: 1 },
    nid,
    deep_link: 'https://example.org/a/b/c',
  });
  const figures = await measure(simulator.apnsUrl, (n) => ({
    template,
    path: `/3/device/${apnsDeviceToken(n)}`,
    ownValues: [apnsId(nid, n)],
    body,
  }));
  t.diagnostic(`APNs ${figures}`);
});

test('FCM: every request is counted once, and how fast', async (t) => {
  const authority = new URL(simulator.fcmUrl).host;
  const fields = [
    { name: 'authorization', value: `Bearer ${await fetchAccessToken(simulator)}` },
    { name: 'content-type', value: 'application/json' },
  ];
  const template = new HeaderTemplate({ authority, fields });
  const notification = { title: 'Hello', body: 'A message of ordinary size' };
  const android = { priority: 'HIGH', ttl: '3600s', notification: { tag: nid } };
  const rest = JSON.stringify({ notification, data: { nid, deep_link: 'https://example.org/a/b/c' }, android }).slice(
    1,
  );
  const path = '/v1/projects/carillon-demo/messages:send';
  const figures = await measure(simulator.fcmUrl, (n) => ({
    template,
    path,
    body: `{"message":{"token":"${fcmRegistrationToken(n)}",${rest}}`,
  }));
  t.diagnostic(`FCM ${figures}`);
});

async function measure(url: string, request: (n: number) => Http2Request): Promise<string> {
  const { hostname, port } = new URL(url);
  const ca = readFileSync(simulator.files.caCertificatePath);
  const pool = new Http2Pool({ host: hostname, port: Number(port), maxConnections: 1, tls: { ca } });
  const control = new SimulatorControl(simulator.controlUrl);
  await control.resetLedger();
  let next = 0;
  const sendUpTo = async (limit: number) => {
    while (next < limit) {
      const result = await pool.send(request(next++));
      assert.equal(result.kind, 'response');
      if (result.kind === 'response') assert.equal(result.status, 200);
    }
  };
  const inParallel = (limit: number) => Promise.all(Array.from({ length: inFlight }, () => sendUpTo(limit)));
  await inParallel(requests / 4);
  const [before, startedAt] = [await control.processUsage(), performance.now()];
  const warm = next;
  await inParallel(requests);
  const seconds = (performance.now() - startedAt) / 1000;
  const cpuMicroseconds = (await control.processUsage()).cpu_us - before.cpu_us;
  await pool.close();
  const summary = await control.ledgerSummary(nid);
  assert.deepEqual([summary.distinct_accepted, summary.repeats, summary.protocol_errors], [requests, 0, 0]);
  assert.ok(summary.max_in_flight > 1 && summary.max_in_flight <= inFlight, String(summary.max_in_flight));
  assert.equal(summary.in_flight, 0);
  const count = next - warm;
  const perCore = Math.round(count / (cpuMicroseconds / 1e6));
  return `${Math.round(count / seconds)} requests/s; simulator ${(cpuMicroseconds / count).toFixed(1)} µs of CPU each: ${perCore} a second and core`;
}
