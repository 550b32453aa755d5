import { defaultAppName } from '../domain/app.ts';
import type { Config } from '../domain/config.ts';
import { byProvider, type ProviderName } from '../domain/device.ts';
import { chooseProxy } from '../domain/proxy.ts';
import type { Settings } from '../domain/settings.ts';
import type { AppOfProvider, ConfiguredProvider, ProviderSurroundings } from './description.ts';
import { providers } from './registry.ts';

export type ConfiguredProviders = Record<ProviderName, ConfiguredProvider>;

export function configureProviders(settings: Settings): ConfiguredProviders {
  return byProvider((name) => providers[name].configure(settings));
}

/** What every provider of a process is opened with. */
export function surroundingsOf(
  { proxy, worker: { requestDeadlineMs } }: Config,
  given: Pick<ProviderSurroundings, 'logger' | 'providerTokenStore' | 'traffic'>,
): ProviderSurroundings {
  return { ...given, requestDeadlineMs, proxyFor: (url) => chooseProxy(proxy, url) };
}

/**
 * Reads and proves the credentials in files, so that a wrong one ends the start and not the first send.
 * @throws {CredentialError} and the file system's own errors
 */
export async function proveFiles(configured: ConfiguredProviders, surroundings: ProviderSurroundings): Promise<void> {
  for (const { fromFiles } of Object.values(configured))
    await (await fromFiles?.(fromEnvironment, surroundings))?.close();
}

/** App `default` before anything was set for it. */
export const fromEnvironment: AppOfProvider = {
  name: defaultAppName,
  apnsTopic: undefined,
  apnsEnvironment: 'production',
  fcmProjectId: undefined,
};
