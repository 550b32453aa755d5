import { defaultAppName } from '../../domain/app.ts';
import type { ProviderDescription } from '../description.ts';
import { readApnsCredential, storableApnsCredential } from './credential.ts';
import { normaliseApnsToken } from './device-token.ts';
import { buildApnsContent } from './payload.ts';
import { namesFiles, readApnsSettings } from './settings.ts';

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
    // `open.ts` is loaded only where something is sent: the API checks messages, tokens and credentials without an HTTP/2 client.
    return {
      fromFiles: namesFiles(own)
        ? async (app, surroundings) => (await import('./open.ts')).openApnsFromFiles(own, app, surroundings)
        : undefined,
      read(kind, fields, app, now) {
        const apnsTopic = app.apnsTopic ?? (app.name === defaultAppName ? own.topic : undefined);
        return storableApnsCredential(readApnsCredential(kind, fields, now), apnsTopic);
      },
      async open({ kind, secret }, app, surroundings) {
        const credential = readApnsCredential(kind, JSON.parse(secret), new Date());
        return (await import('./open.ts')).openApns(credential, own, app, surroundings);
      },
    };
  },
};
