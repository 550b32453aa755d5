import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ErrorCode, Flag, FrameType, type FrameWriter, Setting } from '../../http2/frames.ts';
import { until } from '../support/until.ts';
import { type RawPeer, startRawServer } from './raw-server.ts';
import { assertResponse, assertUnanswered, openPool, push } from './support.ts';

const { protocolError, frameSizeError, flowControlError, compressionError, enhanceYourCalm } = ErrorCode;
const bytes = (hex: string) => Buffer.from(hex, 'hex');

/** What the peer says while stream 1 waits for its answer, and the code our GOAWAY must have. */
const VIOLATIONS: Record<string, [errorCode: number, say: (writer: FrameWriter, peer: RawPeer) => void]> = {
  'DATA on stream 0': [protocolError, (w) => w.frame(FrameType.data, 0, 0, bytes('00'))],
  'DATA on a stream that was never opened': [protocolError, (w) => w.frame(FrameType.data, 0, 77, bytes('00'))],
  'HEADERS on stream 0': [protocolError, (w) => w.frame(FrameType.headers, Flag.endHeaders, 0, bytes('88'))],
  'HEADERS on stream 0, unfinished': [protocolError, (w) => w.frame(FrameType.headers, 0, 0, bytes('88'))],
  'HEADERS on an even stream': [protocolError, (w) => w.frame(FrameType.headers, Flag.endHeaders, 2, bytes('88'))],
  'HEADERS on a stream that was never opened': [
    protocolError,
    (w) => w.frame(FrameType.headers, Flag.endHeaders, 77, bytes('88')),
  ],
  'padding longer than its frame': [protocolError, (w) => w.frame(FrameType.data, Flag.padded, 1, bytes('0500'))],
  'a padded frame without a length': [protocolError, (w) => w.frame(FrameType.data, Flag.padded, 1, bytes(''))],
  'HEADERS shorter than its priority': [
    frameSizeError,
    (w) => w.frame(FrameType.headers, Flag.endHeaders | Flag.priority, 1, bytes('0000')),
  ],
  'PRIORITY on stream 0': [protocolError, (w) => w.frame(FrameType.priority, 0, 0, bytes('0000000000'))],
  'RST_STREAM on stream 0': [protocolError, (w) => w.rstStream(0, 8)],
  'RST_STREAM on a stream that was never opened': [protocolError, (w) => w.rstStream(9, 8)],
  'RST_STREAM of three octets': [frameSizeError, (w) => w.frame(FrameType.rstStream, 0, 1, bytes('000000'))],
  'SETTINGS on a stream': [protocolError, (w) => w.frame(FrameType.settings, 0, 1, bytes(''))],
  'SETTINGS of five octets': [frameSizeError, (w) => w.frame(FrameType.settings, 0, 0, bytes('0000000000'))],
  'a SETTINGS acknowledgement with payload': [
    frameSizeError,
    (w) => w.frame(FrameType.settings, Flag.ack, 0, bytes('000300000001')),
  ],
  'ENABLE_PUSH from a server': [protocolError, (w) => w.settings([[Setting.enablePush, 1]])],
  'INITIAL_WINDOW_SIZE of 2^31': [flowControlError, (w) => w.settings([[Setting.initialWindowSize, 2 ** 31]])],
  'MAX_FRAME_SIZE below 16384': [protocolError, (w) => w.settings([[Setting.maxFrameSize, 16_383]])],
  'MAX_FRAME_SIZE above 2^24 - 1': [protocolError, (w) => w.settings([[Setting.maxFrameSize, 2 ** 24]])],
  PUSH_PROMISE: [protocolError, (w) => w.frame(FrameType.pushPromise, Flag.endHeaders, 1, bytes('0000000288'))],
  'PING on a stream': [protocolError, (w) => w.frame(FrameType.ping, 0, 1, Buffer.alloc(8))],
  'PING of seven octets': [frameSizeError, (w) => w.frame(FrameType.ping, 0, 0, Buffer.alloc(7))],
  'GOAWAY on a stream': [protocolError, (w) => w.frame(FrameType.goaway, 0, 1, Buffer.alloc(8))],
  'GOAWAY of seven octets': [frameSizeError, (w) => w.frame(FrameType.goaway, 0, 0, Buffer.alloc(7))],
  'WINDOW_UPDATE of three octets': [frameSizeError, (w) => w.frame(FrameType.windowUpdate, 0, 0, bytes('000001'))],
  'WINDOW_UPDATE of 0 on the connection': [protocolError, (w) => w.windowUpdate(0, 0)],
  'WINDOW_UPDATE on a stream that was never opened': [protocolError, (w) => w.windowUpdate(5, 1)],
  'a connection window above 2^31 - 1': [flowControlError, (w) => w.windowUpdate(0, 0x7fffffff)],
  'CONTINUATION without HEADERS': [
    protocolError,
    (w) => w.frame(FrameType.continuation, Flag.endHeaders, 1, bytes('88')),
  ],
  'another frame inside a header block': [
    protocolError,
    (w) => {
      w.frame(FrameType.headers, 0, 1, bytes('88'));
      w.ping(Buffer.alloc(8));
    },
  ],
  'CONTINUATION of another stream': [
    protocolError,
    (w) => {
      w.frame(FrameType.headers, 0, 1, bytes('88'));
      w.frame(FrameType.continuation, Flag.endHeaders, 3, bytes('88'));
    },
  ],
  'a header block that cannot be decoded': [
    compressionError,
    (w) => w.frame(FrameType.headers, Flag.endHeaders, 1, bytes('bf')),
  ],
  'a frame larger than we allow': [frameSizeError, (w) => w.frame(FrameType.data, 0, 1, Buffer.alloc(16_385))],
  'a flood of PING': [
    enhanceYourCalm,
    (w) => {
      for (let i = 0; i < 3000; i++) w.ping(Buffer.alloc(8));
    },
  ],
  'a flood of SETTINGS': [
    enhanceYourCalm,
    (w) => {
      for (let i = 0; i < 3000; i++) w.settings([[Setting.maxConcurrentStreams, i]]);
    },
  ],
  'a flood of empty DATA': [
    enhanceYourCalm,
    (w, peer) => {
      w.headers(1, peer.block([[':status', '200']]), false);
      for (let i = 0; i < 3000; i++) w.frame(FrameType.data, 0, 1, bytes(''));
    },
  ],
  'a flood of interim answers': [
    enhanceYourCalm,
    (w, peer) => {
      for (let i = 0; i < 3000; i++) w.headers(1, peer.block([[':status', '103']]), false);
    },
  ],
  'a flood of resets of streams long gone': [
    enhanceYourCalm,
    (w) => {
      for (let i = 0; i < 3000; i++) w.rstStream(1, 8);
    },
  ],
  'a flood of empty CONTINUATION': [
    enhanceYourCalm,
    (w) => {
      w.frame(FrameType.headers, 0, 1, bytes('88'));
      for (let i = 0; i < 3000; i++) w.frame(FrameType.continuation, 0, 1, bytes(''));
    },
  ],
  'a header block without end': [
    enhanceYourCalm,
    (w) => {
      w.frame(FrameType.headers, 0, 1, bytes('88'));
      for (let i = 0; i < 5; i++) w.frame(FrameType.continuation, 0, 1, Buffer.alloc(16_000, 0x88));
    },
  ],
};

