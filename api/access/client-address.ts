import type { Context } from 'hono';
import type { ApiDependencies } from '../dependencies.ts';

/**
 * Where a request came from: the other end of its connection, or what the outermost of our own proxies saw there. What stands
 * further left in `X-Forwarded-For` anybody can write. `Forwarded` is not read: a proxy passes on the one that it does not know.
 */
export function clientAddress({
  peerAddress,
  trustedProxies = 0,
}: Pick<ApiDependencies, 'peerAddress' | 'trustedProxies'>): (c: Context) => string | null {
  return (c) => {
    const peer = peerAddress?.(c)?.replace(/^::ffff:(?=\d)/, '') ?? null;
    if (trustedProxies === 0) return peer;
    const seen = (c.req.header('x-forwarded-for') ?? '').split(',');
    const address = seen[Math.max(seen.length - trustedProxies, 0)]!.trim();
    return /^[\da-fA-F.:[\]]{2,64}$/.test(address) ? address : peer;
  };
}
