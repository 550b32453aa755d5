import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { FrameType, Setting } from '../../http2/frames.ts';
import { HeaderTemplate } from '../../http2/header-template.ts';
import { until } from '../support/until.ts';
import { type RawPeer, startRawServer } from './raw-server.ts';
import { assertResponse, countKinds, openPool, push, sendMany, template } from './support.ts';

function announce(peer: RawPeer, ...settings: [number, number][]): void {
  peer.writer.settings(settings);
  peer.flush();
}

describe('before the first SETTINGS', () => {
  test('no request is written', async () => {
    await using server = await startRawServer({ greets: false });
    await using pool = openPool(server.port);
    const sent = sendMany(pool, 3);
    await until(() => server.peers[0]?.clientSettings.size === 3);
    assert.deepEqual(
      server.peers[0]!.frames.map((frame) => frame.type),
      [FrameType.settings, FrameType.windowUpdate],
    );
    assert.equal(server.peers[0]!.clientSettings.get(Setting.enablePush), 0);
    server.peers[0]!.greet();
    assert.deepEqual(countKinds(await sent), { response: 3 });
  });
});

describe('MAX_CONCURRENT_STREAMS', () => {
  test('is obeyed at once through 1, 1000, 1 and 1000', async () => {
    const open = new Set<number>();
    let limit = 1;
    let largest = 0;
    await using server = await startRawServer({
      settings: [[Setting.maxConcurrentStreams, 1]],
      onRequest: (request) => {
        open.add(request.streamId);
        largest = Math.max(largest, open.size);
        assert.ok(open.size <= limit, `${open.size} streams, allowed ${limit}`);
      },
    });
    // Answers may take as long as this test likes.
    await using pool = openPool(server.port, { maxConnections: 1, requestTimeoutMs: 600_000 });
    const answerAll = (peer: RawPeer) => {
      for (const streamId of [...open]) {
        open.delete(streamId);
        peer.answer(streamId, 200);
      }
    };
    const sent = sendMany(pool, 2500);
    await until(() => open.size === 1);
    const peer = server.peers[0]!;
    answerAll(peer);
    await until(() => open.size === 1);
    limit = 1000;
    announce(peer, [Setting.maxConcurrentStreams, 1000]);
    await until(() => open.size === 1000);
    // Lowered while a thousand are open: they may end, and then only one at a time.
    announce(peer, [Setting.maxConcurrentStreams, 1]);
    const acknowledged = () =>
      peer.frames.filter(({ type, flags }) => type === FrameType.settings && flags === 1).length;
    await until(() => acknowledged() === 3);
    limit = 1;
    answerAll(peer);
    for (let i = 0; i < 20; i++) {
      await until(() => open.size === 1);
      answerAll(peer);
    }
    await until(() => open.size === 1);
    limit = 1000;
    announce(peer, [Setting.maxConcurrentStreams, 1000]);
    await until(() => open.size > 400);
    const timer = setInterval(() => answerAll(peer), 1);
    const results = await sent;
    clearInterval(timer);
    assert.deepEqual(countKinds(results), { response: 2500 });
    assert.equal(largest, 1000);
    assert.equal(pool.stats().opened, 1);
  });

  test('what does not fit waits in the pool, and goes to another connection', async () => {
    await using server = await startRawServer({
      onConnection: (peer) => announce(peer, [Setting.maxConcurrentStreams, peer.number === 1 ? 1 : 100]),
      onRequest: (request, peer) => {
        // The first connection answers one request, then nothing.
        if (peer.number > 1 || peer.requests.length === 1) peer.answer(request.streamId, 200);
      },
    });
    await using pool = openPool(server.port, { maxConnections: 2 });
    assertResponse(await pool.send(push(0)));
    const results = sendMany(pool, 50);
    await until(() => server.requests().length === 51);
    assert.equal(server.peers[0]!.requests.length, 2);
    assert.equal(server.peers[1]!.requests.length, 49);
    server.peers[0]!.answer(3, 200);
    assert.deepEqual(countKinds(await results), { response: 50 });
  });
});

describe('MAX_FRAME_SIZE', () => {
  test('bodies are cut to it, at first and when it grows', async () => {
    await using server = await startRawServer();
    await using pool = openPool(server.port);
    const body = 'x'.repeat(20_000);
    assertResponse(await pool.send(push(0, { body })));
    const peer = server.peers[0]!;
    const dataSizes = () =>
      peer.frames.filter(({ type }) => type === FrameType.data).map(({ payload }) => payload.length);
    assert.deepEqual(dataSizes(), [16_384, 3_616]);
    announce(peer, [Setting.maxFrameSize, 100_000]);
    await until(() => peer.frames.filter(({ type, flags }) => type === FrameType.settings && flags === 1).length === 2);
    assertResponse(await pool.send(push(1, { body })));
    assert.deepEqual(dataSizes(), [16_384, 3_616, 20_000]);
    assert.deepEqual(
      peer.requests.map((request) => request.body.toString()),
      [body, body],
    );
  });

  test('a header block over it goes out as HEADERS and CONTINUATION', async () => {
    await using server = await startRawServer();
    await using pool = openPool(server.port);
    const path = `/${'p'.repeat(40_000)}`;
    assertResponse(await pool.send(push(0, { path })));
    assert.ok(server.requests()[0]!.headers.get(':path') === path);
    assert.equal(server.peers[0]!.frames.filter(({ type }) => type === FrameType.continuation).length, 2);
  });
});

