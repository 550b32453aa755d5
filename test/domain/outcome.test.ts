import assert from 'node:assert/strict';
import { test } from 'node:test';
import { emptyOutcomeCounts, outcomes, sumOfOutcomes } from '../../domain/outcome.ts';

test('counts begin with every outcome at 0, each time anew', () => {
  const counts = emptyOutcomeCounts();
  assert.deepEqual(counts, Object.fromEntries(outcomes.map((outcome) => [outcome, 0])));
  counts.accepted++;
  assert.equal(emptyOutcomeCounts().accepted, 0);
});

test('the sum counts every outcome once', () => {
  assert.equal(sumOfOutcomes(emptyOutcomeCounts()), 0);
  for (const outcome of outcomes) assert.equal(sumOfOutcomes({ ...emptyOutcomeCounts(), [outcome]: 3 }), 3, outcome);
  const counts = emptyOutcomeCounts();
  outcomes.forEach((outcome, i) => {
    counts[outcome] = 10 ** i;
  });
  assert.equal(sumOfOutcomes(counts), Number('1'.repeat(outcomes.length)));
});