describe('a peer that breaks the rules is told which, and loses its connection; the sender lives', () => {
  for (const [violation, [errorCode, say]] of Object.entries(VIOLATIONS)) {
    test(violation, async () => {
      await using server = await startRawServer({
        onRequest: ({ streamId }, peer) => {
          if (peer.number > 1) return peer.answer(streamId, 200);
          say(peer.writer, peer);
          peer.flush();
        },
      });
      await using pool = openPool(server.port, { maxIdleFramesPerSecond: 1000 });
      const result = await pool.send(push(0));
      if (result.kind === 'response') assert.equal(result.isBodyWhole, false);
      else if (!violation.includes('resets')) assertUnanswered(result, 'protocol_error');
      assertResponse(await pool.send(push(1)));
      assert.equal(pool.stats().endings.protocol_error, 1);
      const goaway = server.peers[0]!.frames.find(({ type }) => type === FrameType.goaway);
      assert.equal(goaway?.payload.readUInt32BE(4), errorCode);
    });
  }

  test('a first frame that is not SETTINGS', async () => {
    await using server = await startRawServer({
      greets: false,
      onConnection: (peer) => {
        if (peer.number > 1) return peer.greet();
        peer.writer.ping(Buffer.alloc(8));
        peer.flush();
      },
    });
    await using pool = openPool(server.port);
    assertResponse(await pool.send(push(0)));
    assert.equal(pool.stats().endings.connect_failed, 1);
  });

  test('a peer that talks HTTP/1.1', async () => {
    await using server = await startRawServer({
      greets: false,
      onConnection: (peer) => {
        if (peer.number > 1) peer.greet();
        else peer.socket.write('HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n');
      },
    });
    await using pool = openPool(server.port);
    assertResponse(await pool.send(push(0)));
  });

  test('a stream window of 0 or above 2^31 - 1 ends the stream only', async () => {
    await using server = await startRawServer({
      onRequest: ({ streamId }, peer) => {
        if (streamId > 3) return peer.answer(streamId, 200);
        peer.writer.windowUpdate(streamId, streamId === 1 ? 0 : 0x7fffffff);
        peer.flush();
      },
    });
    await using pool = openPool(server.port);
    const [zero, large, fine] = await Promise.all([pool.send(push(0)), pool.send(push(1)), pool.send(push(2))]);
    assertUnanswered(zero, 'malformed');
    assertUnanswered(large, 'malformed');
    assertResponse(fine);
    const resets = () => server.peers[0]!.frames.filter(({ type }) => type === FrameType.rstStream);
    await until(() => resets().length === 2);
    assert.deepEqual(
      resets().map(({ payload }) => payload.readUInt32BE(0)),
      [protocolError, flowControlError],
    );
  });
});
