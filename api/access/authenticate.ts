import type { MiddlewareHandler } from 'hono';
import { findApiKeyOfAnyApp } from '../../db/api-keys.ts';
import { findAppByName } from '../../db/apps.ts';
import type { ApiDependencies } from '../dependencies.ts';
import type { ApiEnv, Caller } from '../http/env.ts';
import { clientAddress } from './client-address.ts';
import { unauthorized } from './unauthorized.ts';

/** What a key or JWT says, for as long as it is valid. */
export interface Credential {
  caller: Caller;
  /** Undefined: it does not expire. From when it was asked for. */
  expiresInMs: number | undefined;
}

const maxCached = 1_000;

/**
 * Every route behind it needs `Authorization: Bearer <API key or JWT>`. A key is looked up by its hash, so timing tells nothing.
 * What was found is believed for `keyCacheTtlMs`, but not beyond its expiry: so long may a revoked key live on, and old settings of
 * its app. `isStillValid` asks in the same way.
 */
export const authenticate = (deps: ApiDependencies): MiddlewareHandler<ApiEnv> => {
  const ttlMs = deps.keyCacheTtlMs ?? 10_000;
  const elapsedMs = deps.elapsedMs ?? (() => performance.now());
  const known = new Map<string, KnownCredential>();
  const findApp = (name: string) => findAppByName(deps.db, name);
  const addressOf = clientAddress(deps);

  async function findByKey(plainKey: string): Promise<Credential | undefined> {
    const key = await findApiKeyOfAnyApp(deps.db, plainKey);
    if (!key) return undefined;
    const { id, app, scopes, requestsPerSecond, expiresInMs } = key;
    return { caller: { kind: 'key', subject: id, app, scopes, requestsPerSecond }, expiresInMs };
  }

  async function find(text: string, entry: KnownCredential, askedAt: number): Promise<Caller | undefined> {
    let found: Credential | undefined;
    try {
      const isJwt = text.split('.').length === 3;
      found = await (isJwt && deps.verifyJwt ? deps.verifyJwt(text) : findByKey(text));
    } finally {
      if (!found) known.delete(text);
    }
    entry.until = Math.min(entry.until, askedAt + (found?.expiresInMs ?? ttlMs));
    return found?.caller;
  }

  /** Requests that come at the same time share one query; what is not known and a failed query are not kept. */
  function findCaller(text: string): Promise<Caller | undefined> {
    const now = elapsedMs();
    const cached = known.get(text);
    if (cached && cached.until > now) return cached.caller;
    if (known.size >= maxCached) known.clear();
    const entry = { until: now + ttlMs } as KnownCredential;
    known.set(text, entry);
    entry.caller = find(text, entry, now);
    return entry.caller;
  }

  return async function authenticate(c, next) {
    const header = c.req.header('authorization');
    if (header === undefined) throw unauthorized('Send Authorization: Bearer <key>.');
    const text = /^Bearer +([\x21-\x7e]{1,8192})$/i.exec(header.trim())?.[1];
    const caller = text === undefined ? undefined : await findCaller(text);
    if (text === undefined || !caller) throw unauthorized('The key is not known.', 'invalid_token');
    c.set('caller', caller);
    c.set('actor', { kind: caller.kind, id: caller.subject, requestId: c.var.requestId, address: addressOf(c) });
    c.set('findApp', findApp);
    c.set('isStillValid', async () => (await findCaller(text)) !== undefined);
    await next();
  };
};

interface KnownCredential {
  caller: Promise<Caller | undefined>;
  /** On the clock that only grows. */
  until: number;
}
