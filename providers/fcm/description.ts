import { platforms } from '../../domain/device.ts';
import type { ProviderDescription } from '../description.ts';
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
    if (own === undefined) return undefined;
    return async (surroundings) => (await import('./open.ts')).openFcm(own, surroundings);
  },
};
