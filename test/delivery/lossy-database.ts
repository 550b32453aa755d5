/** A TCP proxy before PostgreSQL that loses connections at the moment a test chooses. */

import type { AddressInfo } from 'node:net';
import { connect, createServer, type Socket } from 'node:net';

export interface LossyDatabase {
  /** The database's URL through the proxy. */
  url: string;
  /** Cuts every connection and takes no new one until `restore`. */
  cut(): void;
  restore(): void;
  /**
   * Lets one statement through that `matches`, then cuts its connection before (`sent: false`) or after (`sent: true`) PostgreSQL
   * has carried it out; the answer is lost in both cases. Matched against the bytes the client writes.
   */
  loseNext(matches: (text: string, connection: number) => boolean, sent: boolean): Promise<void>;
  /** Connections made so far. */
  readonly connections: number;
  close(): Promise<void>;
}

export async function startLossyDatabase(databaseUrl: string): Promise<LossyDatabase> {
  const target = new URL(databaseUrl);
  const open = new Set<Socket>();
  let isCut = false;
  let connections = 0;
  let trap: { matches: (text: string, connection: number) => boolean; sent: boolean; sprung: () => void } | undefined;

  const server = createServer((client) => {
    if (isCut) {
      client.resetAndDestroy();
      return;
    }
    connections += 1;
    const connection = connections;
    const upstream = connect(Number(target.port), target.hostname);
    let isSwallowing = false;
    for (const socket of [client, upstream]) {
      open.add(socket);
      socket.on('error', () => {});
      socket.once('close', () => {
        open.delete(socket);
        client.destroy();
        upstream.destroy();
      });
    }
    client.on('data', (data) => {
      const sprung = trap?.matches(data.toString('latin1'), connection) ? trap : undefined;
      if (!sprung) {
        upstream.write(data);
        return;
      }
      trap = undefined;
      isSwallowing = true;
      if (sprung.sent) upstream.write(data);
      else client.resetAndDestroy();
      // The first bytes back say that it was carried out.
      upstream.once('data', () => client.resetAndDestroy());
      client.once('close', () => sprung.sprung());
    });
    upstream.on('data', (data) => {
      if (!isSwallowing) client.write(data);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const own = new URL(databaseUrl);
  own.hostname = '127.0.0.1';
  own.port = String((server.address() as AddressInfo).port);

  return {
    url: own.href,
    get connections() {
      return connections;
    },
    cut() {
      isCut = true;
      for (const socket of open) socket.resetAndDestroy();
    },
    restore() {
      isCut = false;
    },
    loseNext: (matches, sent) =>
      new Promise((resolve) => {
        trap = { matches, sent, sprung: resolve };
      }),
    async close() {
      for (const socket of open) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
