import type { EventAnswer } from '../../db/record-events.ts';
import type { Caller } from '../http/env.ts';

type Counts = Record<Exclude<EventAnswer, 'refused'>, number>;

/** What became of the events of one request. */
export class Tally {
  readonly #counts: Counts = { accepted: 0, repeated: 0, unknown: 0 };
  readonly #isOpen: boolean;

  /** A key that ships inside an app must not learn who got a message, or opened it: it is told how much was taken, and no more. */
  constructor({ scopes }: Pick<Caller, 'scopes'>) {
    this.#isOpen = scopes.includes('notifications:read') || scopes.includes('messages:read');
  }

  /** @returns whether it was taken */
  add(answer: EventAnswer): boolean {
    if (answer === 'refused') return false;
    this.#counts[answer]++;
    return true;
  }

  told(): { taken: number } & Partial<Counts> {
    const { accepted, repeated, unknown } = this.#counts;
    return { taken: accepted + repeated + unknown, ...(this.#isOpen && this.#counts) };
  }
}
