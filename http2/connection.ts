/**
 * One HTTP/2 client connection (RFC 9113) for many small POSTs, written by hand over a socket.
 *
 * Requests handed to `start` wait unencoded until the next flush; a flush writes them all with one `write`, and the next flush
 * waits for that write's callback. So a request that has not been encoded has certainly not been sent and can be given back to
 * the pool at any moment, and the busier the connection is, the more requests share a write.
 *
 * The connection has no timers of its own: its owner calls `tick`. It never throws and never emits; it reports to its owner, and
 * its socket always has an error listener.
 */
import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { BodyWriter } from './body-writer.ts';
import {
  type ConnectionHandle,
  type Evidence,
  type Exchange,
  type NotProcessedCause,
  ResponseHeaders,
  type UnansweredCause,
} from './exchange.ts';
import { fewestRequests } from './flow-limit.ts';
import {
  type BufferPool,
  CLIENT_PREFACE,
  DEFAULT_MAX_FRAME_BYTES,
  DEFAULT_WINDOW_BYTES,
  ErrorCode,
  Flag,
  FRAME_HEADER_BYTES,
  FrameReader,
  FrameType,
  FrameWriter,
  Http2ProtocolError,
  LARGEST_MAX_FRAME_BYTES,
  LARGEST_WINDOW_BYTES,
  readSettings,
  readUint32,
  Setting,
  unpaddedEnd,
  writeFrameHeader,
} from './frames.ts';
import { type HeaderBlockHandler, HeaderBlockReader } from './header-block.ts';
import { roomFor, TemplateEncoder } from './header-template.ts';
import { HpackDecoder, HpackEncoder, HpackError } from './hpack.ts';
import type { ConnectionLimits } from './limits.ts';
import { ResponseReader } from './response-reader.ts';
import type { Opening } from './tunnel.ts';

/** What the connection tells its owner. None of these may throw. */
export interface ConnectionOwner {
  /** The peer's first SETTINGS have come. */
  connectionReady(connection: Http2Connection): void;
  /** The peer's first GOAWAY has come. */
  connectionToldToGo(connection: Http2Connection): void;
  /** `spare` may have grown, or requests came back. Called once for all that was read together. */
  connectionFreed(connection: Http2Connection): void;
  /** The connection takes no new requests: it is retired, got GOAWAY, or is out of stream ids. Called once. */
  connectionRetired(connection: Http2Connection): void;
  /** The last call. Every exchange has been settled or given back before it. */
  connectionClosed(connection: Http2Connection, ending: ConnectionEnding): void;
  /** The exchange was never written, and may go to another connection. */
  exchangeReturned(exchange: Exchange): void;
  exchangeAnswered(exchange: Exchange, isBodyWhole: boolean, connection: Http2Connection): void;
  exchangeNotProcessed(exchange: Exchange, cause: NotProcessedCause, evidence: Evidence): void;
  exchangeUnanswered(exchange: Exchange, cause: UnansweredCause, evidence: Evidence): void;
}

export interface ConnectionEnding {
  readonly cause: 'done' | 'connect_failed' | 'closed' | UnansweredCause;
  readonly error?: Error;
}

/** - `connecting`: until the peer's first SETTINGS. - `open`: until the end. - `closed`: nothing is reported any more. */
type State = 'connecting' | 'open' | 'closed';

const MAX_WRITE_BYTES = 256 * 1024;
const MAX_WAITING_CONTROL_BYTES = 1024 * 1024;
const MAX_GOAWAY_DEBUG_BYTES = 1024;
/** Octets that the peer may send on the whole connection before it is granted more. */
const RECEIVE_WINDOW_BYTES = 4 * 1024 * 1024;
/** How many answers to later requests, for each request under way, make a request count as lost. */
const OVERTAKEN_FACTOR = 3;

export class Http2Connection implements ConnectionHandle, HeaderBlockHandler {
  readonly id: number;
  /** Times are the owner's clock, in milliseconds. */
  readonly createdAt: number;
  /** Minus infinity: not yet. */
  readyAt = Number.NEGATIVE_INFINITY;
  lastUsedAt: number;
  lastReadAt: number;
  hasAnswered = false;
  isRetired = false;

