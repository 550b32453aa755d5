import type { MiddlewareHandler } from 'hono';
import { findApiKey } from '../../db/api-keys.ts';
import type { ApiDependencies } from '../dependencies.ts';
import { ApiError } from '../http/api-error.ts';
import type { ApiEnv, Caller } from '../http/env.ts';

const maxCachedKeys = 1_000;

/**
 * Every route behind it needs `Authorization: Bearer <API key or JWT>`. A key is looked up by its hash, so timing tells nothing;
 * a key that was found is believed for `keyCacheTtlMs`, which is also how long a revoked key may live on.
 */
export const authenticate = (deps: ApiDependencies): MiddlewareHandler<ApiEnv> => {
  const ttlMs = deps.keyCacheTtlMs ?? 10_000;
  const known = new Map<string, { caller: Promise<Caller | undefined>; until: number }>();

  async function findByKey(plainKey: string): Promise<Caller | undefined> {
    const key = await findApiKey(deps.db, plainKey);
    return key && { appId: key.appId, subject: key.id, scopes: key.scopes };
  }

  /** Requests that come at the same time share one query; an unknown key or a failed query is not kept. */
  function findCaller(credential: string): Promise<Caller | undefined> {
    if (deps.verifyJwt && credential.split('.').length === 3) return deps.verifyJwt(credential);
    const cached = known.get(credential);
    if (cached && cached.until > performance.now()) return cached.caller;
    if (known.size >= maxCachedKeys) known.clear();
    const caller = findByKey(credential);
    known.set(credential, { caller, until: performance.now() + ttlMs });
    const forget = () => known.delete(credential);
    caller.then((found) => found ?? forget(), forget);
    return caller;
  }

  return async function authenticate(c, next) {
    const header = c.req.header('authorization');
    if (header === undefined) throw unauthorized('Send Authorization: Bearer <key>.', 'Bearer realm="carillon"');
    const credential = /^Bearer +([\x21-\x7e]{1,8192})$/i.exec(header.trim())?.[1];
    const caller = credential === undefined ? undefined : await findCaller(credential);
    if (!caller) throw unauthorized('The key is not known.', 'Bearer realm="carillon", error="invalid_token"');
    c.set('caller', caller);
    await next();
  };
};

function unauthorized(message: string, challenge: string): ApiError {
  return new ApiError(401, 'unauthorized', message, { headers: { 'WWW-Authenticate': challenge } });
}
