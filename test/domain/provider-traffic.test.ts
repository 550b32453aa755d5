import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { answerBoundsMs, answerClasses, ProviderTraffic } from '../../domain/provider-traffic.ts';

describe('the traffic of a provider', () => {
  test('has each answer in its class and below the first bound that is not smaller', () => {
    const traffic = new ProviderTraffic();
    traffic.noteAnswer(200, 5);
    traffic.noteAnswer(204, 5.1);
    traffic.noteAnswer(410, 0);
    traffic.noteAnswer(429, 10_000);
    traffic.noteAnswer(503, 10_001);
    const width = answerBoundsMs.length + 1;
    const found = Array.from(traffic.answers).flatMap((count, i) =>
      count === 0 ? [] : [[answerClasses[Math.floor(i / width)], i % width, count]],
    );
    assert.deepEqual(found, [
      ['2xx', 0, 1],
      ['2xx', 1, 1],
      ['4xx', 0, 1],
      ['429', answerBoundsMs.length - 1, 1],
      ['5xx', answerBoundsMs.length, 1],
    ]);
    assert.deepEqual([...traffic.answerMs], [10.1, 0, 10_000, 10_001]);
  });
});
