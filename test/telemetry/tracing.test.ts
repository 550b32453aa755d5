import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import path from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { InMemorySpanExporter, type SpanExporter } from '@opentelemetry/sdk-trace';
import { createTracing } from '../../telemetry/open-telemetry.ts';
import { chooseSampler } from '../../telemetry/sampler.ts';
import { formatTraceparent, parseTraceparent } from '../../telemetry/traceparent.ts';
import { openTracing, type Tracing } from '../../telemetry/tracing.ts';
import { createTestApi } from '../api/harness.ts';
import { type Collector, startCollector } from './collector.ts';

const nothing = () => {};
const quiet = { debug: nothing, info: nothing, warn: nothing, error: nothing };
const root = path.join(import.meta.dirname, '../..');
/** For a program in a text. */
const file = (name: string) => JSON.stringify(pathToFileURL(path.join(root, name)).href);
const remote = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';

function inMemory(env: Record<string, string> = {}): { tracing: Tracing; spans: InMemorySpanExporter } {
  const spans = new InMemorySpanExporter();
  return { tracing: createTracing({ env, service: 'test', log: quiet, exporter: keep(spans) }), spans };
}

/** What was exported survives the end. */
const keep = (spans: InMemorySpanExporter): SpanExporter => ({
  export: (batch, done) => spans.export(batch, done),
  shutdown: async () => {},
});

