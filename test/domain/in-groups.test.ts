import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { inGroups } from '../../domain/in-groups.ts';

describe('work in groups', () => {
  /** Calls that end when they are told to. */
  function held() {
    const calls: { items: number[]; end(): void; fail(): void }[] = [];
    const work = (items: number[]) =>
      new Promise<string[]>((resolve, reject) => {
        calls.push({
          items,
          end: () => resolve(items.map((item) => `done ${item}`)),
          fail: () => reject(new Error('no')),
        });
      });
    return { calls, work };
  }

  test('one item alone does not wait; what comes meanwhile goes together, at most so many at once', async () => {
    const { calls, work } = held();
    const one = inGroups(work, 3);
    const results = Promise.all([1, 2, 3, 4, 5].map(one));
    assert.deepEqual(calls[0]?.items, [1]);
    for (let n = 0; n < 3; n++) {
      calls[n]!.end();
      await new Promise(setImmediate);
    }
    assert.deepEqual(
      calls.map(({ items }) => items),
      [[1], [2, 3, 4], [5]],
    );
    assert.deepEqual(await results, ['done 1', 'done 2', 'done 3', 'done 4', 'done 5']);
  });

  test('items of several sizes go together up to a sum; one that is larger goes alone', async () => {
    const { calls, work } = held();
    const one = inGroups(work, 5, (size) => size);
    const results = Promise.all([1, 3, 2, 7, 4, 1].map(one));
    for (let n = 0; n < 4; n++) {
      calls[n]!.end();
      await new Promise(setImmediate);
    }
    assert.deepEqual(
      calls.map(({ items }) => items),
      [[1], [3, 2], [7], [4, 1]],
    );
    assert.equal((await results).length, 6);
  });

  test('an error is that of its group alone', async () => {
    const { calls, work } = held();
    const one = inGroups(work, 3);
    const results = Promise.allSettled([1, 2, 3].map(one));
    calls[0]!.end();
    await new Promise(setImmediate);
    calls[1]!.fail();
    assert.deepEqual(
      (await results).map(({ status }) => status),
      ['fulfilled', 'rejected', 'rejected'],
    );
    const later = one(4);
    calls[2]!.end();
    assert.equal(await later, 'done 4');
  });
});
