import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { OverloadWatch, ProviderHealth, type ProviderSign } from '../../activities/delivery/overload-watch.ts';

/** One request after the other, each answered so. */
function noteMany(health: ProviderHealth, count: number, sign: ProviderSign): boolean[] {
  return Array.from({ length: count }, () => health.note(health.begin(), sign));
}

describe('refusals that speak for everybody', () => {
  test('one in a hundred never makes everybody wait', () => {
    const health = new ProviderHealth();
    const waits = Array.from({ length: 10_000 }, (_, n) =>
      health.note(health.begin(), n % 100 === 0 ? 'refusal' : 'well'),
    );
    assert.equal(waits.includes(true), false);
  });

  test('from the start make everybody wait within a handful of answers', () => {
    assert.deepEqual(noteMany(new ProviderHealth(), 6, 'refusal'), [false, false, false, false, true, true]);
  });

  test('a quota that runs out in mid-send is noticed within a few dozen answers', () => {
    const health = new ProviderHealth();
    noteMany(health, 100_000, 'well');
    assert.equal(noteMany(health, 30, 'refusal').at(-1), true);
  });

  test('a provider that is well again is forgiven within a thousand answers', () => {
    const health = new ProviderHealth();
    noteMany(health, 1_000, 'refusal');
    noteMany(health, 1_000, 'well');
    assert.equal(health.note(health.begin(), 'refusal'), false);
  });
});

describe('a provider that fails everybody', () => {
  test('is noticed after a handful, whether it answers errors or nothing', () => {
    assert.deepEqual(noteMany(new ProviderHealth(), 6, 'failure'), [false, false, false, false, true, true]);
  });

  test('in mid-send: after a handful beyond those who were under way', () => {
    const health = new ProviderHealth();
    noteMany(health, 10_000, 'well');
    const underWay = Array.from({ length: 2_000 }, () => health.begin());
    assert.ok(underWay.every((number) => !health.note(number, 'failure')));
    assert.deepEqual(noteMany(health, 4, 'failure'), [false, false, false, true]);
  });

  test('a connection that breaks with all of its requests is no outage', () => {
    const health = new ProviderHealth();
    for (let round = 0; round < 5; round++) {
      const lost = Array.from({ length: 500 }, () => health.begin());
      assert.ok(lost.every((number) => !health.note(number, 'failure')));
      noteMany(health, 3, 'well');
    }
    assert.equal(health.isFailing, false);
  });

  test('half of the answers failing is no outage', () => {
    const health = new ProviderHealth();
    for (let n = 0; n < 1_000; n++) {
      assert.equal(health.note(health.begin(), n % 2 === 0 ? 'failure' : 'well'), false);
    }
  });

  test('is left alone twice as long each time, up to a minute, until it takes a message', () => {
    const health = new ProviderHealth();
    assert.deepEqual(
      Array.from({ length: 5 }, () => health.outageWaitMs(10_000)),
      [10_000, 20_000, 40_000, 60_000, 60_000],
    );
    health.note(health.begin(), 'well');
    assert.equal(health.outageWaitMs(10_000), 10_000);
  });
});

test('one app’s refusals say nothing about another’s', () => {
  const watch = new OverloadWatch();
  noteMany(watch.of('1 apns'), 100, 'refusal');
  assert.deepEqual(noteMany(watch.of('2 apns'), 4, 'refusal'), [false, false, false, false]);
  assert.equal(watch.of('1 apns'), watch.of('1 apns'));
});
