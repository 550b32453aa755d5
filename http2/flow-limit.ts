/**
 * How many requests may be under way at once: learnt from how fast the peer answers, as TCP learns its window.
 *
 * A peer takes what it can and queues the rest. Requests beyond its pace only wait, and a request that waits long ends in doubt.
 * So the limit is the rate of answers times the time that requests may spend under way (Little's law). Where that time is all
 * network and no queue, rate and limit raise each other, up to the most that connections allow; where the peer is the bottleneck,
 * both stay where they are.
 *
 * The rate is measured over one request at a time, the probe: the answers that came while it was under way, divided by that time
 * (as BBR does, draft-ietf-ccwg-bbr §4.1). So a request costs a comparison or two.
 */
export interface FlowLimitOptions {
  /** The first limit. Never below `fewestRequests`. */
  readonly initial: number;
  readonly max: number;
  /** How long requests may spend under way, whatever the network's share of it is. Milliseconds. */
  readonly targetMs: number;
}

/**
 * The limit is never below this. With so few under way next to no queue forms, so they show how long an answer takes without one.
 */
export const fewestRequests = 20;
/**
 * Multiples of the time that an answer takes without a queue: while the limit still looks for its place, and once it has found
 * it.
 */
const seekingGain = 2;
const steadyGain = 1.25;

export class FlowLimit<T extends object> {
  readonly #options: FlowLimitOptions;
  #limit: number;
  #probe: T | undefined;
  #probeStartedAt = 0;
  #isProbeAnswered = false;
  /** Answers since the probe was started. */
  #answers = 0;
  /** Requests under way when the first of these answers came. */
  #underWay = 0;
  /** How long an answer takes with next to no queue. */
  #baseMs = 0;
  #answerMs = 0;
  #lastRate = 0;
  #isSeeking = true;

  constructor(options: FlowLimitOptions) {
    this.#options = options;
    this.#limit = Math.max(fewestRequests, Math.min(options.initial, options.max));
  }

  get limit(): number {
    return this.#limit;
  }

  /** How long an answer took when last measured; 0: never yet. */
  get answerMs(): number {
    return this.#answerMs;
  }

  get needsProbe(): boolean {
    return this.#probe === undefined;
  }

  /** Makes `request`, which starts now, the next probe. */
  probe(request: T, now: number): void {
    this.#probe = request;
    this.#probeStartedAt = now;
    this.#isProbeAnswered = false;
    this.#answers = 0;
    this.#underWay = 0;
  }

  /** @param underWay requests under way, this one included */
  answered(request: T, underWay: number): void {
    if (this.#answers++ === 0) this.#underWay = underWay;
    if (request === this.#probe) this.#isProbeAnswered = true;
  }

  /** The request ended without an answer, or was given back: as a probe it tells nothing. */
  ended(request: T): void {
    if (request === this.#probe) this.#probe = undefined;
  }

  /** No answer is due: the next answers are measured afresh. */
  rest(): void {
    this.#probe = undefined;
  }

  /** To be called once for all answers that came together: a burst counts as a whole. */
  adapt(now: number): void {
    if (this.#probe === undefined || this.#answers === 0) return;
    // A probe at the head of a queue comes back before it tells anything of the requests behind it; a probe that twice as many
    // requests have overtaken will not be answered.
    if (this.#answers < this.#underWay) return;
    if (!this.#isProbeAnswered && this.#answers < 2 * this.#underWay) return;
    this.#probe = undefined;
    const { max } = this.#options;
    const answerMs = Math.max(now - this.#probeStartedAt, 0.01);
    const rate = this.#answers / answerMs;
    this.#answerMs = answerMs;
    const isAtFewest = this.#underWay <= fewestRequests;
    if (isAtFewest || answerMs < this.#baseMs) this.#baseMs = answerMs;
    const isLimiting = this.#underWay >= this.#limit;
    if (isLimiting) {
      if (isAtFewest) this.#isSeeking = true;
      else if (rate < steadyGain * this.#lastRate) this.#isSeeking = false;
      this.#lastRate = rate;
    }
    const fitting = rate * this.#targetMs;
    if (isLimiting) this.#limit = Math.min(fitting, 2 * this.#limit, max);
    else if (this.#underWay > fitting) this.#limit = Math.min(fitting, this.#limit);
    this.#limit = Math.max(fewestRequests, Math.floor(this.#limit));
  }

  /** To be called now and then: lowers the limit for a peer that slows down before the probe comes back. */
  checkProbe(now: number): void {
    if (this.#probe === undefined) return;
    const elapsedMs = now - this.#probeStartedAt;
    const targetMs = this.#targetMs;
    if (elapsedMs < 2 * targetMs) return;
    const fitting = Math.floor((this.#answers / elapsedMs) * targetMs);
    if (fitting < this.#limit) this.#limit = Math.max(fewestRequests, fitting);
  }

  get #targetMs(): number {
    return Math.max(this.#options.targetMs, this.#baseMs * (this.#isSeeking ? seekingGain : steadyGain));
  }
}
