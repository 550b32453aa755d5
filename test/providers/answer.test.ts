import assert from 'node:assert/strict';
import { test } from 'node:test';
import { storableReason } from '../../domain/outside-text.ts';
import { readAnswer, reasonWord } from '../../providers/answer.ts';
import { readFcmAnswer } from '../../providers/fcm/errors.ts';

const now = new Date('2026-03-01T12:00:00Z');
const read = (body: string) =>
  readAnswer({ httpStatus: 400, body: Buffer.from(body), retryAfter: undefined, date: undefined }, now);

test('what is kept of a provider’s text ends with a whole character, wherever the limit falls', () => {
  for (const character of ['é', '漢', '🔔', '👨‍👩‍👧‍👦']) {
    for (let before = 0; before < 12; before++) {
      const text = 'x'.repeat(before) + character.repeat(2_048);
      for (const kept of [
        read(text).text,
        reasonWord(text)!,
        storableReason(text),
        readFcmAnswer(read(JSON.stringify({ error: { code: 400, status: text } }))).reason,
      ]) {
        assert.ok(kept.length > 100 && kept.length <= 2_048);
        assert.ok(text.startsWith(kept), kept);
        assert.equal((kept.length - before) % character.length, 0);
      }
    }
  }
});
