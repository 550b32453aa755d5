import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { suspicionOf } from '../../activities/delivery/suspicion.ts';

const topic = { reason: 'DeviceTokenNotForTopic', suspicion: { fault: 'topic', check: 'check the topic.' } } as const;
const environment = { reason: 'BadDeviceToken', suspicion: { fault: 'environment', check: 'check it.' } } as const;

describe('what a mass of suspicious answers speaks of', () => {
  for (const [verdicts, reason, fault] of [
    [[environment], 'BadDeviceToken', 'environment'],
    [[topic], 'DeviceTokenNotForTopic', 'topic'],
    [[environment, topic, topic], 'DeviceTokenNotForTopic', 'topic'],
    [[topic, environment, environment], 'BadDeviceToken', 'environment'],
    [[], 'suspicious', 'environment'],
  ] as const) {
    test(`${verdicts.map((verdict) => verdict.reason).join(', ') || 'of other runs alone'}: ${fault}`, () => {
      const suspicion = suspicionOf([...verdicts]);
      assert.deepEqual([suspicion.reason, suspicion.fault], [reason, fault]);
    });
  }
});
