import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { suspicionOf } from '../../activities/delivery/suspicion.ts';

describe('what a mass of suspicious answers speaks of', () => {
  const rows: [reasons: string[], reason: string, fault: string][] = [
    [['BadDeviceToken'], 'BadDeviceToken', 'environment'],
    [['DeviceTokenNotForTopic'], 'DeviceTokenNotForTopic', 'topic'],
    [['SENDER_ID_MISMATCH'], 'SENDER_ID_MISMATCH', 'project'],
    [['BadDeviceToken', 'DeviceTokenNotForTopic', 'DeviceTokenNotForTopic'], 'DeviceTokenNotForTopic', 'topic'],
    [['A word that is not known'], 'A word that is not known', 'environment'],
    [[], 'suspicious', 'environment'],
  ];
  for (const [reasons, reason, fault] of rows) {
    test(`${reasons.join(', ') || 'of other runs alone'}: ${fault}`, () => {
      const suspicion = suspicionOf(reasons);
      assert.deepEqual([suspicion.reason, suspicion.fault], [reason, fault]);
    });
  }
});
