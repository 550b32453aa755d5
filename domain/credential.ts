import type { ProviderName } from './device.ts';
import type { JsonObject } from './json.ts';

export const credentialKinds = ['apns_key', 'apns_certificate', 'fcm_service_account'] as const;
export type CredentialKind = (typeof credentialKinds)[number];

export const providerOfCredential: Record<CredentialKind, ProviderName> = {
  apns_key: 'apns',
  apns_certificate: 'apns',
  fcm_service_account: 'fcm',
};

/** People are told so long before a certificate expires. */
export const expiryWarningDays = 30;

/** A credential that was read and proven, and is stored next. */
export interface NewCredential {
  kind: CredentialKind;
  /** What anybody may know of it, named as the API names it: `key_id`, `client_email`. */
  details: JsonObject;
  /** JSON of the fields in which the API takes it, each in its plainest form. */
  secret: string;
  /** Hexadecimal digits of a hash of all that is public: tells two credentials apart. */
  fingerprint: string;
  /** Certificates alone expire. */
  expiresAt: Date | undefined;
}

/** The credential that an app's workers send with. */
export interface StoredCredential extends NewCredential {
  /** UUID */
  id: string;
}
