import { createServer } from 'node:net';

const chosen = new Set<number>();

/**
 * A TCP port on loopback that was free a moment ago: `preferred` when it can be had, otherwise any. The same port is
 * never handed out twice by one process, even before its first user has bound it.
 */
export async function findFreePort(preferred?: number): Promise<number> {
  if (preferred !== undefined && !chosen.has(preferred) && (await canListen(preferred)) !== undefined) {
    chosen.add(preferred);
    return preferred;
  }
  for (;;) {
    const port = await canListen(0);
    if (port !== undefined && !chosen.has(port)) {
      chosen.add(port);
      return port;
    }
  }
}

function canListen(port: number): Promise<number | undefined> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(undefined));
    server.listen({ port, host: '127.0.0.1', exclusive: true }, () => {
      const address = server.address();
      server.close(() => resolve(typeof address === 'object' && address ? address.port : undefined));
    });
  });
}