  readonly #owner: ConnectionOwner;
  readonly #limits: ConnectionLimits;
  readonly #opening: Opening | undefined;
  /** Undefined until the tunnel stands. */
  #socket: Socket | undefined;
  readonly #clock: () => number;
  readonly #buffers: BufferPool;
  readonly #reader: FrameReader;
  readonly #writer: FrameWriter;
  readonly #bodies: BodyWriter;
  readonly #encoder = new HpackEncoder();
  readonly #templates = new TemplateEncoder(this.#encoder);
  readonly #blocks = new HeaderBlockReader(this);
  readonly #decoder: HpackDecoder;
  readonly #response = new ResponseReader();

  #state: State = 'connecting';
  /** Handed over, not yet encoded. */
  #waiting: Exchange[] = [];
  readonly #streams = new Map<number, Exchange>();
  #nextStreamId: number;
  #nextDeadlineAt = Number.POSITIVE_INFINITY;
  #answers = 0;
  #overtaken = 0;

  #isFlushScheduled = false;
  #isWriting = false;
  #writes = 0;
  #writesDone = 0;

  #peerMaxStreams = Number.POSITIVE_INFINITY;
  #receiveWindow = RECEIVE_WINDOW_BYTES;

  /** Since when there has always been a request in flight. */
  #busySince = 0;
  #pingSentAt = 0;
  #pings = 0;
  #drainUntil = Number.POSITIVE_INFINITY;
  #goaway: Pick<Evidence, 'goawayLastStreamId' | 'goawayErrorCode' | 'goawayDebug'> | undefined;
  #idleFrames = 0;
  #idleFramesSince: number;
  #hasFreed = false;

