import assert from 'node:assert/strict';
import { test } from 'node:test';
import { exhausted } from '../../domain/exhausted.ts';

test('a value from outside that no case knows stops what would act on it, and is named', () => {
  const act = (state: 'sending' | 'paused'): string => {
    switch (state) {
      case 'sending':
        return 'send';
      case 'paused':
        return 'wait';
      default:
        return exhausted(state);
    }
  };
  assert.equal(act('paused'), 'wait');
  const error = { name: 'TypeError', message: 'There is no case for "archived".' };
  assert.throws(() => act('archived' as 'paused'), error);
});

test('a case that is missing does not compile', () => {
  const act = (state: 'sending' | 'paused') => {
    switch (state) {
      case 'sending':
        return 'send';
      default:
        // @ts-expect-error: `paused` has no case.
        return exhausted(state);
    }
  };
  assert.throws(() => act('paused'), TypeError);
});
