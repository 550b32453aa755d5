import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { cleanText, storableReason } from '../../domain/outside-text.ts';

describe('text from outside', () => {
  test('is storable without NUL and half characters, and otherwise as it came', () => {
    assert.equal(storableReason('a\u0000b'), 'a\ufffdb');
    assert.equal(storableReason('a\ud800'), 'a\ufffd');
    assert.equal(storableReason(' a\tb\r\n\u001b[1m '), ' a\tb\r\n\u001b[1m ');
    assert.equal(storableReason('x'.repeat(201)), 'x'.repeat(200));
  });

  test('is clean without control characters and space around it as well; tabs and line feeds may stand in it', () => {
    assert.equal(cleanText(' a\u0000\tb\r\n\u001b[1mc\u009b ', 100), 'a\tb\n[1mc');
    assert.equal(cleanText('a\ud800', 100), 'a\ufffd');
    assert.equal(cleanText(' abc ', 2), 'ab');
  });
});
