/** From `HTTPS_PROXY` to the phone: settings, exceptions, and both providers with the token endpoint behind a real proxy. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { loadConfig } from '../../domain/config.ts';
import { chooseProxy, parseProxy } from '../../domain/proxy.ts';
import { ConfigError } from '../../domain/settings.ts';
import { uuidV7 } from '../../domain/uuid-v7.ts';
import { SimulatorControl } from '../../simulator/control-client.ts';
import { apnsDeviceToken, fcmRegistrationToken } from '../../simulator/device-tokens.ts';
import { type Simulator, startSimulator } from '../../simulator/simulator.ts';
import { openApns, openFcm } from '../delivery/real-providers.ts';
import { startConnectProxy } from '../support/connect-proxy.ts';

const load = (env: Record<string, string>) => loadConfig({ DATABASE_URL: 'postgres://x', ...env }).proxy;

describe('the setting', () => {
  test('is an http or https address, with credentials where the proxy asks for them', () => {
    assert.equal(load({}), undefined);
    assert.deepEqual(load({ HTTPS_PROXY: 'http://proxy.example:3128' }), {
      proxy: { host: 'proxy.example', port: 3128, isTls: false, authorization: undefined },
      exceptions: [],
    });
    assert.deepEqual(parseProxy('https://a%20b:c%3Ad@[2001:db8::1]'), {
      host: '2001:db8::1',
      port: 443,
      isTls: true,
      authorization: `Basic ${btoa('a b:c:d')}`,
    });
    assert.equal(parseProxy('http://proxy').port, 80);
  });

  test('counts in lower case first, as other programs have it', () => {
    assert.equal(load({ HTTPS_PROXY: 'http://upper', https_proxy: 'http://lower' })?.proxy.host, 'lower');
    assert.deepEqual(load({ https_proxy: 'http://lower', NO_PROXY: 'A.example, b.example' })?.exceptions, [
      'a.example',
      'b.example',
    ]);
  });

  test('that cannot be used ends the start, by the name of its variable and without its password', () => {
    for (const value of [
      'proxy:3128',
      'socks5://u:s3cret@proxy',
      'http://u:s3cret@',
      'http://u:s3cret%@p',
      'http://p/x',
    ]) {
      for (const name of ['HTTPS_PROXY', 'https_proxy']) {
        assert.throws(
          () => load({ [name]: value }),
          (error: unknown) => {
            assert.ok(error instanceof ConfigError);
            assert.match(error.message, new RegExp(`^Configuration: ${name} (must be an address|has a user)`));
            assert.doesNotMatch(error.message, /s3cret/);
            return true;
          },
        );
      }
    }
  });

  test('has exceptions: hosts with their subdomains, with a port, all, and always this machine', () => {
    const isProxied = (url: string, noProxy = '') =>
      chooseProxy(load({ HTTPS_PROXY: 'http://proxy', NO_PROXY: noProxy }), new URL(url)) !== undefined;
    const apple = 'https://api.push.apple.com';
    assert.ok(isProxied(apple));
    assert.ok(isProxied(apple, 'example.org,push.example,le.com,api.push.apple.com:2197'));
    for (const noProxy of ['*', 'apple.com', '.apple.com', '*.apple.com', 'x, API.push.apple.com', 'apple.com:443']) {
      assert.ok(!isProxied(apple, noProxy), noProxy);
    }
    assert.ok(!isProxied(`${apple}:2197`, 'apple.com:2197'));
    assert.ok(!isProxied('https://[2001:db8::1]', '[2001:db8::1]'));
    assert.ok(!isProxied('https://[2001:db8::1]', '2001:db8::1'));
    for (const host of ['localhost', '127.0.0.1', '127.1.2.3', '[::1]'])
      assert.ok(!isProxied(`https://${host}:1`), host);
  });
});

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
