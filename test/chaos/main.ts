/**
 * `npm run chaos`: one send, during which the worker is killed three times, PostgreSQL and Temporal are killed and started
 * again, and the notification is paused for a while. Passes when the send completes by itself, the books balance, and
 * every repeat in the simulator's ledger is one that the books marked.
 */
import { mkdirSync, mkdtempSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { createApiClient, type NotificationView } from '../../local/api-client.ts';
import { runDemoSend } from '../../local/demo-send.ts';
import { stateDirectory } from '../../local/paths.ts';
import { formatCount } from '../../local/progress.ts';
import { type Stack, startStack } from '../../local/stack.ts';
import { stopSignal } from '../../local/stop-signal.ts';

const { values } = parseArgs({ options: { devices: { type: 'string' }, rate: { type: 'string' } } });
const devices = Number(values.devices ?? 20_000);
const ratePerSecond = Number(values.rate ?? 1_500);

/** How long a paused send must be silent. */
const silenceMs = 10_000;
/** Between the answer to a pause and the last request that may still arrive. */
const pauseGraceMs = 1_000;

const say = (line: string) => console.log(line);
const signal = stopSignal();
const problems: string[] = [];

mkdirSync(stateDirectory, { recursive: true });
const stack = await startStack({
  directory: mkdtempSync(path.join(stateDirectory, 'chaos-')),
  isTemporary: true,
  ports: 'free',
  hasWebUi: false,
  env: {
    CARILLON_BATCH_SIZE: '4000',
    CARILLON_RETRY_BASE_MS: '500',
    CARILLON_RETRY_MAX_MS: '2000',
    CARILLON_HEARTBEAT_TIMEOUT_MS: '5000',
    LOG_LEVEL: 'warn',
  },
  signal,
  say,
});

const { postgres, temporal, workers } = stack.processes;
const worker = workers[0]!;
/** Each at its share of the audience, one after the other. */
const disturbances: { at: number; name: string; run: (id: string) => Promise<void> }[] = [
  { at: 0.1, name: 'kill -9 of the worker', run: () => worker.kill().then(() => worker.start()) },
  { at: 0.25, name: 'kill -9 of PostgreSQL', run: () => postgres!.kill().then(() => postgres!.start()) },
  { at: 0.4, name: 'kill -9 of the worker', run: () => worker.kill().then(() => worker.start()) },
  { at: 0.5, name: 'kill -9 of Temporal', run: () => temporal!.kill().then(() => temporal!.start()) },
  { at: 0.65, name: 'pause', run: (id) => pauseAndResume(stack, id) },
  { at: 0.8, name: 'kill -9 of the worker', run: () => worker.kill().then(() => worker.start()) },
];

let underWay: Promise<void> = Promise.resolve();
let next = 0;
let isBusy = false;

function disturb({ id, books }: NotificationView): void {
  const disturbance = disturbances[next];
  const done = books.audience - books.pending;
  if (!disturbance || isBusy || done < disturbance.at * devices) return;
  next++;
  isBusy = true;
  say(`${formatCount(done)} done: ${disturbance.name}`);
  underWay = disturbance
    .run(id)
    .then(() => say(`  ${disturbance.name}: over`))
    .catch((error: unknown) => problems.push(`${disturbance.name}: ${error instanceof Error ? error.message : error}`))
    .then(() => {
      isBusy = false;
    });
}

async function pauseAndResume({ apiUrl, apiKey, simulator }: Stack, id: string): Promise<void> {
  const api = createApiClient(apiUrl, apiKey!);
  await api.post(`/v1/notifications/${id}/pause`, {});
  await sleep(pauseGraceMs);
  const before = await simulator!.control.ledgerSummary(id);
  await sleep(silenceMs);
  const after = await simulator!.control.ledgerSummary(id);
  if (after.received !== before.received) {
    problems.push(`${after.received - before.received} requests arrived while the notification was paused`);
  }
  await api.post(`/v1/notifications/${id}/resume`, {});
}

let exitCode = 1;
try {
  const result = await runDemoSend(stack, {
    devices,
    providers: ['apns', 'fcm'],
    deadPercent: 3,
    transientPercent: 2,
    ratePerSecond,
    onProgress: disturb,
    progressStream: process.stderr,
    signal,
    say,
  });
  await underWay;
  problems.push(...result.problems);
  if (next < disturbances.length) problems.push(`only ${next} of ${disturbances.length} disturbances took place`);
  say(JSON.stringify({ ...result.report, in_doubt: result.inDoubt }));
  exitCode = problems.length === 0 ? 0 : 1;
} catch (error) {
  problems.push(error instanceof Error ? error.message : String(error));
}
for (const problem of problems) say(`PROBLEM: ${problem}`);
say(exitCode === 0 ? 'Everything is in the books.' : 'Not everything is as it must be.');
await stack.stop();
process.exit(exitCode);
