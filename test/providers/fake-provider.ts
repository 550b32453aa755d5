/** A small HTTPS server on Node's own HTTP/2, answering each request as the test says. Also speaks HTTP/1.1, for OAuth. */
import { constants, createSecureServer, type Http2ServerRequest, type Http2ServerResponse } from 'node:http2';
import type { AddressInfo, Socket } from 'node:net';
import { createAuthority, createServerCertificate } from '../../simulator/certificates.ts';

export interface FakeRequest {
  method: string;
  path: string;
  headers: Record<string, string>;
  body: string;
  /** Counts up from 1. */
  connection: number;
  /** Counts up from 1 over all requests. */
  number: number;
}

export interface FakeAnswer {
  status: number;
  /** A list is sent piece by piece. */
  body?: string | string[] | object;
  headers?: Record<string, string>;
  delayMs?: number;
}

/** `hang`: never answered. `refuse`: REFUSED_STREAM. `cancel`: RST_STREAM CANCEL. `reset`: the connection is torn down. */
export type FakeFault = 'hang' | 'refuse' | 'cancel' | 'reset';
export type FakeHandler = (request: FakeRequest) => FakeAnswer | FakeFault | Promise<FakeAnswer | FakeFault>;

export interface FakeProvider {
  url: string;
  ca: string;
  requests: FakeRequest[];
  /** May be changed at any time. */
  handler: FakeHandler;
  close(): Promise<void>;
}

const authority = createAuthority('test');
const identity = createServerCertificate(authority);

export async function startFakeProvider(
  handler: FakeHandler,
  options: { clientCa?: string; maxConcurrentStreams?: number } = {},
): Promise<FakeProvider> {
  const sockets = new Map<Socket, number>();
  const fake: FakeProvider = { url: '', ca: authority.certificate, requests: [], handler, close };
  const clientAuth =
    options.clientCa === undefined ? {} : { requestCert: true, rejectUnauthorized: true, ca: options.clientCa };
  const server = createSecureServer(
    {
      ...{ cert: identity.certificate, key: identity.privateKey, allowHTTP1: true, ...clientAuth },
      ...(options.maxConcurrentStreams && { settings: { maxConcurrentStreams: options.maxConcurrentStreams } }),
    },
    (request, response) => {
      void serve(request, response);
    },
  );
  server.on('secureConnection', (socket) => {
    sockets.set(socket, sockets.size + 1);
    socket.on('error', () => {});
  });
  server.on('session', (session) => session.on('error', () => {}));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  fake.url = `https://127.0.0.1:${(server.address() as AddressInfo).port}`;

  async function serve(request: Http2ServerRequest, response: Http2ServerResponse): Promise<void> {
    request.on('error', () => {});
    response.on('error', () => {});
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const socket = request.stream?.session?.socket ?? request.socket;
    // Node hands out a proxy of an HTTP/2 session's socket; its ports tell which one it is.
    const connection = [...sockets].find(([known]) => known.remotePort === socket.remotePort)?.[1] ?? 0;
    const received: FakeRequest = {
      method: request.method,
      path: request.url,
      headers: Object.fromEntries(Object.entries(request.headers).map(([name, value]) => [name, String(value)])),
      body: Buffer.concat(chunks).toString(),
      connection,
      number: fake.requests.length + 1,
    };
    fake.requests.push(received);
    const answer = await fake.handler(received);
    if (answer === 'hang') return;
    if (answer === 'refuse') return request.stream.close(constants.NGHTTP2_REFUSED_STREAM);
    if (answer === 'cancel') return request.stream.close(constants.NGHTTP2_CANCEL);
    if (answer === 'reset') return void [...sockets].find(([, number]) => number === connection)?.[0].destroy();
    if (answer.delayMs !== undefined) await new Promise((resolve) => setTimeout(resolve, answer.delayMs));
    response.writeHead(answer.status, { ...(answer.headers ?? {}) });
    const body = answer.body ?? '';
    if (Array.isArray(body))
      for (const piece of body as string[]) {
        response.write(piece);
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
    else response.write(typeof body === 'string' ? body : JSON.stringify(body));
    response.end();
  }

  async function close(): Promise<void> {
    for (const socket of sockets.keys()) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  }

  return fake;
}
