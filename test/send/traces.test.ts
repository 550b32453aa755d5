/** From the request that launches to the windows that are sent: one trace, through Temporal, at a collector. */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-proto';
import { createTracing } from '../../telemetry/open-telemetry.ts';
import type { Tracing } from '../../telemetry/tracing.ts';
import { until } from '../support/until.ts';
import { type CollectedSpan, type Collector, startCollector } from '../telemetry/collector.ts';
import { createSendBench, type SendBench } from './harness.ts';

const nothing = () => {};
const quiet = { debug: nothing, info: nothing, warn: nothing, error: nothing };

let collector: Collector;
let tracing: Tracing;
let bench: SendBench;
beforeEach(async () => {
  collector = await startCollector();
  const exporter = new OTLPTraceExporter({ url: `${collector.url}/v1/traces` });
  tracing = createTracing({ env: {}, service: 'carillon-test', log: quiet, exporter });
  bench = await createSendBench({ tracing });
  isClosed = false;
});

let isClosed = false;
async function close(): Promise<void> {
  if (isClosed) return;
  isClosed = true;
  await bench.close();
  await tracing.close();
  await collector.close();
}
afterEach(close);

/** Ends everything; the spans by name. */
async function collected(): Promise<Map<string, CollectedSpan[]>> {
  await close();
  return Map.groupBy(collector.spans, ({ name }) => name);
}

const parentsOf = (spans: CollectedSpan[]) => [...new Set(spans.map(({ parentId }) => parentId))];

test('a large send: launch, start, activities, windows', async () => {
  await bench.startWorker({ tracing, batchesPerRun: 2 });
  const send = await bench.launch({ devices: 250, message: { title: 'Secret offer', body: 'Only for you' } });
  await send.until('completed');
  await send.handle.result();
  const spans = await collected();
  const [launch] = spans.get('POST /v1/notifications/:id/launch')!;
  const [start] = spans.get('StartWorkflow:notificationWorkflow')!;
  const batches = spans.get('RunActivity:deliverBatch')!;
  const windows = spans.get('window')!;
  assert.deepEqual([launch!.parentId, start!.parentId], ['', launch!.spanId]);
  for (const name of ['lookAndSend', 'closeBooks', 'deliverBatch']) {
    assert.deepEqual(parentsOf(spans.get(`RunActivity:${name}`)!), [start!.spanId], name);
  }
  assert.deepEqual(
    batches.map(({ attributes }) => attributes.temporalWorkflowId).sort(),
    [1, 2, 3].map((seq) => `${send.handle.workflowId}/batch-${seq}`),
  );
  const ids = new Set(batches.map(({ spanId }) => spanId));
  assert.ok(windows.every(({ parentId }) => ids.has(parentId)));
  assert.equal(
    windows.reduce((sum, { attributes }) => sum + Number(attributes['carillon.devices']), 0),
    250,
  );
  assert.deepEqual(windows[0]!.attributes['carillon.provider'], 'apns');
  const traced = [launch!, start!, ...batches, ...windows];
  assert.deepEqual([...new Set(traced.map(({ traceId }) => traceId))], [launch!.traceId]);
  assert.deepEqual([...new Set(traced.map(({ service }) => service))], ['carillon-test']);

  const text = collector.text();
  assert.doesNotMatch(text, /Secret offer|Only for you/);
  // External ids of the harness are "<notification>-<n>", tokens are 64 hexadecimal digits.
  assert.ok(!text.includes(`${send.id}-1`));
  assert.doesNotMatch(text, /[0-9a-f]{64}/);
});

test('a small send: its one step has the windows', async () => {
  await bench.startWorker({ tracing, smallAudience: 100 });
  const send = await bench.launch({ devices: 3 });
  await send.handle.result();
  const { events } = await send.handle.fetchHistory();
  assert.equal(events!.length, 6);
  const spans = await collected();
  const [step] = spans.get('RunActivity:lookAndSend')!;
  assert.deepEqual(parentsOf(spans.get('window')!), [step!.spanId]);
  assert.equal(step!.parentId, spans.get('StartWorkflow:notificationWorkflow')![0]!.spanId);
});

test('a lane: a trace for each window, and no span for its half an hour', async () => {
  await bench.startWorker({ tracing });
  await bench.api.request('PUT', '/v1/devices/phone', { platform: 'ios', device_token: 'ab'.repeat(32) });
  const sent = await bench.api.request('POST', '/v1/messages', {
    to: { external_id: 'phone' },
    message: { title: 'Hi' },
  });
  const at = `/v1/messages/${sent.body.id}`;
  await until(async () => (await bench.api.request('GET', at)).body.deliveries[0].outcome === 'accepted');
  const spans = await collected();
  assert.equal(spans.get('RunActivity:keepLane'), undefined);
  assert.deepEqual(parentsOf(spans.get('window')!), ['']);
});
