import assert from 'node:assert/strict';
import { test } from 'node:test';
import { uuidV7 } from '../../domain/uuid-v7.ts';

test('has the form, the version and the variant of RFC 9562', () => {
  for (let i = 0; i < 200; i++) {
    assert.match(uuidV7(), /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  }
});

test('begins with its milliseconds, all 48 bits of them', () => {
  for (const [now, beginning] of [
    [0, '00000000-0000-7'],
    [1, '00000000-0001-7'],
    // The example of RFC 9562, appendix A.6.
    [0x017f22e279b0, '017f22e2-79b0-7'],
    [2 ** 32 - 1, '0000ffff-ffff-7'],
    [2 ** 32, '00010000-0000-7'],
    [2 ** 48 - 1, 'ffffffff-ffff-7'],
  ] as const) {
    assert.ok(uuidV7(now).startsWith(beginning), `${now}: ${uuidV7(now)}`);
  }
});

test('sorts by time as a text', () => {
  const times = [0, 1, 255, 256, 65_535, 65_536, 2 ** 32 - 1, 2 ** 32, 1_700_000_000_000, 1_700_000_000_001];
  const ids = times.map((now) => uuidV7(now));
  assert.deepEqual(ids.toSorted(), ids);
});

test('sorts by the order of its making within a millisecond', () => {
  const ids = Array.from({ length: 4_096 }, () => uuidV7(1_700_000_000_002));
  assert.deepEqual(ids.toSorted(), ids);
});

test('is another one each time, within a millisecond too', () => {
  assert.equal(new Set(Array.from({ length: 10_000 }, () => uuidV7(1_700_000_000_000))).size, 10_000);
});

test('has the time of its making when none is given', () => {
  const before = Date.now();
  const madeAt = Number.parseInt(uuidV7().replaceAll('-', '').slice(0, 12), 16);
  assert.ok(madeAt >= before && madeAt <= Date.now());
});
