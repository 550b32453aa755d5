import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  isRepeat,
  type NotificationState,
  type NotificationVerb,
  notificationStates,
  statesThatAllow,
} from '../../domain/notification-state.ts';

/** `moves`: the change is made; `again`: it was made before, nothing happens; `no`: a conflict. */
type Answer = 'moves' | 'again' | 'no';
const verbs: NotificationVerb[] = ['launch', 'unschedule', 'pause', 'resume', 'cancel', 'setRate'];
// In the order of `verbs`.
const table: Record<NotificationState, Answer[]> = {
  draft: ['moves', 'again', 'no', 'no', 'moves', 'moves'],
  scheduled: ['moves', 'moves', 'no', 'no', 'moves', 'moves'],
  sending: ['again', 'no', 'moves', 'again', 'moves', 'moves'],
  paused: ['again', 'no', 'again', 'moves', 'moves', 'moves'],
  halted: ['again', 'no', 'no', 'moves', 'moves', 'moves'],
  completed: ['again', 'no', 'no', 'again', 'no', 'no'],
  cancelled: ['no', 'no', 'no', 'no', 'again', 'no'],
};

function answer(verb: NotificationVerb, state: NotificationState): Answer {
  if (statesThatAllow(verb).includes(state)) return 'moves';
  return isRepeat(verb, state) ? 'again' : 'no';
}

describe('what is asked of a notification', () => {
  for (const state of notificationStates) {
    test(`${state}: ${verbs.map((verb, i) => `${verb} ${table[state][i]}`).join(', ')}`, () => {
      assert.deepEqual(
        verbs.map((verb) => answer(verb, state)),
        table[state],
      );
    });
  }

  test('no state both allows a verb and takes it for a repeat', () => {
    for (const verb of verbs)
      for (const state of statesThatAllow(verb)) assert.ok(!isRepeat(verb, state), `${state} ${verb}`);
  });
});
