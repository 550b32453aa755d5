import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { addToGroups, type DeliveryGroup, type Ended, positionRows } from '../../db/delivery-groups.ts';

const accepted: Ended = { outcome: 'accepted', reason: null, httpStatus: 200, attempts: 1, inDoubt: false };

function groupOf(devices: [position: number, providerMessageId?: string | undefined][]): DeliveryGroup {
  const groups: DeliveryGroup[] = [];
  for (const [position, id] of devices) addToGroups(groups, accepted, position, id);
  assert.equal(groups.length, 1);
  return groups[0]!;
}

/** What the view makes of the rows. */
function unfold(group: DeliveryGroup): [position: number, providerMessageId: string | undefined][] {
  return positionRows(group).flatMap(({ firstPosition, positions, providerMessageIds }) => {
    const ids = providerMessageIds?.split(' ');
    const members = [...positions].flatMap((bit, at) => (bit === '1' ? [firstPosition + at] : []));
    return members.map((position, n): [number, string | undefined] => [position, ids?.[n] || undefined]);
  });
}

describe('devices that ended alike', () => {
  test('are one group; any difference in how they ended makes another', () => {
    const others: Partial<Ended>[] = [
      { outcome: 'rejected' },
      { reason: 'BadTopic' },
      { httpStatus: null },
      { attempts: 2 },
      { inDoubt: true },
    ];
    const groups: DeliveryGroup[] = [];
    for (let round = 0; round < 2; round++) {
      [{}, ...others].forEach((other, n) => {
        addToGroups(groups, { ...accepted, ...other }, 10 * n + round);
      });
    }
    assert.deepEqual(
      groups.map(({ positions }) => positions),
      [0, 1, 2, 3, 4, 5].map((n) => [10 * n, 10 * n + 1]),
    );
  });

  test('are a bit each, from the first to the last, in whatever order they came', () => {
    assert.deepEqual(positionRows(groupOf([[7], [3], [4]])), [
      { firstPosition: 3, positions: '11001', providerMessageIds: null },
    ]);
  });

  test('far apart are rows of their own: a gap would take more bytes than a row', () => {
    const rows = positionRows(groupOf([[0], [1_000], [2_001], [2_002]]));
    assert.deepEqual(
      rows.map(({ firstPosition, positions }) => [firstPosition, positions.length]),
      [
        [0, 1_001],
        [2_001, 2],
      ],
    );
  });

  test('keep the ids of their messages by position; none, or one that could not be told from two, is nothing', () => {
    const [row] = positionRows(groupOf([[5, 'e'], [2, 'b'], [3], [4, 'two words']]));
    assert.equal(row!.providerMessageIds, 'b   e');
  });

  test('come back as they were, whatever they are', () => {
    const id = fc.option(fc.stringMatching(/^[!-~]{1,12}$/), { nil: undefined });
    const devices = fc.uniqueArray(fc.tuple(fc.nat(70_000), id), { minLength: 1, selector: ([position]) => position });
    fc.assert(
      fc.property(devices, (given) => {
        assert.deepEqual(
          unfold(groupOf(given)),
          given.toSorted(([a], [b]) => a - b),
        );
      }),
    );
  });
});
