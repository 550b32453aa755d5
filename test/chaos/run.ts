/** One run: the scenario of one seed, on a stack that may serve many runs. */
import { setTimeout as sleep } from 'node:timers/promises';
import { Client, Connection } from '@temporalio/client';
import { connect } from '../../db/connect.ts';
import { createApiClient, type NotificationView } from '../../local/api-client.ts';
import type { Stack } from '../../local/stack.ts';
import type { LedgerSummary } from '../../simulator/control-types.ts';
import type { RuleState } from '../../simulator/rules.ts';
import { ChaosDevices } from './chaos-devices.ts';
import { type ChaosRun, emptyTally, type Tally } from './disturbances.ts';
import { isClean, type Leftovers, readBooks, readDeviceIds, readLeftovers } from './evidence.ts';
import { ChaosMessages, installLaneWitness } from './messages.ts';
import { createOperator, launchOnce } from './operator.ts';
import { drawScenario, type Scenario } from './scenario.ts';
import { chaosLimits } from './settings.ts';
import { SmallSends } from './small-sends.ts';
import { installTakeoverWitness } from './takeovers.ts';
import { type SendEvidence, type Verdict, verify } from './verify.ts';
import { Watch } from './watch.ts';
import { ChaosWebhooks } from './webhooks.ts';

/** The JSON object of `npm run chaos -- --json`. */
export interface ChaosReport {
  seed: number;
  devices: number;
  kills: number;
  restarts: number;
  /** Requests, connections and credentials that a provider treated badly. */
  faults: number;
  repeats: number;
  repeats_marked: number;
  lost: number;
  balanced: boolean;
  /** Notifications to one device each, launched beside the large one. */
  small_sends: number;
  /** Messages to one person, posted beside it. */
  messages: number;
  /** Events that a webhook was told. */
  webhooks: number;
}

export interface ChaosResult {
  report: ChaosReport;
  verdict: Verdict;
  /** What happened, one line each. */
  story: string[];
  /** Each a broken promise, in plain words; empty when all is well. */
  problems: string[];
  /** Looks at the books in mid-send, each of which found them balanced. */
  looks: number;
  seconds: number;
  /** The evidence that the verdict rests on. */
  evidence: SendEvidence;
  /** Reads the evidence again, as the books are by now. */
  readAgain(db: Parameters<typeof readBooks>[0]): Promise<SendEvidence>;
}

/** How long answers on their way and closing workflows may take. */
const settleMs = 30_000;
const againMs = 100;

/**
 * @param runNumber tells apart runs on one stack
 * @param stop aborted: the run is given up
 */
export async function runChaos(
  stack: Stack,
  seed: number,
  runNumber: number,
  count: number,
  stop?: AbortSignal,
): Promise<ChaosResult> {
  const startedAt = performance.now();
  const scenario = drawScenario(seed);
  const control = stack.simulator!.control;
  const { db } = connect(stack.databaseUrl, { maxConnections: 4, applicationName: 'carillon-chaos' });
  const connection = await Connection.connect({ address: stack.temporalAddress });
  const temporal = new Client({ connection, namespace: stack.temporalNamespace });
  let webhooks: ChaosWebhooks | undefined;
  try {
    await installTakeoverWitness(db);
    await installLaneWitness(db);
    await control.resetFaults();
    await control.resetLedger();
    for (const rule of scenario.rules) await control.addRule(rule.match ?? {}, rule.action, rule.times);
    const devices = new ChaosDevices(seed, runNumber, count, scenario.behaviours);
    const api = createApiClient(stack.apiUrl, stack.apiKey!);
    const smallSends = new SmallSends(stack, seed, runNumber);
    await api.importDevices(smallSends.rows());
    const messages = new ChaosMessages(stack, seed, runNumber);
    await api.importDevices(messages.rows());
    const imported = await api.importDevices(devices.rows());
    if (imported.imported !== count) throw new Error(`the import took ${JSON.stringify(imported)}`);
    const externalIds = await readDeviceIds(db, devices.name);

    webhooks = await ChaosWebhooks.start(stack);
    const tally = emptyTally();
    for (const reason of haltsOfRules(scenario)) tally.expectedHalts.add(reason);
    const ratePerSecond = Math.ceil(count / scenario.sendSeconds);
    const notificationId = await launch(stack, scenario, devices.name, ratePerSecond, tally);
    const operator = createOperator(stack.apiUrl, stack.apiKey!, notificationId);
    const run: ChaosRun = { stack, operator, temporal, db, notificationId, devices, ratePerSecond, tally };
    const watch = new Watch(run, scenario.disturbances);
    smallSends.start();
    messages.start();
    const view = await watch.untilTheEnd(stop);
    const small = await smallSends.end(db);
    const posted = await messages.end(db, breaksConnections(tally, scenario));
    const told = await webhooks.end(db);
    const leftovers = await settle(() => readLeftovers(db, temporal, control, notificationId));
    const ledger = await control.ledgerSummary(notificationId);
    const rules = await control.listRules();

    const readAgain = async (books: typeof db): Promise<SendEvidence> => ({
      registered: count,
      inDoubtPolicy: scenario.inDoubtPolicy,
      hasTtl: scenario.ttlSeconds !== undefined,
      wasCancelled: tally.wasCancelled,
      ...shown(view),
      ...leftovers,
      ...(await readBooks(books, control, notificationId, devices, externalIds)),
      ledger: {
        received: ledger.received,
        distinctAccepted: ledger.distinct_accepted,
        inFlight: leftovers.inFlight,
        protocolErrors: ledger.protocol_errors,
      },
      crashes: tally.crashes,
      windowBound: chaosLimits.inFlightOfBatch,
      unansweredBound: unansweredBound(tally, ledger, rules),
      maxAttempts: chaosLimits.maxAttempts,
    });
    const evidence = await readAgain(db);
    const verdict = verify(evidence);
    return {
      report: {
        seed,
        devices: view.books.audience,
        kills: tally.kills,
        restarts: tally.restarts,
        faults: countFaults(tally, ledger, rules),
        repeats: verdict.repeats,
        repeats_marked: verdict.repeatsMarked,
        lost: verdict.lost,
        balanced: view.books.balanced && evidence.batchesAtFault === 0,
        small_sends: small.sends,
        messages: posted.messages,
        webhooks: told.events,
      },
      verdict,
      story: watch.story,
      problems: [
        ...new Set(watch.problems),
        ...verdict.problems,
        ...small.problems,
        ...posted.problems,
        ...told.problems,
      ],
      looks: watch.looks,
      seconds: (performance.now() - startedAt) / 1000,
      evidence,
      readAgain,
    };
  } finally {
    await webhooks?.close();
    await control.resetFaults();
    await connection.close();
    await db.destroy();
  }
}

