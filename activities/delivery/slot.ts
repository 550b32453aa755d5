/** A run's right to a part of its worker, which is left while the run only waits. */
export interface Slot {
  /** Whether the rate limit is waited for within the run. */
  mayWaitForQuota(waitMs: number): boolean;
  /** The same for devices that were refused for now. */
  mayWaitForDeferred(waitMs: number): boolean;
  /** @param reason for people */
  waitHere(waitMs: number, reason: string): Promise<void>;
  /** A host that says nothing must not hold a slot either. Asked every `silenceMs`. */
  leaveInSilence(answered: number, inFlight: number): void;
  noteAnswer(): void;
  takeBack(): void;
}
