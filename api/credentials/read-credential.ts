import type { z } from '@hono/zod-openapi';
import { findAppOfAnyApp } from '../../db/apps.ts';
import { createProviderTokenStore } from '../../db/provider-tokens.ts';
import type { App } from '../../domain/app.ts';
import { type CredentialKind, type NewCredential, providerOfCredential } from '../../domain/credential.ts';
import type { JsonObject } from '../../domain/json.ts';
import type { Logger } from '../../domain/logger.ts';
import { readSettings } from '../../domain/settings.ts';
import { CredentialError } from '../../providers/credentials/credential-error.ts';
import { configureProviders } from '../../providers/open.ts';
import { ProviderUnreachableError, verifyByProvider } from '../../providers/verify.ts';
import type { ApiDependencies } from '../dependencies.ts';
import { ApiError, invalidField, notFound } from '../http/api-error.ts';
import type { newCredentialSchema } from './schemas.ts';

/** For all that the provider is asked. */
const deadlineMs = 10_000;

/**
 * Reads a credential of an app and proves it by a signature; with `isVerified` also by the provider's word.
 * @throws {ApiError} 422 with the field at fault; 503 provider_unreachable
 */
export async function readCredential(
  deps: ApiDependencies,
  appId: number,
  { kind: named, ...fields }: z.infer<typeof newCredentialSchema>,
  isVerified: boolean,
  logger: Logger,
): Promise<NewCredential> {
  // The one that came with the key may be some seconds old, and a bundle id may just have been set.
  const app = await findAppOfAnyApp(deps.db, appId);
  if (app === undefined) throw notFound('app');
  const kind = named ?? kindOf(fields);
  const provider = providersOf(deps)[providerOfCredential[kind]];
  try {
    const credential = provider.read(kind, fields as JsonObject, app, deps.now?.() ?? new Date());
    if (isVerified) await verify(deps, app, credential, logger);
    return credential;
  } catch (error) {
    if (error instanceof CredentialError) throw invalidField(error.field, error.message, 'credential_invalid');
    if (error instanceof ProviderUnreachableError) {
      throw new ApiError(503, 'provider_unreachable', error.message, { headers: { 'Retry-After': '10' } });
    }
    throw error;
  }
}

function providersOf({ providers }: ApiDependencies) {
  return providers ?? readSettings({}, configureProviders);
}

async function verify(deps: ApiDependencies, app: App, credential: NewCredential, logger: Logger): Promise<void> {
  const { open } = providersOf(deps)[providerOfCredential[credential.kind]];
  const provider = await open(credential, app, {
    // The token that it makes is the one that workers go on with: Apple refuses a second one so soon.
    providerTokenStore: createProviderTokenStore(deps.db),
    requestDeadlineMs: deadlineMs,
    logger,
    ...{ proxyFor: () => undefined, ...deps.providerNetwork },
  });
  await verifyByProvider(provider, credential.kind, deadlineMs);
}

function kindOf(fields: Record<string, unknown>): CredentialKind {
  if (fields.service_account !== undefined) return 'fcm_service_account';
  if (fields.certificate !== undefined) return 'apns_certificate';
  if (fields.private_key !== undefined || fields.key_id !== undefined) return 'apns_key';
  throw invalidField('kind', 'Send a private_key with key_id and team_id, a certificate, or a service_account.');
}
