/**
 * When a suspicious answer (`BadDeviceToken`, `SENDER_ID_MISMATCH`, …) may be believed. A dead token gets it, and so does every
 * healthy one while environment, topic, project or credential is wrong; what other devices got with the same configuration tells
 * which.
 */
export interface TokenEvidence {
  /** Accepted devices among about the last 200 that were answered. */
  accepted: number;
  /** Different devices among the same whose token the provider called bad. */
  suspicious: number;
}

/** A larger share of suspicious devices than this, and at least this many, is a configuration fault. */
const maxSuspiciousShare = 0.2;
const minSuspicious = 10;

/**
 * - `dead`: the configuration has lately been accepted, and no more tokens than usual are called bad: these tokens are dead.
 * - `fault`: so many are called bad that the configuration must be wrong.
 * - `undecided`: too little is known, so no device is retired.
 */
export function weighTokens({ accepted, suspicious }: TokenEvidence): 'dead' | 'undecided' | 'fault' {
  if (suspicious <= maxSuspiciousShare * (accepted + suspicious)) return 'dead';
  return suspicious >= minSuspicious ? 'fault' : 'undecided';
}
