import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import {
  BufferPool,
  CLIENT_PREFACE,
  ErrorCode,
  Flag,
  FrameReader,
  FrameType,
  FrameWriter,
  Http2ProtocolError,
  readSettings,
  readUint32,
  Setting,
} from '../../http2/frames.ts';

interface Frame {
  type: number;
  flags: number;
  streamId: number;
  payload: string;
}

function collect(expectsPreface = false) {
  const frames: Frame[] = [];
  const reader = new FrameReader(
    {
      frame: (type, flags, streamId, buffer, start, end) =>
        void frames.push({ type, flags, streamId, payload: buffer.toString('hex', start, end) }),
    },
    { expectsPreface },
  );
  return { frames, reader };
}

describe('the frame reader', () => {
  const anyFrame = fc.record({
    type: fc.integer({ min: 0, max: 255 }),
    flags: fc.integer({ min: 0, max: 255 }),
    streamId: fc.integer({ min: 0, max: 0x7fffffff }),
    payload: fc.uint8Array({ maxLength: 300 }),
  });

  test('finds the same frames however the bytes are cut', () => {
    fc.assert(
      fc.property(
        fc.array(anyFrame, { maxLength: 12 }),
        fc.array(fc.integer({ min: 1, max: 200 }), { minLength: 1 }),
        (sent, cuts) => {
          const writer = new FrameWriter(new BufferPool());
          writer.raw(CLIENT_PREFACE);
          for (const { type, flags, streamId, payload } of sent) writer.frame(type, flags, streamId, payload);
          const bytes = writer.take();
          const { frames, reader } = collect(true);
          for (let at = 0, i = 0; at < bytes.length; i++) {
            const end = at + cuts[i % cuts.length]!;
            reader.push(bytes.subarray(at, end));
            at = end;
          }
          assert.deepEqual(
            frames,
            sent.map((frame) => ({ ...frame, payload: Buffer.from(frame.payload).toString('hex') })),
          );
        },
      ),
      { numRuns: 300 },
    );
  });

  test('refuses a frame over the limit from its header alone', () => {
    const { reader } = collect();
    assert.throws(
      () => reader.push(Buffer.from([0, 0x40, 0x01, 0, 0, 0, 0, 0, 1])),
      (error) => error instanceof Http2ProtocolError && error.errorCode === ErrorCode.frameSizeError,
    );
  });

  test('refuses a client that does not begin with the preface', () => {
    assert.throws(() => collect(true).reader.push(Buffer.from('GET / HTTP/1.1\r\n')), Http2ProtocolError);
  });

  test('hands on nothing after stop, not even from the same chunk', () => {
    const frames: number[] = [];
    const reader = new FrameReader({
      frame: (type) => {
        frames.push(type);
        reader.stop();
      },
    });
    const writer = new FrameWriter(new BufferPool());
    writer.settingsAck();
    writer.ping(Buffer.alloc(8));
    reader.push(writer.take());
    assert.deepEqual(frames, [FrameType.settings]);
  });
});

describe('the frame writer', () => {
  test('writes each control frame as the RFC lays it out', () => {
    const writer = new FrameWriter(new BufferPool());
    const { frames, reader } = collect();
    writer.settings([
      [Setting.maxConcurrentStreams, 1000],
      [Setting.initialWindowSize, 65_535],
    ]);
    writer.settingsAck();
    writer.ping(Buffer.from('0102030405060708', 'hex'), true);
    writer.windowUpdate(3, 0x01020304);
    writer.rstStream(5, ErrorCode.refusedStream);
    writer.goaway(7, ErrorCode.noError, '{}');
    reader.push(writer.take());
    assert.deepEqual(frames, [
      { type: 4, flags: 0, streamId: 0, payload: '0003000003e8' + '00040000ffff' },
      { type: 4, flags: 1, streamId: 0, payload: '' },
      { type: 6, flags: 1, streamId: 0, payload: '0102030405060708' },
      { type: 8, flags: 0, streamId: 3, payload: '01020304' },
      { type: 3, flags: 0, streamId: 5, payload: '00000007' },
      { type: 7, flags: 0, streamId: 0, payload: '00000007' + '00000000' + '7b7d' },
    ]);
  });

  test('cuts a long header block into CONTINUATION frames', () => {
    const writer = new FrameWriter(new BufferPool());
    const { frames, reader } = collect();
    writer.headers(1, Buffer.alloc(25, 'x'), true, 10);
    reader.push(writer.take());
    assert.deepEqual(
      frames.map(({ type, flags, payload }) => [type, flags, payload.length / 2]),
      [
        [FrameType.headers, Flag.endStream, 10],
        [FrameType.continuation, 0, 10],
        [FrameType.continuation, Flag.endHeaders, 5],
      ],
    );
  });

  test('grows beyond one pooled buffer without losing a byte, and reuses buffers given back', () => {
    const pool = new BufferPool();
    const writer = new FrameWriter(pool);
    const payload = Buffer.alloc(16_000, 7);
    for (let i = 0; i < 10; i++) writer.frame(FrameType.data, 0, 1, payload);
    const { frames, reader } = collect();
    reader.push(writer.take());
    assert.ok(frames.length === 10 && frames.every((frame) => frame.payload === payload.toString('hex')));
    writer.settingsAck();
    const small = writer.take();
    pool.release(small);
    assert.equal(pool.acquire().buffer, small.buffer);
  });
});

test('a SETTINGS payload is read in order; another length is a FRAME_SIZE_ERROR', () => {
  const seen: [number, number][] = [];
  const payload = Buffer.from('00030000000a' + '0003ffffffff', 'hex');
  readSettings(payload, 0, payload.length, (setting, value) => void seen.push([setting, value]));
  assert.deepEqual(seen, [
    [3, 10],
    [3, 0xffffffff],
  ]);
  assert.throws(() => readSettings(payload, 0, 5, () => {}), Http2ProtocolError);
  assert.equal(readUint32(Buffer.from('ffffffff', 'hex'), 0), 4294967295);
});
