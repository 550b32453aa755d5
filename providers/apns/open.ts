import { readFile } from 'node:fs/promises';
import type { ProviderSurroundings } from '../description.ts';
import type { PushProvider } from '../provider.ts';
import { normaliseApnsCertificate } from './certificate.ts';
import { normaliseApnsKey } from './key.ts';
import { createApnsProvider } from './provider.ts';
import type { ApnsSettings } from './settings.ts';

/** The key is read and proven here, so that a wrong file ends the start and not the first send. */
export async function openApns(
  { key, certificate, topic, environment, url, sandboxUrl }: ApnsSettings & { topic: string },
  surroundings: ProviderSurroundings,
): Promise<PushProvider> {
  const credential = key
    ? normaliseApnsKey({ ...key, privateKey: await readFile(key.file) })
    : normaliseApnsCertificate(
        { certificate: await readFile(certificate!.file), password: certificate!.password },
        new Date(),
      );
  return createApnsProvider({
    ...surroundings,
    credential,
    apnsTopic: topic,
    urls: { ...(url && { production: url }), ...(sandboxUrl && { sandbox: sandboxUrl }) },
    defaultEnvironment: environment,
  });
}
