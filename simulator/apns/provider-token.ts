/** APNs provider tokens: an ES256 JWT (RFC 7519) with `kid`, `iss` and `iat`, checked as Apple documents it. */
import { type KeyObject, verify } from 'node:crypto';
import type { ApnsEnvironment } from '../../domain/device.ts';
import type { SimulatorClock } from '../clock.ts';

export interface ApnsSigningKey {
  keyId: string;
  teamId: string;
  publicKey: KeyObject;
  /** A key may serve one environment only; absent: both. */
  environment?: ApnsEnvironment;
}

export type ProviderTokenCheck =
  | { isValid: true; key: ApnsSigningKey }
  | {
      isValid: false;
      reason: 'MissingProviderToken' | 'InvalidProviderToken' | 'ExpiredProviderToken' | 'BadEnvironmentKeyIdInToken';
    };

interface SeenToken {
  key: ApnsSigningKey | undefined;
  /** UNIX seconds. */
  issuedAt: number;
  firstSeenAtMs: number;
}

const maxAgeSeconds = 3600;
/** Apple publishes no figure for tokens from the future. */
const maxSkewSeconds = 300;
const maxTokensKept = 10_000;
const missing: ProviderTokenCheck = { isValid: false, reason: 'MissingProviderToken' };
const invalid: ProviderTokenCheck = { isValid: false, reason: 'InvalidProviderToken' };
const expired: ProviderTokenCheck = { isValid: false, reason: 'ExpiredProviderToken' };
const otherEnvironment: ProviderTokenCheck = { isValid: false, reason: 'BadEnvironmentKeyIdInToken' };

/** Checks a signature once per token and its age every time. */
export class ProviderTokenVerifier {
  readonly keys: Map<string, ApnsSigningKey>;
  /** Keys that Apple has been told to revoke. */
  readonly revokedKeyIds = new Set<string>();
  readonly #clock: SimulatorClock;
  readonly #seen = new Map<string, SeenToken>();

  constructor(keys: ApnsSigningKey[], clock: SimulatorClock) {
    this.keys = new Map(keys.map((key) => [key.keyId, key]));
    this.#clock = clock;
  }

  /** @param authorization The header's value, `bearer <jwt>`. */
  check(authorization: string | undefined, environment: ApnsEnvironment): ProviderTokenCheck {
    const token = providerTokenOf(authorization);
    if (token === undefined) return missing;
    let seen = this.#seen.get(token);
    if (seen === undefined) {
      if (this.#seen.size >= maxTokensKept) this.#seen.clear();
      seen = this.#verify(token);
      this.#seen.set(token, seen);
    }
    const key = seen.key;
    if (key === undefined || this.revokedKeyIds.has(key.keyId)) return invalid;
    const ageSeconds = this.#clock.now() / 1000 - seen.issuedAt;
    if (ageSeconds > maxAgeSeconds || ageSeconds < -maxSkewSeconds) return expired;
    if (key.environment !== undefined && key.environment !== environment) return otherEnvironment;
    return { isValid: true, key };
  }

  /** Every token seen since the last reset, valid or not. */
  list(): { keyId: string | null; issuedAt: number; firstSeenAtMs: number }[] {
    return [...this.#seen.values()].map(({ key, issuedAt, firstSeenAtMs }) => ({
      keyId: key?.keyId ?? null,
      issuedAt,
      firstSeenAtMs,
    }));
  }

  reset(): void {
    this.#seen.clear();
  }

  #verify(token: string): SeenToken {
    const firstSeenAtMs = this.#clock.now();
    const refused = { key: undefined, issuedAt: 0, firstSeenAtMs };
    const [header, claims, signature, ...rest] = token.split('.');
    if (header === undefined || claims === undefined || signature === undefined || rest.length > 0) return refused;
    const { alg, kid } = decodePart(header);
    const { iss, iat } = decodePart(claims);
    const key = typeof kid === 'string' ? this.keys.get(kid) : undefined;
    if (key === undefined || alg !== 'ES256' || iss !== key.teamId || !Number.isInteger(iat)) return refused;
    const isSigned = verify(
      'sha256',
      Buffer.from(`${header}.${claims}`),
      { key: key.publicKey, dsaEncoding: 'ieee-p1363' },
      Buffer.from(signature, 'base64url'),
    );
    return isSigned ? { key, issuedAt: iat as number, firstSeenAtMs } : refused;
  }
}

/** The JWT out of an authorization header; undefined when there is none. */
export function providerTokenOf(authorization: string | undefined): string | undefined {
  if (authorization === undefined || authorization.length <= 7) return undefined;
  return authorization.startsWith('bearer ') || /^bearer /i.test(authorization) ? authorization.slice(7) : undefined;
}

function decodePart(part: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(Buffer.from(part, 'base64url').toString('utf8'));
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    // Not JSON, so it has none of the claims and is refused.
    return {};
  }
}
