/** Words about devices that every folder shares. */
export const providerNames = ['apns', 'fcm'] as const;
export type ProviderName = (typeof providerNames)[number];

export const platforms = ['ios', 'android', 'web'] as const;
export type Platform = (typeof platforms)[number];

export const apnsEnvironments = ['production', 'sandbox'] as const;
export type ApnsEnvironment = (typeof apnsEnvironments)[number];