  /** @param socket just created, still connecting, or yet to be opened. From here on it belongs to this connection. */
  constructor(
    id: number,
    socket: Socket | Opening,
    owner: ConnectionOwner,
    limits: ConnectionLimits,
    buffers: BufferPool,
    clock: () => number,
  ) {
    this.id = id;
    this.#owner = owner;
    this.#limits = limits;
    this.#buffers = buffers;
    this.#clock = clock;
    this.createdAt = clock();
    this.lastUsedAt = this.createdAt;
    this.lastReadAt = this.createdAt;
    this.#idleFramesSince = this.createdAt;
    this.#nextStreamId = limits.firstStreamId;
    this.#reader = new FrameReader(this);
    this.#writer = new FrameWriter(buffers);
    this.#bodies = new BodyWriter(this.#writer);
    this.#decoder = new HpackDecoder({ maxHeaderListBytes: limits.maxHeaderListBytes });

    if ('cancel' in socket) {
      this.#opening = socket;
      socket.socket.then(
        (opened) => (this.#state === 'closed' ? opened.destroy() : this.#attach(opened)),
        (error: Error) => this.#end('connect_failed', error),
      );
    } else {
      this.#attach(socket);
    }
  }

  #attach(socket: Socket | TLSSocket): void {
    this.#socket = socket;
    socket.setNoDelay(true);
    const isTls = 'alpnProtocol' in socket;
    socket.once(isTls ? 'secureConnect' : 'connect', () => {
      if (isTls && socket.alpnProtocol !== 'h2') this.#end('connect_failed', new Error('the peer does not speak h2'));
      else this.#greet();
    });
    socket.on('data', (chunk: Buffer) => this.#read(chunk));
    socket.on('error', (error: Error) => this.#lost(error));
    socket.on('end', () => this.#lost(undefined));
    socket.on('close', () => this.#lost(undefined));
  }

  get isReady(): boolean {
    return this.#state === 'open' && !this.isRetired;
  }

  get isConnecting(): boolean {
    return this.#state === 'connecting';
  }

  /** When the unanswered PING was sent; 0: there is none. */
  get pingSentAt(): number {
    return this.#pingSentAt;
  }

  get inFlight(): number {
    return this.#streams.size + this.#waiting.length;
  }

  /** Streams that the connection can still open; 2^30 on a new one. */
  get streamIdsLeft(): number {
    return (LARGEST_WINDOW_BYTES - this.#nextStreamId + 2) / 2;
  }

  /** Less than a thousandth of the stream ids is left: time to open a replacement, while this connection still works. */
  get isNearlySpent(): boolean {
    return this.streamIdsLeft * 2000 < LARGEST_WINDOW_BYTES - this.#limits.firstStreamId;
  }

  /** How many more requests may be handed to `start` now. */
  get spare(): number {
    if (this.#state !== 'open' || this.isRetired) return 0;
    // A request written into a connection that has died unnoticed would be in doubt: a sign of life must come first.
    if (this.#pingSentAt > 0) return 0;
    if (!this.#bodies.isOpen) return 0;
    return Math.max(0, Math.min(this.#streamLimit - this.inFlight, this.streamIdsLeft - this.#waiting.length));
  }

  get #streamLimit(): number {
    return Math.min(this.#peerMaxStreams, this.#limits.maxStreams);
  }

  /** Takes the exchange over and reports it to the owner exactly once. Only while `spare` is above 0. */
  start(exchange: Exchange): void {
    if (this.inFlight === 0) this.#busySince = this.#clock();
    this.#waiting.push(exchange);
    const deadlineAt = exchange.since + this.#limits.queueTimeoutMs;
    if (deadlineAt < this.#nextDeadlineAt) this.#nextDeadlineAt = deadlineAt;
    this.#scheduleFlush();
  }

  /** Takes no new requests, lets those in flight end (bounded), then closes the connection. */
  retire(): void {
    if (this.#state === 'closed' || this.isRetired) return;
    this.isRetired = true;
    this.#drainUntil = this.#clock() + this.#limits.drainTimeoutMs;
    this.#giveBackWaiting();
    this.#owner.connectionRetired(this);
    this.#endWhenDone();
  }

  /** Ends the connection at once. Requests in flight are unanswered. */
  destroy(): void {
    this.#end('closed', undefined);
  }

  /** Asks for a sign of life; `spare` is 0 until it comes. */
  probe(): void {
    if (this.#state === 'open' && this.#pingSentAt === 0) this.#ping(this.#clock());
  }

  /**
   * Requests that no longer wait in the peer's queue: all on a connection that gives no sign of life, else those overtaken by so
   * many later requests that no answer is to be expected.
   */
  countLost(): number {
    if (this.#pingSentAt > 0) return this.inFlight;
    const waiting = Math.max(this.#streams.size - this.#overtaken, fewestRequests);
    const before = this.#answers - OVERTAKEN_FACTOR * waiting;
    this.#overtaken = 0;
    for (const exchange of this.#streams.values()) {
      // Exchanges are in the order of writing.
      if (exchange.answersBefore > before) break;
      this.#overtaken++;
    }
    return this.#overtaken;
  }

  /**
   * To be called at regular, short intervals.
   * @param patienceMs how long to wait for a sign of life after a PING, if more than `pingTimeoutMs`
   */
  tick(now: number, patienceMs = 0): void {
    if (this.#state === 'closed') return;
    if (this.#state === 'connecting') {
      if (now - this.createdAt < this.#limits.connectTimeoutMs) return;
      const error = Object.assign(new Error('connection not ready in time'), { code: 'ETIMEDOUT' });
      this.#end('connect_failed', error);
      return;
    }
    if (now >= this.#nextDeadlineAt) this.#expire(now);
    if (now - this.#idleFramesSince >= 1000) {
      this.#idleFrames = 0;
      this.#idleFramesSince = now;
    }
    if (now >= this.#drainUntil) this.#end('drain_timeout', undefined);
    else this.#checkLife(now, patienceMs);
  }

  #checkLife(now: number, patienceMs: number): void {
    if (this.#state !== 'open') return;
    if (this.#pingSentAt > 0) {
      const timeoutMs = Math.max(this.#limits.pingTimeoutMs, patienceMs);
      if (now - this.#pingSentAt >= timeoutMs) this.#end('ping_timeout', undefined);
      return;
    }
    if (this.inFlight === 0) {
      if (now - this.lastReadAt >= this.#limits.idlePingAfterMs) this.#ping(now);
    } else if (now - Math.max(this.lastReadAt, this.#busySince) >= this.#limits.pingAfterMs) {
      this.#ping(now);
    }
  }

  #ping(now: number): void {
    this.#pingSentAt = now;
    const data = Buffer.alloc(8);
    data.writeUInt32BE(++this.#pings, 4);
    this.#writer.ping(data);
    this.#scheduleFlush();
  }

  #expire(now: number): void {
    let next = Number.POSITIVE_INFINITY;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const exchange of waiting) {
      const deadlineAt = exchange.since + this.#limits.queueTimeoutMs;
      if (deadlineAt <= now) {
        this.#owner.exchangeNotProcessed(exchange, 'deadline', this.#evidence(undefined));
      } else {
        this.#waiting.push(exchange);
        next = Math.min(next, deadlineAt);
      }
    }
    for (const exchange of this.#streams.values()) {
      const deadlineAt = exchange.since + exchange.timeoutMs;
      if (deadlineAt <= now) {
        this.#cut(exchange, ErrorCode.cancel);
        this.#settleCut(exchange, 'deadline', undefined);
      } else {
        next = Math.min(next, deadlineAt);
      }
    }
    this.#nextDeadlineAt = next;
    this.#reportFreed();
  }

  // Writing

  #greet(): void {
    this.#writer.raw(CLIENT_PREFACE);
    // Bodies are cut at their limit, so a stream window above it never runs out and needs no updates.
    const streamWindow = Math.max(DEFAULT_WINDOW_BYTES, this.#limits.maxBodyBytes + DEFAULT_MAX_FRAME_BYTES);
    this.#writer.settings([
      [Setting.enablePush, 0],
      [Setting.initialWindowSize, streamWindow],
      [Setting.maxHeaderListSize, this.#limits.maxHeaderListBytes],
    ]);
    this.#writer.windowUpdate(0, RECEIVE_WINDOW_BYTES - DEFAULT_WINDOW_BYTES);
    this.#scheduleFlush();
  }

  #scheduleFlush(): void {
    if (this.#isFlushScheduled || this.#isWriting || this.#state === 'closed') return;
    this.#isFlushScheduled = true;
    // Not a microtask: all that this turn of the event loop reads and starts shall share one write.
    setImmediate(this.#flush);
  }

  readonly #flush = (): void => {
    this.#isFlushScheduled = false;
    if (this.#isWriting || this.#state === 'closed') return;
    if (this.#waiting.length > 0) this.#encodeWaiting();
    if (this.#writer.offset === 0) return;
    this.#writes++;
    this.#isWriting = true;
    const bytes = this.#writer.take();
    this.#socket!.write(bytes, () => {
      // Also on failure: the socket no longer reads the buffer, and the error has its own event.
      this.#buffers.release(bytes);
      this.#isWriting = false;
      this.#writesDone++;
      if (this.#waiting.length > 0 || this.#writer.offset > 0) this.#scheduleFlush();
    });
  };

  #encodeWaiting(): void {
    const waiting = this.#waiting;
    this.lastUsedAt = this.#clock();
    let taken = 0;
    while (taken < waiting.length && this.#mayOpen()) {
      if (this.#writer.offset >= MAX_WRITE_BYTES) {
        this.#waiting = waiting.slice(taken);
        return;
      }
      this.#open(waiting[taken++]!);
    }
    this.#waiting = [];
    // Limits and windows may have shrunk since these exchanges were taken.
    for (let i = taken; i < waiting.length; i++) this.#owner.exchangeReturned(waiting[i]!);
    if (taken < waiting.length) this.#owner.connectionFreed(this);
    if (this.streamIdsLeft < 1) this.retire();
  }

  #mayOpen(): boolean {
    return this.#streams.size < this.#streamLimit && this.#bodies.isOpen && this.streamIdsLeft >= 1;
  }

  #open(exchange: Exchange): void {
    const { template, path, ownValues, body } = exchange.request;
    const streamId = this.#nextStreamId;
    this.#nextStreamId += 2;
    exchange.streamId = streamId;
    // The request's time counts from here on; the pool times its wait before.
    exchange.since = this.lastUsedAt;
    exchange.answersBefore = this.#answers;
    const deadlineAt = exchange.since + exchange.timeoutMs;
    if (deadlineAt < this.#nextDeadlineAt) this.#nextDeadlineAt = deadlineAt;
    this.#streams.set(streamId, exchange);

    const writer = this.#writer;
    writer.reserve(FRAME_HEADER_BYTES + roomFor(template, path, ownValues));
    const blockAt = writer.offset + FRAME_HEADER_BYTES;
    const blockEnd = this.#templates.write(writer.buffer, blockAt, template, path, ownValues);
    const blockBytes = blockEnd - blockAt;
    if (blockBytes <= this.#bodies.maxFrameBytes) {
      const flags = body.length === 0 ? Flag.endHeaders | Flag.endStream : Flag.endHeaders;
      writeFrameHeader(writer.buffer, writer.offset, blockBytes, FrameType.headers, flags, streamId);
      writer.offset = blockEnd;
    } else {
      const block = Buffer.from(writer.buffer.subarray(blockAt, blockEnd));
      writer.headers(streamId, block, body.length === 0, this.#bodies.maxFrameBytes);
    }

    if (body.length === 0) exchange.lastWrite = this.#writes + 1;
    else this.#bodies.begin(exchange, body, this.#writes + 1);
  }

  #sendBlocked(): void {
    if (!this.#bodies.hasBlocked) return;
    this.#bodies.resume(this.#writes + 1);
    this.#scheduleFlush();
    if (!this.#bodies.hasBlocked) this.#hasFreed = true;
  }

  // Reading

  #read(chunk: Buffer): void {
    if (this.#state === 'closed') return;
    this.lastReadAt = this.#clock();
    if (this.#pingSentAt > 0) {
      this.#pingSentAt = 0;
      this.#hasFreed = true;
    }
    try {
      this.#reader.push(chunk);
    } catch (error) {
      this.#refuse(error);
      return;
    }
    this.#reportFreed();
  }

  #reportFreed(): void {
    if (this.#state === 'closed') return;
    if (this.isRetired) {
      this.#endWhenDone();
    } else if (this.#hasFreed) {
      this.#hasFreed = false;
      this.#owner.connectionFreed(this);
    }
  }

  /** For `FrameReader`. */
  frame(type: number, flags: number, streamId: number, buffer: Buffer, start: number, end: number): void {
    this.#blocks.checkTurn(type, streamId);
    if (this.#state === 'connecting' && (type !== FrameType.settings || (flags & Flag.ack) !== 0)) {
      throw new Http2ProtocolError(ErrorCode.protocolError, 'the first frame is not SETTINGS');
    }
    switch (type) {
      case FrameType.headers:
        this.#blocks.headers(flags, streamId, buffer, start, end);
        break;
      case FrameType.data:
        this.#onData(flags, streamId, buffer, start, end);
        break;
      case FrameType.windowUpdate:
        this.#onWindowUpdate(streamId, buffer, start, end);
        break;
      case FrameType.rstStream:
        this.#onReset(streamId, buffer, start, end);
        break;
      case FrameType.settings:
        this.#onSettings(flags, streamId, buffer, start, end);
        break;
      case FrameType.ping:
        this.#onPing(flags, streamId, buffer, start, end);
        break;
      case FrameType.goaway:
        this.#onGoaway(streamId, buffer, start, end);
        break;
      case FrameType.continuation:
        this.#countIdleFrame();
        this.#blocks.continuation(flags, streamId, buffer, start, end);
        break;
      case FrameType.pushPromise:
        throw new Http2ProtocolError(ErrorCode.protocolError, 'PUSH_PROMISE, which we have disabled');
      case FrameType.priority:
        if (streamId === 0) throw new Http2ProtocolError(ErrorCode.protocolError, 'PRIORITY on stream 0');
        this.#countIdleFrame();
        break;
      default:
        // Unknown types are ignored (RFC 9113 §4.1).
        this.#countIdleFrame();
        break;
    }
  }

  #countIdleFrame(): void {
    const allowed = this.#limits.maxIdleFramesPerSecond + 10 * this.#streams.size;
    if (++this.#idleFrames > allowed || this.#writer.offset > MAX_WAITING_CONTROL_BYTES) {
      throw new Http2ProtocolError(ErrorCode.enhanceYourCalm, 'too many frames that bring nothing forward');
    }
  }

  /**
   * The stream's exchange; undefined once the stream has ended. That is no error: frames of a stream that we cancelled may still
   * arrive.
   */
  #stream(streamId: number): Exchange | undefined {
    const exchange = this.#streams.get(streamId);
    if (exchange !== undefined) return exchange;
    if (streamId === 0 || (streamId & 1) === 0 || streamId >= this.#nextStreamId) {
      throw new Http2ProtocolError(ErrorCode.protocolError, `a frame for stream ${streamId}, which was never opened`);
    }
    this.#countIdleFrame();
    return undefined;
  }

  /** For `HeaderBlockReader`. */
  headerBlock(streamId: number, isEndStream: boolean, block: Buffer, start: number, end: number): void {
    const exchange = this.#stream(streamId);
    const response = this.#response;
    response.reset();
    // Decoded even when its exchange has ended: the table must see every block (RFC 9113 §4.3).
    this.#decoder.decode(block, start, end, response);
    if (exchange === undefined) return;

    if (exchange.status > 0) {
      // Trailers end the stream and carry no status. Their fields are not used.
      if (isEndStream && response.status === 0 && !response.isMalformed) this.#finish(exchange);
      else this.#cutMalformed(exchange);
      return;
    }
    const isInterim = response.status < 200;
    if (response.isMalformed || response.status === 0 || (isInterim && isEndStream)) {
      this.#cutMalformed(exchange);
      return;
    }
    if (isInterim) {
      this.#countIdleFrame();
      return;
    }
    exchange.status = response.status;
    exchange.headers = new ResponseHeaders(response.fields);
    if (isEndStream) this.#finish(exchange);
  }

  #onData(flags: number, streamId: number, buffer: Buffer, start: number, end: number): void {
    const exchange = this.#stream(streamId);
    const dataStart = (flags & Flag.padded) === 0 ? start : start + 1;
    const dataEnd = unpaddedEnd(flags, buffer, start, end);
    this.#receiveWindow -= end - start;
    if (this.#receiveWindow < 0) throw new Http2ProtocolError(ErrorCode.flowControlError, 'window exceeded');
    if (this.#receiveWindow < RECEIVE_WINDOW_BYTES / 2) {
      this.#writer.windowUpdate(0, RECEIVE_WINDOW_BYTES - this.#receiveWindow);
      this.#receiveWindow = RECEIVE_WINDOW_BYTES;
      this.#scheduleFlush();
    }
    if (exchange === undefined) return;
    if (exchange.status === 0) {
      this.#cutMalformed(exchange);
      return;
    }

    const isEndStream = (flags & Flag.endStream) !== 0;
    if (dataStart === dataEnd && !isEndStream) this.#countIdleFrame();
    exchange.received += end - start;
    const room = this.#limits.maxBodyBytes - exchange.body.length;
    if (dataEnd > dataStart) exchange.append(buffer.subarray(dataStart, Math.min(dataEnd, dataStart + room)));
    if (dataEnd - dataStart > room || exchange.received > this.#limits.maxBodyBytes + DEFAULT_MAX_FRAME_BYTES) {
      this.#cut(exchange, ErrorCode.cancel);
      this.#answer(exchange, false);
    } else if (isEndStream) {
      this.#finish(exchange);
    }
  }

  #onWindowUpdate(streamId: number, buffer: Buffer, start: number, end: number): void {
    if (end - start !== 4) throw new Http2ProtocolError(ErrorCode.frameSizeError, 'WINDOW_UPDATE length');
    const increment = readUint32(buffer, start) & LARGEST_WINDOW_BYTES;
    if (streamId === 0) {
      this.#countIdleFrame();
      const wasOpen = this.#bodies.isOpen;
      this.#bodies.grow(increment);
      if (!wasOpen) this.#hasFreed = true;
      this.#sendBlocked();
      return;
    }
    const exchange = this.#stream(streamId);
    if (exchange === undefined) return;
    this.#countIdleFrame();
    exchange.sendWindow += increment;
    if (increment === 0 || exchange.sendWindow > LARGEST_WINDOW_BYTES) {
      // A stream error (RFC 9113 §6.9, §6.9.1).
      const errorCode = increment === 0 ? ErrorCode.protocolError : ErrorCode.flowControlError;
      this.#cut(exchange, errorCode);
      this.#settleCut(exchange, 'malformed', errorCode);
    } else if (exchange.unsent !== undefined) {
      this.#sendBlocked();
    }
  }

  #onReset(streamId: number, buffer: Buffer, start: number, end: number): void {
    if (end - start !== 4) throw new Http2ProtocolError(ErrorCode.frameSizeError, 'RST_STREAM length');
    const exchange = this.#stream(streamId);
    if (exchange === undefined) return;
    const errorCode = readUint32(buffer, start);
    this.#forget(exchange);
    if (errorCode === ErrorCode.refusedStream && exchange.status === 0) {
      this.#owner.exchangeNotProcessed(exchange, 'refused', this.#evidence(exchange, { errorCode }));
    } else {
      this.#settleCut(exchange, 'reset', errorCode);
    }
  }

  #onSettings(flags: number, streamId: number, buffer: Buffer, start: number, end: number): void {
    if (streamId !== 0) throw new Http2ProtocolError(ErrorCode.protocolError, 'SETTINGS on a stream');
    this.#countIdleFrame();
    if ((flags & Flag.ack) !== 0) {
      if (end > start) throw new Http2ProtocolError(ErrorCode.frameSizeError, 'SETTINGS acknowledgement with payload');
      return;
    }
    readSettings(buffer, start, end, this.#applySetting);
    this.#writer.settingsAck();
    this.#scheduleFlush();
    this.#hasFreed = true;
    if (this.#state === 'connecting') {
      this.#state = 'open';
      this.readyAt = this.lastReadAt;
      this.#owner.connectionReady(this);
    }
    this.#sendBlocked();
  }

  readonly #applySetting = (setting: number, value: number): void => {
    switch (setting) {
      case Setting.headerTableSize:
        this.#encoder.setMaxTableSize(value);
        break;
      case Setting.enablePush:
        // A server may only send 0 (RFC 9113 §6.5.2).
        if (value !== 0) throw new Http2ProtocolError(ErrorCode.protocolError, 'ENABLE_PUSH from a server');
        break;
      case Setting.maxConcurrentStreams:
        this.#peerMaxStreams = value;
        break;
      case Setting.initialWindowSize:
        this.#bodies.setStreamWindow(value, this.#streams.values());
        break;
      case Setting.maxFrameSize:
        if (value < DEFAULT_MAX_FRAME_BYTES || value > LARGEST_MAX_FRAME_BYTES) {
          throw new Http2ProtocolError(ErrorCode.protocolError, 'MAX_FRAME_SIZE out of range');
        }
        this.#bodies.maxFrameBytes = value;
        break;
    }
  };

  #onPing(flags: number, streamId: number, buffer: Buffer, start: number, end: number): void {
    if (streamId !== 0) throw new Http2ProtocolError(ErrorCode.protocolError, 'PING on a stream');
    if (end - start !== 8) throw new Http2ProtocolError(ErrorCode.frameSizeError, 'PING length');
    this.#countIdleFrame();
    // Any octet read is the sign of life that our PING asked for, so the acknowledgement itself is not looked at.
    if ((flags & Flag.ack) !== 0) return;
    this.#writer.ping(buffer.subarray(start, end), true);
    this.#scheduleFlush();
  }

  #onGoaway(streamId: number, buffer: Buffer, start: number, end: number): void {
    if (streamId !== 0) throw new Http2ProtocolError(ErrorCode.protocolError, 'GOAWAY on a stream');
    if (end - start < 8) throw new Http2ProtocolError(ErrorCode.frameSizeError, 'GOAWAY length');
    this.#countIdleFrame();
    if (this.#goaway === undefined) this.#owner.connectionToldToGo(this);
    // The last id must not grow (RFC 9113 §6.8): a lower one has already let us send the streams above it again.
    const lastStreamId = Math.min(
      readUint32(buffer, start) & LARGEST_WINDOW_BYTES,
      this.#goaway?.goawayLastStreamId ?? LARGEST_WINDOW_BYTES,
    );
    this.#goaway = {
      goawayLastStreamId: lastStreamId,
      goawayErrorCode: readUint32(buffer, start + 4),
      goawayDebug: buffer.toString('utf8', start + 8, Math.min(end, start + 8 + MAX_GOAWAY_DEBUG_BYTES)),
    };
    this.retire();
    for (const exchange of this.#streams.values()) {
      if (exchange.streamId <= lastStreamId) continue;
      this.#forget(exchange);
      if (exchange.status > 0) this.#answer(exchange, false);
      else this.#owner.exchangeNotProcessed(exchange, 'goaway', this.#evidence(exchange));
    }
  }

  // Ends of streams

  #finish(exchange: Exchange): void {
    // A peer may answer without reading the whole request; the rest is not worth sending (RFC 9113 §8.1).
    if (exchange.unsent !== undefined) this.#cut(exchange, ErrorCode.cancel);
    else this.#forget(exchange);
    this.#answer(exchange, true);
  }

  #cutMalformed(exchange: Exchange): void {
    this.#cut(exchange, ErrorCode.protocolError);
    this.#settleCut(exchange, 'malformed', ErrorCode.protocolError);
  }

  #cut(exchange: Exchange, errorCode: number): void {
    this.#forget(exchange);
    this.#writer.rstStream(exchange.streamId, errorCode);
    this.#scheduleFlush();
  }

  #forget(exchange: Exchange): void {
    this.#streams.delete(exchange.streamId);
    this.#bodies.forget(exchange);
    this.#hasFreed = true;
  }

  /** The exchange's stream ended early. If a status had come, the exchange still counts as answered. */
  #settleCut(exchange: Exchange, cause: UnansweredCause, errorCode: number | undefined): void {
    if (exchange.status > 0) this.#answer(exchange, false);
    else
      this.#owner.exchangeUnanswered(
        exchange,
        cause,
        this.#evidence(exchange, errorCode === undefined ? {} : { errorCode }),
      );
  }

  #answer(exchange: Exchange, isBodyWhole: boolean): void {
    this.hasAnswered = true;
    this.#answers++;
    if (this.#idleFrames > 0) this.#idleFrames = Math.max(0, this.#idleFrames - 10);
    this.#owner.exchangeAnswered(exchange, isBodyWhole, this);
  }

  #evidence(exchange: Exchange | undefined, more: Partial<Evidence> = {}): Evidence {
    return {
      connectionId: this.id,
      ...(exchange === undefined ? {} : { streamId: exchange.streamId }),
      isFlushed: exchange !== undefined && exchange.lastWrite > 0 && exchange.lastWrite <= this.#writesDone,
      ...this.#goaway,
      ...more,
    };
  }

  // The end of the connection

  #giveBackWaiting(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const exchange of waiting) this.#owner.exchangeReturned(exchange);
  }

  #endWhenDone(): void {
    if (this.isRetired && this.inFlight === 0) this.#end('done', undefined);
  }

  #lost(error: Error | undefined): void {
    if (this.#state !== 'connecting') this.#end('connection_lost', error);
    else this.#end('connect_failed', error ?? new Error('the peer hung up before its first SETTINGS'));
  }

  /** Ends the connection over a rule that the peer broke, named in a GOAWAY (RFC 9113 §5.4.1). */
  #refuse(error: unknown): void {
    let errorCode: number = ErrorCode.internalError;
    if (error instanceof Http2ProtocolError) errorCode = error.errorCode;
    else if (error instanceof HpackError) errorCode = ErrorCode.compressionError;
    this.#end(
      this.#state === 'connecting' ? 'connect_failed' : 'protocol_error',
      error instanceof Error ? error : new Error(String(error)),
      errorCode,
    );
  }

  #end(cause: ConnectionEnding['cause'], error: Error | undefined, errorCode?: number): void {
    if (this.#state === 'closed') return;
    const wasOpen = this.#state === 'open';
    this.#state = 'closed';
    this.#reader.stop();
    this.#closeSocket(wasOpen && cause !== 'connection_lost' && cause !== 'ping_timeout', errorCode);

    this.#giveBackWaiting();
    const more: { error?: Error; errno?: string; errorCode?: number } = {};
    if (error !== undefined) more.error = error;
    if (error !== undefined && 'code' in error && typeof error.code === 'string') more.errno = error.code;
    if (errorCode !== undefined) more.errorCode = errorCode;
    const lost: UnansweredCause =
      cause === 'done' || cause === 'connect_failed' || cause === 'closed' ? 'connection_lost' : cause;
    for (const exchange of this.#streams.values()) {
      if (exchange.status > 0) this.#answer(exchange, false);
      else this.#owner.exchangeUnanswered(exchange, lost, this.#evidence(exchange, more));
    }
    this.#streams.clear();
    this.#bodies.clear();
    this.#owner.connectionClosed(this, error === undefined ? { cause } : { cause, error });
  }

  /** Sends a last GOAWAY where the peer may still read it, and gives the peer a second to take it. */
  #closeSocket(sayGoodbye: boolean, errorCode: number | undefined): void {
    const socket = this.#socket;
    if (socket === undefined) {
      this.#opening?.cancel();
      return;
    }
    if (!sayGoodbye && errorCode === undefined) {
      socket.destroy();
      return;
    }
    // Frames that were collected and not written stay unwritten: their requests have been reported as unwritten.
    this.#writer.take();
    this.#writer.goaway(0, errorCode ?? ErrorCode.noError);
    const patience = setTimeout(() => socket.destroy(), 1000);
    socket.once('close', () => clearTimeout(patience));
    socket.end(this.#writer.take(), () => socket.destroy());
  }
}
