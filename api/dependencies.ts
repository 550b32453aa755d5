import type { Kysely } from 'kysely';
import type { Database } from '../db/schema.ts';
import type { JwtVerifier } from './access/jwt.ts';
import type { NotificationWaker } from './notifications/waker.ts';

/** Everything the API needs from outside. `createApp` reads no environment, opens no port and imports no runtime. */
export interface ApiDependencies {
  db: Kysely<Database>;
  waker: NotificationWaker;
  log: Log;
  /** Present when JWTs of an outside issuer are accepted beside API keys. */
  verifyJwt?: JwtVerifier | undefined;
  /** Files under `/docs/assets/`; without them `/docs` answers 404. */
  docsAssets?: DocsAssets | undefined;
  /** Aborted when the process is asked to stop: streams that would run on end themselves. */
  stopping?: AbortSignal | undefined;
  /** Default: the clock. */
  now?: (() => Date) | undefined;
  /** How often a progress stream looks at the books, in milliseconds; default 500. */
  progressIntervalMs?: number | undefined;
  /** How often an import says how far it is, in milliseconds; default 10 000. */
  importProgressIntervalMs?: number | undefined;
  /** How long a key that was found is believed without asking again, in milliseconds; default 10 000. */
  keyCacheTtlMs?: number | undefined;
}

export type DocsAssets = Record<string, { body: Uint8Array<ArrayBuffer>; contentType: string }>;

/** The part of pino that is used here. */
export interface Log {
  debug(fields: Record<string, unknown>, message: string): void;
  info(fields: Record<string, unknown>, message: string): void;
  warn(fields: Record<string, unknown>, message: string): void;
  error(fields: Record<string, unknown>, message: string): void;
}

/** Who asks. */
export interface Caller {
  appId: number;
  /** The id of the API key, or the subject of the JWT. */
  subject: string;
  scopes: string[];
}

export interface ApiEnv {
  Variables: { requestId: string; log: Log; caller: Caller; hasBody: boolean };
}
