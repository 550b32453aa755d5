/** The simulator's own wall clock. It can differ from the machine's, to age provider tokens and quotas. */
export class SimulatorClock {
  /** Milliseconds added to the machine's clock. */
  offsetMs = 0;

  now(): number {
    return Date.now() + this.offsetMs;
  }
}

/** The `date` header of HTTP, built once a second. */
export class HttpDate {
  readonly #clock: SimulatorClock;
  #second = -1;
  #text = '';

  constructor(clock: SimulatorClock) {
    this.#clock = clock;
  }

  text(): string {
    const second = Math.floor(this.#clock.now() / 1000);
    if (second !== this.#second) {
      this.#second = second;
      this.#text = new Date(second * 1000).toUTCString();
    }
    return this.#text;
  }
}
