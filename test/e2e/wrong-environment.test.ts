/** A short run of the chaos program's small sends in a wrong APNs environment. */
import assert from 'node:assert/strict';
import os from 'node:os';
import { after, before, describe, test } from 'node:test';
import { type Stack, startStack } from '../../local/stack.ts';
import { chaosStack } from '../chaos/settings.ts';
import { runWrongEnvironment } from '../chaos/wrong-environment.ts';

describe('small sends in a wrong environment, paused and resumed while workers are killed', {
  timeout: 170_000,
}, () => {
  let stack: Stack;
  before(async () => {
    stack = await startStack(chaosStack(os.tmpdir()));
  });
  after(() => stack?.stop());

  test('retire no device, halt, and go on once the environment is right (seed 3)', async () => {
    const { problems, halted, retired, kills, pauses } = await runWrongEnvironment(stack, 3, 0, 36);
    assert.deepEqual(problems, []);
    assert.equal(retired, 0);
    assert.ok(halted > 0 && kills + pauses > 0, JSON.stringify({ halted, kills, pauses }));
  });
});
