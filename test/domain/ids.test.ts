import assert from 'node:assert/strict';
import { test } from 'node:test';
import { batchWorkflowId, notificationWorkflowId } from '../../domain/ids.ts';

const id = '01890a5d-ac96-774b-bcce-b302099a8057';

test('a notification and each of its batches have an id in Temporal that says which they are', () => {
  assert.equal(notificationWorkflowId(id), `notification-${id}`);
  assert.equal(batchWorkflowId(id, 0), `notification-${id}/batch-0`);
  assert.equal(batchWorkflowId(id, 1_234_567), `notification-${id}/batch-1234567`);
});

test('the id of a batch begins with that of its notification, so that a search by prefix finds them together', () => {
  assert.ok(batchWorkflowId(id, 7).startsWith(`${notificationWorkflowId(id)}/`));
});
