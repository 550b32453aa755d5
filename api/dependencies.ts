import type { Context } from 'hono';
import type { Kysely } from 'kysely';
import type { MasterKeys } from '../db/master-keys.ts';
import type { StatementClient } from '../db/prepared-statement.ts';
import type { Database } from '../db/schema.ts';
import type { Logger } from '../domain/logger.ts';
import type { ProviderSurroundings } from '../providers/description.ts';
import type { ConfiguredProviders } from '../providers/open.ts';
import type { Tracing } from '../telemetry/tracing.ts';
import type { JwtVerifier } from './access/jwt.ts';
import type { DocsAssets } from './document/docs-assets.ts';
import type { NotificationWaker } from './notifications/waker.ts';
import type { WebhookNetwork } from './webhooks/check-address.ts';

/** Everything the API needs from outside. `createApp` reads no environment, opens no port and imports no runtime. */
export interface ApiDependencies {
  db: Kysely<Database>;
  /** Of the same database, for statements that PostgreSQL keeps prepared. */
  pool: StatementClient;
  waker: NotificationWaker;
  log: Logger;
  /** Default: none. */
  tracing?: Tracing | undefined;
  /** Present when JWTs of an outside issuer are accepted beside API keys. */
  verifyJwt?: JwtVerifier | undefined;
  /** Who asks, where it is the command for operators and no server: no key is asked for. The name that the audit tells. */
  operator?: string | undefined;
  /** Seal the credentials of apps; without them none is stored. */
  masterKeys?: MasterKeys | undefined;
  /** What the environment says of the providers; default: nothing. */
  providers?: ConfiguredProviders | undefined;
  /** How they are reached when they are asked about a credential; default: at once. */
  providerNetwork?: Partial<Pick<ProviderSurroundings, 'proxyFor' | 'ca' | 'requestDeadlineMs'>> | undefined;
  /** Where webhooks may go; default: to the public internet, and names are looked up by workers alone. */
  webhooks?: WebhookNetwork | undefined;
  /** Files under `/docs/assets/`; without them `/docs` answers 404. */
  docsAssets?: DocsAssets | undefined;
  /** Aborted when the process is asked to stop: streams that would run on end themselves. */
  stopping?: AbortSignal | undefined;
  /** Default: the clock. */
  now?: (() => Date) | undefined;
  /** Milliseconds on a clock that only grows; default `performance.now`. */
  elapsedMs?: (() => number) | undefined;
  /** The other end of the connection that a request came by, as the runtime knows it; default: not known. */
  peerAddress?: ((c: Context) => string | undefined) | undefined;
  /** How many proxies of ours stand in front, each of which adds to `X-Forwarded-For`; default 0: nobody's word is taken. */
  trustedProxies?: number | undefined;
  /** How often a progress stream looks at the books, in milliseconds; default 500. */
  progressIntervalMs?: number | undefined;
  /** How often an import says how far it is, in milliseconds; default 10 000. */
  importProgressIntervalMs?: number | undefined;
  /** Requests a second of a key that has no such limit of its own; default 0: none. */
  keyRequestsPerSecond?: number | undefined;
  /** Imports and uploads of audience lists that an app may have under way at once, in this process; default 4. */
  importsPerApp?: number | undefined;
  /** The same of exports and progress streams; default 20. */
  exportsPerApp?: number | undefined;
  /** For how long `/readyz` answers what it found, in milliseconds; default 1 000. */
  readinessTtlMs?: number | undefined;
  /** How long a key that was found is believed without asking again, in milliseconds; default 10 000. */
  keyCacheTtlMs?: number | undefined;
}
