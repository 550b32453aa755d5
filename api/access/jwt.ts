import { createRemoteJWKSet, errors, type JWTPayload, type JWTVerifyGetKey, jwtVerify } from 'jose';
import type { Kysely } from 'kysely';
import { findAppByName } from '../../db/apps.ts';
import type { Database } from '../../db/schema.ts';
import { defaultAppName } from '../../domain/app.ts';
import { type Scope, scopes } from '../../domain/scopes.ts';
import { ApiError } from '../http/api-error.ts';
import type { Credential } from './authenticate.ts';

/** Undefined: the JWT is not valid here. @throws {ApiError} 503 when the issuer's keys cannot be fetched. */
export type JwtVerifier = (jwt: string) => Promise<Credential | undefined>;

interface JwtOptions {
  /** Where the issuer publishes its keys. */
  jwksUrl: string;
  issuer: string;
  /** Our name in the claim `aud`. */
  audience: string;
  /** The claim with the scopes: a text with blanks between them (RFC 8693, 4.2), or an array. */
  scopeClaim: string;
  /** The claim with the app's name. */
  appClaim: string;
}

/**
 * Accepts JWTs of an outside issuer: asymmetric signatures only, `exp` required. Without scopes of ours it may do nothing. Without
 * an app it belongs to app `default`, or, with the scope `admin`, to an administrator; with an app, `admin` is left out.
 */
export function createJwtVerifier(db: Kysely<Database>, options: JwtOptions, keys?: JWTVerifyGetKey): JwtVerifier {
  const getKey = keys ?? createRemoteJWKSet(new URL(options.jwksUrl), { timeoutDuration: 3_000 });
  return async (jwt) => {
    const claims = await verifiedClaims(jwt, getKey, options);
    if (!claims) return undefined;
    const granted = scopesOf(claims[options.scopeClaim]);
    const name = claims[options.appClaim] ?? undefined;
    const expiresInMs = (claims.exp! + clockToleranceSeconds) * 1_000 - Date.now();
    const caller = { kind: 'jwt' as const, subject: claims.sub ?? 'jwt', requestsPerSecond: undefined };
    if (name === undefined && granted.includes('admin')) {
      return { caller: { ...caller, scopes: granted, app: undefined }, expiresInMs };
    }
    if (name !== undefined && typeof name !== 'string') return undefined;
    const app = await findAppByName(db, name ?? defaultAppName);
    const ofApp = granted.filter((scope) => scope !== 'admin');
    return app && { caller: { ...caller, scopes: ofApp, app }, expiresInMs };
  };
}

/** Issuers have scopes of their own beside ours. */
function scopesOf(claim: unknown): Scope[] {
  const words = typeof claim === 'string' ? claim.split(' ') : Array.isArray(claim) ? claim : [];
  return scopes.filter((scope) => words.includes(scope));
}

const clockToleranceSeconds = 30;

const algorithms = [
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
  'ES256',
  'ES384',
  'ES512',
  'EdDSA',
  'Ed25519',
];

/** jose's errors that are about the key set, not about the JWT. */
const keySetErrors = new Set(['ERR_JOSE_GENERIC', 'ERR_JWKS_TIMEOUT', 'ERR_JWKS_INVALID']);

async function verifiedClaims(
  jwt: string,
  getKey: JWTVerifyGetKey,
  { issuer, audience }: JwtOptions,
): Promise<JWTPayload | undefined> {
  try {
    const required = { algorithms, requiredClaims: ['exp'], clockTolerance: clockToleranceSeconds };
    return (await jwtVerify(jwt, getKey, { issuer, audience, ...required })).payload;
  } catch (cause) {
    if (cause instanceof errors.JOSEError && !keySetErrors.has(cause.code)) return undefined;
    throw new ApiError(503, 'identity_provider_unavailable', "The issuer's keys cannot be fetched now.", { cause });
  }
}
