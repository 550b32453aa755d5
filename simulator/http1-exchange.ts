/** HTTP/1.1 behind the same interface as HTTP/2, for FCM clients that negotiate no HTTP/2. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import type { Exchange, ListenerName, SimulatorConnection, TransportCounters } from './exchange.ts';
import { resetSocket } from './reset-socket.ts';

export class Http1Connection implements SimulatorConnection {
  readonly id: number;
  readonly listener: ListenerName;
  readonly protocol = 'http/1.1';
  readonly openedAtMs = Date.now();
  readonly highestStreamId = 0;
  readonly counters: TransportCounters;
  requests = 0;
  openStreams = 0;
  isClosed = false;
  session: unknown;
  /** Set by `goaway`: HTTP/1.1 says it by `connection: close` on the next answer. */
  isClosing = false;
  readonly #socket: TLSSocket;
  readonly #rawSocket: Socket;

  constructor(id: number, listener: ListenerName, socket: TLSSocket, rawSocket: Socket, counters: TransportCounters) {
    this.id = id;
    this.listener = listener;
    this.counters = counters;
    this.#socket = socket;
    this.#rawSocket = rawSocket;
  }

  /** HTTP/1.1 has no such setting. */
  setMaxConcurrentStreams(): void {}

  goaway(): void {
    this.isClosing = true;
    if (this.openStreams === 0) this.end();
  }

  reset(): void {
    resetSocket(this.#socket, this.#rawSocket);
  }

  end(): void {
    this.#socket.end();
  }

  blackHole(): void {
    this.#socket.pause();
    this.#rawSocket.pause();
  }
}

export class Http1Exchange implements Exchange {
  readonly connection: Http1Connection;
  readonly streamId = 0;
  readonly method: string;
  readonly path: string;
  readonly headers: readonly string[];
  readonly body: Buffer;
  readonly bodyBytes: number;
  isOpen = true;
  readonly #response: ServerResponse;

  constructor(connection: Http1Connection, request: IncomingMessage, response: ServerResponse, parts: Buffer[]) {
    this.connection = connection;
    this.#response = response;
    this.method = request.method ?? '';
    this.path = request.url ?? '';
    this.body = Buffer.concat(parts);
    this.bodyBytes = this.body.length;
    const headers = [':method', this.method, ':path', this.path];
    for (let i = 0; i < request.rawHeaders.length; i += 2) {
      headers.push(request.rawHeaders[i]!.toLowerCase(), request.rawHeaders[i + 1]!);
    }
    this.headers = headers;
    const counters = connection.counters;
    connection.requests++;
    connection.openStreams++;
    counters.inFlight++;
    counters.maxInFlight = Math.max(counters.maxInFlight, counters.inFlight);
    response.on('close', () => this.#ended());
  }

  respond(status: number, headers: readonly string[], body: Buffer | string = ''): void {
    if (!this.isOpen) return;
    this.#writeHead(status, [...headers, 'content-length', String(Buffer.byteLength(body))]);
    this.#response.end(body);
    this.#ended();
  }

  sendHead(status: number, headers: readonly string[]): void {
    if (!this.isOpen) return;
    this.#writeHead(status, headers);
    this.#response.flushHeaders();
  }

  sendBody(part: Buffer, isLast: boolean): void {
    if (!this.isOpen) return;
    if (isLast) {
      this.#response.end(part);
      this.#ended();
    } else this.#response.write(part);
  }

  resetStream(): void {
    this.connection.reset();
  }

  take(): boolean {
    return true;
  }

  abandon(): void {
    this.#ended();
  }

  #writeHead(status: number, headers: readonly string[]): void {
    if (this.connection.isClosing) this.#response.setHeader('connection', 'close');
    this.#response.sendDate = false;
    this.#response.statusCode = status;
    for (let i = 0; i < headers.length; i += 2) this.#response.setHeader(headers[i]!, headers[i + 1]!);
  }

  #ended(): void {
    if (!this.isOpen) return;
    this.isOpen = false;
    this.connection.openStreams--;
    this.connection.counters.inFlight--;
  }
}
