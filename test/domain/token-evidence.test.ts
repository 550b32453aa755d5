import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { weighTokens } from '../../domain/token-evidence.ts';

describe('what others got with the same configuration tells of a suspicious answer', () => {
  type Row = [rule: string, accepted: number, suspicious: number, judgement: ReturnType<typeof weighTokens>];
  const rows: Row[] = [
    ['one among five is a dead token', 4, 1, 'dead'],
    ['… one among four may be anything', 3, 1, 'undecided'],
    ['… two among nine too', 7, 2, 'undecided'],
    ['a fifth of all is no more than usual', 160, 40, 'dead'],
    ['… one more is a fault', 159, 41, 'fault'],
    ['nine alone prove no fault', 0, 9, 'undecided'],
    ['… whatever was accepted, if they are more than a fifth', 35, 9, 'undecided'],
    ['… and are dead once they are not', 36, 9, 'dead'],
    ['ten alone do', 0, 10, 'fault'],
    ['… while they are more than a fifth', 39, 10, 'fault'],
    ['… and are dead once they are not', 40, 10, 'dead'],
    ['all of a day', 0, 200, 'fault'],
    ['one among all of a day', 199, 1, 'dead'],
  ];
  for (const [rule, accepted, suspicious, judgement] of rows) {
    test(`${rule}: ${accepted} accepted, ${suspicious} suspicious: ${judgement}`, () => {
      assert.equal(weighTokens({ accepted, suspicious }), judgement);
    });
  }

  test('exactly a fifth is believed, whatever the number', () => {
    for (let suspicious = 1; suspicious <= 1_000; suspicious++) {
      assert.equal(weighTokens({ accepted: suspicious * 4, suspicious }), 'dead', `${suspicious}`);
      assert.notEqual(weighTokens({ accepted: suspicious * 4 - 1, suspicious }), 'dead', `${suspicious}`);
    }
  });
});
