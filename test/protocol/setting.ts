import type { InDoubtPolicy } from '../../domain/notification-state.ts';
import { type Guard, type Guards, guardNames } from './guards.ts';

/** How much of everything is tried. */
export interface Setting {
  devices: number;
  policy: InDoubtPolicy;
  maxDoubts: number;
  windowSize: number;
  claims: number;
  crashes: number;
  /** Answers of PostgreSQL that get lost. */
  lostAnswers: number;
  pauses: number;
  may: ReadonlySet<Event>;
  guards: Guards;
  /** States that differ in nothing that matters count as one. Needs the guards of fence and horizon. */
  isReduced: boolean;
}

/** What else may happen. */
export type Event =
  /** Another worker claims the batch while a run goes on, or seems to. */
  | 'take over'
  | 'refuse'
  | 'be silent'
  | 'not connect'
  | 'cancel'
  | 'expire'
  | 'shut down'
  /** A run does not wait for the answers under way. */
  | 'give up'
  | 'ask elsewhere'
  /** A device lets those of another host pass. */
  | 'step aside'
  /** A statement whose connection broke is carried out after it was tried again. */
  | 'come late';

export interface Choice extends Partial<Omit<Setting, 'may' | 'guards' | 'isReduced'>> {
  may?: Event[];
  /** Guards to be switched off. */
  without?: Guard[];
  isReduced?: boolean;
}

/** A batch of two devices, claimed twice, in which all goes well but what is chosen. */
export function settingOf({ may = ['take over'], without = [], ...choice }: Choice): Setting {
  return {
    ...{ devices: 2, policy: 'redeliver', maxDoubts: 1, windowSize: 2, claims: 2 },
    ...{ crashes: 0, lostAnswers: 0, pauses: 0 },
    may: new Set(may),
    guards: Object.fromEntries(guardNames.map((guard) => [guard, !without.includes(guard)])) as Guards,
    isReduced: without.length === 0,
    ...choice,
  };
}
