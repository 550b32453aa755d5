import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ErrorCode, Flag, FrameType } from '../../http2/frames.ts';
import { until } from '../support/until.ts';
import { startRawServer } from './raw-server.ts';
import {
  assertNotProcessed,
  assertResponse,
  assertUnanswered,
  countKinds,
  openPool,
  push,
  sendMany,
} from './support.ts';

describe('a response', () => {
  test('has its status, its header fields in lower case, and its body', async () => {
    await using server = await startRawServer({
      onRequest: ({ streamId, headers }, peer) =>
        peer.answer(streamId, 400, [['apns-id', headers.get('apns-id')!]], '{"reason":"BadDeviceToken"}'),
    });
    await using pool = openPool(server.port);
    for (const [n, result] of (await sendMany(pool, 20)).entries()) {
      assertResponse(result, 400);
      assert.equal(result.headers.get('apns-id'), `id-${n}`);
      assert.equal(result.headers.get('retry-after'), undefined);
      assert.equal(result.body.toString(), '{"reason":"BadDeviceToken"}');
      assert.ok(result.isBodyWhole);
    }
  });

  test('is read through padding, priority, CONTINUATION, interim answers, trailers and unknown frames', async () => {
    await using server = await startRawServer({
      onRequest: ({ streamId }, peer) => {
        const { writer } = peer;
        writer.frame(0xfa, 0xff, streamId, Buffer.from('unknown'));
        writer.headers(streamId, peer.block([[':status', '100']]), false);
        writer.headers(streamId, peer.block([[':status', '103'], ['link', '</x>']]), false); // biome-ignore format: one line
        const block = peer.block([[':status', '200'], ['x-long', 'v'.repeat(100)]]); // biome-ignore format: one line
        const start = Buffer.concat([Buffer.from([3]), Buffer.alloc(5), block.subarray(0, 10), Buffer.alloc(3)]);
        writer.frame(FrameType.headers, Flag.padded | Flag.priority, streamId, start);
        writer.frame(FrameType.continuation, 0, streamId, block.subarray(10, 12));
        writer.frame(FrameType.continuation, 0, streamId, Buffer.alloc(0));
        writer.frame(FrameType.continuation, Flag.endHeaders, streamId, block.subarray(12));
        writer.frame(FrameType.data, 0, streamId, Buffer.from('one '));
        writer.frame(FrameType.priority, 0, streamId, Buffer.alloc(5));
        writer.frame(FrameType.data, Flag.padded, streamId, Buffer.from('\x04two\0\0\0\0', 'latin1'));
        writer.frame(FrameType.data, Flag.padded, streamId, Buffer.from([0]));
        writer.headers(streamId, peer.block([['grpc-status', '0']]), true);
        peer.flush();
      },
    });
    await using pool = openPool(server.port);
    for (const result of await sendMany(pool, 5)) {
      assertResponse(result);
      assert.equal(result.body.toString(), 'one two');
      assert.equal(result.headers.get('x-long'), 'v'.repeat(100));
      assert.equal(result.headers.get('link'), undefined);
    }
  });

  test('keeps its status when its body is over the limit: the rest is cancelled', async () => {
    await using server = await startRawServer({
      onRequest: ({ streamId }, peer) => peer.answer(streamId, 503, [], 'x'.repeat(1001)),
    });
    await using pool = openPool(server.port, { maxBodyBytes: 1000 });
    const result = await pool.send(push(0));
    assertResponse(result, 503);
    assert.equal(result.body.length, 1000);
    assert.equal(result.isBodyWhole, false);
    await until(() => server.peers[0]!.frames.some(({ type }) => type === FrameType.rstStream));
    assertResponse(await pool.send(push(1)), 503);
    assert.equal(pool.stats().opened, 1);
  });

  for (const [how, cut] of Object.entries({
    'a reset': (streamId, peer) => {
      peer.writer.rstStream(streamId, ErrorCode.internalError);
      peer.flush();
    },
    REFUSED_STREAM: (streamId, peer) => {
      peer.writer.rstStream(streamId, ErrorCode.refusedStream);
      peer.flush();
    },
    'a GOAWAY below it': (_, peer) => {
      peer.writer.goaway(0, ErrorCode.noError);
      peer.flush();
    },
    'a lost connection': (_, peer) => {
      setTimeout(() => peer.socket.destroy(), 5);
    },
    'the deadline': () => {},
  } satisfies Record<string, (streamId: number, peer: import('./raw-server.ts').RawPeer) => void>)) {
    test(`keeps its status when ${how} cuts its body`, async () => {
      await using server = await startRawServer({
        onRequest: ({ streamId }, peer) => {
          peer.writer.headers(streamId, peer.block([[':status', '410']]), false);
          peer.writer.frame(FrameType.data, 0, streamId, Buffer.from('{"rea'));
          peer.flush();
          cut(streamId, peer);
        },
      });
      await using pool = openPool(server.port);
      const result = await pool.send(push(0, { timeoutMs: 100 }));
      assertResponse(result, 410);
      assert.equal(result.body.toString(), '{"rea');
      assert.equal(result.isBodyWhole, false);
    });
  }

  test('may come before the request is whole: the rest is not sent', async () => {
    await using server = await startRawServer({
      onConnection: (peer) =>
        void until(() => peer.frames.some(({ type }) => type === FrameType.data)).then(() => peer.answer(1, 413)),
    });
    await using pool = openPool(server.port);
    assertResponse(await pool.send(push(0, { body: 'x'.repeat(100_000) })), 413);
    await until(() => server.peers[0]!.frames.some(({ type }) => type === FrameType.rstStream));
  });

  test('with a header list over the limit is still a response, with the fields that fit', async () => {
    await using server = await startRawServer({
      onRequest: ({ streamId }, peer) => peer.answer(streamId, 200, [['a', '1'], ['b', 'x'.repeat(2000)], ['c', '3']]), // biome-ignore format: one line
    });
    await using pool = openPool(server.port, { maxHeaderListBytes: 1000 });
    for (const result of await sendMany(pool, 3)) {
      assertResponse(result);
      assert.equal(result.headers.get('a'), '1');
      assert.equal(result.headers.get('c'), undefined);
    }
  });
});

