/**
 * HTTP/2 framing (RFC 9113 §4 and §6), for either side of a connection: the protocol's numbers, an incremental reader,
 * and a writer that collects frames into one pooled buffer so that many of them leave in one `write`.
 */

export const FrameType = {
  data: 0,
  headers: 1,
  priority: 2,
  rstStream: 3,
  settings: 4,
  pushPromise: 5,
  ping: 6,
  goaway: 7,
  windowUpdate: 8,
  continuation: 9,
} as const;

export const Flag = { endStream: 0x1, ack: 0x1, endHeaders: 0x4, padded: 0x8, priority: 0x20 } as const;

/** RFC 9113 §7. */
export const ErrorCode = {
  noError: 0x0,
  protocolError: 0x1,
  internalError: 0x2,
  flowControlError: 0x3,
  settingsTimeout: 0x4,
  streamClosed: 0x5,
  frameSizeError: 0x6,
  refusedStream: 0x7,
  cancel: 0x8,
  compressionError: 0x9,
  connectError: 0xa,
  enhanceYourCalm: 0xb,
  inadequateSecurity: 0xc,
  http11Required: 0xd,
} as const;

/** RFC 9113 §6.5.2. */
export const Setting = {
  headerTableSize: 0x1,
  enablePush: 0x2,
  maxConcurrentStreams: 0x3,
  initialWindowSize: 0x4,
  maxFrameSize: 0x5,
  maxHeaderListSize: 0x6,
} as const;

export const FRAME_HEADER_BYTES = 9;
/** Every peer takes frames of this many payload octets (RFC 9113 §4.2). */
export const DEFAULT_MAX_FRAME_BYTES = 16_384;
export const LARGEST_MAX_FRAME_BYTES = 0xff_ff_ff;
export const DEFAULT_WINDOW_BYTES = 65_535;
/** Also the largest stream id. */
export const LARGEST_WINDOW_BYTES = 0x7f_ff_ff_ff;

/** What a client says before its first SETTINGS frame (RFC 9113 §3.4). */
export const CLIENT_PREFACE: Buffer = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1');

/** The peer broke a rule of the protocol; `errorCode` is what a GOAWAY has to say about it. */
export class Http2ProtocolError extends Error {
  readonly code = 'http2_protocol';
  readonly errorCode: number;

  constructor(errorCode: number, message: string) {
    super(message);
    this.name = 'Http2ProtocolError';
    this.errorCode = errorCode;
  }
}

/**
 * Takes frames as they become whole. The payload is `buffer[start, end)`, still padded, and is valid during the call
 * only. What it throws comes out of `FrameReader.push`.
 */
export interface FrameHandler {
  frame(type: number, flags: number, streamId: number, buffer: Buffer, start: number, end: number): void;
}

export interface FrameReaderOptions {
  /** Our SETTINGS_MAX_FRAME_SIZE, in octets. Default 16 384. */
  maxFrameBytes?: number;
  /** True on a server: the stream begins with the client's preface. Default false. */
  expectsPreface?: boolean;
}

/**
 * Cuts a byte stream into frames. A frame that lies whole in a chunk is handed on where it lies; only a frame that straddles
 * chunks is copied, into a buffer that never outgrows one frame.
 */
export class FrameReader {
  readonly #handler: FrameHandler;
  readonly #maxFrameBytes: number;
  #prefaceLeft: number;
  /** The beginning of a frame whose end has not come yet. */
  #partial = Buffer.alloc(0);
  #partialBytes = 0;
  #isStopped = false;

  constructor(handler: FrameHandler, options: FrameReaderOptions = {}) {
    this.#handler = handler;
    this.#maxFrameBytes = options.maxFrameBytes ?? DEFAULT_MAX_FRAME_BYTES;
    this.#prefaceLeft = options.expectsPreface ? CLIENT_PREFACE.length : 0;
  }

  /** Hands on nothing more, not even frames left in the chunk being read. */
  stop(): void {
    this.#isStopped = true;
  }

