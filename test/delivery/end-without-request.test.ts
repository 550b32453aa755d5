import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { endByExpiry, endWithoutRequest } from '../../activities/delivery/end-without-request.ts';
import type { PendingDevice } from '../../activities/delivery/pending.ts';
import type { InDoubtPolicy } from '../../domain/notification-state.ts';

type Before = Pick<PendingDevice, 'address' | 'reached' | 'doubts'>;

const address = { deviceToken: 'ab', apnsEnvironment: null, platform: 'ios', isNew: false } as const;
const live: Before = { address, reached: undefined, doubts: 0 };
const gone = { address: undefined };
const maxDoubts = 2;

const rows: [rule: string, before: Partial<Before>, policy: InDoubtPolicy, end: string][] = [
  ['a live device', {}, 'redeliver', 'is sent to'],
  ['… under skip too', {}, 'skip', 'is sent to'],
  ['one in doubt', { doubts: 1 }, 'redeliver', 'is sent to'],
  ['… as often as is allowed', { doubts: 2 }, 'redeliver', 'is sent to'],
  ['… and no more', { doubts: 3 }, 'redeliver', 'unknown: in_doubt'],
  ['… never under skip', { doubts: 1 }, 'skip', 'unknown: in_doubt'],
  ['one that is gone', gone, 'redeliver', 'skipped: device_gone'],
  ['… and may have got it before', { ...gone, doubts: 1 }, 'redeliver', 'unknown: device_gone'],
  ['one whose phone has the message', { reached: 'certainly' }, 'redeliver', 'skipped: already_reached'],
  ['… and may have got it again', { reached: 'certainly', doubts: 1 }, 'redeliver', 'unknown: already_reached'],
  ['one whose phone may have it, which is a doubt', { reached: 'perhaps', doubts: 1 }, 'redeliver', 'is sent to'],
];

describe('before a request', () => {
  for (const [rule, before, policy, end] of rows) {
    test(`${rule}: ${end}`, () => {
      const { outcome, reason } = endWithoutRequest({ ...live, ...before }, policy, maxDoubts) ?? {};
      assert.equal(outcome === undefined ? 'is sent to' : `${outcome}: ${reason}`, end);
    });
  }

  test('a device whose time is over ends as expired, or as unknown when it may have got the message', () => {
    assert.deepEqual(endByExpiry(0), { outcome: 'expired', reason: null });
    assert.deepEqual(endByExpiry(1), { outcome: 'unknown', reason: 'in_doubt' });
  });
});
