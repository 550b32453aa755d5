import type { ProviderName } from '../domain/device.ts';

/** The scope that all workers of an app share towards one provider. */
export function providerScope(appId: number, provider: ProviderName): string {
  return `app:${appId}:${provider}`;
}
