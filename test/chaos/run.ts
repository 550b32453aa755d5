/** One run: a scenario of one seed, on a stack that may serve many runs. */
import { setTimeout as sleep } from 'node:timers/promises';
import { Client, Connection } from '@temporalio/client';
import { connect } from '../../db/connect.ts';
import { notificationWorkflowId } from '../../domain/ids.ts';
import { createApiClient, type NotificationView } from '../../local/api-client.ts';
import type { Stack } from '../../local/stack.ts';
import type { LedgerSummary } from '../../simulator/control-types.ts';
import { ChaosDevices } from './chaos-devices.ts';
import { type ChaosRun, disturb, type Tally } from './disturbances.ts';
import { listRunningWorkflows, readDeviceIds, readDevices, readLeftovers } from './evidence.ts';
import { drawScenario, type Scenario } from './scenario.ts';
import { verify } from './verify.ts';

/** The JSON object of `npm run chaos -- --json`. */
export interface ChaosReport {
  seed: number;
  devices: number;
  kills: number;
  restarts: number;
  /** Requests and connections that a provider treated badly. */
  faults: number;
  repeats: number;
  repeats_marked: number;
  lost: number;
  balanced: boolean;
}

export interface ChaosResult {
  report: ChaosReport;
  /** What happened, one line each. */
  story: string[];
  problems: string[];
  seconds: number;
}

/** Settings of the stack: the same engine with shorter waits, and small batches so that there are many. */
export const chaosSettings = {
  CARILLON_BATCH_SIZE: '400',
  CARILLON_WINDOW_SIZE: '100',
  CARILLON_HEARTBEAT_TIMEOUT_MS: '4000',
  CARILLON_REQUEST_DEADLINE_MS: '2500',
  CARILLON_RETRY_BASE_MS: '200',
  CARILLON_RETRY_MAX_MS: '1000',
  CARILLON_MAX_ATTEMPTS: '5',
  CARILLON_RECONCILE_INTERVAL_MS: '1000',
  CARILLON_SHUTDOWN_GRACE_MS: '4000',
  LOG_LEVEL: 'warn',
} as const;

const pollMs = 100;
/** A send that moves nothing for so long has come to a stand. */
const stallMs = 60_000;
/** After the end: answers on their way, workflows that close. */
const settleMs = 15_000;
/** A send lasts about so long undisturbed: long enough to be hit in the middle. */
const sendSeconds = 5;

const finalStates = ['completed', 'cancelled', 'halted'];

export async function runChaos(stack: Stack, seed: number, runNumber: number, count: number): Promise<ChaosResult> {
  const startedAt = performance.now();
  const scenario = drawScenario(seed);
  const control = stack.simulator!.control;
  await control.resetFaults();
  for (const rule of scenario.rules) await control.addRule(rule.match ?? {}, rule.action, rule.times);

  const { db } = connect(stack.databaseUrl, { maxConnections: 3, applicationName: 'carillon-chaos' });
  const connection = await Connection.connect({ address: stack.temporalAddress });
  const temporal = new Client({ connection, namespace: stack.temporalNamespace });
  const api = createApiClient(stack.apiUrl, stack.apiKey!);
  try {
    const devices = new ChaosDevices(seed, runNumber, count, scenario.behaviours);
    const imported = await api.importDevices(devices.rows());
    if (imported.imported !== count)
      throw new Error(`the import did not take every device: ${JSON.stringify(imported)}`);
    const externalIds = await readDeviceIds(db, devices.name);
    const { id } = await api.post<NotificationView>('/v1/notifications', {
      title: `Chaos, seed ${seed}`,
      message: { title: 'Hold fast', body: `Seed ${seed}`, collapse_id: `chaos-${seed}` },
      audience: { condition: { property: 'chaos', operator: 'eq', value: devices.name } },
      in_doubt_policy: scenario.inDoubtPolicy,
      rate_per_second: Math.ceil(count / sendSeconds),
      launch: true,
    });
    const tally: Tally = { kills: 0, restarts: 0, connectionFaults: 0, inFlightAtCrashes: 0 };
    const heartbeatTimeoutMs = Number(chaosSettings.CARILLON_HEARTBEAT_TIMEOUT_MS);
    const run: ChaosRun = { stack, api, db, notificationId: id, devices, heartbeatTimeoutMs, tally };
    const watch = new Watch(run, scenario, temporal);
    const view = await watch.untilTheEnd();

    const settledBy = performance.now() + settleMs;
    let leftovers = await readLeftovers(db, id);
    let running = await listRunningWorkflows(temporal, id, view.books.batches);
    let ledger = await control.ledgerSummary(id);
    while (isUnsettled(leftovers, running, ledger) && performance.now() < settledBy) {
      await sleep(pollMs);
      leftovers = await readLeftovers(db, id);
      running = await listRunningWorkflows(temporal, id, view.books.batches);
      ledger = await control.ledgerSummary(id);
    }
    const rules = await control.listRules();
    const collateral = tally.connectionFaults + rules.reduce((sum, rule) => sum + rule.applied, 0);
    const verdict = verify({
      inDoubtPolicy: scenario.inDoubtPolicy,
      state: view.state,
      isFinished: view.finished_at !== null,
      expectedStates: watch.wasCancelled ? ['cancelled', 'completed'] : ['completed'],
      audience: view.books.audience,
      pending: view.books.pending,
      isBalanced: view.books.balanced,
      ...(await readDevices(db, control, id, devices, externalIds)),
      ...leftovers,
      runningWorkflows: running,
      inFlightAtProviders: ledger.in_flight,
      protocolErrors: ledger.protocol_errors,
      // A connection that breaks takes all that was in flight on it along; a device without an answer is one of its own.
      doubtBound: tally.inFlightAtCrashes + collateral * ledger.max_in_flight + unanswered(ledger),
    });
    const faulty = Object.entries(ledger.by_status_reason).filter(([ending]) => !/^(200|410|400)/.test(ending));
    return {
      report: {
        seed,
        devices: view.books.audience,
        kills: tally.kills,
        restarts: tally.restarts,
        faults: tally.connectionFaults + faulty.reduce((sum, [, times]) => sum + times, 0),
        repeats: verdict.repeats,
        repeats_marked: verdict.repeatsMarked,
        lost: verdict.lost,
        balanced: view.books.balanced,
      },
      story: watch.story,
      problems: [...watch.problems, ...verdict.problems],
      seconds: (performance.now() - startedAt) / 1000,
    };
  } finally {
    await control.resetFaults();
    await connection.close();
    await db.destroy();
  }
}