async function launch(
  stack: Stack,
  scenario: Scenario,
  name: string,
  ratePerSecond: number,
  tally: Tally,
): Promise<string> {
  const body = {
    title: name,
    message: {
      title: 'Hold fast',
      body: `Seed ${scenario.seed}`,
      collapse_id: `chaos-${scenario.seed}`,
      ...(scenario.ttlSeconds !== undefined && { ttl: scenario.ttlSeconds }),
    },
    audience: { condition: { property: 'chaos', operator: 'eq', value: name } },
    in_doubt_policy: scenario.inDoubtPolicy,
    rate_per_second: ratePerSecond,
    launch: true,
  };
  const launched = launchOnce(stack.apiUrl, stack.apiKey!, body);
  if (scenario.killsApiAtLaunch) {
    tally.kills++;
    await stack.processes.api.kill();
    await stack.processes.api.start();
  }
  return launched;
}

/**
 * A page of HTML with 404 may mean that another server answers in the provider's place; a batch that begins with it stops the
 * send.
 */
function haltsOfRules({ rules }: Scenario): string[] {
  return rules.some(({ action }) => action.type === 'html' && action.status === 404) ? ['environment', 'project'] : [];
}

/** Whether a request may have been written to a connection that was closed before the provider read it. */
function breaksConnections({ connectionsBroken }: Tally, { rules }: Scenario): boolean {
  return (
    connectionsBroken > 0 || rules.some(({ action }) => breaksConnection.has(action.type) || action.type === 'goaway')
  );
}

function shown({ state, finished_at, books, totals }: NotificationView) {
  return {
    state,
    isFinished: finished_at !== null,
    audience: books.audience,
    pending: books.pending,
    isBalanced: books.balanced,
    totals: totals && { outcomes: totals.outcomes, inDoubt: totals.in_doubt },
  };
}

async function settle(read: () => Promise<Leftovers>): Promise<Leftovers> {
  const deadline = performance.now() + settleMs;
  for (;;) {
    const leftovers = await read();
    if (isClean(leftovers) || performance.now() > deadline) return leftovers;
    await sleep(againMs);
  }
}

/** Endings of a request in the ledger that tell what became of it. */
const clearAnswer = /^(200$|4\d\d |503 (ServiceUnavailable|Shutdown)$|rst REFUSED_STREAM$|goaway$)/;
const breaksConnection = new Set(['reset', 'end', 'blackHole']);

/** Requests without a clear answer, and all devices in flight on a connection that broke. */
function unansweredBound(tally: Tally, ledger: LedgerSummary, rules: RuleState[]): number {
  const unclear = Object.entries(ledger.by_status_reason).filter(([ending]) => !clearAnswer.test(ending));
  const ended = Object.entries(ledger.by_status_reason).filter(([ending]) => breaksConnection.has(ending));
  const goaways = rules.filter(({ action }) => action.type === 'goaway').reduce((sum, rule) => sum + rule.applied, 0);
  const broken = ended.reduce((sum, [, times]) => sum + times, goaways);
  return (
    tally.inFlightAtFreezes +
    unclear.reduce((sum, [, times]) => sum + times, 0) +
    (tally.connectionsBroken + broken) * chaosLimits.inFlightOfSend
  );
}

/** A dead device token is no fault of the provider's. */
const deviceAnswer = /^(200$|410 |400 |404 UNREGISTERED|403 SENDER_ID_MISMATCH)/;

function countFaults(tally: Tally, ledger: LedgerSummary, rules: RuleState[]): number {
  const faulty = Object.entries(ledger.by_status_reason).filter(([ending]) => !deviceAnswer.test(ending));
  const withoutEnding = new Set(['delay', 'maxConcurrentStreams']);
  const passing = rules.filter(({ action }) => withoutEnding.has(action.type)).reduce((sum, r) => sum + r.applied, 0);
  return tally.connectionsBroken + tally.accountFaults + passing + faulty.reduce((sum, [, times]) => sum + times, 0);
}
