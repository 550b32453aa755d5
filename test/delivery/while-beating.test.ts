import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import { MockActivityEnvironment } from '@temporalio/testing';
import { whileBeating } from '../../activities/while-beating.ts';

test('an activity with one long statement tells Temporal every second that its worker lives, and no longer than it runs', async () => {
  mock.timers.enable({ apis: ['setInterval'] });
  try {
    const environment = new MockActivityEnvironment();
    let beats = 0;
    environment.on('heartbeat', () => beats++);
    const result = await environment.run(() =>
      whileBeating(async () => {
        mock.timers.tick(3_500);
        return 'done';
      }),
    );
    assert.equal(result, 'done');
    assert.equal(beats, 3);
    mock.timers.tick(5_000);
    assert.equal(beats, 3);
    await assert.rejects(
      environment.run(() => whileBeating(() => Promise.reject(new Error('failed')))),
      /failed/,
    );
    mock.timers.tick(5_000);
    assert.equal(beats, 3);
  } finally {
    mock.timers.reset();
  }
});
