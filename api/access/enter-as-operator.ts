import type { MiddlewareHandler } from 'hono';
import { findAppByName } from '../../db/apps.ts';
import { scopes } from '../../domain/scopes.ts';
import type { ApiDependencies } from '../dependencies.ts';
import type { ApiEnv, Caller } from '../http/env.ts';

/** Stands where a server has `authenticate`: whoever has the database at hand may do everything, and needs no key for it. */
export function enterAsOperator({ db }: ApiDependencies, name: string): MiddlewareHandler<ApiEnv> {
  const caller: Caller = { kind: 'operator', subject: name, scopes, app: undefined, requestsPerSecond: undefined };
  return async function enterAsOperator(c, next) {
    c.set('caller', caller);
    c.set('actor', { kind: 'operator', id: name, requestId: null, address: null });
    c.set('findApp', (name) => findAppByName(db, name));
    c.set('isStillValid', async () => true);
    await next();
  };
}
