/** Connections through a proxy: a real one on loopback, between the pool and a real server. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { parseProxy } from '../../domain/proxy.ts';
import type { Http2PoolOptions } from '../../http2/pool.ts';
import { startConnectProxy } from '../support/connect-proxy.ts';
import { until } from '../support/until.ts';
import { startRawServer } from './raw-server.ts';
import {
  assertNotProcessed,
  assertResponse,
  countKinds,
  openPool,
  push,
  sendMany,
  serverTls,
  type TestPool,
} from './support.ts';

/** The result of a request that waits until the first connection has failed and its time is up. */
async function sendInVain(port: number, options: Partial<Http2PoolOptions>, check?: (pool: TestPool) => Promise<void>) {
  let now = 0;
  await using pool = openPool(port, { ...options, clock: () => now });
  const sent = pool.send(push(0));
  await until(() => (pool.stats().endings.connect_failed ?? 0) > 0);
  now += 60_000;
  const result = await sent;
  assertNotProcessed(result, 'connect_failed');
  await check?.(pool);
  return result.evidence.errno;
}

describe('a proxy', () => {
  test('is asked for a tunnel to the provider, and requests go through it', async () => {
    await using server = await startRawServer();
    await using proxy = await startConnectProxy();
    await using pool = openPool(server.port, { proxy: parseProxy(`http://127.0.0.1:${proxy.port}`) });
    assert.deepEqual(countKinds(await sendMany(pool, 300)), { response: 300 });
    assert.deepEqual(proxy.asked, [`127.0.0.1:${server.port}`]);
    assert.equal(proxy.tunnels, 1);
  });

  test('gets the credentials of its address, percent-decoded', async () => {
    const authorization = `Basic ${Buffer.from('us:er:pä@ss%').toString('base64')}`;
    await using server = await startRawServer();
    await using proxy = await startConnectProxy({ authorization });
    await using pool = openPool(server.port, {
      proxy: parseProxy(`http://us%3Aer:p%C3%A4%40ss%25@127.0.0.1:${proxy.port}`),
    });
    assertResponse(await pool.send(push(0)));
  });

  test('may be reached by TLS itself', async () => {
    await using server = await startRawServer();
    await using proxy = await startConnectProxy({ tls: serverTls });
    await using pool = openPool(server.port, { proxy: parseProxy(`https://localhost:${proxy.port}`) });
    assert.deepEqual(countKinds(await sendMany(pool, 300)), { response: 300 });
    assert.equal(proxy.tunnels, 1);
  });

  for (const [refusal, code] of [
    [407, 'PROXY_407'],
    [502, 'PROXY_502'],
  ] as const) {
    test(`that answers ${refusal} is named in the error, without its credentials; nothing was sent`, async () => {
      await using server = await startRawServer();
      await using proxy = await startConnectProxy();
      proxy.refusal = refusal;
      const options = { proxy: parseProxy(`http://user:s3cret@127.0.0.1:${proxy.port}`) };
      const errno = await sendInVain(server.port, options, async (pool) => {
        const { message } = pool.stats().lastError!;
        const said = `^proxy 127\\.0\\.0\\.1:${proxy.port}: it answered CONNECT .* with ${refusal}`;
        assert.match(message, new RegExp(said));
        assert.doesNotMatch(message + JSON.stringify(pool.stats().lastError), /s3cret|user|czNjcmV0|dXNlcjp/);
        assert.equal(server.peers.length, 0);
        // It may change its mind.
        proxy.refusal = undefined;
        assertResponse(await pool.send(push(1)));
      });
      assert.equal(errno, code);
    });
  }

  test('that nobody listens at is told from a provider that nobody listens at', async () => {
    await using server = await startRawServer();
    const closed = await startConnectProxy();
    const { port } = closed;
    await closed[Symbol.asyncDispose]();
    const errno = await sendInVain(server.port, { proxy: parseProxy(`http://127.0.0.1:${port}`) });
    assert.equal(errno, 'PROXY_ECONNREFUSED');
  });

  test('that never answers is given up within the time for connecting, and no socket stays open', async () => {
    await using server = await startRawServer();
    await using proxy = await startConnectProxy();
    proxy.refusal = 0;
    await using pool = openPool(server.port, {
      proxy: parseProxy(`http://127.0.0.1:${proxy.port}`),
      connectTimeoutMs: 40,
    });
    const sent = pool.send(push(0, { timeoutMs: 60_000 }));
    await until(() => (pool.stats().endings.connect_failed ?? 0) >= 2);
    proxy.refusal = undefined;
    assertResponse(await sent);
    await pool.close();
    await until(() => pool.stats().open + pool.stats().connecting === 0);
  });

  test('is hung up on when the pool is closed while it is asked', async () => {
    await using server = await startRawServer();
    await using proxy = await startConnectProxy();
    proxy.refusal = 0;
    await using pool = openPool(server.port, { proxy: parseProxy(`http://127.0.0.1:${proxy.port}`) });
    const sent = pool.send(push(0));
    await until(() => proxy.asked.length === 1);
    await pool.close();
    assertNotProcessed(await sent, 'closed');
  });

  test('does not vouch for the provider: its certificate is checked as ever', async () => {
    await using server = await startRawServer();
    await using proxy = await startConnectProxy();
    const options = { proxy: parseProxy(`http://127.0.0.1:${proxy.port}`), tls: {} };
    assert.match((await sendInVain(server.port, options))!, /UNABLE_TO_VERIFY|SELF_SIGNED/);
  });
});
