/** Dashboard and alerts in `docs/operations/`, held against the metrics that there are. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { globSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { before, describe, test } from 'node:test';
import { parse } from 'yaml';
import { byProvider } from '../../domain/device.ts';
import { addOne, ProviderTraffic } from '../../domain/provider-traffic.ts';
import { projectRoot } from '../../local/paths.ts';
import { countRecorded } from '../../telemetry/delivery-metrics.ts';
import { watchInstallation } from '../../telemetry/installation-metrics.ts';
import { registry } from '../../telemetry/metrics.ts';
import { watchProcess } from '../../telemetry/process-metrics.ts';
import { watchProviders } from '../../telemetry/provider-metrics.ts';
import '../../telemetry/http-metrics.ts';
import '../../telemetry/reconciler-metrics.ts';
import { readMetrics } from './families.ts';

/** Of Temporal's SDK (https://docs.temporal.io/references/sdk-metrics), as Core names and labels them. */
const ofTemporal: Record<string, string[]> = {
  temporal_activity_schedule_to_start_latency_seconds: ['task_queue'],
  temporal_num_pollers: ['task_queue', 'poller_type'],
  temporal_request_failure_total: ['operation', 'status_code'],
  temporal_worker_task_slots_used: ['task_queue', 'worker_type'],
  temporal_workflow_completed_total: ['task_queue', 'workflow_type'],
  temporal_workflow_failed_total: ['task_queue', 'workflow_type'],
  temporal_workflow_task_execution_failed_total: ['task_queue', 'workflow_type', 'failure_reason'],
  temporal_workflow_task_schedule_to_start_latency_seconds: ['task_queue', 'workflow_type'],
};
/** Of Prometheus itself. */
const ofPrometheus = { up: [], ALERTS: ['alertname', 'alertstate'] };
const ofTargets = ['job', 'instance'];

const folder = path.join(projectRoot, 'docs', 'operations');
const read = (file: string) => readFileSync(path.join(folder, file), 'utf8');

interface Query {
  where: string;
  text: string;
}

interface Rule {
  alert: string;
  expr: string;
  labels: Record<string, string>;
  annotations: Record<string, string>;
}

interface Panel {
  id: number;
  title: string;
  type: string;
  gridPos: { x: number; y: number; w: number; h: number };
  targets?: { expr: string }[];
}

const dashboard: { panels: Panel[]; templating: { list: { query: string | { query: string } }[] } } = JSON.parse(
  read('grafana-dashboard.json'),
);
const rules = (parse(read('alerts.yml')) as { groups: { rules: Rule[] }[] }).groups.flatMap(({ rules }) => rules);
const queries: Query[] = [
  ...dashboard.panels.flatMap(({ title, targets = [] }) =>
    targets.map(({ expr }) => ({ where: `panel ${title}`, text: expr })),
  ),
  ...rules.map(({ alert, expr }) => ({ where: `alert ${alert}`, text: expr })),
];

/** From each name that may stand in a query to its labels. */
const known = new Map<string, Set<string>>();

before(async () => {
  const nothing = () => {};
  const log = { debug: nothing, info: nothing, warn: nothing, error: nothing };
  watchProcess({ role: 'api', pool: { totalCount: 0, idleCount: 0, waitingCount: 0, options: {} }, log });
  watchInstallation(() => Promise.reject(new Error('not asked')), log);
  const ended = { outcome: 'accepted', httpStatus: 200, reason: null, attempts: 1, inDoubt: false } as const;
  countRecorded({ app: 'a', provider: 'apns' }, ended, 1);
  const traffic = new ProviderTraffic();
  for (const counts of [traffic.closed, traffic.notProcessed, traffic.unanswered]) addOne(counts, 'cause');
  watchProviders(byProvider(() => traffic));
  // Told by workers alone, in `activities/serve-metrics.ts`.
  known.set('carillon_database_retries_total', new Set());
  const metrics = await readMetrics();
  for (const metric of registry.getMetricsAsArray()) {
    const { name, type, samples } = metrics.get(metric.name)!;
    const declared = (metric as { labelNames?: string[] }).labelNames ?? [];
    note(name, [...declared, ...samples.flatMap(({ labels }) => Object.keys(labels))], type === 'histogram');
  }
  for (const [name, labels] of Object.entries({ ...ofTemporal, ...ofPrometheus })) {
    note(name, labels, name.includes('latency'));
  }
  // It is told only once something was collected.
  note('nodejs_gc_duration_seconds', ['kind'], true);
});

function note(name: string, labels: string[], isHistogram: boolean): void {
  const all = new Set([...labels, ...ofTargets]);
  if (!isHistogram) known.set(name, all);
  else for (const suffix of ['_bucket', '_sum', '_count']) known.set(name + suffix, new Set([...all, 'le']));
}

