import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { createTemporalWaker } from '../../api/notifications/temporal-waker.ts';
import { notificationWorkflowId } from '../../domain/ids.ts';
import type { Logger } from '../../domain/logger.ts';
import { uuidV7 } from '../../domain/uuid-v7.ts';
import { connectTestTemporal, type TestTemporal } from '../support/temporal.ts';

const nothing = () => {};
const log: Logger = { debug: nothing, info: nothing, warn: nothing, error: nothing };
const sale = (id: string) => ({ id, appId: 1, title: 'Autumn sale', audience: {} });

describe('waking a workflow', () => {
  let temporal: TestTemporal;
  before(async () => {
    temporal = await connectTestTemporal();
  });
  after(() => temporal.close());

  const wakerFor = (address: string, deadlineMs: number) =>
    createTemporalWaker({
      env: { TEMPORAL_ADDRESS: address },
      taskQueuePrefix: temporal.taskQueuePrefix,
      deadlineMs,
      log,
    });

  test('the first call starts the workflow, without a signal, and says what it is about; the next ones signal it', async () => {
    const waker = wakerFor(temporal.address, 5_000);
    const id = uuidV7();
    assert.equal(await waker.check(), 'reachable');
    assert.deepEqual(await Promise.all([waker.wake(sale(id)), waker.wake(sale(id))]), ['woken', 'woken']);
    assert.equal(await waker.wake(sale(id)), 'woken');
    const handle = temporal.client.workflow.getHandle(notificationWorkflowId(id));
    const description = await handle.describe();
    assert.deepEqual(
      [description.status.name, description.type, description.taskQueue],
      ['RUNNING', 'notificationWorkflow', `${temporal.taskQueuePrefix}notifications`],
    );
    assert.equal(description.memo?.title, 'Autumn sale');
    assert.equal(await description.staticSummary(), 'Autumn sale');
    const { events } = await handle.fetchHistory();
    const count = (kind: 'workflowExecutionStartedEventAttributes' | 'workflowExecutionSignaledEventAttributes') =>
      events?.filter((event) => event[kind]).length;
    assert.equal(count('workflowExecutionStartedEventAttributes'), 1);
    assert.equal(count('workflowExecutionSignaledEventAttributes'), 2);
    await handle.terminate();
    assert.equal(await waker.wake(sale(id)), 'woken', 'a terminated send can be started again');
    await temporal.client.workflow.getHandle(notificationWorkflowId(id)).terminate();
    await waker.close();
  });

  test('a Temporal that is away costs the deadline and nothing else', async () => {
    const waker = wakerFor('127.0.0.1:1', 300);
    const startedAt = performance.now();
    assert.equal(await waker.wake(sale(uuidV7())), 'deferred');
    assert.match(await waker.check(), /^unreachable/);
    assert.ok(performance.now() - startedAt < 2_000);
    await waker.close();
  });
});
