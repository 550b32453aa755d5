import { readFile } from 'node:fs/promises';
import { defaultAppName } from '../../domain/app.ts';
import type { AppOfProvider, ProviderSurroundings } from '../description.ts';
import type { PushProvider } from '../provider.ts';
import { createFcmProvider } from './provider.ts';
import { normaliseServiceAccount, type ServiceAccount } from './service-account.ts';
import type { FcmSettings } from './settings.ts';

/** The key is read and proven here, so that a wrong file ends the start and not the first send. */
export async function openFcmFromFiles(
  settings: FcmSettings,
  app: AppOfProvider,
  surroundings: ProviderSurroundings,
): Promise<PushProvider> {
  const { serviceAccountFile, projectId, tokenUrl } = settings;
  const account = normaliseServiceAccount(await readFile(serviceAccountFile!), {
    ...(projectId && { projectId }),
    ...(tokenUrl && { allowedTokenUris: [tokenUrl] }),
  });
  return openFcm(account, settings, app, surroundings);
}

export function openFcm(
  account: ServiceAccount,
  { projectId, url, tokenUrl }: FcmSettings,
  app: AppOfProvider,
  surroundings: ProviderSurroundings,
): PushProvider {
  const ofApp = app.fcmProjectId ?? (app.name === defaultAppName ? projectId : undefined);
  return createFcmProvider({
    ...surroundings,
    traffic: surroundings.traffic?.fcm,
    account,
    ...(ofApp && { projectId: ofApp }),
    ...(url && { url }),
    ...(tokenUrl && { tokenUrl }),
  });
}
