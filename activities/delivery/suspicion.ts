import type { ConfigurationFault } from '../../providers/provider.ts';

/** What a mass of suspicious answers speaks of. */
interface Suspicion {
  /** The provider's word for most of them. */
  reason: string;
  fault: ConfigurationFault;
  /** For the person on call. */
  check: string;
}

const byReason: Partial<Record<string, Omit<Suspicion, 'reason'>>> = {
  DeviceTokenNotForTopic: { fault: 'topic', check: 'check APNS_TOPIC against the bundle id of the app.' },
  SENDER_ID_MISMATCH: {
    fault: 'project',
    check: 'check that the service account belongs to the Firebase project of the app.',
  },
};
const byAnyOther: Omit<Suspicion, 'reason'> = {
  fault: 'environment',
  check: 'check that the tokens belong to this APNs environment (production or sandbox) or Firebase project.',
};

/** The commonest of the suspects' reasons decides. Without suspects of its own a run halts by what other runs have met. Pure. */
export function suspicionOf(reasons: string[]): Suspicion {
  const counts = new Map<string, number>();
  for (const reason of reasons) counts.set(reason, (counts.get(reason) ?? 0) + 1);
  const [commonest] = [...counts].sort(([, a], [, b]) => b - a);
  if (commonest === undefined) return { reason: 'suspicious', ...byAnyOther };
  const [reason] = commonest;
  return { reason, ...(byReason[reason] ?? byAnyOther) };
}
