/** Carillon's own senders against the simulator: what they say of each device is what its token says, and the ledger agrees. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { normaliseApnsKey } from '../../providers/apns/key.ts';
import { createApnsProvider } from '../../providers/apns/provider.ts';
import { createFcmProvider } from '../../providers/fcm/provider.ts';
import { normaliseServiceAccount } from '../../providers/fcm/service-account.ts';
import type { PushProvider, Verdict } from '../../providers/provider.ts';
import { SimulatorControl } from '../../simulator/control-client.ts';
import { apnsDeviceToken, type DeviceBehaviour, fcmRegistrationToken } from '../../simulator/device-tokens.ts';
import { type Simulator, startSimulator } from '../../simulator/simulator.ts';
import { InMemoryProviderTokenStore } from '../support/in-memory-token-store.ts';
import { nid } from './fixture.ts';

let simulator: Simulator;
let control: SimulatorControl;
before(async () => {
  simulator = await startSimulator();
  control = new SimulatorControl(simulator.controlUrl);
});
after(() => simulator.close());

type Expected = Partial<Record<DeviceBehaviour, { kind: Verdict['kind']; accepted: number }>>;
const expectedOfBoth: Expected = {
  accept: { kind: 'accepted', accepted: 1 },
  unregistered: { kind: 'unregistered', accepted: 0 },
  expiredToken: { kind: 'unregistered', accepted: 0 },
  badToken: { kind: 'unregistered', accepted: 0 },
  wrongTopic: { kind: 'unregistered', accepted: 0 },
  rateLimitedOnce: { kind: 'later', accepted: 0 },
  internalErrorTwice: { kind: 'unanswered', accepted: 0 },
  slow: { kind: 'accepted', accepted: 1 },
  hang: { kind: 'unanswered', accepted: 1 },
  acceptOnceUnanswered: { kind: 'unanswered', accepted: 1 },
  refusedOnce: { kind: 'accepted', accepted: 1 },
  htmlError: { kind: 'unanswered', accepted: 0 },
};

async function check(
  provider: PushProvider,
  expected: Expected,
  tokenOf: (n: number, behaviour: DeviceBehaviour) => string,
): Promise<void> {
  const prepared = provider.prepare({ notificationId: nid, message: { title: 'Hello', body: 'World' } });
  const verdicts = await Promise.all(
    Object.entries(expected).flatMap(([behaviour, { kind, accepted }], i) =>
      Array.from({ length: 20 }, async (_, k) => {
        const deviceId = 1 + i * 100 + k;
        const deviceToken = tokenOf(deviceId, behaviour as DeviceBehaviour);
        const verdict = await provider.send(prepared, { deviceId, deviceToken, apnsEnvironment: null });
        return { behaviour, kind, accepted, verdict, deviceToken };
      }),
    ),
  );
  const entries = await control.lookup(
    nid,
    verdicts.map(({ deviceToken }) => deviceToken),
  );
  for (const [i, { behaviour, kind, accepted, verdict }] of verdicts.entries()) {
    assert.equal(verdict.kind, kind, `${behaviour}: ${JSON.stringify(verdict)}`);
    assert.equal(entries[i]!.accepted, accepted, behaviour);
  }
  assert.equal((await control.ledgerSummary(nid)).protocol_errors, 0);
}

test('APNs', async (t) => {
  const { files } = simulator;
  const provider = createApnsProvider({
    credential: normaliseApnsKey({
      keyId: files.apnsKeyId,
      teamId: files.apnsTeamId,
      privateKey: readFileSync(files.apnsKeyPath, 'utf8'),
    }),
    apnsTopic: simulator.apnsTopic,
    urls: { production: simulator.apnsUrl, sandbox: simulator.apnsSandboxUrl },
    providerTokenStore: new InMemoryProviderTokenStore(),
    ca: readFileSync(files.caCertificatePath, 'utf8'),
    requestDeadlineMs: 3000,
  });
  t.after(() => provider.close());
  const expected: Expected = { ...expectedOfBoth, unavailableOnce: { kind: 'later', accepted: 0 } };
  await check(provider, expected, (n, behaviour) => apnsDeviceToken(n, behaviour));
  assert.equal((await control.ledgerSummary()).jwts_seen, 1);
});

test('FCM', async (t) => {
  const { files } = simulator;
  const provider = createFcmProvider({
    account: normaliseServiceAccount(readFileSync(files.fcmServiceAccountPath, 'utf8'), {
      allowedTokenUris: [simulator.oauthTokenUrl],
    }),
    url: simulator.fcmUrl,
    ca: readFileSync(files.caCertificatePath, 'utf8'),
    requestDeadlineMs: 3000,
  });
  t.after(() => provider.close());
  // FCM's 503 says that time was up, not that nothing was done.
  const expected: Expected = { ...expectedOfBoth, unavailableOnce: { kind: 'unanswered', accepted: 0 } };
  await check(provider, expected, (n, behaviour) => fcmRegistrationToken(n, behaviour));
  assert.equal((await control.ledgerSummary()).oauth_mints, 1);
});
