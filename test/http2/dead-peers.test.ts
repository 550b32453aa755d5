import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { DEFAULT_WINDOW_BYTES, FrameType, LARGEST_WINDOW_BYTES } from '../../http2/frames.ts';
import { createApnsClientCertificate, createAuthority, createServerCertificate } from '../../simulator/certificates.ts';
import { until } from '../support/until.ts';
import { startRawServer } from './raw-server.ts';
import {
  assertNotProcessed,
  assertResponse,
  assertUnanswered,
  authority,
  countKinds,
  openPool,
  push,
  sendMany,
} from './support.ts';

/** A TCP server without TLS. */
async function startTcpServer(onConnection: (socket: Socket) => void) {
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    sockets.push(socket);
    socket.on('error', () => {});
    onConnection(socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    sockets,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}

describe('a connection that cannot be made', () => {
  test('refused: requests wait for their deadline, and say why; nothing was sent', async () => {
    const closed = await startTcpServer(() => {});
    await closed[Symbol.asyncDispose]();
    await using pool = openPool(closed.port);
    for (const result of await sendMany(pool, 3, { timeoutMs: 250 })) {
      assertNotProcessed(result, 'connect_failed');
      assert.equal(result.evidence.errno, 'ECONNREFUSED');
    }
  });

  test('TCP accepted and TLS never finished: given up in time, every socket closed', async () => {
    await using server = await startTcpServer((socket) => socket.on('data', () => {}));
    await using pool = openPool(server.port, { connectTimeoutMs: 20, backoffMs: 5, maxBackoffMs: 5 });
    for (const result of await sendMany(pool, 3, { timeoutMs: 500 })) {
      assertNotProcessed(result, 'connect_failed');
      assert.equal(result.evidence.errno, 'ETIMEDOUT');
    }
    await pool.close();
    assert.ok(server.sockets.length >= 2);
    await until(() => server.sockets.every((socket) => socket.destroyed));
  });

  test('TLS up and SETTINGS never sent: the same', async () => {
    await using server = await startRawServer({ greets: false });
    await using pool = openPool(server.port, { connectTimeoutMs: 250 });
    assertNotProcessed(await pool.send(push(0, { timeoutMs: 600 })), 'connect_failed');
    await until(() => server.peers[0]!.isClosed);
    assert.equal(server.requests().length, 0);
  });

  test('a certificate of someone else, or a server without h2', async () => {
    const stranger = createServerCertificate(createAuthority('Someone else'));
    await using server = await startRawServer();
    await using distrustful = openPool(server.port, {
      tls: { ca: stranger.certificate, servername: 'localhost' },
    });
    const untrusted = await distrustful.send(push(0, { timeoutMs: 60 }));
    assertNotProcessed(untrusted, 'connect_failed');
    assert.equal(untrusted.evidence.errno, 'UNABLE_TO_VERIFY_LEAF_SIGNATURE');

    await using old = await startRawServer({ alpn: ['http/1.1'] });
    await using pool = openPool(old.port);
    const refused = await pool.send(push(0, { timeoutMs: 60 }));
    assertNotProcessed(refused, 'connect_failed');
    assert.ok(refused.evidence.error);
  });

  test('a client certificate is presented; without one the server hangs up', async () => {
    await using server = await startRawServer({ clientCa: authority.certificate });
    const client = createApnsClientCertificate(authority, { apnsTopic: 'com.example.app' });
    const tls = { ca: authority.certificate, servername: 'localhost' };
    await using withOne = openPool(server.port, {
      tls: { ...tls, cert: client.certificate, key: client.privateKey },
    });
    assertResponse(await withOne.send(push(0)));
    await using without = openPool(server.port, { tls });
    const result = await without.send(push(0, { timeoutMs: 80 }));
    assertNotProcessed(result, 'connect_failed');
    assert.ok(result.evidence.error);
  });

  // Deno opens the connection without such a certificate.
  const ignoresKeys = 'Deno' in globalThis;
  test('a key that cannot be read: the reason comes with the requests, the process lives', {
    skip: ignoresKeys,
  }, async () => {
    await using server = await startRawServer();
    await using pool = openPool(server.port, {
      tls: { ca: authority.certificate, servername: 'localhost', cert: 'no certificate', key: 'no key' },
    });
    for (const result of await sendMany(pool, 2, { timeoutMs: 60 })) {
      assertNotProcessed(result, 'connect_failed');
      assert.ok(result.evidence.error);
    }
    assert.equal(server.requests().length, 0);
  });

  test('new connections are tried with growing pauses and jitter, and never above the set rate', async () => {
    let now = 0;
    let random = 0;
    await using server = await startTcpServer((socket) => socket.resetAndDestroy());
    await using pool = openPool(server.port, {
      clock: () => now,
      random: () => random,
      backoffMs: 1000,
      maxBackoffMs: 4000,
      requestTimeoutMs: 1_000_000,
    });
    const sent = pool.send(push(0));
    const attempts = async (count: number) => {
      await until(() => (pool.stats().endings.connect_failed ?? 0) === count);
      await delay(15);
      assert.equal(pool.stats().opened, count);
    };
    await attempts(1);
    random = 0.999; // the pause before the third attempt: 2000 ms at most
    now += 500;
    await attempts(2);
    now += 1990;
    await attempts(2);
    now += 10;
    await attempts(3);
    random = 0; // 4000 ms is the ceiling from now on, 2000 the floor
    now += 4000;
    await attempts(4);
    now += 1999;
    await attempts(4);
    now += 1;
    await attempts(5);
    await pool.close();
    assertNotProcessed(await sent, 'closed');
  });

  test('a set rate of new connections is kept even when each of them works', async () => {
    let now = 0;
    await using server = await startRawServer({
      onRequest: ({ streamId }, peer) => {
        peer.answer(streamId, 200);
        peer.socket.end();
      },
    });
    await using pool = openPool(server.port, {
      clock: () => now,
      maxConnections: 2,
      maxConnectsPerMinute: 6,
      requestTimeoutMs: 1_000_000,
    });
    for (let n = 0; n < 2; n++) {
      assertResponse(await pool.send(push(n)));
      await until(() => pool.stats().open === 0);
    }
    const third = pool.send(push(2));
    now += 9_990;
    await delay(15);
    assert.equal(pool.stats().opened, 2);
    now += 10;
    assertResponse(await third);
  });
});

describe('an open and dead connection', () => {
  test('with answers due: found by PING, its requests are unanswered, the next go elsewhere', async () => {
    await using server = await startRawServer({
      onRequest: ({ streamId }, peer) => {
        if (peer.number === 1) peer.socket.pause();
        else peer.answer(streamId, 200);
      },
    });
    await using pool = openPool(server.port, { pingAfterMs: 20, pingTimeoutMs: 30, maxConnections: 1 });
    const start = performance.now();
    const results = await sendMany(pool, 20);
    for (const result of results) assertUnanswered(result, 'ping_timeout');
    assert.ok(performance.now() - start < 1000);
    assert.deepEqual(countKinds(await sendMany(pool, 10)), { response: 10 });
    assert.equal(pool.stats().endings.ping_timeout, 1);
  });

  test('that takes no more bytes: what was never written to it goes elsewhere, the rest is unanswered', async () => {
    await using server = await startRawServer({
      settings: [[3, 1000], [4, LARGEST_WINDOW_BYTES]], // biome-ignore format: one line
      onConnection: (peer) => {
        peer.writer.windowUpdate(0, LARGEST_WINDOW_BYTES - DEFAULT_WINDOW_BYTES);
        peer.flush();
      },
      onRequest: ({ streamId }, peer) => {
        if (peer.number === 1) peer.socket.pause();
        else peer.answer(streamId, 200);
      },
    });
    await using pool = openPool(server.port, { pingAfterMs: 100, pingTimeoutMs: 100, maxConnections: 1 });
    const results = await sendMany(pool, 300, { body: Buffer.alloc(100_000) });
    const written = results.filter(({ kind }) => kind === 'unanswered');
    for (const result of written) assertUnanswered(result, 'ping_timeout');
    assert.equal(countKinds(results).response ?? 0, 300 - written.length);
    // Deno reports a write as done before the operating system has taken it: more is in doubt, nothing is wrong.
    if ('Deno' in globalThis) return;
    assert.ok(written.length > 0 && written.length < 290, `${written.length} written`);
    const flushed = written.filter((result) => result.kind === 'unanswered' && result.evidence.isFlushed).length;
    assert.ok(flushed < written.length, `${flushed} of ${written.length} flushed`);
    assert.equal(server.peers[1]!.requests.length, 300 - written.length);
  });

  test('with answers due: from the PING on nothing more is written to it, and another takes what comes', async () => {
    let now = 0;
    await using server = await startRawServer({
      onRequest: ({ streamId }, peer) => {
        if (peer.number === 1) peer.acksPings = false;
        else peer.answer(streamId, 200);
      },
    });
    await using pool = openPool(server.port, { clock: () => now, requestTimeoutMs: 60_000 });
    const lost = pool.send(push(0));
    await until(() => server.requests().length === 1);
    now += 2_000;
    await until(() => server.peers[0]!.frames.some(({ type }) => type === FrameType.ping));
    const sent = sendMany(pool, 10);
    now += 1_000;
    assert.deepEqual(countKinds(await sent), { response: 10 });
    now += 4_000;
    assertUnanswered(await lost, 'ping_timeout');
    assert.equal(server.peers[0]!.requests.length, 1);
  });

  test('idle for long: it must answer a PING before it is used, so nothing is in doubt', async () => {
    let now = 0;
    await using server = await startRawServer();
    await using pool = openPool(server.port, { clock: () => now });
    assertResponse(await pool.send(push(0)));
    server.peers[0]!.socket.pause(); // dead from here on
    now += 11_000;
    const sent = sendMany(pool, 10, { timeoutMs: 60_000 });
    await delay(15);
    assert.equal(pool.stats().queued, 10);
    now += 5_000;
    assert.deepEqual(countKinds(await sent), { response: 10 });
    assert.equal(server.peers[0]!.requests.length, 1);
    assert.equal(server.peers[1]!.requests.length, 10);
  });

  test('idle for long and alive: it is used again', async () => {
    let now = 0;
    await using server = await startRawServer();
    await using pool = openPool(server.port, { clock: () => now });
    assertResponse(await pool.send(push(0)));
    now += 11_000;
    assert.deepEqual(countKinds(await sendMany(pool, 10)), { response: 10 });
    assert.equal(server.peers.length, 1);
    assert.equal(server.peers[0]!.frames.filter(({ type }) => type === FrameType.ping).length, 1);
  });

  test('idle and dead: found by PING even when nobody sends', async () => {
    await using server = await startRawServer({
      onConnection: (peer) => {
        peer.acksPings = false;
      },
    });
    await using pool = openPool(server.port, { idlePingAfterMs: 20, pingTimeoutMs: 20 });
    assertResponse(await pool.send(push(0)));
    await until(() => pool.stats().endings.ping_timeout === 1);
  });

  test('idle beyond its time: closed in order, with GOAWAY', async () => {
    await using server = await startRawServer();
    await using pool = openPool(server.port, { idleTimeoutMs: 30 });
    assertResponse(await pool.send(push(0)));
    await until(() => server.peers[0]!.isClosed);
    assert.equal(server.peers[0]!.frames.at(-1)!.type, FrameType.goaway);
    assert.deepEqual(pool.stats().endings, { done: 1 });
  });

  test('reset while idle: the process lives, the error is counted, the next request is sent', async () => {
    await using server = await startRawServer();
    await using pool = openPool(server.port);
    assertResponse(await pool.send(push(0)));
    server.peers[0]!.reset();
    await until(() => pool.stats().endings.connection_lost === 1);
    assertResponse(await pool.send(push(1)));
  });
});
