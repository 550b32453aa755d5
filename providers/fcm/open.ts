import { readFile } from 'node:fs/promises';
import type { ProviderSurroundings } from '../description.ts';
import type { PushProvider } from '../provider.ts';
import { createFcmProvider } from './provider.ts';
import { normaliseServiceAccount } from './service-account.ts';
import type { FcmSettings } from './settings.ts';

/** The key is read and proven here, so that a wrong file ends the start and not the first send. */
export async function openFcm(
  { serviceAccountFile, projectId, url, tokenUrl }: FcmSettings,
  surroundings: ProviderSurroundings,
): Promise<PushProvider> {
  const account = normaliseServiceAccount(await readFile(serviceAccountFile), {
    ...(projectId && { projectId }),
    ...(tokenUrl && { allowedTokenUris: [tokenUrl] }),
  });
  return createFcmProvider({ ...surroundings, account, ...(url && { url }), ...(tokenUrl && { tokenUrl }) });
}
