/** Refusals that speak for everybody, so many and so large a share of the answers, before everybody waits. */
const minRefusals = 5;
const minShare = 0.05;
/** Answers after which older ones count half. */
const memory = 200;

/**
 * Tells a provider that is overloaded, or a quota that is used up, from a refusal here and there. Both look the same in one
 * answer (APNs 503, FCM 429 without a scope); if each single one stopped the app's sends, one bad server in a thousand
 * requests would hold up a campaign. The refused device itself always waits. One for all sends of a process.
 */
export class OverloadWatch {
  readonly #counts = new Map<string, { answered: number; refused: number }>();

  /** Notes one answer of the provider scope. @returns true when everybody should wait */
  note(scope: string, isRefused: boolean): boolean {
    let counts = this.#counts.get(scope);
    if (counts === undefined) {
      counts = { answered: 0, refused: 0 };
      this.#counts.set(scope, counts);
    } else if (counts.answered >= memory) {
      counts.answered /= 2;
      counts.refused /= 2;
    }
    counts.answered += 1;
    if (!isRefused) return false;
    counts.refused += 1;
    return counts.refused >= minRefusals && counts.refused >= counts.answered * minShare;
  }
}
