/**
 * An HTTP/2 server that does what a test tells it, right or wrong: it hands out whole requests and the bare frame writer.
 * Unless told otherwise it greets with SETTINGS, acknowledges SETTINGS and PING, and answers every request with 200.
 */
import { once } from 'node:events';
import type { AddressInfo, Socket } from 'node:net';
import { createServer, type TLSSocket } from 'node:tls';
import {
  BufferPool,
  Flag,
  type FrameHandler,
  FrameReader,
  FrameType,
  FrameWriter,
  readSettings,
  Setting,
} from '../../http2/frames.ts';
import { HpackDecoder, HpackEncoder, maxFieldBytes } from '../../http2/hpack.ts';
import { serverTls } from './support.ts';

export interface RawRequest {
  readonly streamId: number;
  readonly headers: ReadonlyMap<string, string>;
  body: Buffer;
}

export interface RawServerOptions {
  /** Settings of the first frame. Default: 1 000 concurrent streams. */
  settings?: readonly (readonly [number, number])[];
  /** Default true. False: `onConnection` does all that the server says at first. */
  greets?: boolean;
  onConnection?: (peer: RawPeer) => void;
  /** Called at END_STREAM. Default: `peer.answer(request.streamId, 200)`. */
  onRequest?: (request: RawRequest, peer: RawPeer) => void;
  /** Table size that the header decoder allows; the test must announce it in `settings` as well. */
  maxTableBytes?: number;
  /** Ask for a client certificate of this authority. */
  clientCa?: string;
  alpn?: readonly string[];
}

export interface Frame {
  readonly type: number;
  readonly flags: number;
  readonly streamId: number;
  readonly payload: Buffer;
}

/** One accepted connection. */
export class RawPeer implements FrameHandler {
  /** Counts connections of the server from 1. */
  readonly number: number;
  readonly socket: TLSSocket;
  readonly writer = new FrameWriter(new BufferPool());
  readonly requests: RawRequest[] = [];
  readonly frames: Frame[] = [];
  /** Sizes in octets of the header blocks received. */
  readonly blockBytes: number[] = [];
  /** What the client asked for in its SETTINGS. */
  readonly clientSettings = new Map<number, number>();
  acksPings = true;
  isClosed = false;
  /** The TCP connection below TLS. */
  readonly #tcp: Socket | undefined;
  #hasGreeted = false;
  readonly decoder: HpackDecoder;
  readonly #encoder = new HpackEncoder();
  readonly #options: RawServerOptions;
  readonly #open = new Map<number, RawRequest>();
  #blocks: { streamId: number; isEnd: boolean; parts: Buffer[] } | undefined;

  constructor(number: number, socket: TLSSocket, tcp: Socket | undefined, options: RawServerOptions) {
    this.number = number;
    this.#tcp = tcp;
    this.socket = socket;
    this.#options = options;
    this.decoder = new HpackDecoder({ maxTableBytes: options.maxTableBytes ?? 4096, maxHeaderListBytes: 1 << 20 });
    const reader = new FrameReader(this, { expectsPreface: true, maxFrameBytes: 1 << 20 });
    socket.setNoDelay(true);
    socket.on('data', (chunk: Buffer) => reader.push(chunk));
    socket.on('error', () => {});
    socket.on('close', () => {
      this.isClosed = true;
    });
  }

