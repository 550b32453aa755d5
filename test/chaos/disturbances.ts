/** What each disturbance does to the running stack. Each returns when the stack is whole again. */

import { setTimeout as sleep } from 'node:timers/promises';
import type { Kysely } from 'kysely';
import type { Database } from '../../db/schema.ts';
import type { ApiClient } from '../../local/api-client.ts';
import type { Stack } from '../../local/stack.ts';
import type { ChaosDevices } from './chaos-devices.ts';
import { countInFlight } from './evidence.ts';
import type { Disturbance } from './scenario.ts';

export interface ChaosRun {
  stack: Stack;
  api: ApiClient;
  db: Kysely<Database>;
  notificationId: string;
  devices: ChaosDevices;
  heartbeatTimeoutMs: number;
  tally: Tally;
}

/** What was done to the run so far. */
export interface Tally {
  kills: number;
  restarts: number;
  /** Faults of provider connections from outside; those of rules and devices are counted by the simulator. */
  connectionFaults: number;
  /** Sum over all crashes of the devices that were in flight. */
  inFlightAtCrashes: number;
}

/** Between the answer to a pause and the last request that may still arrive. */
const pauseGraceMs = 1_000;
const silenceMs = 1_500;

/** @returns problems that show during the disturbance itself */
export async function disturb(run: ChaosRun, { kind, worker: index, at }: Disturbance): Promise<string[]> {
  const { stack, tally, api, db, notificationId } = run;
  const { postgres, temporal, api: apiProcess, workers } = stack.processes;
  const control = stack.simulator!.control;
  const worker = workers[index]!;
  const noteCrash = async () => {
    tally.inFlightAtCrashes += await countInFlight(db, notificationId);
  };
  switch (kind) {
    case 'kill a worker':
      await worker.kill();
      tally.kills++;
      await noteCrash();
      await worker.start();
      return [];
    case 'stop a worker':
      await worker.restart();
      tally.restarts++;
      return [];
    case 'freeze a worker':
      process.kill(worker.pid, 'SIGSTOP');
      tally.kills++;
      await noteCrash();
      // Long enough that its batches are taken over, then it wakes up in the middle of somebody else's work.
      await sleep(run.heartbeatTimeoutMs * 1.5);
      process.kill(worker.pid, 'SIGCONT');
      return [];
    case 'kill the API':
      await apiProcess.kill();
      tally.kills++;
      await apiProcess.start();
      return [];
    case 'kill PostgreSQL':
      await postgres!.kill();
      tally.kills++;
      await postgres!.start();
      return [];
    case 'restart PostgreSQL':
      await postgres!.restart();
      tally.restarts++;
      return [];
    case 'kill Temporal':
      await temporal!.kill();
      tally.kills++;
      await temporal!.start();
      return [];
    case 'pause and resume':
      return await pauseAndResume(run);
    case 'GOAWAY on every connection':
      tally.connectionFaults += (await control.goaway()).affected;
      return [];
    case 'reset every connection':
      tally.connectionFaults += (await control.resetConnections()).affected;
      return [];
    case 'silence a connection': {
      const [connection] = await control.listConnections();
      if (connection) tally.connectionFaults += (await control.blackHole({ connection: connection.id })).affected;
      return [];
    }
    case 'change devices': {
      const first = Math.floor(at * 97);
      await api.importDevices([...run.devices.reregister(first, 97), ...run.devices.change(first + 1, 89)]);
      for (const externalId of run.devices.forget(first + 2, 83)) await api.delete(`/v1/devices/${externalId}`);
      return [];
    }
  }
}

async function pauseAndResume({ api, stack, notificationId }: ChaosRun): Promise<string[]> {
  const { state } = await api.get<{ state: string }>(`/v1/notifications/${notificationId}`);
  if (state !== 'sending') return [];
  await api.post(`/v1/notifications/${notificationId}/pause`, {});
  const control = stack.simulator!.control;
  await sleep(pauseGraceMs);
  const before = await control.ledgerSummary(notificationId);
  await sleep(silenceMs);
  const after = await control.ledgerSummary(notificationId);
  await api.post(`/v1/notifications/${notificationId}/resume`, {});
  const requests = after.received - before.received;
  return requests === 0 ? [] : [`${requests} requests arrived while the notification was paused`];
}
