/** Temporal's own list finds sends by what they are: on the real dev server, whose list lags behind a little. */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { Client } from '@temporalio/client';
import { Worker } from '@temporalio/worker';
import { SearchAttributes } from '../../activities/search-attributes.ts';
import { accepted, gate } from '../delivery/harness.ts';
import { until } from '../support/until.ts';
import { createSendBench, type RunningWorker, type SendBench, type TestSend, workflowBundle } from './harness.ts';

const nothing = () => {};
const quiet = { debug: nothing, info: nothing, warn: nothing, error: nothing };

let bench: SendBench;
let search: SearchAttributes;
let worker: RunningWorker;
before(async () => {
  bench = await createSendBench();
  search = new SearchAttributes(bench.temporal.client, quiet);
  await search.register(new AbortController().signal);
  assert.ok(search.isOn);
});
beforeEach(async () => {
  worker = await bench.startWorker({ search, smallAudience: 20, batchSize: 20, batchesPerRun: 2, openBatches: 1 });
  for (const provider of Object.values(bench.providers)) provider.answer = () => accepted;
});
afterEach(() => worker.stop());
after(() => bench.close());

const launch = (options: Parameters<SendBench['launch']>[0], title: string = randomUUID()) =>
  bench.launch({ ...options, message: { title } }).then((send) => ({ send, title }));

async function listed(query: string): Promise<string[]> {
  const ids: string[] = [];
  for await (const { workflowId, status } of bench.temporal.client.workflow.list({ query })) {
    // Runs that went on as new are in the list as well.
    if (status.name !== 'CONTINUED_AS_NEW') ids.push(workflowId);
  }
  return ids;
}

function untilListed(send: TestSend, query: string): Promise<void> {
  return until(async () => {
    // The server takes ten such questions a second.
    await delay(100);
    return (await listed(query)).includes(send.handle.workflowId);
  }, query);
}

/** The first `devices` of the send are accepted, the others wait for the gate. */
function holdBackAfter(devices: number, { deviceIds }: TestSend): () => void {
  const answers = gate();
  const first = new Set(deviceIds.slice(0, devices));
  bench.providers.apns.answer = async ({ deviceId }) => {
    if (!first.has(deviceId)) await answers.opened;
    return accepted;
  };
  return answers.open;
}

async function eventsOf(send: TestSend): Promise<{ all: number; upserts: number }> {
  const { events = [] } = await send.handle.fetchHistory();
  const upserts = events!.filter((event) => event.upsertWorkflowSearchAttributesEventAttributes);
  return { all: events!.length, upserts: upserts.length };
}

describe('a send is found', () => {
  test('by what it was, when it was small: one event more, and no task', async () => {
    const { send, title } = await launch({ devices: 3 });
    await send.handle.result();
    assert.deepEqual(await eventsOf(send), { all: 7, upserts: 1 });
    await untilListed(send, `CarillonTitle = "${title}" AND CarillonState = "completed" AND CarillonApp = "default"`);
    await untilListed(send, `CarillonTitle = "${title}" AND CarillonAudience = 3 AND CarillonAccepted = 3`);
    assert.deepEqual(await listed(`CarillonTitle = "${title}" AND CarillonHaltReason IS NOT NULL`), []);
  });

  test('by its reason while it is halted, and no more after its resume', async () => {
    const { send, title } = await launch({ devices: 5, isLaunched: false });
    bench.providers.apns.answer = () => ({
      ...{ kind: 'misconfigured', httpStatus: 403, reason: 'InvalidProviderToken' },
      ...{ fault: 'credentials', detail: 'Refused.' },
    });
    await send.call('launch');
    await untilListed(send, 'CarillonState = "halted" AND ExecutionStatus = "Running"');
    await untilListed(send, `CarillonTitle = "${title}" AND CarillonHaltReason = "credentials"`);
    bench.providers.apns.answer = () => accepted;
    await send.call('resume');
    await untilListed(send, `CarillonTitle = "${title}" AND CarillonState = "completed"`);
    assert.deepEqual(await listed(`CarillonTitle = "${title}" AND CarillonHaltReason IS NOT NULL`), []);
  });

  test('by the size of its audience while it is under way, in run after run, with a handful of events', async () => {
    const { send, title } = await launch({ devices: 100, isLaunched: false });
    const goOn = holdBackAfter(30, send);
    await send.call('launch');
    await untilListed(send, `CarillonTitle = "${title}" AND CarillonState = "sending" AND CarillonAudience > 99`);
    goOn();
    await send.until('completed');
    await untilListed(send, `CarillonTitle = "${title}" AND CarillonState = "completed" AND CarillonAccepted = 100`);
    const { upserts } = await eventsOf(send);
    assert.ok(upserts <= 3, `${upserts} events in the last run`);
  });

  test('as paused, and as cancelled when that was done in Temporal itself', async () => {
    const { send, title } = await launch({ devices: 100, isLaunched: false });
    const goOn = holdBackAfter(5, send);
    await send.call('launch');
    await send.untilDone(1);
    await send.call('pause');
    goOn();
    await untilListed(send, `CarillonTitle = "${title}" AND CarillonState = "paused"`);
    await send.handle.cancel();
    await untilListed(send, `CarillonTitle = "${title}" AND CarillonState = "cancelled"`);
    const history = await send.handle.fetchHistory();
    await Worker.runReplayHistory({ workflowBundle: await workflowBundle() }, history, send.handle.workflowId);
  });

  test('with a title of any length, and with none', async () => {
    const { send, title } = await launch({ devices: 1 }, `${randomUUID()} ${'long 🎉 '.repeat(100)}`);
    await send.handle.result();
    await untilListed(send, `CarillonTitle STARTS_WITH "${title.slice(0, 60)}"`);
    const untitled = await bench.launch({ devices: 1, message: { body: 'Hello' } });
    await untitled.handle.result();
    await untilListed(untitled, `WorkflowId = "${untitled.handle.workflowId}" AND CarillonTitle IS NULL`);
  });
});