function isUnsettled(leftovers: { openTransactions: number }, running: string[], ledger: LedgerSummary): boolean {
  return running.length > 0 || ledger.in_flight > 0 || leftovers.openTransactions > 0;
}

function unanswered({ by_status_reason }: LedgerSummary): number {
  return Object.entries(by_status_reason)
    .filter(([ending]) => !/^\d{3} (?!html)/.test(ending) || /^50[024]/.test(ending))
    .reduce((sum, [, times]) => sum + times, 0);
}

/** Follows a send to its end, disturbs it on the way, and looks at the books each time. */
class Watch {
  readonly story: string[] = [];
  readonly problems: string[] = [];
  wasCancelled = false;
  readonly #run: ChaosRun;
  readonly #scenario: Scenario;
  readonly #temporal: Client;
  readonly #disturbances: Scenario['disturbances'];
  #before: NotificationView['books'] | undefined;

  constructor(run: ChaosRun, scenario: Scenario, temporal: Client) {
    this.#run = run;
    this.#scenario = scenario;
    this.#temporal = temporal;
    this.#disturbances = [...scenario.disturbances];
  }

  /** @returns the notification in its final state, or as it stands when nothing moves any more */
  async untilTheEnd(): Promise<NotificationView> {
    let underWay: Promise<void> | undefined;
    let movedAt = performance.now();
    for (;;) {
      const view = await this.#read();
      if (view) {
        if (this.#look(view)) movedAt = performance.now();
        const isFinal = finalStates.includes(view.state) && (view.finished_at !== null || view.state === 'halted');
        if (underWay === undefined && (isFinal || performance.now() - movedAt > stallMs)) return view;
        if (underWay === undefined) {
          underWay = this.#next(view)?.finally(() => {
            underWay = undefined;
            movedAt = performance.now();
          });
        }
      }
      await sleep(pollMs);
    }
  }

  /** Undefined: API or database are away for the moment. */
  async #read(): Promise<NotificationView | undefined> {
    return this.#run.api.get<NotificationView>(`/v1/notifications/${this.#run.notificationId}`).catch(() => undefined);
  }

  /** @returns whether anything has moved */
  #look({ books }: NotificationView): boolean {
    const before = this.#before;
    this.#before = books;
    const done = Object.values(books.outcomes).reduce((sum, devices) => sum + devices, 0);
    if (books.audience !== done + books.pending || books.pending < 0) {
      this.problems.push(`in mid-send: audience ${books.audience}, outcomes ${done}, pending ${books.pending}`);
    }
    if (before === undefined) return true;
    for (const [outcome, devices] of Object.entries(before.outcomes)) {
      if (books.outcomes[outcome]! < devices) this.problems.push(`outcomes ${outcome} went down from ${devices}`);
    }
    return books.pending !== before.pending || books.audience !== before.audience;
  }

  #next({ books }: NotificationView): Promise<void> | undefined {
    if (!books.is_planned) return undefined;
    const share = (books.audience - books.pending) / books.audience;
    const { cancelAt } = this.#scenario;
    if (cancelAt !== undefined && !this.wasCancelled && share >= cancelAt) {
      this.wasCancelled = true;
      return this.#cancel();
    }
    if (this.#disturbances.length === 0 || share < this.#disturbances[0]!.at) return undefined;
    const disturbance = this.#disturbances.shift()!;
    this.story.push(`${Math.round(share * 100)} %: ${disturbance.kind}`);
    return disturb(this.#run, disturbance)
      .then((problems) => {
        this.problems.push(...problems);
      })
      .catch((error: unknown) => {
        this.problems.push(`${disturbance.kind}: ${error instanceof Error ? error.message : error}`);
      });
  }

  async #cancel(): Promise<void> {
    const { api, notificationId } = this.#run;
    this.story.push(this.#scenario.cancelsInTemporal ? 'cancelled in Temporal' : 'cancelled');
    if (this.#scenario.cancelsInTemporal) {
      await this.#temporal.workflow
        .getHandle(notificationWorkflowId(notificationId))
        .cancel()
        .catch(() => {});
    } else {
      // It may have ended in this moment, which is a conflict and no fault.
      await api.post(`/v1/notifications/${notificationId}/cancel`, {}).catch(() => {});
    }
  }
}
