/** Both providers and the token endpoint behind a real proxy. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { parseProxy } from '../../domain/proxy.ts';
import { uuidV7 } from '../../domain/uuid-v7.ts';
import { SimulatorControl } from '../../simulator/control-client.ts';
import { apnsDeviceToken, fcmRegistrationToken } from '../../simulator/device-tokens.ts';
import { type Simulator, startSimulator } from '../../simulator/simulator.ts';
import { openApns, openFcm } from '../delivery/real-providers.ts';
import { startConnectProxy } from '../support/connect-proxy.ts';

describe('both providers', () => {
  let simulator: Simulator;
  before(async () => {
    simulator = await startSimulator();
  });
  after(() => simulator.close());

  const authorization = `Basic ${btoa('user:s3cret')}`;
  const content = () => ({ notificationId: uuidV7(), message: { title: 'Hello' } });

  test('send through it, and the access token is fetched through it too', async () => {
    await using proxy = await startConnectProxy({ authorization });
    const proxyFor = () => parseProxy(`http://user:s3cret@127.0.0.1:${proxy.port}`);
    for (const [provider, deviceToken] of [
      [openApns(simulator, { proxyFor }), apnsDeviceToken(1)],
      [openFcm(simulator, { proxyFor }), fcmRegistrationToken(1)],
    ] as const) {
      const prepared = provider.prepare(content());
      const verdict = await provider.send(prepared, { deviceId: 1, deviceToken, apnsEnvironment: null });
      assert.equal(verdict.kind, 'accepted');
      await provider.close();
    }
    const hosts = [simulator.apnsUrl, simulator.oauthTokenUrl, simulator.fcmUrl].map((url) => new URL(url).host);
    assert.deepEqual(proxy.asked, hosts);
    assert.equal((await new SimulatorControl(simulator.controlUrl).ledgerSummary()).connections_opened, 2);
  });

  test('say that it refused, in the verdict and in the log, without its credentials', async () => {
    await using proxy = await startConnectProxy({ authorization });
    const proxyFor = () => parseProxy(`http://user:wr0ng@127.0.0.1:${proxy.port}`);
    const logged: unknown[] = [];
    const note = (details: object) => logged.push(details);
    const logger = { debug: note, info: note, warn: note, error: note };
    for (const [provider, deviceToken, reason] of [
      [
        openApns(simulator, { proxyFor, logger, requestDeadlineMs: 1_000 }),
        apnsDeviceToken(1),
        'connect_failed PROXY_407',
      ],
      [openFcm(simulator, { proxyFor, logger }), fcmRegistrationToken(1), 'oauth_unreachable PROXY_407'],
    ] as const) {
      const prepared = provider.prepare(content());
      const verdict = await provider.send(prepared, { deviceId: 1, deviceToken, apnsEnvironment: null });
      assert.ok(verdict.kind === 'unsent');
      assert.equal(verdict.reason, reason);
      await provider.close();
    }
    const text = logged
      .map((details) => ('err' in (details as object) ? String((details as { err: Error }).err.stack) : ''))
      .join();
    assert.match(text, /proxy 127\.0\.0\.1:\d+: it answered CONNECT 127\.0\.0\.1:\d+ with 407/);
    assert.doesNotMatch(text + JSON.stringify(logged), /wr0ng|d3Iwbmc/);
  });
});
