import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { type ProviderAnswer, readAnswer } from '../../providers/answer.ts';
import { apnsVerdict, defaultApnsWaits, readApnsAnswer } from '../../providers/apns/reasons.ts';
import { defaultFcmWaits, fcmVerdict, readFcmAnswer } from '../../providers/fcm/errors.ts';
import type { Verdict } from '../../providers/provider.ts';

const now = new Date('2026-03-01T12:00:00Z');
const status = fc.integer({ min: 201, max: 599 });
/** Words that the tables know, in places where they do not belong. */
const word = fc.constantFrom(
  'Unregistered',
  'UNREGISTERED',
  'BadDeviceToken',
  'NOT_FOUND',
  '__proto__',
  'constructor',
  '',
);
const json = fc.oneof(fc.jsonValue(), fc.record({ reason: fc.oneof(word, fc.jsonValue()), timestamp: fc.jsonValue() }));
const googleJson = fc.record({
  error: fc.record({
    status: fc.oneof(word, fc.jsonValue()),
    message: fc.oneof(word, fc.jsonValue()),
    details: fc.oneof(
      fc.jsonValue(),
      fc.array(
        fc.dictionary(
          fc.constantFrom('@type', 'errorCode', 'reason', 'fieldViolations'),
          fc.oneof(word, fc.jsonValue()),
        ),
      ),
    ),
  }),
});
const body = fc.oneof(
  fc.uint8Array({ maxLength: 64 }),
  fc.oneof(json, googleJson).map((value) => Buffer.from(JSON.stringify(value))),
  fc.string().map((text) => Buffer.from(`<html>${text}`)),
);
const header = fc.option(fc.string(), { nil: undefined });

const readers: Record<string, (answer: ProviderAnswer) => Verdict | undefined> = {
  APNs: (answer) => apnsVerdict(answer, readApnsAnswer(answer), defaultApnsWaits, () => 0.5),
  FCM: (answer) => fcmVerdict(answer, readFcmAnswer(answer), defaultFcmWaits),
};

function isStorable(text: string): boolean {
  return !text.includes('\0') && text.isWellFormed() && text.length <= 2_048;
}

describe('whatever a provider answers', () => {
  for (const [name, read] of Object.entries(readers)) {
    test(`${name}: there is a verdict that can be stored, and only a reason from the table drops a device`, () => {
      fc.assert(
        fc.property(status, body, header, header, (httpStatus, bytes, retryAfter, date) => {
          const answer = readAnswer({ httpStatus, body: bytes, retryAfter, date }, now);
          const verdict = read(answer);
          if (verdict === undefined) return;
          if ('reason' in verdict) assert.ok(verdict.reason !== '' && isStorable(verdict.reason));
          if ('detail' in verdict && verdict.detail !== undefined) assert.ok(isStorable(verdict.detail));
          if ('afterMs' in verdict && verdict.afterMs !== undefined) {
            assert.ok(verdict.afterMs >= 0 && verdict.afterMs <= 3_600_000);
          }
          if (verdict.kind === 'unregistered') assert.notEqual(answer.json, undefined);
          assert.notEqual(verdict.kind, 'accepted');
        }),
        { numRuns: 2_000 },
      );
    });

    test(`${name}: an answer that is no JSON object drops nobody`, () => {
      fc.assert(
        fc.property(status, fc.string(), (httpStatus, text) => {
          const answer = readAnswer(
            { httpStatus, body: Buffer.from(`[${text}`), retryAfter: undefined, date: undefined },
            now,
          );
          assert.notEqual(read(answer)?.kind, 'unregistered');
        }),
      );
    });
  }
});
