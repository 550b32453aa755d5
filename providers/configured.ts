import { readFile } from 'node:fs/promises';
import type { Kysely } from 'kysely';
import { createProviderTokenStore } from '../db/provider-tokens.ts';
import type { Database } from '../db/schema.ts';
import type { Config } from '../domain/config.ts';
import type { ProviderName } from '../domain/device.ts';
import type { Logger } from '../domain/logger.ts';
import { chooseProxy, type ProxyChoice } from '../domain/proxy.ts';
import { normaliseApnsCertificate } from './apns/certificate.ts';
import { normaliseApnsKey } from './apns/key.ts';
import { createApnsProvider } from './apns/provider.ts';
import { createFcmProvider } from './fcm/provider.ts';
import { normaliseServiceAccount } from './fcm/service-account.ts';
import type { PushProvider } from './provider.ts';

/**
 * The providers that the settings have a credential for. Keys are read and proven here, so that a wrong file ends the start
 * and not the first send.
 * @throws {CredentialError} and the file system's own errors.
 */
export async function createConfiguredProviders(
  config: Config,
  db: Kysely<Database>,
  logger: Logger,
): Promise<Record<ProviderName, PushProvider | undefined>> {
  const { apns, fcm, proxy, worker } = config;
  const { requestDeadlineMs } = worker;
  if (proxy !== undefined) {
    const { host, port } = proxy.proxy;
    logger.info({ proxy: `${host}:${port}` }, 'providers are reached through a proxy');
  }
  const proxyFor: ProxyChoice = (url) => chooseProxy(proxy, url);
  return {
    apns: await createApns(apns, db, logger, requestDeadlineMs, proxyFor),
    fcm: await createFcm(fcm, logger, requestDeadlineMs, proxyFor),
  };
}

async function createApns(
  apns: Config['apns'],
  db: Kysely<Database>,
  logger: Logger,
  requestDeadlineMs: number,
  proxyFor: ProxyChoice,
): Promise<PushProvider | undefined> {
  if (apns.topic === undefined || (apns.key === undefined && apns.certificate === undefined)) return undefined;
  const credential = apns.key
    ? normaliseApnsKey({ ...apns.key, privateKey: await readFile(apns.key.file) })
    : normaliseApnsCertificate(
        { certificate: await readFile(apns.certificate!.file), password: apns.certificate!.password },
        new Date(),
      );
  return createApnsProvider({
    credential,
    apnsTopic: apns.topic,
    urls: { ...(apns.url && { production: apns.url }), ...(apns.sandboxUrl && { sandbox: apns.sandboxUrl }) },
    defaultEnvironment: apns.environment,
    providerTokenStore: createProviderTokenStore(db),
    requestDeadlineMs,
    proxyFor,
    logger,
  });
}

async function createFcm(
  fcm: Config['fcm'],
  logger: Logger,
  requestDeadlineMs: number,
  proxyFor: ProxyChoice,
): Promise<PushProvider | undefined> {
  if (fcm.serviceAccountFile === undefined) return undefined;
  const account = normaliseServiceAccount(await readFile(fcm.serviceAccountFile), {
    ...(fcm.projectId && { projectId: fcm.projectId }),
    ...(fcm.tokenUrl && { allowedTokenUris: [fcm.tokenUrl] }),
  });
  return createFcmProvider({
    account,
    ...(fcm.url && { url: fcm.url }),
    ...(fcm.tokenUrl && { tokenUrl: fcm.tokenUrl }),
    requestDeadlineMs,
    proxyFor,
    logger,
  });
}
