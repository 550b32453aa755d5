/** One TLS port of a fake provider: accepts connections, keeps a list of them, and hands on complete requests. */
import { createServer as createHttpServer } from 'node:http';
import { type AddressInfo, createServer as createTcpServer, type Socket } from 'node:net';
import { createServer as createTlsServer, type TLSSocket } from 'node:tls';
import type { AnswerQueue } from './answer-queue.ts';
import type { Certificate } from './certificates.ts';
import type { Exchange, ListenerName, SimulatorConnection, TransportCounters } from './exchange.ts';
import { Http1Connection, Http1Exchange } from './http1-exchange.ts';
import { Http2ServerConnection } from './http2-server.ts';

/**
 * What happens to new connections. `refuse`: reset at once; `stall`: TCP is accepted, TLS never spoken; `garbage`: bytes that are
 * no TLS, then the end; `goaway`: GOAWAY(0) right after the handshake.
 */
export const admissions = ['accept', 'refuse', 'stall', 'garbage', 'goaway'] as const;
export type Admission = (typeof admissions)[number];

/** Larger bodies are received and counted, but not kept. */
const maxBodyBytes = 64 * 1024;

export interface ListenerOptions {
  name: ListenerName;
  host: string;
  /** 0: any free port. */
  port: number;
  certificate: Certificate;
  authority: Certificate;
  allowsHttp1: boolean;
  requestsClientCertificate: boolean;
  counters: TransportCounters;
  answers: AnswerQueue;
  nextConnectionId(): number;
  /** MAX_CONCURRENT_STREAMS of the first SETTINGS of a new connection. */
  initialMaxConcurrentStreams(): number;
  onConnection(connection: SimulatorConnection, socket: TLSSocket): void;
  onRequest(exchange: Exchange): void;
}

export interface Listener {
  readonly name: ListenerName;
  readonly port: number;
  admission: Admission;
  connections(): SimulatorConnection[];
  close(): Promise<void>;
}

export async function startListener(options: ListenerOptions): Promise<Listener> {
  const connections = new Set<SimulatorConnection>();
  const rawSockets = new Map<number, Socket>();
  const http1Connections = new WeakMap<Socket, Http1Connection>();
  const state = { admission: 'accept' as Admission };
  const { answers } = options;
  const onRequest = (exchange: Exchange) => answers.addRequest(() => options.onRequest(exchange));

  const http1 = createHttpServer((request, response) => {
    const connection = http1Connections.get(request.socket);
    if (connection === undefined) return;
    const parts: Buffer[] = [];
    request.on('data', (part: Buffer) => parts.push(part));
    request.on('end', () => onRequest(new Http1Exchange(connection, request, response, parts)));
  });

  const tlsServer = createTlsServer({
    key: options.certificate.privateKey,
    cert: options.certificate.certificate + options.authority.certificate,
    ca: options.authority.certificate,
    requestCert: options.requestsClientCertificate,
    rejectUnauthorized: false,
    minVersion: 'TLSv1.2',
    ALPNProtocols: options.allowsHttp1 ? ['h2', 'http/1.1'] : ['h2'],
  });

  // TLS hides the TCP socket, and only that one can be reset, so it is found again by its port.
  const server = createTcpServer((rawSocket) => {
    const remotePort = rawSocket.remotePort ?? 0;
    rawSockets.set(remotePort, rawSocket);
    rawSocket.on('close', () => rawSockets.delete(remotePort));
    // A client may reset at any time; the client decides what that means for its requests.
    rawSocket.on('error', () => rawSocket.destroy());
    switch (state.admission) {
      case 'refuse':
        rawSocket.resetAndDestroy();
        break;
      case 'stall':
        rawSocket.pause();
        break;
      case 'garbage':
        rawSocket.end('HTTP/1.1 400 Bad Request\r\n\r\n');
        break;
      default:
        tlsServer.emit('connection', rawSocket);
    }
  });
  tlsServer.on('tlsClientError', (_error, socket) => socket.destroy());

  tlsServer.on('secureConnection', (socket: TLSSocket) => {
    const rawSocket = rawSockets.get(socket.remotePort ?? 0);
    if (rawSocket === undefined || rawSocket.destroyed) {
      socket.destroy();
      return;
    }
    options.counters.connectionsOpened++;
    const id = options.nextConnectionId();
    if (options.allowsHttp1 && socket.alpnProtocol !== 'h2') {
      const connection = new Http1Connection(id, options.name, socket, rawSocket, options.counters);
      http1Connections.set(socket, connection);
      connections.add(connection);
      socket.on('error', () => rawSocket.destroy());
      socket.on('close', () => {
        connection.isClosed = true;
        connections.delete(connection);
      });
      options.onConnection(connection, socket);
      http1.emit('connection', socket);
      return;
    }
    const connection = new Http2ServerConnection({
      id,
      listener: options.name,
      socket,
      rawSocket,
      maxConcurrentStreams: options.initialMaxConcurrentStreams(),
      maxBodyBytes,
      counters: options.counters,
      onRequest,
      onPing: (answer) => answers.addPing(answer),
      onClose: () => connections.delete(connection),
    });
    connections.add(connection);
    options.onConnection(connection, socket);
    if (state.admission === 'goaway') connection.goaway({ lastStreamId: 0, closesWhenDone: false });
  });

  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(options.port, options.host, resolve);
  });

  return {
    name: options.name,
    port: (server.address() as AddressInfo).port,
    get admission() {
      return state.admission;
    },
    set admission(admission: Admission) {
      state.admission = admission;
    },
    connections: () => [...connections],
    close: () =>
      new Promise((resolve) => {
        answers.close();
        server.close(() => resolve());
        for (const rawSocket of rawSockets.values()) rawSocket.destroy();
      }),
  };
}
