/** What the tests of the HTTP/2 engine share: certificates, a template, a pool with short times, and patience. */
import assert from 'node:assert/strict';
import { ProviderTraffic } from '../../domain/provider-traffic.ts';
import type { Http2Request, Http2Response, Http2Result, NotProcessed, Unanswered } from '../../http2/exchange.ts';
import { HeaderTemplate } from '../../http2/header-template.ts';
import { Http2Pool, type Http2PoolOptions, type Http2PoolStats } from '../../http2/pool.ts';
import { createAuthority, createServerCertificate } from '../../simulator/certificates.ts';

export const authority = createAuthority('Test authority');
const server = createServerCertificate(authority);
export const serverTls = { cert: server.certificate, key: server.privateKey };

export const template = new HeaderTemplate({
  authority: 'push.test',
  fields: [
    { name: 'content-type', value: 'application/json' },
    { name: 'authorization', value: `bearer ${'abc'.repeat(60)}` },
  ],
  ownNames: ['apns-id'],
});

export type TestPool = Http2Pool & AsyncDisposable;

/**
 * A pool that trusts the test server, looks at its clock every 5 ms, and is closed at the end of its scope: its traffic must add up then.
 */
export function openPool(port: number, options: Partial<Http2PoolOptions> = {}): TestPool {
  const traffic = new ProviderTraffic();
  const pool = new Http2Pool({
    host: '127.0.0.1',
    port,
    tls: { ca: authority.certificate, servername: 'localhost' },
    tickMs: 5,
    requestTimeoutMs: 5000,
    // Most tests are about other things than how many requests the server takes.
    initialRequests: 1000,
    backoffMs: 10,
    maxConnectsPerMinute: 60_000,
    traffic,
    ...options,
  });
  return Object.assign(pool, {
    async [Symbol.asyncDispose]() {
      await pool.close(0);
      if (options.traffic === undefined) checkTraffic(traffic, pool.stats());
    },
  });
}

/** Of a pool that is closed, and the only one that counted there. */
function checkTraffic(traffic: ProviderTraffic, stats: Http2PoolStats): void {
  const sum = (counts: Iterable<number>) => Array.from(counts).reduce((a, b) => a + b, 0);
  assert.deepEqual(traffic.now, { requests: 0, connections: 0 });
  const { answered, notProcessed, unanswered, opened, resent, endings } = stats;
  assert.deepEqual(
    { answered, notProcessed, unanswered, opened, resent, endings },
    {
      answered: sum(traffic.answers),
      notProcessed: sum(Object.values(traffic.notProcessed)),
      unanswered: sum(Object.values(traffic.unanswered)),
      opened: traffic.connectionsOpened,
      resent: traffic.resent,
      endings: traffic.closed,
    },
  );
}

/** The n-th push; its number is in path, own value and body, so that a mix-up would be seen. */
export function push(n: number, more: Partial<Http2Request> = {}): Http2Request {
  return { template, path: `/3/device/${n}`, ownValues: [`id-${n}`], body: `{"n":${n}}`, ...more };
}

export function sendMany(pool: Http2Pool, count: number, more: Partial<Http2Request> = {}): Promise<Http2Result[]> {
  return Promise.all(Array.from({ length: count }, (_, n) => pool.send(push(n, more))));
}

export function assertResponse(result: Http2Result | undefined, status = 200): asserts result is Http2Response {
  assert.equal(result?.kind, 'response', JSON.stringify(result));
  assert.equal((result as Http2Response).status, status);
}

export function assertUnanswered(result: Http2Result | undefined, cause: string): asserts result is Unanswered {
  assert.equal(result?.kind, 'unanswered', JSON.stringify(result));
  assert.equal((result as Unanswered).cause, cause);
}

export function assertNotProcessed(result: Http2Result | undefined, cause: string): asserts result is NotProcessed {
  assert.equal(result?.kind, 'notProcessed', JSON.stringify(result));
  assert.equal((result as NotProcessed).cause, cause);
}

export function countKinds(results: readonly Http2Result[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { kind } of results) counts[kind] = (counts[kind] ?? 0) + 1;
  return counts;
}
