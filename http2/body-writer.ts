/** Writes request bodies as far as the peer's windows allow, and the rest as the windows grow (RFC 9113 §5.2, §6.9). */
import type { Exchange } from './exchange.ts';
import {
  DEFAULT_MAX_FRAME_BYTES,
  DEFAULT_WINDOW_BYTES,
  ErrorCode,
  Flag,
  FrameType,
  type FrameWriter,
  Http2ProtocolError,
  LARGEST_WINDOW_BYTES,
} from './frames.ts';

export class BodyWriter {
  /** The peer's SETTINGS_MAX_FRAME_SIZE. */
  maxFrameBytes = DEFAULT_MAX_FRAME_BYTES;
  readonly #writer: FrameWriter;
  /** Octets that the whole connection may carry now. */
  #window = DEFAULT_WINDOW_BYTES;
  /** What a new stream begins with. */
  #streamWindow = DEFAULT_WINDOW_BYTES;
  /** Exchanges whose bodies wait for a window to grow, in order. */
  #blocked: Exchange[] = [];

  constructor(writer: FrameWriter) {
    this.#writer = writer;
  }

  /**
   * Whether the connection's window is open. A request begun while it is closed only queues here, where the pool cannot take it
   * back.
   */
  get isOpen(): boolean {
    return this.#window > 0;
  }

  get hasBlocked(): boolean {
    return this.#blocked.length > 0;
  }

  /** @param write number of the connection's `write` that will carry what is written now. */
  begin(exchange: Exchange, body: Uint8Array | string, write: number): void {
    exchange.sendWindow = this.#streamWindow;
    exchange.unsent = typeof body === 'string' ? Buffer.from(body, 'utf8') : body;
    this.#write(exchange, write);
    if (exchange.unsent !== undefined) this.#blocked.push(exchange);
  }

  /** Continues the bodies that wait. */
  resume(write: number): void {
    for (const exchange of this.#blocked) this.#write(exchange, write);
    this.#blocked = this.#blocked.filter((exchange) => exchange.unsent !== undefined);
  }

  /** For an exchange whose stream has ended: the rest of its body is not sent. */
  forget(exchange: Exchange): void {
    if (exchange.unsent !== undefined) this.#blocked = this.#blocked.filter((other) => other !== exchange);
  }

  clear(): void {
    this.#blocked = [];
  }

  /** WINDOW_UPDATE on stream 0. @throws {Http2ProtocolError} (RFC 9113 §6.9, §6.9.1) */
  grow(increment: number): void {
    if (increment === 0) throw new Http2ProtocolError(ErrorCode.protocolError, 'WINDOW_UPDATE of 0');
    this.#window += increment;
    if (this.#window > LARGEST_WINDOW_BYTES) {
      throw new Http2ProtocolError(ErrorCode.flowControlError, 'connection window too large');
    }
  }

  /** SETTINGS_INITIAL_WINDOW_SIZE, which changes open streams as well (RFC 9113 §6.9.2). @throws {Http2ProtocolError} */
  setStreamWindow(bytes: number, open: Iterable<Exchange>): void {
    if (bytes > LARGEST_WINDOW_BYTES) throw new Http2ProtocolError(ErrorCode.flowControlError, 'window too large');
    const change = bytes - this.#streamWindow;
    this.#streamWindow = bytes;
    for (const exchange of open) {
      exchange.sendWindow += change;
      if (exchange.sendWindow > LARGEST_WINDOW_BYTES) {
        throw new Http2ProtocolError(ErrorCode.flowControlError, 'stream window too large');
      }
    }
  }

  #write(exchange: Exchange, write: number): void {
    let rest = exchange.unsent!;
    while (rest.length > 0) {
      const bytes = Math.min(rest.length, this.#window, exchange.sendWindow, this.maxFrameBytes);
      if (bytes <= 0) {
        exchange.unsent = rest;
        return;
      }
      const isLast = bytes === rest.length;
      this.#writer.frame(
        FrameType.data,
        isLast ? Flag.endStream : 0,
        exchange.streamId,
        isLast ? rest : rest.subarray(0, bytes),
      );
      this.#window -= bytes;
      exchange.sendWindow -= bytes;
      if (isLast) break;
      rest = rest.subarray(bytes);
    }
    exchange.unsent = undefined;
    exchange.lastWrite = write;
  }
}
