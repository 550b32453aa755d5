import type { Suspicion, UnregisteredVerdict } from '../../providers/provider.ts';

/** Where a run halts by what other runs have met, without a suspect of its own. */
const ofOthers: Suspicion = { fault: 'environment', check: 'check environment, topic and project.' };

/** What a mass of suspicious answers speaks of: the commonest of the provider's words decides. Pure. */
export function suspicionOf(
  verdicts: Pick<UnregisteredVerdict, 'reason' | 'suspicion'>[],
): Suspicion & { reason: string } {
  const counts = new Map<string, number>();
  for (const { reason } of verdicts) counts.set(reason, (counts.get(reason) ?? 0) + 1);
  const [commonest] = [...counts].sort(([, a], [, b]) => b - a);
  if (commonest === undefined) return { reason: 'suspicious', ...ofOthers };
  const [reason] = commonest;
  return { reason, ...(verdicts.find((verdict) => verdict.reason === reason)?.suspicion ?? ofOthers) };
}
