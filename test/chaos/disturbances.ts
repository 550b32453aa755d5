/** What each disturbance does to the running stack. Each returns when the stack is whole again. */

import { setTimeout as sleep } from 'node:timers/promises';
import { type Client, WorkflowNotFoundError } from '@temporalio/client';
import type { Kysely } from 'kysely';
import type { Database } from '../../db/schema.ts';
import { notificationWorkflowId } from '../../domain/ids.ts';
import type { Stack } from '../../local/stack.ts';
import type { ChaosDevices } from './chaos-devices.ts';
import { countReserved, hasEnded } from './evidence.ts';
import type { Operator } from './operator.ts';
import { came, patiently } from './patience.ts';
import type { Disturbance, DisturbanceKind } from './scenario.ts';
import { readTakeovers } from './takeovers.ts';

export interface ChaosRun {
  stack: Stack;
  operator: Operator;
  temporal: Client;
  db: Kysely<Database>;
  notificationId: string;
  devices: ChaosDevices;
  /** The send's own rate at its launch. */
  ratePerSecond: number;
  tally: Tally;
}

/** What was done to the run so far. */
export interface Tally {
  kills: number;
  restarts: number;
  /** Disturbances that may leave devices in doubt through no fault of a provider. */
  crashes: number;
  /** Provider connections broken from outside. */
  connectionsBroken: number;
  /** Faults of the token endpoint, the quota and the credentials. */
  accountFaults: number;
  /** Sum of the devices in flight whenever a worker was frozen: it may wake before its batches are taken over. */
  inFlightAtFreezes: number;
  /** Reasons for which a send may halt from now on; the operator then resumes it. */
  expectedHalts: Set<string>;
  wasCancelled: boolean;
}

export function emptyTally(): Tally {
  return {
    kills: 0,
    restarts: 0,
    crashes: 0,
    connectionsBroken: 0,
    accountFaults: 0,
    inFlightAtFreezes: 0,
    expectedHalts: new Set(),
    wasCancelled: false,
  };
}

/** How long a reaction to a fault is waited for; a send that is nearly over may have no request left to react with. */
const reactionMs = 10_000;
/** How long a provider's fault lasts, about, where nothing shows that it was noticed. */
const faultMs = 1_500;
/** Between the answer to a pause and the last window that may still be reserved. */
const pauseGraceMs = 500;
const silenceMs = 1_000;

/** @returns problems that show during the disturbance itself */
type Act = (run: ChaosRun, disturbance: Disturbance) => Promise<string[] | undefined>;

export async function disturb(run: ChaosRun, disturbance: Disturbance): Promise<string[]> {
  return (await acts[disturbance.kind](run, disturbance)) ?? [];
}

