import { createRemoteJWKSet, errors, type JWTPayload, type JWTVerifyGetKey, jwtVerify } from 'jose';
import type { Kysely } from 'kysely';
import { findAppByName } from '../../db/apps.ts';
import type { Database } from '../../db/schema.ts';
import { ApiError } from '../http/api-error.ts';
import type { Caller } from '../http/env.ts';

/** Undefined: the JWT is not valid here. @throws {ApiError} 503 when the issuer's keys cannot be fetched. */
export type JwtVerifier = (jwt: string) => Promise<Caller | undefined>;

interface JwtOptions {
  /** Where the issuer publishes its keys. */
  jwksUrl: string;
  issuer: string;
  /** Our name in the claim `aud`. */
  audience: string;
}

/**
 * Accepts JWTs of an outside issuer: asymmetric signatures only, `exp` required. The claim `carillon_app` names the app
 * (default: `default`), the claim `scope` its scopes (default: everything).
 */
export function createJwtVerifier(db: Kysely<Database>, options: JwtOptions, keys?: JWTVerifyGetKey): JwtVerifier {
  const getKey = keys ?? createRemoteJWKSet(new URL(options.jwksUrl), { timeoutDuration: 3_000 });
  return async (jwt) => {
    const claims = await verifiedClaims(jwt, getKey, options);
    if (!claims) return undefined;
    const { carillon_app: appName = 'default', scope = '*', sub = 'jwt' } = claims;
    if (typeof appName !== 'string' || typeof scope !== 'string') return undefined;
    const app = await findAppByName(db, appName);
    return app && { appId: app.id, subject: sub, scopes: scope.split(' ') };
  };
}

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
    const required = { algorithms, requiredClaims: ['exp'], clockTolerance: 30 };
    return (await jwtVerify(jwt, getKey, { issuer, audience, ...required })).payload;
  } catch (cause) {
    if (cause instanceof errors.JOSEError && !keySetErrors.has(cause.code)) return undefined;
    throw new ApiError(503, 'identity_provider_unavailable', "The issuer's keys cannot be fetched now.", { cause });
  }
}
