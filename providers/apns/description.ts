import type { ProviderDescription } from '../description.ts';
import { normaliseApnsToken } from './device-token.ts';
import { buildApnsContent } from './payload.ts';
import { isComplete, readApnsSettings } from './settings.ts';

export const apns: ProviderDescription = {
  platforms: ['ios'],
  override: {
    description: 'What the neutral fields cannot say.',
    members: { headers: 'texts', payload: { description: 'Merged into the payload last.' } },
  },
  credentialSettings: ['APNS_KEY_FILE', 'APNS_CERTIFICATE_FILE'],
  normaliseDeviceToken: normaliseApnsToken,
  measure: (content) => buildApnsContent(content).payloadBytes,
  configure(settings) {
    const own = readApnsSettings(settings);
    if (!isComplete(own)) return undefined;
    // Loaded only by a worker: the API checks messages and tokens without an HTTP/2 client.
    return async (surroundings) => (await import('./open.ts')).openApns(own, surroundings);
  },
};
