import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { describe, test } from 'node:test';
import { Histogram } from 'prom-client';
import { version } from '../../domain/version.ts';
import packageJson from '../../package.json' with { type: 'json' };
import { mergeFamilies, readFamilies, toOpenMetrics, toText, wantsOpenMetrics } from '../../telemetry/exposition.ts';
import { createMetricsHandler } from '../../telemetry/handler.ts';
import { collected, counter, gauge, registry } from '../../telemetry/metrics.ts';
import { watchProcess } from '../../telemetry/process-metrics.ts';
import { parseStrictly } from './strict-parser.ts';

const openMetrics = 'application/openmetrics-text;version=1.0.0';
const warnings: object[] = [];
const nothing = () => {};
const log = { debug: nothing, info: nothing, warn: (fields: object) => warnings.push(fields), error: nothing };
const pool = { totalCount: 3, idleCount: 1, waitingCount: 2, options: { max: 10 } };

watchProcess({ role: 'worker', pool, log });
counter({ name: 'test_things_total', help: 'Of a "kind", and a \\.', labels: ['kind'] }).inc(
  { kind: 'a "b" \\ \n c' },
  2,
);
gauge({ name: 'test_level', help: 'One.' }).set(-1.5);
new Histogram({ name: 'test_seconds', help: 'Two.', buckets: [0.1, 1], registers: [registry] }).observe(0.5);
collected('histogram', { name: 'test_made_seconds', help: 'Three.' }, () => [
  { labels: { le: '1' }, value: 2, suffix: '_bucket' },
  { labels: { le: '+Inf' }, value: 3, suffix: '_bucket' },
  { labels: {}, value: 4.5, suffix: '_sum' },
  { labels: {}, value: 3, suffix: '_count' },
]);

const answer = createMetricsHandler(log);
const ask = (accept = '', init: RequestInit = {}) =>
  answer(new Request('http://metrics/metrics', { headers: { accept }, ...init }));

describe('what /metrics answers', () => {
  test('is the text format of Prometheus, as its rules want it', async () => {
    const response = await ask();
    assert.equal(response.headers.get('content-type'), 'text/plain; version=0.0.4; charset=utf-8');
    const families = parseStrictly(await response.text(), 'text');
    const things = families.find(({ name }) => name === 'test_things_total');
    assert.deepEqual(things?.samples, [{ name: 'test_things_total', labels: { kind: 'a "b" \\ \n c' }, value: 2 }]);
  });

  test('is OpenMetrics 1.0 where that is asked for, with the same numbers', async () => {
    const response = await ask(openMetrics);
    assert.equal(response.headers.get('content-type'), 'application/openmetrics-text; version=1.0.0; charset=utf-8');
    const families = parseStrictly(await response.text(), 'openMetrics');
    const things = families.find(({ name }) => name === 'test_things');
    assert.deepEqual(things?.samples, [{ name: 'test_things_total', labels: { kind: 'a "b" \\ \n c' }, value: 2 }]);
  });

  test('stays right when the formats take turns', async () => {
    const named = async (accept: string, format: 'text' | 'openMetrics') =>
      parseStrictly(await (await ask(accept)).text(), format).map(({ name }) => name.replace(/_total$/, ''));
    const [first, second, third] = [
      await named('', 'text'),
      await named(openMetrics, 'openMetrics'),
      await named('', 'text'),
    ];
    assert.deepEqual(second, first);
    assert.deepEqual(third, first);
  });

  test('satisfies promtool, where it is installed', async (t) => {
    const { error, stdout, stderr, status } = spawnSync('promtool', ['check', 'metrics'], {
      input: await (await ask()).text(),
      encoding: 'utf8',
    });
    if (error !== undefined) return t.skip('promtool is not installed');
    assert.equal(status, 0, stdout + stderr);
  });

  test('tells of the process, the build and the pool', async () => {
    const families = parseStrictly(await (await ask()).text(), 'text');
    const samplesOf = (name: string) => families.find((family) => family.name === name)?.samples ?? [];
    assert.deepEqual(samplesOf('carillon_build_info')[0]?.labels, { version: packageJson.version, role: 'worker' });
    assert.equal(version, packageJson.version);
    assert.deepEqual(
      samplesOf('carillon_database_connections').map(({ labels, value }) => [labels.state, value]),
      [
        ['in_use', 2],
        ['idle', 1],
      ],
    );
    for (const name of [
      'process_cpu_seconds_total',
      'nodejs_eventloop_lag_p99_seconds',
      'process_resident_memory_bytes',
    ]) {
      assert.equal(samplesOf(name).length, 1, name);
    }
  });

  test('is for GET and HEAD, and stands at one path', async () => {
    assert.equal((await ask('', { method: 'HEAD' })).status, 200);
    assert.equal((await ask('', { method: 'POST' })).status, 405);
    assert.equal((await answer(new Request('http://metrics/'))).status, 404);
  });

  test('leaves out what fails, and says so once', async () => {
    const failing = createMetricsHandler(log, { sources: { away: () => Promise.reject(new Error('away')) } });
    warnings.length = 0;
    for (let i = 0; i < 2; i++) {
      const response = await failing(new Request('http://metrics/metrics'));
      parseStrictly(await response.text(), 'text');
    }
    assert.equal(warnings.length, 1);
  });
});

describe('families', () => {
  test('of one name are told once, as the first source has them', () => {
    const one = readFamilies('# HELP a_total A.\n# TYPE a_total counter\na_total 1\n');
    const other = readFamilies('# HELP a_total B.\n# TYPE a_total counter\na_total 2\n# TYPE b gauge\nb 3\n');
    assert.equal(
      toText(mergeFamilies(one, other)),
      '# HELP a_total A.\n# TYPE a_total counter\na_total 1\n# HELP b \n# TYPE b gauge\nb 3\n',
    );
  });

  test('that are counters without the suffix are unknown to OpenMetrics', () => {
    const text = toOpenMetrics(readFamilies('# HELP a A "b".\n# TYPE a counter\na 1\n'));
    assert.equal(text, '# HELP a A \\"b\\".\n# TYPE a unknown\na 1\n# EOF\n');
  });
});

test('the format follows Accept', () => {
  const prometheus =
    'application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1';
  for (const accept of [prometheus, 'application/openmetrics-text', `text/plain;q=0.3, ${openMetrics};q=0.5`]) {
    assert.equal(wantsOpenMetrics(accept), true, accept);
  }
  for (const accept of [null, '', '*/*', 'text/html,*/*;q=0.1', `text/plain, ${openMetrics};q=0.5`]) {
    assert.equal(wantsOpenMetrics(accept), false, String(accept));
  }
});
