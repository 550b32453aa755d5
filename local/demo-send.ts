import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { LedgerSummary } from '../simulator/control-types.ts';
import { type ApiClient, createApiClient, type NotificationView } from './api-client.ts';
import { countDemoBehaviours, type DemoAudienceOptions, demoDevices } from './demo-audience.ts';
import { createProgress, formatCount } from './progress.ts';
import type { Stack } from './stack.ts';

export const demoAudienceDefaults = { devices: 20_000, deadPercent: 1, transientPercent: 1 };

export interface DemoSendOptions extends Omit<DemoAudienceOptions, 'name'> {
  signal?: AbortSignal;
  say?: (line: string) => void;
  /** Where the progress is drawn; default nowhere. */
  progressStream?: NodeJS.WriteStream;
  /** Devices per second at most; default no limit. */
  ratePerSecond?: number;
  /** Called before the launch, once all devices are imported. */
  onImported?: () => Promise<void>;
  /** Called with each look at the books. */
  onProgress?: (notification: NotificationView) => void;
}

/** The JSON object of `npm run demo -- --json`. */
export interface DemoReport {
  devices: number;
  audience: number;
  outcomes: Record<string, number>;
  pending: number;
  balanced: boolean;
  ledger: { distinct_accepted: number; repeats: number };
  /**
   * `plan`, `first_pass` and `send` begin at the launch, since devices are sent to while others are still being planned.
   * `first_pass` ends when as many devices have an outcome as were not refused at first; the rest of `send` is waiting for the
   * refused ones.
   */
  seconds: { boot: number; import: number; plan: number; first_pass: number; send: number };
  /** Of the whole send, its waiting included. */
  devices_per_second: number;
  /** Of the first pass: how fast it sends. */
  first_pass_per_second: number;
}

export interface DemoSendResult {
  notificationId: string;
  report: DemoReport;
  /** Devices that the books mark as possibly sent to more than once. */
  inDoubt: number;
  /** What is not as it must be; empty when all is well. */
  problems: string[];
}

const pollIntervalMs = 100;
/** A send without progress for this long is given up; its books then show what is pending. */
const stallMs = 120_000;
const outageMs = 60_000;
const finalStates = ['completed', 'cancelled', 'halted'];

/** Imports the audience and sends it one notification, through the API alone; then compares the books with the ledger. */
export async function runDemoSend(stack: Stack, options: DemoSendOptions): Promise<DemoSendResult> {
  const say = options.say ?? (() => undefined);
  const { simulator, apiKey } = stack;
  if (!simulator || !apiKey) throw new Error('The demo needs the simulator and an API key of its own');
  const api = createApiClient(stack.apiUrl, apiKey);
  const audience: DemoAudienceOptions = { ...options, name: `demo-${randomBytes(4).toString('hex')}` };

  say(`Importing ${formatCount(audience.devices)} devices …`);
  const importedAt = performance.now();
  const imported = await api.importDevices(demoDevices(audience));
  const importSeconds = secondsSince(importedAt);
  if (imported.imported !== audience.devices || !imported.complete) {
    throw new Error(`The import did not take every device: ${JSON.stringify(imported)}`);
  }
  say(
    `Imported in ${importSeconds} s (${formatCount(Math.round(audience.devices / importSeconds))} rows/s). Sending …`,
  );
  await options.onImported?.();

  const launchedAt = performance.now();
  const { id } = await api.post<NotificationView>('/v1/notifications', {
    title: `Demo to ${formatCount(audience.devices)} devices`,
    message: { title: 'Hello from Carillon', body: 'Every device is in the books.', deep_link: 'carillon://demo' },
    audience: { condition: { property: 'demo', operator: 'eq', value: audience.name } },
    ...(options.ratePerSecond && { rate_per_second: options.ratePerSecond }),
    launch: true,
  });
  const firstPass = audience.devices - countDemoBehaviours(audience).transient;
  const { notification, planSeconds, firstPassSeconds } = await watch(api, id, launchedAt, firstPass, options);
  const sendSeconds = secondsSince(launchedAt);

  const { books } = notification;
  const ledger = await simulator.control.ledgerSummary(id);
  const report: DemoReport = {
    devices: audience.devices,
    audience: books.audience,
    outcomes: books.outcomes,
    pending: books.pending,
    balanced: books.balanced,
    ledger: { distinct_accepted: ledger.distinct_accepted, repeats: ledger.repeats },
    seconds: { boot: 0, import: importSeconds, plan: planSeconds, first_pass: firstPassSeconds, send: sendSeconds },
    devices_per_second: Math.round(books.audience / sendSeconds),
    first_pass_per_second: Math.round(firstPass / firstPassSeconds),
  };
  return {
    notificationId: id,
    report,
    inDoubt: notification.totals?.in_doubt ?? 0,
    problems: findProblems(notification, ledger, audience),
  };
}

