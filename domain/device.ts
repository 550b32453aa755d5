/** Words about devices that every folder shares. */
export const providerNames = ['apns', 'fcm'] as const;
export type ProviderName = (typeof providerNames)[number];

/** One value for each provider. */
export function byProvider<T>(make: (provider: ProviderName) => T): Record<ProviderName, T> {
  return Object.fromEntries(providerNames.map((name) => [name, make(name)])) as Record<ProviderName, T>;
}

export const platforms = ['ios', 'android', 'web'] as const;
export type Platform = (typeof platforms)[number];

/** The provider of a device that names none. */
export const usualProvider: Record<Platform, ProviderName> = { ios: 'apns', android: 'fcm', web: 'fcm' };

export const apnsEnvironments = ['production', 'sandbox'] as const;
export type ApnsEnvironment = (typeof apnsEnvironments)[number];
