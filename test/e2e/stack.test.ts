import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { localDatabaseFile } from '../../admin/local-files.ts';
import { runDemoSend } from '../../local/demo-send.ts';
import { isRunning } from '../../local/signals.ts';
import { type Stack, startStack } from '../../local/stack.ts';
import { SimulatorControl } from '../../simulator/control-client.ts';
import { sumOf } from '../telemetry/families.ts';
import { type ParsedFamily, parseStrictly } from '../telemetry/strict-parser.ts';

test('a send through the whole stack ends with books that balance, a ledger that agrees and metrics that tell the same', async (t) => {
  const stack = await startStack({
    directory: mkdtempSync(path.join(os.tmpdir(), 'carillon-e2e-')),
    isTemporary: true,
    ports: 'free',
    hasWebUi: false,
    env: {
      CARILLON_BATCH_SIZE: '1000',
      CARILLON_RETRY_BASE_MS: '500',
      CARILLON_RETRY_MAX_MS: '1000',
      LOG_LEVEL: 'warn',
    },
  });
  t.after(() => stack.stop());
  const said = path.join(stack.logDirectory, '..', path.basename(localDatabaseFile));
  assert.equal(readFileSync(said, 'utf8'), stack.databaseUrl, 'npm run admin finds the database');

  const { report, problems } = await runDemoSend(stack, {
    devices: 5_000,
    providers: ['apns', 'fcm'],
    deadPercent: 3,
    transientPercent: 2,
  });

  assert.deepEqual(problems, []);
  assert.equal(report.ledger.distinct_accepted, report.outcomes.accepted);
  assert.equal(report.ledger.repeats, 0);
  assert.equal((report.outcomes.accepted ?? 0) + (report.outcomes.unregistered ?? 0), 5_000);
  await checkMetrics(stack, report.outcomes);
});

/** Of a stack with one worker that has carried out one send. */
async function checkMetrics(stack: Stack, books: Record<string, number>): Promise<void> {
  const [ofApi = '', ofWorker = ''] = stack.metricsUrls;
  for (const url of [ofApi, ofWorker]) {
    const text = await (await fetch(url)).text();
    const openMetrics = await (await fetch(url, { headers: { accept: 'application/openmetrics-text' } })).text();
    assert.equal(parseStrictly(openMetrics, 'openMetrics').length, parseStrictly(text, 'text').length);
    const { error, status, stdout, stderr } = spawnSync('promtool', ['check', 'metrics'], { input: text });
    if (error === undefined) assert.equal(status, 0, `${stdout}${stderr}`);
  }
  const api = await scrape(ofApi);
  assert.equal(sumOf(api, 'carillon_import_rows_total', { result: 'imported' }), 5_000);

  const worker = await scrape(ofWorker);
  const deliveries = worker.get('carillon_deliveries_total')!.samples;
  const counted: Record<string, number> = {};
  for (const { labels, value } of deliveries) counted[labels.outcome!] = (counted[labels.outcome!] ?? 0) + value;
  assert.deepEqual(counted, Object.fromEntries(Object.entries(books).filter(([, devices]) => devices > 0)));
  const summary = await new SimulatorControl(stack.simulator!.controlUrl).ledgerSummary();
  const answers = worker.get('carillon_provider_request_duration_seconds')!.samples;
  assert.equal(
    answers.filter(({ name }) => name.endsWith('_count')).reduce((sum, { value }) => sum + value, 0),
    summary.received,
    'every request was answered',
  );
  assert.equal(sumOf(worker, 'carillon_provider_connections_opened_total'), summary.connections_opened);
  assert.equal(sumOf(worker, 'carillon_provider_requests_in_flight'), 0);
  assert.equal(sumOf(worker, 'carillon_books_readable'), 1);
  assert.equal(sumOf(worker, 'carillon_notifications'), 0, 'none is open');
  assert.ok(sumOf(worker, 'temporal_request_total') > 0, "what Temporal's SDK counts");
}

async function scrape(url: string): Promise<Map<string, ParsedFamily>> {
  const families = parseStrictly(await (await fetch(url)).text(), 'text');
  return new Map(families.map((family) => [family.name, family]));
}

test('kill -9 of the program that holds the stack leaves nothing that blocks the next start, and loses no data', async (t) => {
  const directory = mkdtempSync(path.join(os.tmpdir(), 'carillon-e2e-'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));

  const first = await startFixture(directory);
  assert.ok(first.apiKey);
  first.program.kill('SIGKILL');
  await once(first.program, 'exit');
  const second = await startFixture(directory);
  t.after(() => second.program.kill('SIGTERM'));

  assert.deepEqual(first.pids.filter(isRunning), []);
  assert.equal(second.apiKey, null, 'the key of the first start is still there, so none is made');
});

async function startFixture(directory: string) {
  const program = spawn(process.execPath, [path.join(import.meta.dirname, 'stack-fixture.ts'), directory], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [output] = await Promise.race([
    once(program.stdout, 'data'),
    once(program, 'exit').then(([code]) => assert.fail(`the stack ended with exit code ${code}`)),
  ]);
  const { pids, apiKey } = JSON.parse(String(output)) as { pids: number[]; apiKey: string | null };
  return { program, pids, apiKey };
}