/** What of a query does not exist. */
function strangersIn({ text }: Query): string[] {
  const strangers: string[] = [];
  const here = new Set(ofTargets);
  const plain = text.replaceAll(/\$__\w+|\$\w+/g, 'x');
  for (const [, name = '', matchers = ''] of plain.matchAll(
    /\b((?:carillon|temporal|nodejs|process)_\w+|up\b)(\{[^}]*\})?/g,
  )) {
    const labels = known.get(name);
    if (labels === undefined) strangers.push(name);
    for (const [, label = ''] of matchers.matchAll(/(\w+)\s*[=!]~?"/g)) {
      if (labels?.has(label) === false) strangers.push(`${name}{${label}}`);
    }
    for (const label of labels ?? []) here.add(label);
  }
  for (const [, list = ''] of plain.matchAll(/\b(?:by|on|without|ignoring)\s*\(([^)]*)\)/g)) {
    for (const label of list.split(',').map((word) => word.trim())) {
      if (label !== '' && !here.has(label)) strangers.push(`by (${label})`);
    }
  }
  return strangers;
}

describe('dashboard and alerts', () => {
  test('name metrics and labels that are exported', () => {
    assert.ok(queries.length > 80, String(queries.length));
    const strange = queries.flatMap((query) => strangersIn(query).map((name) => `${query.where}: ${name}`));
    assert.deepEqual(strange, []);
  });

  test('would be found out where they named others', () => {
    const strange = (text: string) => strangersIn({ where: '', text });
    assert.deepEqual(strange('sum(rate(carillon_nothing_total[5m]))'), ['carillon_nothing_total']);
    assert.deepEqual(strange('up{job="a"} + carillon_lane_pending{host="b"}'), ['carillon_lane_pending{host}']);
    assert.deepEqual(strange('max by (app, host) (carillon_lane_pending)'), ['by (host)']);
    assert.deepEqual(strange('rate(carillon_http_request_duration_seconds[5m])'), [
      'carillon_http_request_duration_seconds',
    ]);
  });

  test('show every metric of our own', () => {
    const text = queries.map(({ text }) => text).join('\n');
    const own = registry.getMetricsAsArray().map(({ name }) => name);
    const unused = own.filter((name) => name.startsWith('carillon_') && !text.includes(name));
    assert.deepEqual(unused, []);
  });

  test('gauges that every worker tells alike are never added up over workers', () => {
    const shared = registry
      .getMetricsAsArray()
      .map(({ name }) => name)
      .filter((name) =>
        /^carillon_(notifications|batches|devices_(pending|deferred)|lane|provider_hosts|cred|rate_|webhook|books_un)/.test(
          name,
        ),
      );
    assert.ok(shared.length >= 10, shared.join());
    const added = queries.filter(({ text }) =>
      shared.some((name) => new RegExp(`sum( by \\([^)]*\\))? ?\\(${name}`).test(text)),
    );
    assert.deepEqual(added, []);
  });
});

test('every alert says what is wrong, how bad it is and what to do', () => {
  assert.equal(new Set(rules.map(({ alert }) => alert)).size, rules.length);
  for (const { alert, labels, annotations } of rules) {
    assert.match(alert, /^Carillon[A-Z]\w+$/);
    assert.match(labels.severity ?? '', /^(critical|warning)$/, alert);
    assert.deepEqual(Object.keys(annotations).sort(), ['action', 'summary'], alert);
    assert.ok(annotations.action!.length > 15, alert);
  }
});

test('panels have ids of their own and do not lie on one another', () => {
  const { panels } = dashboard;
  assert.equal(new Set(panels.map(({ id }) => id)).size, panels.length);
  const taken = new Set<string>();
  for (const {
    title,
    gridPos: { x, y, w, h },
  } of panels) {
    assert.ok(x + w <= 24, title);
    for (let i = x; i < x + w; i++) {
      for (let j = y; j < y + h; j++) {
        assert.ok(!taken.has(`${i} ${j}`), title);
        taken.add(`${i} ${j}`);
      }
    }
  }
});

test('every file of the folder is looked at here', () => {
  const files = globSync('*', { cwd: folder }).sort();
  assert.deepEqual(files, ['alerts.test.yml', 'alerts.yml', 'grafana-dashboard.json', 'prometheus.yml']);
});

describe('promtool, where it is installed,', () => {
  for (const [what, args] of [
    ['takes the rules', ['check', 'rules', 'alerts.yml']],
    ['takes the configuration', ['check', 'config', 'prometheus.yml']],
    ['sees the alerts call when they must, and be silent otherwise', ['test', 'rules', 'alerts.test.yml']],
  ] as const) {
    test(what, (t) => {
      const { error, status, stdout, stderr } = spawnSync('promtool', args, { cwd: folder, encoding: 'utf8' });
      if (error !== undefined) return t.skip('promtool is not installed');
      assert.equal(status, 0, stdout + stderr);
    });
  }
});
