import type { MiddlewareHandler } from 'hono';
import { pause } from '../../domain/pause.ts';
import type { ApiDependencies } from '../dependencies.ts';
import { ApiError } from '../http/api-error.ts';
import type { ApiEnv } from '../http/env.ts';

/** Those who were let in, by key or subject. Beyond it all begin anew, which costs a second of their limits. */
const maxBuckets = 10_000;

const never = new AbortController().signal;

interface Bucket {
  tokens: number;
  at: number;
}

/**
 * So many requests a second for each key or subject in this process, a second's worth of them at once. Says how many are left by the
 * header fields of draft-ietf-httpapi-ratelimit-headers-10.
 * @throws {ApiError} 429 rate_limited, with the seconds until the next
 */
export function limitRequests(deps: ApiDependencies): MiddlewareHandler<ApiEnv> {
  const { keyRequestsPerSecond = 0, elapsedMs = () => performance.now(), stopping = never } = deps;
  const buckets = new Map<string, Bucket>();

  /** What is left after this request; negative where there was nothing. */
  function take(name: string, rate: number): number {
    const now = elapsedMs();
    const { tokens, at } = buckets.get(name) ?? { tokens: rate, at: now };
    const left = Math.min(rate, tokens + ((now - at) / 1_000) * rate) - 1;
    if (buckets.size >= maxBuckets) buckets.clear();
    buckets.set(name, { tokens: left < 0 ? left + 1 : left, at: now });
    return left;
  }

  return async function limitRequests(c, next) {
    const { kind, subject, requestsPerSecond: rate = keyRequestsPerSecond } = c.var.caller;
    const name = `${kind} ${subject}`;
    c.set('awaitTurn', async () => {
      while (rate > 0 && !stopping.aborted && take(name, rate) < 0) await pause(1_000 / rate, stopping);
    });
    if (rate === 0) return next();
    const left = take(name, rate);
    c.header('RateLimit-Policy', `"key";q=${rate};w=1`);
    c.header('RateLimit', `"key";r=${Math.max(Math.floor(left), 0)};t=1`);
    if (left < 0) {
      throw new ApiError(429, 'rate_limited', `The key may ask ${rate} times a second.`, {
        headers: { 'Retry-After': '1' },
      });
    }
    return next();
  };
}