const acts: Record<DisturbanceKind, Act> = {
  'kill a worker': async ({ stack, tally }, { worker }) => {
    tally.crashes++;
    tally.kills++;
    await stack.processes.workers[worker]!.kill();
    await stack.processes.workers[worker]!.start();
  },

  'kill both workers': async ({ stack, tally }) => {
    const { workers } = stack.processes;
    tally.crashes++;
    tally.kills += workers.length;
    await Promise.all(workers.map((worker) => worker.kill()));
    await Promise.all(workers.map((worker) => worker.start()));
  },

  'stop a worker': async ({ stack, tally }, { worker }) => {
    tally.restarts++;
    await stack.processes.workers[worker]!.restart();
  },

  /** The worker wakes when another worker has taken over at least one of its batches and sends on. */
  'freeze a worker': async (run, { worker }) => {
    const { stack, tally, db, notificationId } = run;
    const { pid } = stack.processes.workers[worker]!;
    tally.crashes++;
    tally.kills++;
    const takeovers = await patiently(() => readTakeovers(db, notificationId));
    process.kill(pid, 'SIGSTOP');
    tally.inFlightAtFreezes += await patiently(() => countReserved(db, notificationId));
    await came(
      async () =>
        (await hasEnded(db, notificationId)) || (await readTakeovers(db, notificationId)).length > takeovers.length,
      2 * reactionMs,
    );
    await sleep(faultMs);
    process.kill(pid, 'SIGCONT');
  },

  'kill the API': async ({ stack, tally }) => {
    tally.kills++;
    await stack.processes.api.kill();
    await stack.processes.api.start();
  },

  'kill PostgreSQL': async ({ stack, tally }) => {
    tally.kills++;
    await stack.processes.postgres!.kill();
    await stack.processes.postgres!.start();
  },

  'restart PostgreSQL': async ({ stack, tally }) => {
    tally.restarts++;
    await stack.processes.postgres!.restart();
  },

  /** Heartbeats are lost meanwhile, so a batch may be given to another worker while its first one is well. */
  'kill Temporal': async ({ stack, tally }) => {
    tally.crashes++;
    tally.kills++;
    await stack.processes.temporal!.kill();
    await stack.processes.temporal!.start();
  },

  'restart Temporal': async ({ stack, tally }) => {
    tally.crashes++;
    tally.restarts++;
    await stack.processes.temporal!.restart();
  },

  'pause and resume': async ({ operator, stack, db, notificationId }) => {
    if (!(await operator.ask('pause'))) return [];
    const control = stack.simulator!.control;
    await sleep(pauseGraceMs);
    const reserved = await patiently(() => countReserved(db, notificationId));
    const before = await control.ledgerSummary(notificationId);
    await sleep(silenceMs);
    const after = await control.ledgerSummary(notificationId);
    await operator.ask('resume');
    const requests = after.received - before.received;
    // Devices reserved before the pause may still be on their way, or be sent to again after a refusing connection.
    return requests <= 2 * reserved
      ? []
      : [`${requests} requests arrived while the notification was paused, ${reserved} were in flight`];
  },

  'terminate the workflow': async (run) => {
    const { temporal, tally, operator, notificationId } = run;
    if ((await operator.look())?.state !== 'sending') return;
    tally.crashes++;
    tally.expectedHalts.add('workflow_terminated');
    await unlessClosed(() => temporal.workflow.getHandle(notificationWorkflowId(notificationId)).terminate('chaos'));
    await untilNotSending(run);
  },

  cancel: async ({ operator, tally }) => {
    tally.wasCancelled = true;
    tally.crashes++;
    await operator.ask('cancel');
  },

  'cancel in Temporal': async ({ temporal, tally, notificationId }) => {
    tally.wasCancelled = true;
    tally.crashes++;
    await unlessClosed(() => temporal.workflow.getHandle(notificationWorkflowId(notificationId)).cancel());
  },

  'change the rate': async ({ operator, ratePerSecond }, { form }) => {
    await operator.changeRate(form < 0.25 ? null : Math.ceil(ratePerSecond * (0.5 + 2 * form)));
  },

  'revoke the APNs key': async (run) => {
    const { stack, tally } = run;
    const control = stack.simulator!.control;
    tally.accountFaults++;
    tally.expectedHalts.add('credentials');
    await control.changeSettings({ revokedKeyIds: [stack.env.APNS_KEY_ID!] });
    await untilNotSending(run);
    await control.changeSettings({ revokedKeyIds: [] });
  },

  'refuse the service account': async (run) => {
    const control = run.stack.simulator!.control;
    run.tally.accountFaults++;
    run.tally.expectedHalts.add('credentials');
    await control.setOauth({ fault: 'invalid_grant', revokeAll: true });
    await untilNotSending(run);
    await control.setOauth({ fault: null });
  },

  'break OAuth': async ({ stack, tally }, { form }) => {
    const control = stack.simulator!.control;
    const { oauth_requests: before } = await control.ledgerSummary();
    tally.accountFaults++;
    await control.setOauth({ fault: choose(oauthFaults, form), revokeAll: true });
    await came(async () => (await control.ledgerSummary()).oauth_requests > before + 1, 2 * faultMs);
    await control.setOauth({ fault: null });
  },

  'revoke access tokens': async ({ stack, tally }) => {
    tally.accountFaults++;
    await stack.simulator!.control.setOauth({ revokeAll: true });
  },

  'use up the FCM quota': async ({ stack, tally }, { form }) => {
    const control = stack.simulator!.control;
    tally.accountFaults++;
    await control.setQuota({ perMinute: 20, retryAfter: choose(retryAfterForms, form) });
    await sleep(faultMs);
    await control.setQuota({ perMinute: null, retryAfter: 'seconds' });
  },

  'admit no connection': async ({ stack, tally }, { form }) => {
    const control = stack.simulator!.control;
    await control.changeSettings({ admission: choose(admissions, form) });
    tally.connectionsBroken += (await control.closeConnections()).affected;
    await sleep(faultMs);
    await control.changeSettings({ admission: 'accept' });
  },

  'GOAWAY on every connection': async ({ stack, tally }) => {
    tally.connectionsBroken += (await stack.simulator!.control.goaway()).affected;
  },

  'reset every connection': async ({ stack, tally }) => {
    tally.connectionsBroken += (await stack.simulator!.control.resetConnections()).affected;
  },

  'close every connection': async ({ stack, tally }) => {
    tally.connectionsBroken += (await stack.simulator!.control.closeConnections()).affected;
  },

  'silence a connection': async ({ stack, tally }, { form }) => {
    const control = stack.simulator!.control;
    const connections = await control.listConnections();
    if (connections.length === 0) return;
    const { id } = choose(connections, form);
    tally.connectionsBroken += (await control.blackHole({ connection: id })).affected;
  },

  'change devices': async ({ operator, devices }, { at }) => {
    const first = Math.floor(at * 97);
    const rows = [...devices.renew(first, 97), ...devices.change(first + 1, 89), ...devices.move(first + 2, 101)];
    const forgotten = devices.forget(first + 3, 83);
    await operator.importDevices(rows);
    for (const externalId of forgotten) await operator.forgetDevice(externalId);
  },
};

const oauthFaults = ['429', '503', 'html', 'slow', 'hang', 'wrong_json', 'no_expiry'] as const;
const retryAfterForms = ['seconds', 'date', 'absent', 'malformed', 'huge'] as const;
const admissions = ['refuse', 'stall', 'garbage', 'goaway'] as const;

function choose<T>(list: readonly T[], form: number): T {
  return list[Math.floor(form * list.length)]!;
}

async function untilNotSending({ operator }: ChaosRun): Promise<void> {
  await came(async () => {
    const view = await operator.look();
    return view !== undefined && view.state !== 'sending';
  }, reactionMs);
}

/** The send may end at any moment; then the call has no effect. */
async function unlessClosed(ask: () => Promise<unknown>): Promise<void> {
  await patiently(async () => {
    try {
      await ask();
    } catch (error) {
      if (!(error instanceof WorkflowNotFoundError)) throw error;
    }
  });
}
