/** The client against HTTP/2 servers that nobody of this project wrote. One that is not installed is skipped, and said so. */
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createSecureServer, type ServerHttp2Session } from 'node:http2';
import { type AddressInfo, connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import type { Http2Pool } from '../../../http2/pool.ts';
import { until } from '../../support/until.ts';
import { assertNotProcessed, assertResponse, countKinds, openPool, push, sendMany, serverTls } from '../support.ts';

const folder = mkdtempSync(join(tmpdir(), 'carillon-interop-'));
const certFile = join(folder, 'cert.pem');
const keyFile = join(folder, 'key.pem');
writeFileSync(certFile, serverTls.cert);
writeFileSync(keyFile, serverTls.key);
after(() => rmSync(folder, { recursive: true, force: true }));

function find(command: string, ...places: string[]): string | undefined {
  const folders = [...(process.env.PATH ?? '').split(':'), ...places];
  return folders.map((place) => join(place, command)).find((file) => existsSync(file));
}

describe('node:http2', () => {
  test('small and large requests, answers with and without body, by the thousand', async () => {
    const server = createSecureServer(serverTls);
    server.on('stream', (stream, headers) => {
      let bytes = 0;
      stream.on('data', (chunk: Buffer) => {
        bytes += chunk.length;
      });
      stream.on('end', () => {
        stream.respond({ ':status': bytes > 1000 ? 413 : 200, 'apns-id': headers['apns-id'] });
        stream.end(bytes > 1000 ? JSON.stringify({ bytes }) : '');
      });
    });
    await using running = await listen(server);
    await using pool = openPool(running.port);
    for (const [n, result] of (await sendMany(pool, 2000)).entries()) {
      assertResponse(result);
      assert.equal(result.headers.get('apns-id'), `id-${n}`);
    }
    for (const result of await sendMany(pool, 50, { body: 'x'.repeat(200_000) })) {
      assertResponse(result, 413);
      assert.equal(result.body.toString(), '{"bytes":200000}');
    }
    assert.equal(pool.stats().unanswered, 0);
  });

  test('limits, settings and table sizes that change, refused streams, GOAWAY', async () => {
    let session: ServerHttp2Session | undefined;
    let requests = 0;
    const server = createSecureServer({
      ...serverTls,
      settings: { maxConcurrentStreams: 1, headerTableSize: 0, initialWindowSize: 100 },
    });
    server.on('session', (opened) => {
      session = opened;
    });
    server.on('stream', (stream) => {
      stream.on('error', () => {}); // its own refusals
      if (++requests === 100)
        session!.settings({ maxConcurrentStreams: 100, headerTableSize: 4096, maxFrameSize: 20_000 });
      if (requests === 300) session!.goaway(0, stream.id);
      if (requests % 50 === 0) return stream.close(7);
      stream.resume();
      stream.on('end', () => {
        stream.respond({ ':status': 200 });
        stream.end();
      });
    });
    await using running = await listen(server);
    await using pool = openPool(running.port, { maxConnections: 1 });
    assert.deepEqual(countKinds(await sendMany(pool, 400, { body: 'x'.repeat(300) })), { response: 400 });
    assert.equal(pool.stats().opened, 2);
    assert.ok(pool.stats().resent >= 8);
  });
});

describe('Go net/http', async () => {
  const go = find('go', '/usr/local/go/bin');
  const skip = go === undefined ? 'the go command is not installed' : false;
  if (skip) console.log(`interop with Go skipped: ${skip}`);
  let program = '';
  before(() => {
    if (go === undefined) return;
    program = join(folder, 'go-server');
    execFileSync(go, ['build', '-o', program, join(import.meta.dirname, 'go-server/main.go')], { stdio: 'inherit' });
  });

  async function start(): Promise<{ child: ChildProcess; port: number } & AsyncDisposable> {
    const child = spawn(program, [certFile, keyFile], { stdio: ['pipe', 'pipe', 'inherit'] });
    const [line] = (await once(child.stdout!, 'data')) as [Buffer];
    return { child, port: Number(line.toString()), [Symbol.asyncDispose]: () => stop(child) };
  }

  test('small and large requests, by the thousand', { skip }, async () => {
    await using server = await start();
    await using pool = openPool(server.port);
    for (const [n, result] of (await sendMany(pool, 3000)).entries()) {
      assertResponse(result, 400);
      assert.equal(result.headers.get('apns-id'), `id-${n}`);
      assert.equal(result.headers.get('x-authorization-length'), '187');
      assert.deepEqual(JSON.parse(result.body.toString()), { path: `/3/device/${n}`, bodyBytes: `{"n":${n}}`.length });
    }
    assertResponse(await pool.send(push(1, { path: '/empty' })));
    const [large] = await sendMany(pool, 1, { path: '/large', body: 'x'.repeat(3_000_000) });
    assertResponse(large, 400);
    assert.equal(JSON.parse(large.body.toString()).bodyBytes, 3_000_000);
    assert.equal(pool.stats().unanswered, 0);
  });

  test('its graceful shutdown answers what is in flight, and takes nothing new', { skip }, async () => {
    await using server = await start();
    await using pool = openPool(server.port, { maxConnections: 1 });
    const sent = sendMany(pool, 100, { path: '/slow' });
    await until(() => pool.stats().inFlight === 100);
    await delay(20);
    server.child.stdin!.write('shutdown\n');
    assert.deepEqual(countKinds(await sent), { response: 100 });
    assertNotProcessed(await pool.send(push(0, { timeoutMs: 60 })), 'connect_failed');
    assert.equal(pool.stats().unanswered, 0);
  });
});

describe('nghttp2', () => {
  const nghttpd = find('nghttpd', '/usr/sbin');
  const skip = nghttpd === undefined ? 'nghttpd is not installed (Debian: nghttp2-server)' : false;
  if (skip) console.log(`interop with nghttp2 skipped: ${skip}`);

  async function start(...options: string[]): Promise<{ port: number } & AsyncDisposable> {
    const port = await freePort();
    const child = spawn(nghttpd!, ['-a', '127.0.0.1', ...options, String(port), keyFile, certFile], {
      stdio: 'ignore',
    });
    await untilListening(port);
    return { port, [Symbol.asyncDispose]: () => stop(child) };
  }

  async function check(pool: Http2Pool): Promise<void> {
    for (const [n, result] of (await sendMany(pool, 1000)).entries()) {
      assertResponse(result);
      assert.equal(result.body.toString(), `{"n":${n}}`);
    }
    const [large] = await sendMany(pool, 1, { body: 'x'.repeat(15_000) });
    assertResponse(large);
    assert.ok(large.isBodyWhole && large.body.length === 15_000);
  }

  for (const options of [
    [],
    ['--max-concurrent-streams=3'],
    ['--header-table-size=0'],
    ['--header-table-size=128', '--encoder-header-table-size=128'],
    ['--window-bits=14', '--connection-window-bits=14'],
    ['--padding=200', '--trailer=x-trailer: yes'],
  ]) {
    test(`echoes of a thousand requests${options.map((option) => `, ${option}`).join('')}`, { skip }, async () => {
      await using server = await start('--echo-upload', ...options);
      await using pool = openPool(server.port, { maxConnections: 1 });
      await check(pool);
      assert.equal(pool.stats().unanswered, 0);
      assert.equal(pool.stats().endings.protocol_error, undefined);
    });
  }

  test('its 404 is a response with a body', { skip }, async () => {
    await using server = await start('-d', folder);
    await using pool = openPool(server.port);
    const result = await pool.send(push(0));
    assertResponse(result, 404);
    assert.match(result.body.toString(), /404/);
  });
});

async function listen(server: ReturnType<typeof createSecureServer>): Promise<{ port: number } & AsyncDisposable> {
  const sessions = new Set<ServerHttp2Session>();
  server.on('session', (session) => {
    sessions.add(session);
    session.on('error', () => {});
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    async [Symbol.asyncDispose]() {
      for (const session of sessions) session.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill('SIGKILL');
  await once(child, 'exit');
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

async function untilListening(port: number): Promise<void> {
  for (let i = 0; ; i++) {
    const socket = connect(port, '127.0.0.1');
    const isUp = await Promise.race([
      once(socket, 'connect').then(() => true),
      once(socket, 'close').then(() => false),
    ]).catch(() => false);
    socket.destroy();
    if (isUp) return;
    assert.ok(i < 500, 'nghttpd did not start');
    await delay(10);
  }
}
