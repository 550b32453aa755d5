import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cutText, cutTextToBytes, shortenText } from '../../domain/cut-text.ts';

const family = '👨‍👩‍👧‍👦';
const flag = '🇦🇹';
const accented = 'e\u0301';

test('text is cut at whole characters, wherever the limit falls', () => {
  for (const character of ['a', 'é', '漢', '🔔', family, flag, accented, '👍🏽', '1️⃣', 'नि']) {
    for (let before = 0; before <= 12; before++) {
      const text = `${'x'.repeat(before)}${character.repeat(20)}`;
      for (let length = 0; length <= text.length; length++) {
        const cut = cutText(text, length);
        const characters = Math.floor(Math.max(0, length - before) / character.length);
        assert.equal(cut, `${'x'.repeat(Math.min(before, length))}${character.repeat(Math.min(20, characters))}`);
      }
    }
  }
});

test('text that fits is left alone', () => {
  assert.equal(cutText(family, family.length), family);
  assert.equal(shortenText('ab', 2), 'ab');
});

test('a character without end is cut between its code points', () => {
  const zalgo = `a${'\u0301'.repeat(500)}`;
  assert.equal(cutText(zalgo, 100), `a${'\u0301'.repeat(99)}`);
  const chain = Array.from({ length: 200 }, () => '👩').join('\u200d');
  assert.ok(cutText(chain, 100).isWellFormed());
  assert.ok(cutText(chain, 101).isWellFormed());
  assert.ok(cutText(chain, 101).length >= 100);
});

test('a limit in bytes of UTF-8 is kept at whole characters', () => {
  for (const character of ['a', 'é', '漢', '🔔', family]) {
    const bytes = Buffer.byteLength(character);
    for (let limit = 0; limit <= bytes * 5; limit++) {
      assert.equal(cutTextToBytes(character.repeat(5), limit), character.repeat(Math.floor(limit / bytes)));
    }
  }
});

test('the ellipsis of a shortened text counts', () => {
  assert.equal(shortenText('abcdef', 4), 'abc…');
  assert.equal(shortenText(`ab${family}`, 4), 'ab…');
});
