/** One HTTP/2 request and its answer. */
import { DEFAULT_WINDOW_BYTES } from '../http2/frames.ts';
import { type Exchange, findHeader } from './exchange.ts';
import type { Http2ServerConnection } from './http2-server.ts';

const noBytes: Buffer = Buffer.alloc(0);

export class Http2Exchange implements Exchange {
  readonly connection: Http2ServerConnection;
  readonly streamId: number;
  readonly headers: readonly string[];
  body = noBytes;
  bodyBytes = 0;
  isReceived = false;
  isOpen = true;
  /** A GOAWAY has called the request unprocessed. */
  isDisowned = false;
  receiveWindow = DEFAULT_WINDOW_BYTES;
  sendWindow: number;
  /** The rest of the answer's body, where the client's windows were too small for it. */
  outgoing: Buffer | undefined;
  outgoingIsLast = false;

  constructor(connection: Http2ServerConnection, streamId: number, headers: readonly string[], sendWindow: number) {
    this.connection = connection;
    this.streamId = streamId;
    this.headers = headers;
    this.sendWindow = sendWindow;
  }

  get method(): string {
    return findHeader(this.headers, ':method') ?? '';
  }

  get path(): string {
    return findHeader(this.headers, ':path') ?? '';
  }

  /** Keeps a copy of `data[start, end)`, up to `maxBytes` in all. */
  addBody(data: Buffer, start: number, end: number, maxBytes: number): void {
    this.bodyBytes += end - start;
    if (this.bodyBytes > maxBytes) return;
    const part = Buffer.from(data.subarray(start, end));
    this.body = this.body.length === 0 ? part : Buffer.concat([this.body, part]);
  }

  take(): boolean {
    if (this.isDisowned) return false;
    this.connection.highestTakenStreamId = Math.max(this.connection.highestTakenStreamId, this.streamId);
    return true;
  }

  respond(status: number, headers: readonly string[], body?: Buffer | string): void {
    if (!this.isOpen) return;
    const isEmpty = body === undefined || body.length === 0;
    this.connection.writeHead(this.streamId, status, headers, isEmpty);
    if (isEmpty) this.close();
    else this.sendBody(typeof body === 'string' ? Buffer.from(body, 'utf8') : body, true);
  }

  sendHead(status: number, headers: readonly string[]): void {
    if (this.isOpen) this.connection.writeHead(this.streamId, status, headers, false);
  }

  sendBody(part: Buffer, isLast: boolean): void {
    if (!this.isOpen) return;
    this.outgoing = this.outgoing === undefined ? part : Buffer.concat([this.outgoing, part]);
    this.outgoingIsLast = isLast;
    this.connection.pump(this);
  }

  resetStream(code: number): void {
    if (!this.isOpen) return;
    this.connection.writeReset(this.streamId, code);
    this.close();
  }

  abandon(): void {
    this.close();
  }

  /** The stream has ended, one way or another. */
  close(): void {
    if (!this.isOpen) return;
    this.isOpen = false;
    this.connection.forget(this.streamId, this.isReceived);
  }
}
