/** Carillon's own providers, pointed at a simulator. */
import { readFileSync } from 'node:fs';
import { normaliseApnsKey } from '../../providers/apns/key.ts';
import { type ApnsProviderOptions, createApnsProvider } from '../../providers/apns/provider.ts';
import { createFcmProvider, type FcmProviderOptions } from '../../providers/fcm/provider.ts';
import { normaliseServiceAccount } from '../../providers/fcm/service-account.ts';
import type { PushProvider } from '../../providers/provider.ts';
import type { SimulatorAddresses } from '../../simulator/simulator.ts';
import { InMemoryProviderTokenStore } from '../support/in-memory-token-store.ts';

/** Every wait short, so that a test sees the second attempt. */
const waits = { tooManyRequestsMs: 20, shutdownMs: 20, quotaMs: 20, serverErrorMs: 20 };
const pool = { tickMs: 20, backoffMs: 10, maxConnectsPerMinute: 6_000, pingAfterMs: 100, pingTimeoutMs: 300 };

export function openApns(simulator: SimulatorAddresses, options: Partial<ApnsProviderOptions> = {}): PushProvider {
  const { files } = simulator;
  const privateKey = readFileSync(files.apnsKeyPath, 'utf8');
  return createApnsProvider({
    credential: normaliseApnsKey({ keyId: files.apnsKeyId, teamId: files.apnsTeamId, privateKey }),
    apnsTopic: simulator.apnsTopic,
    urls: { production: simulator.apnsUrl, sandbox: simulator.apnsSandboxUrl },
    providerTokenStore: new InMemoryProviderTokenStore(),
    ca: readFileSync(files.caCertificatePath, 'utf8'),
    requestDeadlineMs: 2_000,
    waits,
    pool,
    ...options,
  });
}

export function openFcm(simulator: SimulatorAddresses, options: Partial<FcmProviderOptions> = {}): PushProvider {
  const { files } = simulator;
  return createFcmProvider({
    account: normaliseServiceAccount(readFileSync(files.fcmServiceAccountPath, 'utf8'), {
      allowedTokenUris: [simulator.oauthTokenUrl],
    }),
    url: simulator.fcmUrl,
    ca: readFileSync(files.caCertificatePath, 'utf8'),
    requestDeadlineMs: 2_000,
    waits,
    pool,
    ...options,
  });
}
