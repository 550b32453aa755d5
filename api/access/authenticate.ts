import type { MiddlewareHandler } from 'hono';
import { findApiKey } from '../../db/api-keys.ts';
import { findAppByName } from '../../db/apps.ts';
import type { ApiDependencies } from '../dependencies.ts';
import { ApiError } from '../http/api-error.ts';
import type { ApiEnv, Caller } from '../http/env.ts';
import { clientAddress } from './client-address.ts';

const maxCachedKeys = 1_000;

/**
 * Every route behind it needs `Authorization: Bearer <API key or JWT>`. A key is looked up by its hash, so timing tells nothing;
 * a key that was found is believed for `keyCacheTtlMs`, which is also how long a revoked key may live on; an expired one does not.
 */
export const authenticate = (deps: ApiDependencies): MiddlewareHandler<ApiEnv> => {
  const ttlMs = deps.keyCacheTtlMs ?? 10_000;
  const elapsedMs = deps.elapsedMs ?? (() => performance.now());
  const known = new Map<string, KnownKey>();
  const findApp = (name: string) => findAppByName(deps.db, name);
  const addressOf = clientAddress(deps);

  /** Requests that come at the same time share one query; an unknown key or a failed query is not kept. */
  function findByKey(plainKey: string): Promise<Caller | undefined> {
    const cached = known.get(plainKey);
    if (cached && cached.until > elapsedMs()) return cached.caller;
    if (known.size >= maxCachedKeys) known.clear();
    const entry: KnownKey = { caller: askDatabase(), until: elapsedMs() + ttlMs };
    known.set(plainKey, entry);
    return entry.caller;

    async function askDatabase(): Promise<Caller | undefined> {
      const askedAt = elapsedMs();
      let isKept = false;
      try {
        const key = await findApiKey(deps.db, plainKey);
        if (!key) return undefined;
        isKept = true;
        const { id, app, scopes, requestsPerSecond, expiresInMs = Number.POSITIVE_INFINITY } = key;
        entry.until = Math.min(entry.until, askedAt + expiresInMs);
        return { kind: 'key', subject: id, app, scopes, requestsPerSecond };
      } finally {
        if (!isKept) known.delete(plainKey);
      }
    }
  }

  function findCaller(credential: string): Promise<Caller | undefined> {
    if (deps.verifyJwt && credential.split('.').length === 3) return deps.verifyJwt(credential);
    return findByKey(credential);
  }

  return async function authenticate(c, next) {
    const header = c.req.header('authorization');
    if (header === undefined) throw unauthorized('Send Authorization: Bearer <key>.', 'Bearer realm="carillon"');
    const credential = /^Bearer +([\x21-\x7e]{1,8192})$/i.exec(header.trim())?.[1];
    const caller = credential === undefined ? undefined : await findCaller(credential);
    if (!caller) throw unauthorized('The key is not known.', 'Bearer realm="carillon", error="invalid_token"');
    c.set('caller', caller);
    c.set('actor', { kind: caller.kind, id: caller.subject, requestId: c.var.requestId, address: addressOf(c) });
    c.set('findApp', findApp);
    await next();
  };
};

interface KnownKey {
  caller: Promise<Caller | undefined>;
  /** On the clock that only grows. */
  until: number;
}

function unauthorized(message: string, challenge: string): ApiError {
  return new ApiError(401, 'unauthorized', message, { headers: { 'WWW-Authenticate': challenge } });
}