test('where they cannot be added, an operator is told once how, and sends go without', async () => {
  const { client } = bench.temporal;
  const namespace = `other-${randomUUID()}`;
  await client.workflowService.registerNamespace({
    namespace,
    workflowExecutionRetentionPeriod: { seconds: 86_400 as never },
  });
  let asked = 0;
  const refusing = new Proxy(client.connection, {
    get(target, name) {
      if (name !== 'operatorService') return Reflect.get(target, name);
      return {
        addSearchAttributes() {
          asked += 1;
          return Promise.reject(
            Object.assign(new Error('7 PERMISSION_DENIED'), { code: 7, details: 'not yours', metadata: {} }),
          );
        },
      };
    },
  });
  const told: object[] = [];
  const log = { ...quiet, warn: (fields: object) => void told.push(fields) };
  const other = new SearchAttributes(new Client({ connection: refusing, namespace }), log);
  const stop = new AbortController();
  const registering = other.register(stop.signal);
  await until(() => asked >= 2);
  assert.equal(other.isOn, false);
  assert.equal(told.length, 1);
  assert.match(
    JSON.stringify(told),
    /temporal operator search-attribute create --namespace other-\S+ --name CarillonState --type Keyword/,
  );
  assert.match(JSON.stringify(told), /tcld namespace search-attributes add .* \\"CarillonAudience=Int\\"/);

  await worker.stop();
  worker = await bench.startWorker({ search: other, smallAudience: 20 });
  const { send } = await launch({ devices: 2 });
  await send.handle.result();
  assert.deepEqual(await eventsOf(send), { all: 6, upserts: 0 });

  // The operator has done it.
  await client.connection.operatorService.addSearchAttributes({
    namespace,
    searchAttributes: {
      ...{ CarillonState: 2, CarillonTitle: 2, CarillonApp: 2, CarillonHaltReason: 2 },
      ...{ CarillonAudience: 3, CarillonAccepted: 3 },
    },
  });
  await until(() => other.isOn);
  stop.abort();
  await registering;
});

test('one of another type is not taken for ours', async () => {
  const { client } = bench.temporal;
  const namespace = `other-${randomUUID()}`;
  await client.workflowService.registerNamespace({
    namespace,
    workflowExecutionRetentionPeriod: { seconds: 86_400 as never },
  });
  await client.connection.operatorService.addSearchAttributes({ namespace, searchAttributes: { CarillonAccepted: 2 } });
  const other = new SearchAttributes(new Client({ connection: client.connection, namespace }), quiet);
  const stop = new AbortController();
  const registering = other.register(stop.signal);
  await until(async () => {
    const { customAttributes } = await client.connection.operatorService.listSearchAttributes({ namespace });
    return Object.keys(customAttributes ?? {}).length === 6;
  });
  assert.equal(other.isOn, false);
  stop.abort();
  await registering;
  assert.equal(other.isOn, false);
});