describe('not processed', () => {
  test('a refused stream is sent again, a bounded number of times', async () => {
    await using server = await startRawServer({
      onRequest: ({ streamId, headers }, peer) => {
        const seen = server
          .requests()
          .filter((request) => request.headers.get(':path') === headers.get(':path')).length;
        if (headers.get(':path') === '/3/device/0' ? true : seen <= 2) {
          peer.writer.rstStream(streamId, ErrorCode.refusedStream);
          peer.flush();
        } else {
          peer.answer(streamId, 200);
        }
      },
    });
    await using pool = openPool(server.port, { maxResends: 3 });
    const [never, ...others] = await sendMany(pool, 10);
    assertNotProcessed(never, 'refused');
    assert.equal(never.evidence.errorCode, ErrorCode.refusedStream);
    assert.deepEqual(countKinds(others), { response: 9 });
    assert.equal(server.requests().length, 4 + 9 * 3);
  });

  test('a deadline that passes in the queue', async () => {
    await using server = await startRawServer({ settings: [[3, 0]] });
    await using pool = openPool(server.port, { queueTimeoutMs: 250 });
    const result = await pool.send(push(0));
    assertNotProcessed(result, 'deadline');
    assert.equal(result.evidence.isFlushed, false);
    assert.equal(server.requests().length, 0);
  });
});

