import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { loadConfig } from '../../domain/config.ts';
import { chooseProxy, parseProxy, parseProxyExceptions } from '../../domain/proxy.ts';
import { ConfigError } from '../../domain/settings.ts';

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

  test('has credentials in UTF-8, a user without password, or a password without user', () => {
    const credentialsOf = (userinfo: string) => parseProxy(`http://${userinfo}@proxy`).authorization;
    const basic = (text: string) => `Basic ${Buffer.from(text, 'utf8').toString('base64')}`;
    assert.equal(credentialsOf('jörg:pässword'), basic('jörg:pässword'));
    assert.equal(credentialsOf('user'), basic('user:'));
    assert.equal(credentialsOf(':password'), basic(':password'));
  });

  test('counts in lower case first, as other programs have it', () => {
    assert.equal(load({ HTTPS_PROXY: 'http://upper', https_proxy: 'http://lower' })?.proxy.host, 'lower');
    assert.equal(load({ HTTPS_PROXY: 'http://upper', https_proxy: '' })?.proxy.host, 'upper');
    assert.deepEqual(load({ https_proxy: 'http://lower', NO_PROXY: 'A.example, b.example' })?.exceptions, [
      'a.example',
      'b.example',
    ]);
    assert.deepEqual(load({ https_proxy: 'http://p', NO_PROXY: 'upper', no_proxy: 'lower' })?.exceptions, ['lower']);
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

test('exceptions are separated by commas, blanks or both', () => {
  for (const [text, exceptions] of [
    [undefined, []],
    ['', []],
    [' , ', []],
    ['a.example,b.example', ['a.example', 'b.example']],
    ['a.example b.example', ['a.example', 'b.example']],
    [',A.example ,\tb.example:443, ', ['a.example', 'b.example:443']],
  ] as const) {
    assert.deepEqual(parseProxyExceptions(text), exceptions);
  }
});

test('without the setting nothing is reached through a proxy', () => {
  assert.equal(chooseProxy(undefined, new URL('https://api.push.apple.com')), undefined);
});
