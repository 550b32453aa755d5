/**
 * When a suspicious answer (`BadDeviceToken`, `SENDER_ID_MISMATCH`, …) may be believed. A dead token gets it, and so does every
 * healthy one while environment, topic, project or credential is wrong; what others got with the same configuration tells.
 */
export interface TokenEvidence {
  /** Devices that the provider accepted, of about the last 200 that were answered. */
  accepted: number;
  /** Different devices whose token it called bad, among the same. */
  suspicious: number;
}

/** More suspicious devices than this share of the answers, and at least so many, are a configuration fault. */
const maxSuspiciousShare = 0.2;
const minSuspicious = 10;

/**
 * - `dead`: the configuration has lately been accepted, and no more tokens than usual are called bad: they are.
 * - `fault`: so many that the configuration must be wrong.
 * - `undecided`: too little is known. Nobody is retired for that.
 */
export function weighTokens({ accepted, suspicious }: TokenEvidence): 'dead' | 'undecided' | 'fault' {
  if (suspicious <= maxSuspiciousShare * (accepted + suspicious)) return 'dead';
  return suspicious >= minSuspicious ? 'fault' : 'undecided';
}
