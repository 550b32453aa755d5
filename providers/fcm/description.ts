import { platforms } from '../../domain/device.ts';
import type { ProviderDescription } from '../description.ts';
import { readFcmCredential, storableFcmCredential } from './credential.ts';
import { normaliseFcmToken } from './device-token.ts';
import { measureFcmContent } from './payload.ts';
import { readFcmSettings } from './settings.ts';

export const fcm: ProviderDescription = {
  platforms,
  override: {
    description:
      'Merged into the FCM message last. What comes out is held to the same rules and sizes as the neutral fields.',
  },
  credentialSettings: ['FCM_SERVICE_ACCOUNT_FILE'],
  normaliseDeviceToken: normaliseFcmToken,
  measure: measureFcmContent,
  configure(settings) {
    const own = readFcmSettings(settings);
    const allowedTokenUris = own.tokenUrl === undefined ? [] : [own.tokenUrl];
    return {
      fromFiles:
        own.serviceAccountFile === undefined
          ? undefined
          : async (app, surroundings) => (await import('./open.ts')).openFcmFromFiles(own, app, surroundings),
      read: (kind, fields) => storableFcmCredential(readFcmCredential(kind, fields, allowedTokenUris)),
      async open({ kind, secret }, app, surroundings) {
        const account = readFcmCredential(kind, JSON.parse(secret), allowedTokenUris);
        return (await import('./open.ts')).openFcm(account, own, app, surroundings);
      },
    };
  },
};
