/** A real HTTP proxy on loopback that knows CONNECT and nothing else. */
import { once } from 'node:events';
import { createServer as createHttpServer } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import { type AddressInfo, connect, type Socket } from 'node:net';

export interface ConnectProxy extends AsyncDisposable {
  readonly port: number;
  /** Authorities asked for, in order. */
  readonly asked: string[];
  /** Tunnels opened. */
  tunnels: number;
  /** Answers CONNECT with this status instead of a tunnel; 0: never answers. */
  refusal: number | undefined;
}

export interface ConnectProxyOptions {
  /** The `proxy-authorization` that the proxy asks for. */
  authorization?: string;
  tls?: { cert: string; key: string };
}

export async function startConnectProxy({ authorization, tls }: ConnectProxyOptions = {}): Promise<ConnectProxy> {
  const sockets = new Set<Socket>();
  const keep = (socket: Socket) => {
    sockets.add(socket);
    socket.on('error', () => socket.destroy());
    socket.on('close', () => sockets.delete(socket));
  };
  const server = tls === undefined ? createHttpServer() : createHttpsServer(tls);
  server.on('connection', keep);
  const proxy: ConnectProxy = {
    get port() {
      return (server.address() as AddressInfo).port;
    },
    asked: [],
    tunnels: 0,
    refusal: undefined,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
  server.on('connect', (request, client: Socket, head: Buffer) => {
    keep(client);
    proxy.asked.push(request.url!);
    const isKnown = authorization === undefined || request.headers['proxy-authorization'] === authorization;
    const refusal = isKnown ? proxy.refusal : 407;
    if (refusal === 0) return;
    if (refusal !== undefined) {
      client.end(`HTTP/1.1 ${refusal} Refused\r\nContent-Length: 4\r\n\r\nno.\n`);
      return;
    }
    const { hostname, port } = new URL(`http://${request.url}`);
    const upstream = connect(Number(port), hostname, () => {
      proxy.tunnels++;
      client.write('HTTP/1.1 200 Connection established\r\n\r\n');
      upstream.write(head);
      upstream.pipe(client).pipe(upstream);
    });
    keep(upstream);
    client.on('close', () => upstream.destroy());
    upstream.on('close', () => client.destroy());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return proxy;
}
