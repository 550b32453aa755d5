import { defaultAppName } from '../domain/app.ts';
import type { Config } from '../domain/config.ts';
import { byProvider, type ProviderName, providerNames } from '../domain/device.ts';
import { chooseProxy } from '../domain/proxy.ts';
import type { Settings } from '../domain/settings.ts';
import type { AppOfProvider, ConfiguredProvider, ProviderSurroundings } from './description.ts';
import type { PushProvider } from './provider.ts';
import { providers } from './registry.ts';

export type ConfiguredProviders = Record<ProviderName, ConfiguredProvider>;
/** Undefined: no credential is configured for this provider. */
export type OpenedProviders = Record<ProviderName, PushProvider | undefined>;

export function configureProviders(settings: Settings): ConfiguredProviders {
  return byProvider((name) => providers[name].configure(settings));
}

/** @throws {CredentialError} and the file system's own errors. */
export async function openProviders(
  configured: ConfiguredProviders,
  { proxy, worker: { requestDeadlineMs } }: Config,
  { logger, providerTokenStore }: Pick<ProviderSurroundings, 'logger' | 'providerTokenStore'>,
): Promise<OpenedProviders> {
  if (proxy !== undefined) {
    const { host, port } = proxy.proxy;
    logger.info({ proxy: `${host}:${port}` }, 'providers are reached through a proxy');
  }
  const proxyFor = (url: URL) => chooseProxy(proxy, url);
  const surroundings = { providerTokenStore, requestDeadlineMs, proxyFor, logger };
  const opened = byProvider((): PushProvider | undefined => undefined);
  for (const name of providerNames) opened[name] = await configured[name].fromFiles?.(fromEnvironment, surroundings);
  return opened;
}

const fromEnvironment: AppOfProvider = {
  name: defaultAppName,
  apnsTopic: undefined,
  apnsEnvironment: 'production',
  fcmProjectId: undefined,
};

export async function closeProviders(opened: OpenedProviders): Promise<void> {
  await Promise.allSettled(Object.values(opened).map((provider) => provider?.close()));
}
