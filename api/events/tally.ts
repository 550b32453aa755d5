import type { EventAnswer } from '../../db/record-events.ts';
import { toldEvents } from '../../telemetry/http-metrics.ts';
import type { Caller } from '../http/env.ts';

/** What became of the events of one request. */
export class Tally {
  readonly #counts: Record<EventAnswer, number> = { accepted: 0, repeated: 0, unknown: 0, refused: 0 };
  readonly #isOpen: boolean;

  /** A key that ships inside an app must not learn who got a message, or opened it: it is told how much was taken, and no more. */
  constructor({ scopes }: Pick<Caller, 'scopes'>) {
    this.#isOpen = scopes.includes('notifications:read') || scopes.includes('messages:read');
  }

  /** @returns the places of those that were refused */
  add(answers: EventAnswer[]): number[] {
    const own = Object.groupBy(answers.keys(), (place) => answers[place]!);
    for (const [result, places] of Object.entries(own) as [EventAnswer, number[]][]) {
      this.#counts[result] += places.length;
      toldEvents.inc({ result }, places.length);
    }
    return own.refused ?? [];
  }

  told(): { taken: number; accepted?: number; repeated?: number; unknown?: number } {
    const { refused: _told, ...counts } = this.#counts;
    const taken = counts.accepted + counts.repeated + counts.unknown;
    return { taken, ...(this.#isOpen && counts) };
  }
}