describe('tracing is off', () => {
  for (const [why, env] of [
    ['without a collector', { OTEL_SERVICE_NAME: 'x', OTEL_TRACES_SAMPLER: 'always_on' }],
    ['where the SDK is disabled', { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:1', OTEL_SDK_DISABLED: 'true' }],
    ['where there is no exporter', { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:1', OTEL_TRACES_EXPORTER: 'none' }],
  ] as [string, Record<string, string>][]) {
    test(why, async () => {
      assert.equal(await openTracing(env, 'test', quiet), undefined);
    });
  }

  test('and then API and activities load nothing of OpenTelemetry but its interface, which the metrics client brings along', async () => {
    const script = `
      import { registerHooks } from 'node:module';
      const loaded = [];
      registerHooks({ load(url, context, next) { loaded.push(url); return next(url, context); } });
      await import(${file('api/compose.ts')});
      await import(${file('activities/activities.ts')});
      const { openTracing } = await import(${file('telemetry/tracing.ts')});
      await openTracing({}, 'test', console);
      console.log(loaded.length > 200, loaded.filter((url) => url.includes('@opentelemetry') && !url.includes('@opentelemetry/api/')).length);
      process.exit();`;
    const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '--eval', script], {
      cwd: root,
    });
    assert.equal(stdout.trim(), 'true 0');
  });
});

describe('with a collector', () => {
  let collector: Collector;
  beforeEach(async () => {
    collector = await startCollector();
  });
  afterEach(() => collector.close());

  test('the variables of the standard are honoured', async () => {
    const script = `
      const { openTracing } = await import(${file('telemetry/tracing.ts')});
      const log = { debug() {}, info() {}, warn: console.error, error: console.error };
      const tracing = await openTracing(process.env, 'carillon-api', log);
      await tracing.inSpan('work', { kind: 'internal' }, async () => {});
      await tracing.close();`;
    const env = {
      ...process.env,
      OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
      OTEL_EXPORTER_OTLP_HEADERS: 'x-tenant=push',
      OTEL_SERVICE_NAME: 'our-carillon',
      OTEL_RESOURCE_ATTRIBUTES: 'deployment.environment.name=test',
    };
    await promisify(execFile)(process.execPath, ['--input-type=module', '--eval', script], { cwd: root, env });
    assert.deepEqual(
      collector.spans.map(({ name, service }) => [name, service]),
      [['work', 'our-carillon']],
    );
    assert.equal(collector.headers[0]!['x-tenant'], 'push');
    assert.equal(collector.headers[0]!['content-type'], 'application/x-protobuf');
    assert.match(collector.text(), /deployment\.environment\.name/);
  });
});

test('a collector that fails is told of once, and hurts nothing', async () => {
  const warned: object[] = [];
  const failing: SpanExporter = {
    export: (_spans, done) => done({ code: 1, error: new Error('refused') }),
    shutdown: async () => {},
  };
  const log = { ...quiet, warn: (fields: object) => void warned.push(fields) };
  const tracing = createTracing({ env: {}, service: 'test', log, exporter: failing });
  // Two batches.
  for (let span = 0; span < 600; span++) {
    assert.equal(await tracing.inSpan('work', { kind: 'internal' }, async () => span), span);
  }
  await tracing.close();
  assert.deepEqual(warned, [{ reason: 'refused' }]);
});

describe('a span', () => {
  test('belongs to the one that it was begun in, and to a trace from outside', async () => {
    const { tracing, spans } = inMemory();
    await tracing.inSpan('outer', { kind: 'server', parent: remote }, async () => {
      await tracing.inSpan('inner', { kind: 'internal' }, async () => {
        assert.match(tracing.current()!, /^00-0af7651916cd43dd8448eb211c80319c-[0-9a-f]{16}-01$/);
      });
    });
    assert.equal(tracing.current(), undefined);
    await tracing.close();
    const [inner, outer] = spans.getFinishedSpans();
    assert.deepEqual(
      [inner!.parentSpanContext?.spanId, outer!.parentSpanContext?.spanId],
      [outer!.spanContext().spanId, 'b7ad6b7169203331'],
    );
  });

  test('that fails tells the class of its error, and not what it says', async () => {
    const { tracing, spans } = inMemory();
    const failed = tracing.inSpan('work', { kind: 'internal' }, () => Promise.reject(new TypeError('token abc')));
    await assert.rejects(failed, /token abc/);
    await tracing.close();
    const [span] = spans.getFinishedSpans();
    assert.deepEqual([span!.attributes, span!.status], [{ 'error.type': 'TypeError' }, { code: 2 }]);
    assert.deepEqual(span!.events, []);
  });

  test('that a caller does not keep is not kept, nor are its windows', async () => {
    const { tracing, spans } = inMemory({ OTEL_TRACES_SAMPLER: 'parentbased_always_on' });
    const parent = remote.replace(/01$/, '00');
    await tracing.inSpan('request', { kind: 'server', parent }, async () => {
      assert.match(tracing.current()!, /-00$/);
      assert.equal(tracing.startWindow(), undefined);
    });
    await tracing.close();
    assert.deepEqual(spans.getFinishedSpans(), []);
  });

  test('of a window in endless work is a trace of its own, linked to where the work was begun', async () => {
    const { tracing, spans } = inMemory();
    await tracing.inNoSpan(remote, async () => {
      tracing.startWindow()!.end();
      tracing.startWindow()!.end();
    });
    assert.equal(tracing.startWindow(), undefined, 'outside of all');
    await tracing.close();
    const [one, other] = spans.getFinishedSpans();
    assert.notEqual(one!.spanContext().traceId, other!.spanContext().traceId);
    assert.deepEqual(
      [one, other].map((span) => span!.links[0]!.context.traceId),
      ['0af7651916cd43dd8448eb211c80319c', '0af7651916cd43dd8448eb211c80319c'],
    );
  });
});

describe('requests', () => {
  test('are told by the pattern of their route: no path, no id of a device, no key', async () => {
    const { tracing, spans } = inMemory();
    const api = await createTestApi({ tracing });
    const body = { platform: 'ios', device_token: 'ab'.repeat(32), user_id: 'anna@example.com' };
    await api.request('PUT', '/v1/devices/anna%27s-phone?x=secret', body, { traceparent: remote });
    await api.request('GET', '/v1/nothing');
    await api.request('GET', '/healthz');
    await tracing.close();
    await api.close();
    const told = spans.getFinishedSpans();
    assert.deepEqual(
      told.map(({ name }) => name),
      ['PUT /v1/devices/:external_id', 'GET none'],
    );
    assert.equal(told[0]!.spanContext().traceId, '0af7651916cd43dd8448eb211c80319c');
    const text = JSON.stringify(told.map(({ name, attributes }) => ({ name, attributes })));
    assert.doesNotMatch(text, /anna|secret|abab|nothing|Bearer/);
    assert.ok(!text.includes(api.key));
  });
});

describe('traceparent', () => {
  test('is read and written', () => {
    assert.equal(formatTraceparent(parseTraceparent(remote)!), remote);
    assert.equal(parseTraceparent(`cc${remote.slice(2)}-later`)?.spanId, 'b7ad6b7169203331', 'of a later version');
  });

  for (const malformed of [
    undefined,
    '',
    'x',
    `ff${remote.slice(2)}`,
    `${remote}-more`,
    remote.toUpperCase(),
    remote.replace(/-0af\w+-/, `-${'0'.repeat(32)}-`),
    remote.replace(/-b7\w+-/, `-${'0'.repeat(16)}-`),
  ]) {
    test(`is none: ${malformed}`, () => assert.equal(parseTraceparent(malformed), undefined));
  }
});

describe('the sampler', () => {
  for (const [name, argument, says] of [
    [undefined, undefined, 'ParentBased{root=AlwaysOnSampler, remoteParentSampled=AlwaysOnSampler'],
    ['always_on', undefined, 'AlwaysOnSampler'],
    ['always_off', undefined, 'AlwaysOffSampler'],
    ['traceidratio', '0.25', 'TraceIdRatioBased{0.25}'],
    ['parentbased_always_off', undefined, 'ParentBased{root=AlwaysOffSampler'],
    ['parentbased_traceidratio', '0.5', 'ParentBased{root=TraceIdRatioBased{0.5}'],
    ['traceidratio', '7', 'TraceIdRatioBased{1}'],
    ['xray', undefined, 'ParentBased{root=AlwaysOnSampler'],
  ] as const) {
    test(`${name} ${argument}`, () => {
      const env = { OTEL_TRACES_SAMPLER: name, OTEL_TRACES_SAMPLER_ARG: argument };
      const { sampler, problem } = chooseSampler(env);
      assert.ok(sampler.toString().startsWith(says), sampler.toString());
      assert.equal(problem !== undefined, name === 'xray' || argument === '7');
    });
  }
});
