import { randomInt } from 'node:crypto';
import { createServer } from 'node:net';

/** Below the ports that systems give to outgoing connections: such a connection could take the port before its first use. */
const [firstPort, lastPort] = [20_000, 29_999];
const maxAttempts = 1_000;
const chosen = new Set<number>();

/**
 * A TCP port on loopback that was free a moment ago: `preferred` if it is free, otherwise any. One process never gets the same
 * port twice, even before the port's first user has bound it.
 */
export async function findFreePort(preferred?: number): Promise<number> {
  if (preferred !== undefined && (await take(preferred))) return preferred;
  for (let attempt = 0; attempt < maxAttempts; attempt++) {
    const port = randomInt(firstPort, lastPort + 1);
    if (await take(port)) return port;
  }
  throw new Error(`no free port was found between ${firstPort} and ${lastPort}`);
}

async function take(port: number): Promise<boolean> {
  if (chosen.has(port)) return false;
  chosen.add(port);
  if (await canListen(port)) return true;
  chosen.delete(port);
  return false;
}

function canListen(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen({ port, host: '127.0.0.1', exclusive: true }, () => server.close(() => resolve(true)));
  });
}