describe('HEADER_TABLE_SIZE', () => {
  test('fixed fields are sent once, then cost an index each', async () => {
    await using server = await startRawServer();
    await using pool = openPool(server.port);
    for (let n = 0; n < 4; n++) assertResponse(await pool.send(push(n)));
    const [first, second, third] = server.peers[0]!.blockBytes;
    const own = 'x'.length + '/3/device/0'.length + 1 + 'x'.length + 1 + 'apns-id'.length + 1 + 'id-0'.length;
    assert.ok(first! > 150);
    assert.equal(second, own + 5);
    assert.equal(third, second);
    assert.deepEqual(Object.fromEntries(server.requests()[3]!.headers), {
      ':path': '/3/device/3',
      ':method': 'POST',
      ':scheme': 'https',
      ':authority': 'push.test',
      'content-type': 'application/json',
      authorization: `bearer ${'abc'.repeat(60)}`,
      'apns-id': 'id-3',
    });
  });

  for (const tableBytes of [0, 100, 300, 4096, 65_536]) {
    test(`${tableBytes}: headers arrive whole, and the table is never larger`, async () => {
      await using server = await startRawServer({
        settings: [[Setting.headerTableSize, tableBytes]],
        onConnection: (peer) => peer.decoder.setMaxTableSize(tableBytes),
      });
      await using pool = openPool(server.port);
      for (let n = 0; n < 5; n++) {
        const other = new HeaderTemplate({
          authority: 'push.test',
          fields: [{ name: 'apns-topic', value: `app-${n}` }],
        });
        const results = await Promise.all([
          pool.send(push(n)),
          pool.send({ template: other, path: '/other', body: '' }),
          pool.send(push(n)),
        ]);
        for (const result of results) assertResponse(result);
      }
      const topics = server.requests().map(({ headers }) => headers.get('apns-topic') ?? headers.get('authorization'));
      const auth = template.fields.find(({ name }) => name === 'authorization')!.value;
      assert.deepEqual(
        topics,
        [0, 1, 2, 3, 4].flatMap((n) => [auth, `app-${n}`, auth]),
      );
    });
  }

  test('a change in mid-flight is announced before the next fields', async () => {
    await using server = await startRawServer();
    await using pool = openPool(server.port);
    for (const bytes of [0, 4096, 200, 50, 1000]) {
      assertResponse(await pool.send(push(0)));
      const peer = server.peers[0]!;
      const acks = peer.frames.length;
      announce(peer, [Setting.headerTableSize, bytes]);
      await until(() => peer.frames.length > acks);
      peer.decoder.setMaxTableSize(bytes);
    }
    assertResponse(await pool.send(push(1)));
    assert.equal(server.requests().length, 6);
  });
});

describe('flow control', () => {
  test('a body waits for its stream window, which may be negative, and then goes on', async () => {
    await using server = await startRawServer({ settings: [[Setting.initialWindowSize, 10]] });
    await using pool = openPool(server.port);
    const sent = pool.send(push(0, { body: 'b'.repeat(30) }));
    const received = () =>
      server.peers[0]?.frames.reduce((sum, { type, payload }) => sum + (type === 0 ? payload.length : 0), 0);
    await until(() => received() === 10);
    const peer = server.peers[0]!;
    announce(peer, [Setting.initialWindowSize, 4]); // window of the stream: -6
    peer.writer.windowUpdate(1, 6); // 0
    peer.flush();
    await until(() => peer.frames.filter(({ type, flags }) => type === FrameType.settings && flags === 1).length === 2);
    assert.equal(received(), 10);
    peer.writer.windowUpdate(1, 5);
    peer.flush();
    await until(() => received() === 15);
    announce(peer, [Setting.initialWindowSize, 1000]);
    assertResponse(await sent);
    assert.equal(peer.requests[0]!.body.toString(), 'b'.repeat(30));
  });

  test('one stream without window does not hold up the others', async () => {
    await using server = await startRawServer({ settings: [[Setting.initialWindowSize, 10]] });
    await using pool = openPool(server.port);
    const stuck = pool.send(push(0, { body: 'b'.repeat(30) }));
    const results = await sendMany(pool, 20, { body: 'small' });
    assert.deepEqual(countKinds(results), { response: 20 });
    server.peers[0]!.writer.windowUpdate(1, 100);
    server.peers[0]!.flush();
    assertResponse(await stuck);
  });

  test('the connection window is kept, and requests behind it stay free to go elsewhere', async () => {
    await using server = await startRawServer();
    await using pool = openPool(server.port, { maxConnections: 2 });
    const sent = sendMany(pool, 40, { body: 'b'.repeat(4000) }); // 160 000 octets, the window is 65 535
    const received = (i: number) =>
      server.peers[i]?.frames.reduce((sum, { type, payload }) => sum + (type === 0 ? payload.length : 0), 0);
    await until(() => received(0) === 65_535 && received(1) === 65_535);
    for (const peer of server.peers) {
      peer.writer.windowUpdate(0, 1_000_000);
      peer.flush();
    }
    assert.deepEqual(countKinds(await sent), { response: 40 });
    const bodies = server.requests().map(({ body }) => body.toString());
    assert.ok(bodies.length === 40 && bodies.every((body) => body === 'b'.repeat(4000)));
  });

  test('what we receive is given back, so that answers never stop', async () => {
    const text = 'r'.repeat(15_000);
    await using server = await startRawServer({
      onRequest: (request, peer) => peer.answer(request.streamId, 400, [], text),
    });
    await using pool = openPool(server.port);
    const results = await sendMany(pool, 600); // 9 MB
    for (const result of results) {
      assertResponse(result, 400);
      assert.ok(result.isBodyWhole && result.body.toString() === text);
    }
    const increments = server.peers[0]!.frames.filter(({ type }) => type === FrameType.windowUpdate).map(
      ({ payload }) => payload.readUInt32BE(0),
    );
    assert.ok(increments.length >= 3 && increments.every((increment) => increment > 1_000_000));
  });
});
