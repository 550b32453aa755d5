import type { Scope } from '../../domain/scopes.ts';
import { ApiError } from '../http/api-error.ts';
import type { Caller } from '../http/env.ts';

/** @throws {ApiError} 403 that names the scope. */
export function requireScope({ scopes }: Caller, scope: Scope): void {
  if (scopes.includes(scope)) return;
  throw new ApiError(403, 'scope_missing', `The key lacks the scope ${scope}.`, {
    extra: { scope },
    // RFC 6750, 3.1
    headers: { 'WWW-Authenticate': `Bearer realm="carillon", error="insufficient_scope", scope="${scope}"` },
  });
}