async function watch(
  api: ApiClient,
  id: string,
  launchedAt: number,
  firstPass: number,
  options: DemoSendOptions,
): Promise<{ notification: NotificationView; planSeconds: number; firstPassSeconds: number }> {
  const progress = options.progressStream && createProgress(options.progressStream, options.devices);
  let planSeconds: number | undefined;
  let firstPassSeconds: number | undefined;
  let changedAt = performance.now();
  let pendingBefore = Number.NaN;
  for (;;) {
    options.signal?.throwIfAborted();
    const notification = await readPatiently(api, id);
    const { books, state } = notification;
    if (books.is_planned) planSeconds ??= secondsSince(launchedAt);
    if (books.audience - books.pending >= firstPass) firstPassSeconds ??= secondsSince(launchedAt);
    progress?.show(notification);
    options.onProgress?.(notification);
    if (books.pending !== pendingBefore) {
      pendingBefore = books.pending;
      changedAt = performance.now();
    }
    if (finalStates.includes(state) || performance.now() - changedAt > stallMs) {
      progress?.end();
      const seconds = secondsSince(launchedAt);
      return { notification, planSeconds: planSeconds ?? seconds, firstPassSeconds: firstPassSeconds ?? seconds };
    }
    await sleep(pollIntervalMs);
  }
}

/** The API and its database may be away for a while; that is what a crash test is about. */
async function readPatiently(api: ApiClient, id: string): Promise<NotificationView> {
  const deadline = performance.now() + outageMs;
  for (;;) {
    try {
      return await api.get<NotificationView>(`/v1/notifications/${id}`);
    } catch (error) {
      if (performance.now() > deadline) throw error;
      await sleep(pollIntervalMs);
    }
  }
}

/**
 * The ledger holds what the providers took; the books, what the sender believes. A device with outcome `unknown` may or may not
 * have been taken, and a repeat is allowed only where the books mark it.
 */
function findProblems(notification: NotificationView, ledger: LedgerSummary, audience: DemoAudienceOptions): string[] {
  const { books, totals, state, halt } = notification;
  const { accepted = 0, unknown = 0, unregistered = 0 } = books.outcomes;
  const { dead } = countDemoBehaviours(audience);
  const inDoubt = totals?.in_doubt ?? 0;
  const problems: string[] = [];
  if (state !== 'completed') problems.push(`the notification is ${state}${halt ? `: ${halt.detail}` : ''}`);
  if (!books.balanced) problems.push('audience is not the sum of outcomes and pending');
  if (books.pending !== 0) problems.push(`${books.pending} devices have no outcome`);
  if (books.audience !== audience.devices) problems.push(`the audience is ${books.audience}, not ${audience.devices}`);
  if (unregistered !== dead) problems.push(`${unregistered} devices are unregistered, ${dead} have dead tokens`);
  const beyond = ledger.distinct_accepted - accepted;
  if (beyond < 0 || beyond > unknown) {
    problems.push(`the ledger has ${ledger.distinct_accepted} accepted devices, the books ${accepted}`);
  }
  if (ledger.repeats > inDoubt) {
    problems.push(`the ledger has ${ledger.repeats} repeats, the books mark ${inDoubt} devices as in doubt`);
  }
  return problems;
}

function secondsSince(startedAt: number): number {
  return Number(((performance.now() - startedAt) / 1000).toFixed(2));
}
