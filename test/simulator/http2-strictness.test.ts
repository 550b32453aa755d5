import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { after, before, beforeEach, describe, test } from 'node:test';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import {
  BufferPool,
  CLIENT_PREFACE,
  ErrorCode,
  Flag,
  FrameReader,
  FrameType,
  FrameWriter,
  readUint32,
} from '../../http2/frames.ts';
import { HpackEncoder } from '../../http2/hpack.ts';
import { SimulatorControl } from '../../simulator/control-client.ts';
import { apnsDeviceToken } from '../../simulator/device-tokens.ts';
import { type Simulator, startSimulator } from '../../simulator/simulator.ts';
import { until } from '../support/until.ts';
import { createProviderToken } from './clients.ts';

let simulator: Simulator;
let control: SimulatorControl;
before(async () => {
  simulator = await startSimulator({ settings: { apnsWarmUp: false, apnsMaxConcurrentStreams: 2 } });
  control = new SimulatorControl(simulator.controlUrl);
});
beforeEach(() => control.resetLedger());
after(() => simulator.close());

interface Frame {
  type: number;
  flags: number;
  streamId: number;
  payload: Buffer;
}

/** A client that writes any frames and keeps what comes back. */
class RawClient {
  readonly frames: Frame[] = [];
  readonly writer = new FrameWriter(new BufferPool());
  readonly #socket: TLSSocket;
  readonly #encoder = new HpackEncoder();

  private constructor(socket: TLSSocket) {
    this.#socket = socket;
    const reader = new FrameReader({
      frame: (type, flags, streamId, buffer, start, end) => {
        this.frames.push({ type, flags, streamId, payload: Buffer.from(buffer.subarray(start, end)) });
      },
    });
    socket.on('data', (chunk: Buffer) => reader.push(chunk));
    socket.on('error', () => {});
  }

  static async open(speaksFirst = true): Promise<RawClient> {
    const url = new URL(simulator.apnsUrl);
    const socket = connectTls({
      host: url.hostname,
      port: Number(url.port),
      ca: readFileSync(simulator.files.caCertificatePath),
      ALPNProtocols: ['h2'],
    });
    await once(socket, 'secureConnect');
    const client = new RawClient(socket);
    if (speaksFirst) {
      client.writer.raw(CLIENT_PREFACE);
      client.writer.settings([]);
      client.flush();
    }
    return client;
  }

  flush(): void {
    this.#socket.write(this.writer.take());
  }

  raw(bytes: Buffer): void {
    this.#socket.write(bytes);
  }

  block(deviceToken: string): Buffer {
    const fields: [string, string][] = [
      [':method', 'POST'],
      [':scheme', 'https'],
      [':path', `/3/device/${deviceToken}`],
      ['authorization', `bearer ${createProviderToken(simulator)}`],
      ['apns-topic', simulator.apnsTopic],
    ];
    const target = Buffer.alloc(4096);
    let at = this.#encoder.startBlock(target, 0);
    for (const [name, value] of fields) at = this.#encoder.field(target, at, name, value, 'without');
    return target.subarray(0, at);
  }

