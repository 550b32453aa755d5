/**
 * The server side of one HTTP/2 connection (RFC 9113) over node:tls, made for two things that node:http2 can't give: speed (many
 * small answers in one write) and misbehaviour on demand (any GOAWAY, any reset, silence). It is strict: a client that breaks the
 * protocol gets the GOAWAY that the RFC names, and the breach is counted.
 */
import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import {
  BufferPool,
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
} from '../http2/frames.ts';
import { HeaderBlockReader } from '../http2/header-block.ts';
import { HpackDecoder, HpackError } from '../http2/hpack.ts';
import type { GoawayOptions, ListenerName, SimulatorConnection, TransportCounters } from './exchange.ts';
import { Http2Exchange } from './http2-exchange.ts';
import { resetSocket } from './reset-socket.ts';
import { headerBlockBound, writeHeaderBlock } from './response-headers.ts';

/** As Apple's servers announce it. */
const maxHeaderListBytes = 8000;
const connectionWindowBytes = 16 * 1024 * 1024;
const pool = new BufferPool(64);

export interface Http2ServerConnectionOptions {
  id: number;
  listener: ListenerName;
  socket: TLSSocket;
  /** The TCP socket under the TLS socket: only this one can be reset. */
  rawSocket: Socket;
  maxConcurrentStreams: number;
  /** How much of a request's body is kept; the rest is received and dropped. */
  maxBodyBytes: number;
  counters: TransportCounters;
  /** Called once per request, when it was received in full. */
  onRequest(exchange: Http2Exchange): void;
  /** Decides when a PING is answered. */
  onPing(answer: () => void): void;
  onClose(): void;
}

export class Http2ServerConnection implements SimulatorConnection {
  readonly id: number;
  readonly listener: ListenerName;
  readonly protocol = 'h2';
  readonly openedAtMs = Date.now();
  readonly counters: TransportCounters;
  requests = 0;
  isClosed = false;
  session: unknown;
  highestStreamId = 0;
  highestTakenStreamId = 0;

