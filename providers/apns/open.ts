import { readFile } from 'node:fs/promises';
import { defaultAppName } from '../../domain/app.ts';
import { CredentialError } from '../credentials/credential-error.ts';
import type { AppOfProvider, ProviderSurroundings } from '../description.ts';
import type { PushProvider } from '../provider.ts';
import { type ApnsCertificate, normaliseApnsCertificate } from './certificate.ts';
import { type ApnsKey, normaliseApnsKey } from './key.ts';
import { createApnsProvider } from './provider.ts';
import type { ApnsSettings } from './settings.ts';

/** The key is read and proven here, so that a wrong file ends the start and not the first send. */
export async function openApnsFromFiles(
  settings: ApnsSettings,
  app: AppOfProvider,
  surroundings: ProviderSurroundings,
): Promise<PushProvider> {
  const { key, certificate } = settings;
  const credential = key
    ? normaliseApnsKey({ ...key, privateKey: await readFile(key.file) })
    : normaliseApnsCertificate(
        { certificate: await readFile(certificate!.file), password: certificate!.password },
        new Date(),
      );
  return openApns(credential, settings, app, surroundings);
}

/** @throws {CredentialError} where the app has no bundle id */
export function openApns(
  credential: ApnsKey | ApnsCertificate,
  { topic, environment, url, sandboxUrl }: ApnsSettings,
  app: AppOfProvider,
  surroundings: ProviderSurroundings,
): PushProvider {
  // Topic and environment belong together: an app that has a topic of its own takes neither from the process's environment.
  const fromEnvironment = app.name === defaultAppName && app.apnsTopic === undefined;
  const apnsTopic = fromEnvironment ? topic : app.apnsTopic;
  if (apnsTopic === undefined) {
    throw new CredentialError('apns_topic', `App ${app.name} has no bundle id. Set its apns_topic.`);
  }
  return createApnsProvider({
    ...surroundings,
    traffic: surroundings.traffic?.apns,
    credential,
    apnsTopic,
    urls: { ...(url && { production: url }), ...(sandboxUrl && { sandbox: sandboxUrl }) },
    defaultEnvironment: fromEnvironment ? environment : app.apnsEnvironment,
  });
}
