import type { ProviderName } from './device.ts';

export const credentialKinds = ['apns_key', 'apns_certificate', 'fcm_service_account'] as const;
export type CredentialKind = (typeof credentialKinds)[number];

export const providerOfCredential: Record<CredentialKind, ProviderName> = {
  apns_key: 'apns',
  apns_certificate: 'apns',
  fcm_service_account: 'fcm',
};