  readonly #options: Http2ServerConnectionOptions;
  readonly #decoder = new HpackDecoder({ maxHeaderListBytes });
  readonly #reader: FrameReader;
  readonly #writer = new FrameWriter(pool);
  readonly #streams = new Map<number, Http2Exchange>();
  readonly #blocks = new HeaderBlockReader({
    headerBlock: (streamId, isEnd, data, start, end) => this.#openStream(streamId, isEnd, data, start, end),
  });

  #streamLimit: number;
  /** Limits sent and not yet acknowledged, in order. */
  readonly #unacknowledgedLimits: number[] = [];
  #goawayLastStreamId = LARGEST_WINDOW_BYTES;
  #closesWhenDone = false;
  #isBlackHole = false;

  #peerInitialWindow = DEFAULT_WINDOW_BYTES;
  #sendWindow = DEFAULT_WINDOW_BYTES;
  #receiveWindow = connectionWindowBytes;

  /** Answered requests whose answers have not left yet: they are in flight until then. */
  #answered = 0;
  #isReading = false;
  #isFlushPlanned = false;

  constructor(options: Http2ServerConnectionOptions) {
    this.id = options.id;
    this.listener = options.listener;
    this.counters = options.counters;
    this.#options = options;
    this.#streamLimit = options.maxConcurrentStreams;
    this.#reader = new FrameReader(
      { frame: (type, flags, streamId, data, start, end) => this.#readFrame(type, flags, streamId, data, start, end) },
      { expectsPreface: true },
    );
    options.socket.setNoDelay(true);
    options.socket.on('data', (chunk: Buffer) => this.#receive(chunk));
    // A client may reset at any time; the client decides what that means for its requests.
    options.socket.on('error', () => options.rawSocket.destroy());
    options.socket.on('close', () => this.#closed());
    options.rawSocket.on('close', () => this.#closed());
    this.#writer.settings([
      [Setting.headerTableSize, 4096],
      [Setting.maxConcurrentStreams, options.maxConcurrentStreams],
      [Setting.initialWindowSize, DEFAULT_WINDOW_BYTES],
      [Setting.maxFrameSize, DEFAULT_MAX_FRAME_BYTES],
      [Setting.maxHeaderListSize, maxHeaderListBytes],
    ]);
    this.#unacknowledgedLimits.push(options.maxConcurrentStreams);
    this.#writer.windowUpdate(0, connectionWindowBytes - DEFAULT_WINDOW_BYTES);
    this.#flush();
  }

  get openStreams(): number {
    return this.#streams.size;
  }

  setMaxConcurrentStreams(limit: number): void {
    if (this.isClosed) return;
    this.#writer.settings([[Setting.maxConcurrentStreams, limit]]);
    this.#unacknowledgedLimits.push(limit);
    // A higher limit holds at once; a lower one only binds a client that has been told.
    if (limit > this.#streamLimit) this.#streamLimit = limit;
    this.planFlush();
  }

  goaway(options: GoawayOptions): void {
    if (this.isClosed) return;
    const wanted = Math.max(options.lastStreamId ?? this.highestStreamId, this.highestTakenStreamId);
    const lastStreamId = Math.min(wanted, this.#goawayLastStreamId);
    this.#goawayLastStreamId = lastStreamId;
    this.#writer.goaway(lastStreamId, options.errorCode ?? ErrorCode.noError, options.debugData);
    for (const [streamId, exchange] of this.#streams) {
      if (streamId <= lastStreamId) continue;
      this.counters.droppedByGoaway++;
      exchange.isDisowned = true;
      exchange.abandon();
    }
    this.#closesWhenDone = options.closesWhenDone ?? true;
    this.planFlush();
    this.#closeIfDone();
  }

  reset(): void {
    if (this.isClosed) return;
    // Answers already given have left; the network decides whether they arrive before the RST, as in life.
    this.#flush();
    this.#reader.stop();
    resetSocket(this.#options.socket, this.#options.rawSocket);
    this.#closed();
  }

  end(): void {
    if (this.isClosed) return;
    this.#flush();
    this.#reader.stop();
    this.#abandonAll();
    this.#options.socket.end();
  }

  blackHole(): void {
    if (this.isClosed) return;
    this.#flush();
    this.#isBlackHole = true;
    this.#reader.stop();
    // The server stops reading and so would never notice the client's end of the connection: its requests end here.
    this.#abandonAll();
    this.#options.socket.pause();
    this.#options.rawSocket.pause();
  }

  // The next four members are for Http2Exchange.

  writeHead(streamId: number, status: number, headers: readonly string[], isEnd: boolean): void {
    const writer = this.#writer;
    writer.reserve(FRAME_HEADER_BYTES + headerBlockBound(headers));
    const start = writer.offset + FRAME_HEADER_BYTES;
    const end = writeHeaderBlock(writer.buffer, start, status, headers);
    const flags = isEnd ? Flag.endHeaders | Flag.endStream : Flag.endHeaders;
    writeFrameHeader(writer.buffer, writer.offset, end - start, FrameType.headers, flags, streamId);
    writer.offset = end;
    this.planFlush();
  }

  /** Sends as much of the exchange's waiting body as both windows allow. */
  pump(exchange: Http2Exchange): void {
    const body = exchange.outgoing;
    if (body === undefined) return;
    let at = 0;
    do {
      const room = Math.min(this.#sendWindow, exchange.sendWindow, DEFAULT_MAX_FRAME_BYTES);
      if (room <= 0 && body.length > 0) {
        exchange.outgoing = body.subarray(at);
        return;
      }
      const part = body.subarray(at, at + room);
      at += part.length;
      const isEnd = at === body.length && exchange.outgoingIsLast;
      this.#writer.frame(FrameType.data, isEnd ? Flag.endStream : 0, exchange.streamId, part);
      exchange.sendWindow -= part.length;
      this.#sendWindow -= part.length;
    } while (at < body.length);
    exchange.outgoing = undefined;
    this.planFlush();
    if (exchange.outgoingIsLast) exchange.close();
  }

  writeReset(streamId: number, code: number): void {
    this.#writer.rstStream(streamId, code);
    this.planFlush();
  }

  forget(streamId: number, wasReceived: boolean): void {
    this.#streams.delete(streamId);
    if (wasReceived) {
      this.#answered++;
      this.planFlush();
    }
    this.#closeIfDone();
  }

  /** Sends all that this turn of the event loop writes together. */
  planFlush(): void {
    if (this.#isReading || this.#isFlushPlanned) return;
    this.#isFlushPlanned = true;
    setImmediate(() => {
      this.#isFlushPlanned = false;
      this.#flush();
    });
  }

  #flush(): void {
    this.counters.inFlight -= this.#answered;
    this.#answered = 0;
    if (this.#writer.offset === 0) return;
    if (this.isClosed || this.#isBlackHole || !this.#options.socket.writable) {
      this.#writer.offset = 0;
      return;
    }
    const bytes = this.#writer.take();
    this.#options.socket.write(bytes, () => pool.release(bytes));
  }

  #closeIfDone(): void {
    if (!this.#closesWhenDone || this.#streams.size > 0 || this.isClosed) return;
    this.#closesWhenDone = false;
    this.end();
  }

  #closed(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.#reader.stop();
    this.#abandonAll();
    this.#flush();
    this.#options.rawSocket.destroy();
    this.#options.socket.destroy();
    this.#options.onClose();
  }

  #abandonAll(): void {
    for (const exchange of [...this.#streams.values()]) exchange.abandon();
  }

  #receive(chunk: Buffer): void {
    this.#isReading = true;
    try {
      this.#reader.push(chunk);
      if (this.#receiveWindow < connectionWindowBytes / 2) {
        this.#writer.windowUpdate(0, connectionWindowBytes - this.#receiveWindow);
        this.#receiveWindow = connectionWindowBytes;
      }
    } catch (error) {
      this.#fail(error);
    } finally {
      this.#isReading = false;
      this.#flush();
    }
  }

  #fail(error: unknown): void {
    if (!(error instanceof Http2ProtocolError || error instanceof HpackError)) throw error;
    const errorCode = error instanceof Http2ProtocolError ? error.errorCode : ErrorCode.compressionError;
    this.counters.protocolErrors++;
    this.counters.lastProtocolError = `connection ${this.id}: ${error.message}`;
    this.goaway({ errorCode, debugData: error.message, closesWhenDone: false });
    this.end();
  }

  #readFrame(type: number, flags: number, streamId: number, data: Buffer, start: number, end: number): void {
    this.#blocks.checkTurn(type, streamId);
    switch (type) {
      case FrameType.data:
        this.#readData(flags, streamId, data, start, end);
        break;
      case FrameType.headers:
        this.#blocks.headers(flags, streamId, data, start, end);
        break;
      case FrameType.continuation:
        this.#blocks.continuation(flags, streamId, data, start, end);
        break;
      case FrameType.rstStream:
        this.#checkStream(streamId, 'RST_STREAM');
        if (end - start !== 4) throw new Http2ProtocolError(ErrorCode.frameSizeError, 'RST_STREAM length');
        this.#streams.get(streamId)?.abandon();
        break;
      case FrameType.settings:
        if (streamId !== 0) throw new Http2ProtocolError(ErrorCode.protocolError, 'SETTINGS on a stream');
        if (flags & Flag.ack) this.#readSettingsAck(end - start);
        else {
          readSettings(data, start, end, (id, value) => this.#applyPeerSetting(id, value));
          this.#writer.settingsAck();
        }
        break;
      case FrameType.ping:
        if (streamId !== 0) throw new Http2ProtocolError(ErrorCode.protocolError, 'PING on a stream');
        if (end - start !== 8) throw new Http2ProtocolError(ErrorCode.frameSizeError, 'PING length');
        if ((flags & Flag.ack) === 0) this.#readPing(Buffer.from(data.subarray(start, end)));
        break;
      case FrameType.windowUpdate:
        this.#readWindowUpdate(streamId, data, start, end);
        break;
      case FrameType.pushPromise:
        throw new Http2ProtocolError(ErrorCode.protocolError, 'a client must not push');
      default:
        // Apple ignores PRIORITY, a client's GOAWAY ends nothing, and unknown types must be ignored.
        break;
    }
  }

  #readPing(payload: Buffer): void {
    this.#options.onPing(() => {
      if (this.isClosed) return;
      this.#writer.ping(payload, true);
      this.planFlush();
    });
  }

  /** For a frame that only makes sense on an opened stream. */
  #checkStream(streamId: number, frameName: string): void {
    if (streamId === 0) throw new Http2ProtocolError(ErrorCode.protocolError, `${frameName} on stream 0`);
    if (streamId > this.highestStreamId) {
      throw new Http2ProtocolError(ErrorCode.protocolError, `${frameName} on an idle stream`);
    }
  }

  #openStream(streamId: number, isEnd: boolean, data: Buffer, start: number, end: number): void {
    if (streamId % 2 === 0) throw new Http2ProtocolError(ErrorCode.protocolError, `HEADERS on stream ${streamId}`);
    const headers: string[] = [];
    const fits = this.#decoder.decode(data, start, end, { header: (name, value) => headers.push(name, value) });
    if (streamId <= this.highestStreamId) {
      this.#readTrailers(streamId, isEnd);
      return;
    }
    this.highestStreamId = streamId;
    if (streamId > this.#goawayLastStreamId) {
      this.counters.droppedByGoaway++;
      return;
    }
    if (this.#streams.size >= this.#streamLimit) {
      this.counters.refusedStreams++;
      this.writeReset(streamId, ErrorCode.refusedStream);
      return;
    }
    const exchange = new Http2Exchange(this, streamId, headers, this.#peerInitialWindow);
    this.#streams.set(streamId, exchange);
    if (!fits) exchange.respond(431, []);
    else if (isEnd) this.#complete(exchange);
  }

  #readTrailers(streamId: number, isEnd: boolean): void {
    const open = this.#streams.get(streamId);
    // After we refused or reset a stream its trailers may still arrive.
    if (open === undefined) return;
    if (open.isReceived) throw new Http2ProtocolError(ErrorCode.streamClosed, `HEADERS on closed stream ${streamId}`);
    if (!isEnd) throw new Http2ProtocolError(ErrorCode.protocolError, 'trailers that do not end the stream');
    this.#complete(open);
  }

  #readData(flags: number, streamId: number, data: Buffer, start: number, end: number): void {
    this.#checkStream(streamId, 'DATA');
    const size = end - start;
    this.#receiveWindow -= size;
    if (this.#receiveWindow < 0) throw new Http2ProtocolError(ErrorCode.flowControlError, 'connection window exceeded');
    const from = (flags & Flag.padded) === 0 ? start : start + 1;
    const to = unpaddedEnd(flags, data, start, end);
    const exchange = this.#streams.get(streamId);
    // A stream that was refused or reset may still have frames under way.
    if (exchange === undefined) return;
    if (exchange.isReceived) throw new Http2ProtocolError(ErrorCode.streamClosed, `DATA on closed stream ${streamId}`);
    exchange.receiveWindow -= size;
    if (exchange.receiveWindow < 0) throw new Http2ProtocolError(ErrorCode.flowControlError, 'stream window exceeded');
    exchange.addBody(data, from, to, this.#options.maxBodyBytes);
    if (flags & Flag.endStream) this.#complete(exchange);
    else if (exchange.receiveWindow < DEFAULT_WINDOW_BYTES / 2) {
      this.#writer.windowUpdate(streamId, DEFAULT_WINDOW_BYTES - exchange.receiveWindow);
      exchange.receiveWindow = DEFAULT_WINDOW_BYTES;
    }
  }

  #complete(exchange: Http2Exchange): void {
    exchange.isReceived = true;
    this.requests++;
    const counters = this.counters;
    counters.inFlight++;
    if (counters.inFlight > counters.maxInFlight) counters.maxInFlight = counters.inFlight;
    this.#options.onRequest(exchange);
  }

  #readSettingsAck(length: number): void {
    if (length > 0) throw new Http2ProtocolError(ErrorCode.frameSizeError, 'SETTINGS ACK with a payload');
    const limit = this.#unacknowledgedLimits.shift();
    // A later, larger limit that is still under way has already been granted.
    if (limit !== undefined) this.#streamLimit = Math.max(limit, ...this.#unacknowledgedLimits);
  }

  #applyPeerSetting(id: number, value: number): void {
    if (id === Setting.initialWindowSize) {
      if (value > LARGEST_WINDOW_BYTES) {
        throw new Http2ProtocolError(ErrorCode.flowControlError, 'INITIAL_WINDOW_SIZE above 2^31-1');
      }
      const change = value - this.#peerInitialWindow;
      this.#peerInitialWindow = value;
      for (const exchange of this.#streams.values()) exchange.sendWindow += change;
      if (change > 0) this.#pumpAll();
    } else if (id === Setting.maxFrameSize) {
      // The simulator sends no frame above the default, so the value only has to be legal.
      if (value < DEFAULT_MAX_FRAME_BYTES || value > LARGEST_MAX_FRAME_BYTES) {
        throw new Http2ProtocolError(ErrorCode.protocolError, 'MAX_FRAME_SIZE out of range');
      }
    } else if (id === Setting.enablePush && value > 1) {
      throw new Http2ProtocolError(ErrorCode.protocolError, 'ENABLE_PUSH out of range');
    }
  }

  #readWindowUpdate(streamId: number, data: Buffer, start: number, end: number): void {
    if (end - start !== 4) throw new Http2ProtocolError(ErrorCode.frameSizeError, 'WINDOW_UPDATE length');
    const increment = readUint32(data, start) & LARGEST_WINDOW_BYTES;
    if (streamId === 0) {
      if (increment === 0) throw new Http2ProtocolError(ErrorCode.protocolError, 'WINDOW_UPDATE of 0');
      this.#sendWindow += increment;
      if (this.#sendWindow > LARGEST_WINDOW_BYTES) {
        throw new Http2ProtocolError(ErrorCode.flowControlError, 'connection window above 2^31-1');
      }
      this.#pumpAll();
      return;
    }
    this.#checkStream(streamId, 'WINDOW_UPDATE');
    const exchange = this.#streams.get(streamId);
    if (exchange === undefined) return;
    exchange.sendWindow += increment;
    if (increment === 0 || exchange.sendWindow > LARGEST_WINDOW_BYTES) {
      exchange.resetStream(increment === 0 ? ErrorCode.protocolError : ErrorCode.flowControlError);
    } else this.pump(exchange);
  }

  #pumpAll(): void {
    for (const exchange of [...this.#streams.values()]) this.pump(exchange);
  }
}