  async find(type: number, streamId?: number): Promise<Frame> {
    for (;;) {
      const found = this.frames.find(
        (one) => one.type === type && (streamId === undefined || one.streamId === streamId),
      );
      if (found !== undefined) return found;
      await Promise.race([once(this.#socket, 'data'), once(this.#socket, 'close').then(() => assert.fail('closed'))]);
    }
  }

  async goawayCode(): Promise<number> {
    return readUint32((await this.find(FrameType.goaway)).payload, 4);
  }

  close(): void {
    this.#socket.destroy();
  }
}

const body = Buffer.from('{"aps":{"alert":"x"}}');

describe('a client that breaks HTTP/2 gets the error that the RFC names:', () => {
  const breaches: [string, number, (client: RawClient) => void][] = [
    [
      'HEADERS on stream 0',
      ErrorCode.protocolError,
      (c) => c.writer.frame(FrameType.headers, Flag.endHeaders, 0, c.block('ab')),
    ],
    [
      'HEADERS on an even stream',
      ErrorCode.protocolError,
      (c) => c.writer.frame(FrameType.headers, Flag.endHeaders, 2, c.block('ab')),
    ],
    ['DATA on an idle stream', ErrorCode.protocolError, (c) => c.writer.frame(FrameType.data, 0, 1, body)],
    ['RST_STREAM on an idle stream', ErrorCode.protocolError, (c) => c.writer.rstStream(1, 0)],
    ['WINDOW_UPDATE on an idle stream', ErrorCode.protocolError, (c) => c.writer.windowUpdate(1, 5)],
    ['WINDOW_UPDATE of 0', ErrorCode.protocolError, (c) => c.writer.windowUpdate(0, 0)],
    ['a window above 2^31-1', ErrorCode.flowControlError, (c) => c.writer.windowUpdate(0, 2 ** 31 - 1)],
    [
      'a frame above 16 384 bytes',
      ErrorCode.frameSizeError,
      (c) => c.writer.frame(FrameType.data, 0, 1, Buffer.alloc(16_385)),
    ],
    ['PING of 7 bytes', ErrorCode.frameSizeError, (c) => c.writer.frame(FrameType.ping, 0, 0, Buffer.alloc(7))],
    ['SETTINGS of 5 bytes', ErrorCode.frameSizeError, (c) => c.writer.frame(FrameType.settings, 0, 0, Buffer.alloc(5))],
    ['PUSH_PROMISE', ErrorCode.protocolError, (c) => c.writer.frame(FrameType.pushPromise, 0, 1, Buffer.alloc(4))],
    [
      'CONTINUATION without HEADERS',
      ErrorCode.protocolError,
      (c) => c.writer.frame(FrameType.continuation, 0, 1, body),
    ],
    [
      'a header block that is no HPACK',
      ErrorCode.compressionError,
      (c) => c.writer.frame(FrameType.headers, Flag.endHeaders, 1, Buffer.from([0xff, 0xff, 0xff, 0xff, 0xff, 0xff])),
    ],
    [
      'a frame between HEADERS and CONTINUATION',
      ErrorCode.protocolError,
      (c) => {
        c.writer.frame(FrameType.headers, 0, 1, c.block('ab').subarray(0, 10));
        c.writer.ping(Buffer.alloc(8));
      },
    ],
  ];
  for (const [rule, errorCode, breach] of breaches) {
    test(rule, async () => {
      const client = await RawClient.open();
      breach(client);
      client.flush();
      assert.equal(await client.goawayCode(), errorCode);
      const summary = await control.ledgerSummary();
      assert.equal(summary.protocol_errors, 1);
      assert.notEqual(summary.last_protocol_error, '');
      client.close();
    });
  }

  test('no preface', async () => {
    const client = await RawClient.open(false);
    client.raw(Buffer.from('GET / HTTP/1.1\r\nhost: localhost\r\n\r\n'));
    assert.equal(await client.goawayCode(), ErrorCode.protocolError);
    client.close();
  });

  test('DATA after the end of a request that is still open', async () => {
    const client = await RawClient.open();
    client.writer.headers(1, client.block(apnsDeviceToken(1, 'hang')), false);
    client.writer.frame(FrameType.data, Flag.endStream, 1, body);
    client.writer.frame(FrameType.data, Flag.endStream, 1, body);
    client.flush();
    assert.equal(await client.goawayCode(), ErrorCode.streamClosed);
    client.close();
  });
});

describe('a correct client is understood, however it writes:', () => {
  async function statusOf(client: RawClient, streamId: number): Promise<number> {
    // 0x88 is ":status: 200" of the static table.
    return (await client.find(FrameType.headers, streamId)).payload[0]!;
  }

  test('a header block over CONTINUATION frames, padding, priority, trailers, unknown frames', async () => {
    const client = await RawClient.open();
    const block = client.block(apnsDeviceToken(1));
    const padded = Buffer.concat([Buffer.from([3, 0, 0, 0, 0, 16]), block.subarray(0, 20), Buffer.alloc(3)]);
    client.writer.frame(FrameType.priority, 0, 1, Buffer.alloc(5));
    client.writer.frame(0x77, 0xff, 1, Buffer.alloc(40));
    client.writer.frame(FrameType.headers, Flag.padded | Flag.priority, 1, padded);
    client.writer.frame(FrameType.continuation, 0, 1, block.subarray(20, 30));
    client.writer.frame(FrameType.continuation, Flag.endHeaders, 1, block.subarray(30));
    client.writer.frame(FrameType.data, Flag.padded, 1, Buffer.concat([Buffer.from([2]), body, Buffer.alloc(2)]));
    client.writer.headers(1, Buffer.from([0x00, 0x01, 0x61, 0x01, 0x62]), true);
    client.flush();
    assert.equal(await statusOf(client, 1), 0x88);
    client.close();
  });

  test('one byte at a time', async () => {
    const client = await RawClient.open();
    client.writer.headers(1, client.block(apnsDeviceToken(1)), false);
    client.writer.frame(FrameType.data, Flag.endStream, 1, body);
    for (const byte of client.writer.take()) client.raw(Buffer.from([byte]));
    assert.equal(await statusOf(client, 1), 0x88);
    client.close();
  });

  test('an answer waits for the client’s window', async () => {
    await control.addRule({}, { type: 'respond', status: 200, bodyBytes: 100 });
    const client = await RawClient.open();
    client.writer.settings([[4, 30]]);
    client.writer.headers(1, client.block(apnsDeviceToken(1)), false);
    client.writer.frame(FrameType.data, Flag.endStream, 1, body);
    client.writer.ping(Buffer.alloc(8));
    client.flush();
    await client.find(FrameType.ping);
    const sizes = () =>
      client.frames.filter(({ type }) => type === FrameType.data).map(({ payload }) => payload.length);
    assert.deepEqual(sizes(), [30]);
    client.writer.windowUpdate(1, 50);
    client.writer.settings([[4, 50]]);
    client.writer.ping(Buffer.alloc(8, 1));
    client.flush();
    await until(() => sizes().reduce((sum, size) => sum + size, 0) >= 100);
    assert.ok(sizes().length >= 2);
    await control.removeRules();
    client.close();
  });

  test('streams above the limit are refused and not in the ledger', async () => {
    const client = await RawClient.open();
    for (const streamId of [1, 3, 5]) client.writer.headers(streamId, client.block(apnsDeviceToken(streamId)), false);
    client.flush();
    const refused = await client.find(FrameType.rstStream);
    assert.deepEqual([refused.streamId, readUint32(refused.payload, 0)], [5, ErrorCode.refusedStream]);
    for (const streamId of [1, 3]) client.writer.frame(FrameType.data, Flag.endStream, streamId, body);
    client.flush();
    assert.equal(await statusOf(client, 3), 0x88);
    const summary = await control.ledgerSummary();
    assert.deepEqual([summary.received, summary.refused_streams], [2, 1]);
    client.close();
  });

  test('PING comes back with its bytes', async () => {
    const client = await RawClient.open();
    client.writer.ping(Buffer.from('carillon'));
    client.flush();
    const answer = await client.find(FrameType.ping);
    assert.deepEqual([answer.flags, answer.payload.toString()], [Flag.ack, 'carillon']);
    client.close();
  });
});
