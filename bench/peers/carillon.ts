/** Carillon's own engine: the provider as the worker uses it, from prepared message to verdict. */
import { readFileSync } from 'node:fs';
import { normaliseApnsKey } from '../../providers/apns/key.ts';
import { createApnsProvider } from '../../providers/apns/provider.ts';
import { createFcmProvider } from '../../providers/fcm/provider.ts';
import { normaliseServiceAccount } from '../../providers/fcm/service-account.ts';
import type { PushProvider } from '../../providers/provider.ts';
import { InMemoryProviderTokenStore } from '../../test/support/in-memory-token-store.ts';
import { inParallel, readTask, runSender, type SenderTask } from '../measure.ts';

const task = readTask();
const provider = process.argv[2] === 'fcm' ? createFcm(task) : createApns(task);
const prepared = provider.prepare({
  notificationId: task.notification_id,
  message: task.message,
  expiresAt: new Date(task.expires_at_ms),
});
await runSender(
  task,
  inParallel(task.in_flight, async (n) => {
    const deviceToken = task.device_tokens[n]!;
    const verdict = await provider.send(prepared, { deviceId: n, deviceToken, apnsEnvironment: null });
    return verdict.kind === 'accepted' ? undefined : verdict;
  }),
);
await provider.close();

function createApns(task: SenderTask): PushProvider {
  return createApnsProvider({
    credential: normaliseApnsKey({
      privateKey: readFileSync(task.key_file),
      keyId: task.key_id,
      teamId: task.team_id,
    }),
    apnsTopic: task.topic,
    urls: { production: task.url },
    providerTokenStore: new InMemoryProviderTokenStore(),
    ca: readFileSync(task.ca_file, 'utf8'),
    pool: { maxConnections: 1 },
  });
}

function createFcm(task: SenderTask): PushProvider {
  return createFcmProvider({
    account: normaliseServiceAccount(readFileSync(task.service_account_file), {
      allowedTokenUris: [task.oauth_token_url],
    }),
    url: task.url,
    tokenUrl: task.oauth_token_url,
    ca: readFileSync(task.ca_file, 'utf8'),
    // As many connections as firebase-admin has open while two batches are under way.
    pool: { maxConnections: 2 },
  });
}