describe('unanswered', () => {
  test('a reset with any other code, which the evidence names', async () => {
    const codes = [ErrorCode.noError, ErrorCode.internalError, ErrorCode.cancel, ErrorCode.enhanceYourCalm, 99];
    await using server = await startRawServer({
      onRequest: ({ streamId }, peer) => {
        peer.writer.rstStream(streamId, codes[(streamId - 1) / 2]!);
        peer.flush();
      },
    });
    await using pool = openPool(server.port);
    const results = await sendMany(pool, codes.length);
    for (const [i, result] of results.entries()) {
      assertUnanswered(result, 'reset');
      assert.deepEqual(
        { ...result.evidence },
        { connectionId: 1, streamId: 1 + 2 * i, isFlushed: true, errorCode: codes[i] },
      );
    }
    assert.equal(server.requests().length, codes.length);
  });

  test('a connection that ends: FIN, or TCP reset with its errno', async () => {
    await using server = await startRawServer({
      onRequest: (_, peer) => {
        if (peer.requests.length < 20) return;
        if (peer.number === 1) peer.socket.end();
        else peer.reset();
      },
    });
    await using pool = openPool(server.port, { maxConnections: 1 });
    for (const result of await sendMany(pool, 20)) {
      assertUnanswered(result, 'connection_lost');
      assert.equal(result.evidence.isFlushed, true);
    }
    for (const result of await sendMany(pool, 20)) {
      assertUnanswered(result, 'connection_lost');
      // Deno's server side closes a TLS socket by FIN where Node's resets it.
      if (!('Deno' in globalThis)) assert.equal(result.evidence.errno, 'ECONNRESET');
    }
    assert.equal(server.requests().length, 40);
    assert.equal(pool.stats().endings.connection_lost, 2);
  });

  test('a deadline: the stream is cancelled, and an answer after it changes nothing', async () => {
    await using server = await startRawServer({
      onRequest: ({ streamId, headers }, peer) => {
        if (headers.get(':path') !== '/3/device/0') peer.answer(streamId, 200);
      },
    });
    await using pool = openPool(server.port);
    const result = await pool.send(push(0, { timeoutMs: 50 }));
    assertUnanswered(result, 'deadline');
    assert.equal(result.evidence.isFlushed, true);
    const peer = server.peers[0]!;
    await until(() => peer.frames.some(({ type }) => type === FrameType.rstStream));
    peer.answer(1, 200, [['apns-unique-id', 'late']], 'late');
    assertResponse(await pool.send(push(1)));
    assert.equal(pool.stats().opened, 1);
  });

  for (const [what, answer] of Object.entries({
    'without a status': [['apns-id', 'x']],
    'with a status that is no number': [[':status', '2x0']],
    'with two statuses': [[':status', '200'], [':status', '200']], // biome-ignore format: one line
    'with a status after a field': [['a', 'b'], [':status', '200']], // biome-ignore format: one line
    'with a request field': [[':status', '200'], [':path', '/']], // biome-ignore format: one line
    'with upper case in a name': [[':status', '200'], ['Apns-Id', 'x']], // biome-ignore format: one line
    'that ends with an interim status': [[':status', '103']],
  } satisfies Record<string, [string, string][]>)) {
    test(`a malformed response, ${what}: the stream is reset, the connection lives`, async () => {
      await using server = await startRawServer({
        onRequest: ({ streamId, headers }, peer) => {
          if (headers.get(':path') !== '/3/device/0') return peer.answer(streamId, 200);
          peer.writer.headers(streamId, peer.block(answer as [string, string][]), true);
          peer.flush();
        },
      });
      await using pool = openPool(server.port);
      assertUnanswered(await pool.send(push(0)), 'malformed');
      assertResponse(await pool.send(push(1)));
      const resets = server.peers[0]!.frames.filter(({ type }) => type === FrameType.rstStream);
      assert.deepEqual(
        resets.map(({ payload }) => payload.readUInt32BE(0)),
        [ErrorCode.protocolError],
      );
      assert.equal(pool.stats().opened, 1);
    });
  }

  test('a body without header fields, and trailers that do not end the stream', async () => {
    await using server = await startRawServer({
      onRequest: ({ streamId }, peer) => {
        if (streamId > 1) {
          peer.writer.headers(streamId, peer.block([[':status', '200']]), false);
          peer.writer.headers(streamId, peer.block([['a', 'b']]), false);
        } else {
          peer.writer.frame(FrameType.data, Flag.endStream, streamId, Buffer.from('x'));
        }
        peer.flush();
      },
    });
    await using pool = openPool(server.port);
    assertUnanswered(await pool.send(push(0)), 'malformed');
    const result = await pool.send(push(1));
    assertResponse(result);
    assert.equal(result.isBodyWhole, false);
  });
});