  /** @throws {Http2ProtocolError} for a frame over the limit or a wrong preface, and whatever the handler throws. */
  push(chunk: Buffer): void {
    let at = this.#prefaceLeft > 0 ? this.#readPreface(chunk) : 0;
    if (this.#partialBytes > 0) at = this.#completePartial(chunk, at);
    while (!this.#isStopped && chunk.length - at >= FRAME_HEADER_BYTES) {
      const end = at + FRAME_HEADER_BYTES + this.#payloadBytes(chunk, at);
      if (end > chunk.length) break;
      this.#emit(chunk, at, end);
      at = end;
    }
    if (!this.#isStopped && at < chunk.length) this.#keep(chunk, at, chunk.length);
  }

  #readPreface(chunk: Buffer): number {
    const done = CLIENT_PREFACE.length - this.#prefaceLeft;
    const length = Math.min(this.#prefaceLeft, chunk.length);
    if (!chunk.subarray(0, length).equals(CLIENT_PREFACE.subarray(done, done + length))) {
      throw new Http2ProtocolError(ErrorCode.protocolError, 'not an HTTP/2 preface');
    }
    this.#prefaceLeft -= length;
    return length;
  }

  /** Copies from `chunk` what the partial frame lacks; returns where the next frame begins. */
  #completePartial(chunk: Buffer, start: number): number {
    let at = start;
    if (this.#partialBytes < FRAME_HEADER_BYTES) {
      const taken = Math.min(FRAME_HEADER_BYTES - this.#partialBytes, chunk.length - at);
      this.#keep(chunk, at, at + taken);
      at += taken;
      if (this.#partialBytes < FRAME_HEADER_BYTES) return at;
    }
    const frameBytes = FRAME_HEADER_BYTES + this.#payloadBytes(this.#partial, 0);
    const taken = Math.min(frameBytes - this.#partialBytes, chunk.length - at);
    this.#keep(chunk, at, at + taken);
    at += taken;
    if (this.#partialBytes === frameBytes) {
      this.#partialBytes = 0;
      this.#emit(this.#partial, 0, frameBytes);
    }
    return at;
  }

  #keep(chunk: Buffer, start: number, end: number): void {
    const needed = this.#partialBytes + end - start;
    if (needed > this.#partial.length) {
      const larger = Buffer.allocUnsafeSlow(
        Math.min(Math.max(needed, 1024) * 2, FRAME_HEADER_BYTES + this.#maxFrameBytes),
      );
      this.#partial.copy(larger, 0, 0, this.#partialBytes);
      this.#partial = larger;
    }
    chunk.copy(this.#partial, this.#partialBytes, start, end);
    this.#partialBytes = needed;
  }

  /** Length of the frame whose header is at `at`; checked here, before any of the frame is stored. */
  #payloadBytes(buffer: Buffer, at: number): number {
    const length = (buffer[at]! << 16) | (buffer[at + 1]! << 8) | buffer[at + 2]!;
    if (length > this.#maxFrameBytes) {
      throw new Http2ProtocolError(ErrorCode.frameSizeError, `frame of ${length} octets`);
    }
    return length;
  }

  #emit(buffer: Buffer, at: number, end: number): void {
    // The highest bit of a stream id is reserved and ignored (RFC 9113 §4.1).
    this.#handler.frame(
      buffer[at + 3]!,
      buffer[at + 4]!,
      readUint32(buffer, at + 5) & LARGEST_WINDOW_BYTES,
      buffer,
      at + FRAME_HEADER_BYTES,
      end,
    );
  }
}

/**
 * Where the payload of a DATA or HEADERS frame ends: before its padding, whose length is the first octet (RFC 9113 §6.1).
 * @throws {Http2ProtocolError} when the padding is longer than the frame.
 */
export function unpaddedEnd(flags: number, buffer: Buffer, start: number, end: number): number {
  if ((flags & Flag.padded) === 0) return end;
  const unpadded = end - (start < end ? buffer[start]! : end);
  if (unpadded <= start) throw new Http2ProtocolError(ErrorCode.protocolError, 'padding longer than its frame');
  return unpadded;
}

/** Big-endian, as a non-negative number. */
export function readUint32(buffer: Uint8Array, at: number): number {
  return ((buffer[at]! << 24) | (buffer[at + 1]! << 16) | (buffer[at + 2]! << 8) | buffer[at + 3]!) >>> 0;
}

function writeUint32(buffer: Uint8Array, at: number, value: number): void {
  buffer[at] = value >>> 24;
  buffer[at + 1] = value >>> 16;
  buffer[at + 2] = value >>> 8;
  buffer[at + 3] = value;
}

/** Writes a frame's nine octets of header at `at`. `payloadBytes` is at most 2^24 - 1. */
export function writeFrameHeader(
  buffer: Uint8Array,
  at: number,
  payloadBytes: number,
  type: number,
  flags: number,
  streamId: number,
): void {
  buffer[at] = payloadBytes >>> 16;
  buffer[at + 1] = payloadBytes >>> 8;
  buffer[at + 2] = payloadBytes;
  buffer[at + 3] = type;
  buffer[at + 4] = flags;
  writeUint32(buffer, at + 5, streamId);
}

const POOLED_BUFFER_BYTES = 64 * 1024;

/**
 * Buffers of one size for reuse. Call `release` only after the callback of the `write`, when the socket no longer reads the
 * buffer.
 */
export class BufferPool {
  readonly #free: Buffer[] = [];
  readonly #maxFree: number;

  /** @param maxFree buffers of 64 KiB kept for reuse; others are left to the garbage collector. */
  constructor(maxFree = 16) {
    this.#maxFree = maxFree;
  }

  acquire(): Buffer {
    return this.#free.pop() ?? Buffer.allocUnsafeSlow(POOLED_BUFFER_BYTES);
  }

  /** Takes back a buffer, or any slice that begins where the buffer does. */
  release(buffer: Buffer): void {
    if (buffer.buffer.byteLength !== POOLED_BUFFER_BYTES || this.#free.length >= this.#maxFree) return;
    this.#free.push(Buffer.from(buffer.buffer as ArrayBuffer));
  }
}

/**
 * Collects frames. `buffer` and `offset` are public for hot paths, which call `reserve`, write in place and move `offset`; all
 * other code uses the methods, one per frame.
 */
export class FrameWriter {
  buffer: Buffer;
  offset = 0;
  readonly #pool: BufferPool;

  constructor(pool: BufferPool) {
    this.#pool = pool;
    this.buffer = pool.acquire();
  }

  /** Makes room for `bytes` more octets. `buffer` may be another one afterwards. */
  reserve(bytes: number): void {
    if (this.offset + bytes <= this.buffer.length) return;
    const larger = Buffer.allocUnsafeSlow(Math.max(this.buffer.length * 2, this.offset + bytes));
    this.buffer.copy(larger, 0, 0, this.offset);
    this.#pool.release(this.buffer);
    this.buffer = larger;
  }

  /** Hands over all collected frames and starts anew. Give the buffer back to the pool once it is written. */
  take(): Buffer {
    const taken = this.buffer.subarray(0, this.offset);
    this.buffer = this.#pool.acquire();
    this.offset = 0;
    return taken;
  }

  /** A frame whose payload is at hand; `payload` may be empty. */
  frame(type: number, flags: number, streamId: number, payload: Uint8Array): void {
    this.reserve(FRAME_HEADER_BYTES + payload.length);
    writeFrameHeader(this.buffer, this.offset, payload.length, type, flags, streamId);
    this.buffer.set(payload, this.offset + FRAME_HEADER_BYTES);
    this.offset += FRAME_HEADER_BYTES + payload.length;
  }

  /** Any octets, for example the client's preface. */
  raw(octets: Uint8Array): void {
    this.reserve(octets.length);
    this.buffer.set(octets, this.offset);
    this.offset += octets.length;
  }

  /** A header block: HEADERS, and CONTINUATION for what does not fit into `maxFrameBytes` (RFC 9113 §6.10). */
  headers(streamId: number, block: Uint8Array, isEndStream: boolean, maxFrameBytes = DEFAULT_MAX_FRAME_BYTES): void {
    let type: number = FrameType.headers;
    let at = 0;
    do {
      const end = Math.min(at + maxFrameBytes, block.length);
      let flags = end === block.length ? Flag.endHeaders : 0;
      if (type === FrameType.headers && isEndStream) flags |= Flag.endStream;
      this.frame(type, flags, streamId, block.subarray(at, end));
      type = FrameType.continuation;
      at = end;
    } while (at < block.length);
  }

  settings(pairs: readonly (readonly [setting: number, value: number])[]): void {
    this.#header(pairs.length * 6, FrameType.settings, 0, 0);
    for (const [setting, value] of pairs) {
      this.buffer[this.offset] = setting >>> 8;
      this.buffer[this.offset + 1] = setting;
      writeUint32(this.buffer, this.offset + 2, value);
      this.offset += 6;
    }
  }

  settingsAck(): void {
    this.#header(0, FrameType.settings, Flag.ack, 0);
  }

  /** @param data eight octets, given back by the peer. */
  ping(data: Uint8Array, isAck = false): void {
    this.frame(FrameType.ping, isAck ? Flag.ack : 0, 0, data);
  }

  windowUpdate(streamId: number, increment: number): void {
    this.#header(4, FrameType.windowUpdate, 0, streamId);
    writeUint32(this.buffer, this.offset, increment);
    this.offset += 4;
  }

  rstStream(streamId: number, errorCode: number): void {
    this.#header(4, FrameType.rstStream, 0, streamId);
    writeUint32(this.buffer, this.offset, errorCode);
    this.offset += 4;
  }

  goaway(lastStreamId: number, errorCode: number, debugText = ''): void {
    const debug = Buffer.from(debugText, 'utf8');
    this.#header(8 + debug.length, FrameType.goaway, 0, 0);
    writeUint32(this.buffer, this.offset, lastStreamId);
    writeUint32(this.buffer, this.offset + 4, errorCode);
    this.buffer.set(debug, this.offset + 8);
    this.offset += 8 + debug.length;
  }

  /** Reserves the whole frame and writes its header; the payload follows at `offset`. */
  #header(payloadBytes: number, type: number, flags: number, streamId: number): void {
    this.reserve(FRAME_HEADER_BYTES + payloadBytes);
    writeFrameHeader(this.buffer, this.offset, payloadBytes, type, flags, streamId);
    this.offset += FRAME_HEADER_BYTES;
  }
}

/**
 * Reads the payload of a SETTINGS frame, in order.
 * @throws {Http2ProtocolError} for a length that is no multiple of six.
 */
export function readSettings(
  buffer: Buffer,
  start: number,
  end: number,
  take: (setting: number, value: number) => void,
): void {
  if ((end - start) % 6 !== 0) throw new Http2ProtocolError(ErrorCode.frameSizeError, 'SETTINGS length');
  for (let at = start; at < end; at += 6) take((buffer[at]! << 8) | buffer[at + 1]!, readUint32(buffer, at + 2));
}