  greet(): void {
    this.#hasGreeted = true;
    this.writer.settings(this.#options.settings ?? [[Setting.maxConcurrentStreams, 1000]]);
    this.flush();
  }

  /** Ends the connection by a TCP reset. */
  reset(): void {
    if (this.socket.writable && !this.#tcp!.destroyed) this.#tcp!.resetAndDestroy();
  }

  flush(): void {
    if (!this.socket.destroyed) this.socket.write(this.writer.take());
  }

  block(fields: readonly (readonly [string, string])[]): Buffer {
    const room = Buffer.alloc(10 + fields.reduce((sum, [name, value]) => sum + maxFieldBytes(name, value), 0));
    let at = this.#encoder.startBlock(room, 0);
    for (const [name, value] of fields) at = this.#encoder.field(room, at, name, value, 'incremental');
    return room.subarray(0, at);
  }

  /** Writes a whole response, and flushes. */
  answer(streamId: number, status: number, fields: readonly (readonly [string, string])[] = [], body = ''): void {
    this.writer.headers(streamId, this.block([[':status', String(status)], ...fields]), body === '');
    if (body !== '') this.writer.frame(FrameType.data, Flag.endStream, streamId, Buffer.from(body));
    this.flush();
  }

  frame(type: number, flags: number, streamId: number, buffer: Buffer, start: number, end: number): void {
    const payload = Buffer.from(buffer.subarray(start, end));
    this.frames.push({ type, flags, streamId, payload });
    if (type === FrameType.settings && (flags & Flag.ack) === 0) {
      readSettings(payload, 0, payload.length, (setting, value) => this.clientSettings.set(setting, value));
      // The server's own SETTINGS must come first (RFC 9113 §3.4).
      if (this.#hasGreeted) {
        this.writer.settingsAck();
        this.flush();
      }
    } else if (type === FrameType.ping && (flags & Flag.ack) === 0 && this.acksPings) {
      this.writer.ping(payload, true);
      this.flush();
    } else if (type === FrameType.headers) {
      this.#blocks = { streamId, isEnd: (flags & Flag.endStream) !== 0, parts: [payload] };
      if ((flags & Flag.endHeaders) !== 0) this.#onBlock();
    } else if (type === FrameType.continuation) {
      this.#blocks?.parts.push(payload);
      if ((flags & Flag.endHeaders) !== 0) this.#onBlock();
    } else if (type === FrameType.data) {
      const request = this.#open.get(streamId);
      if (request === undefined) return;
      request.body = Buffer.concat([request.body, payload]);
      if ((flags & Flag.endStream) !== 0) this.#onRequest(request);
    }
  }

  #onBlock(): void {
    const { streamId, isEnd, parts } = this.#blocks!;
    const block = Buffer.concat(parts);
    this.blockBytes.push(block.length);
    const headers = new Map<string, string>();
    this.decoder.decode(block, 0, block.length, { header: (name, value) => void headers.set(name, value) });
    const request = { streamId, headers, body: Buffer.alloc(0) };
    this.#open.set(streamId, request);
    if (isEnd) this.#onRequest(request);
  }

  #onRequest(request: RawRequest): void {
    this.#open.delete(request.streamId);
    this.requests.push(request);
    if (this.#options.onRequest === undefined) this.answer(request.streamId, 200);
    else this.#options.onRequest(request, this);
  }
}

export interface RawServer extends AsyncDisposable {
  readonly port: number;
  readonly peers: RawPeer[];
  /** Every request received, in the order of their ends. */
  readonly requests: () => RawRequest[];
}

export async function startRawServer(options: RawServerOptions = {}): Promise<RawServer> {
  const peers: RawPeer[] = [];
  const sockets = new Set<Socket>();
  const server = createServer({
    ...serverTls,
    ALPNProtocols: [...(options.alpn ?? ['h2'])],
    ...(options.clientCa === undefined ? {} : { ca: options.clientCa, requestCert: true, rejectUnauthorized: true }),
  });
  server.on('secureConnection', (socket) => {
    const tcp = [...sockets].find(({ remotePort }) => remotePort === socket.remotePort);
    const peer = new RawPeer(peers.length + 1, socket, tcp, options);
    peers.push(peer);
    if (options.greets !== false) peer.greet();
    options.onConnection?.(peer);
  });
  server.on('tlsClientError', () => {});
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => sockets.delete(socket));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    peers,
    requests: () => peers.flatMap((peer) => peer.requests),
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}
