import assert from 'node:assert/strict';
import { test } from 'node:test';
import { providerNames } from '../../domain/device.ts';
import {
  deliveryTaskQueue,
  laneTaskQueue,
  notificationsTaskQueue,
  taskQueuePrefix,
  workerRoles,
} from '../../domain/task-queues.ts';

const prefixes = ['', 'staging-', 'notifications', 'a.b/'];

test('the prefix of an installation is read from the name of its notifications queue', () => {
  for (const prefix of prefixes) assert.equal(taskQueuePrefix(notificationsTaskQueue(prefix)), prefix);
  assert.equal(notificationsTaskQueue(), 'notifications');
  assert.equal(notificationsTaskQueue('staging-'), 'staging-notifications');
});

test('each provider has a queue and one for urgent batches', () => {
  assert.deepEqual(
    providerNames.flatMap((name) => [deliveryTaskQueue('p-', name, false), deliveryTaskQueue('p-', name, true)]),
    providerNames.flatMap((name) => [`p-${name}`, `p-${name}-urgent`]),
  );
});

test('no two queues have one name', () => {
  for (const prefix of prefixes) {
    const delivery = providerNames.flatMap((name) => [true, false].map((urgent) => [name, urgent] as const));
    const queues = [
      notificationsTaskQueue(prefix),
      ...delivery.map(([name, isUrgent]) => deliveryTaskQueue(prefix, name, isUrgent)),
      ...providerNames.map((name) => laneTaskQueue(prefix, name)),
    ];
    assert.equal(new Set(queues).size, 1 + 3 * providerNames.length);
  }
});

test('a worker can have the role of each provider, look after notifications, and keep lanes', () => {
  assert.deepEqual(workerRoles, ['notifications', ...providerNames, 'lanes']);
});
