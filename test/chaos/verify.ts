/** Holds the books of one send against the simulator's ledger and the devices, after all of it is over. */

import type { InDoubtPolicy } from '../../domain/notification-state.ts';
import type { Outcome } from '../../domain/outcome.ts';
import type { DeviceBehaviour } from '../../simulator/device-tokens.ts';

/** One device of the frozen audience, with all that is known of it. */
export interface DeviceEvidence {
  deviceId: number;
  /** Rows of `deliveries`: exactly one is right. */
  deliveries: { outcome: Outcome; inDoubt: boolean }[];
  /** Every token it has had, the newest last, and how often the provider took the message for it. */
  tokens: { behaviour: DeviceBehaviour; accepted: number }[];
  isDeleted: boolean;
  isRegisteredAgain: boolean;
  retiredReason: string | null;
}

export interface SendEvidence {
  inDoubtPolicy: InDoubtPolicy;
  state: string;
  isFinished: boolean;
  expectedStates: string[];
  /** Of the books, as the API shows them. */
  audience: number;
  pending: number;
  isBalanced: boolean;
  devices: DeviceEvidence[];
  /** Ids that stand in more than one batch. */
  devicesPlannedTwice: number;
  /** Deliveries of devices that are in no batch. */
  deliveriesOutsideAudience: number;
  batchesAtFault: number;
  openBatches: number;
  deferrals: number;
  /** Workflows of this send that still run, by id. */
  runningWorkflows: string[];
  openTransactions: number;
  inFlightAtProviders: number;
  protocolErrors: number;
  /** Devices that were in flight whenever something crashed: more can't be in doubt. */
  doubtBound: number;
}

export interface Verdict {
  /** Each a broken promise, in plain words; empty when all is well. */
  problems: string[];
  /** Devices of the audience without an outcome. */
  lost: number;
  /** Acceptances beyond a device's first. */
  repeats: number;
  /** Those of devices that the books mark as in doubt. */
  repeatsMarked: number;
  inDoubt: number;
}

const deadBehaviours: ReadonlySet<DeviceBehaviour> = new Set(['unregistered', 'expiredToken', 'badToken']);

export function verify(send: SendEvidence): Verdict {
  const problems: string[] = [];
  const demand = (isTrue: boolean, problem: string) => {
    if (!isTrue) problems.push(problem);
  };
  const count = (isAtFault: (device: DeviceEvidence) => boolean) => send.devices.filter(isAtFault).length;
  const demandNone = (isAtFault: (device: DeviceEvidence) => boolean, problem: string) => {
    const devices = count(isAtFault);
    demand(devices === 0, `${devices} devices ${problem}`);
  };

  demand(send.expectedStates.includes(send.state), `the notification is ${send.state}`);
  demand(send.isFinished, 'the books are not closed');
  demand(send.isBalanced, 'audience is not the sum of outcomes and pending');
  demand(send.pending === 0, `${send.pending} devices are pending after the end`);
  demand(send.audience === send.devices.length, `the audience is ${send.audience}, planned are ${send.devices.length}`);
  demand(send.devicesPlannedTwice === 0, `${send.devicesPlannedTwice} devices are in two batches`);
  demand(send.deliveriesOutsideAudience === 0, `${send.deliveriesOutsideAudience} outcomes belong to nobody asked for`);
  demand(send.batchesAtFault === 0, `${send.batchesAtFault} batches disagree with their rows`);
  demand(send.openBatches === 0, `${send.openBatches} batches are open`);
  demand(send.deferrals === 0, `${send.deferrals} deferrals are left`);
  demand(send.runningWorkflows.length === 0, `workflows still run: ${send.runningWorkflows.slice(0, 3).join(', ')}`);
  demand(send.openTransactions === 0, `${send.openTransactions} transactions are open`);
  demand(send.inFlightAtProviders === 0, `${send.inFlightAtProviders} requests are in flight`);
  demand(send.protocolErrors === 0, `${send.protocolErrors} times the sender broke HTTP/2`);

  const lost = count(({ deliveries }) => deliveries.length === 0);
  demand(lost === 0, `${lost} devices have no outcome`);
  demandNone(({ deliveries }) => deliveries.length > 1, 'have more than one outcome');
  demandNone(
    (device) => has(device, 'accepted') && acceptances(device) === 0,
    'are accepted in the books and not in the ledger',
  );
  demandNone(
    (device) => acceptances(device) > 0 && !has(device, 'accepted') && !has(device, 'unknown') && !isInDoubt(device),
    'were accepted by the provider, and the books know nothing of it',
  );
  demandNone((device) => acceptances(device) > 1 && !isInDoubt(device), 'were sent to twice and are not marked');
  if (send.inDoubtPolicy === 'skip') {
    demandNone((device) => acceptances(device) > 1, 'were sent to twice although in doubt they must be skipped');
  }
  demandNone(isRetiredWrongly, 'are retired although their token lives');
  demandNone(
    (device) =>
      has(device, 'unregistered') && !device.isRegisteredAgain && !device.isDeleted && device.retiredReason === null,
    'have a dead token and are not retired',
  );

  let repeats = 0;
  let repeatsMarked = 0;
  for (const device of send.devices) {
    const beyondFirst = Math.max(0, acceptances(device) - 1);
    repeats += beyondFirst;
    if (isInDoubt(device)) repeatsMarked += beyondFirst;
  }
  const inDoubt = count(isInDoubt);
  demand(inDoubt <= send.doubtBound, `${inDoubt} devices are in doubt, at most ${send.doubtBound} were in flight`);
  return { problems, lost, repeats, repeatsMarked, inDoubt };
}

function has({ deliveries }: DeviceEvidence, outcome: Outcome): boolean {
  return deliveries.some((delivery) => delivery.outcome === outcome);
}

function isInDoubt({ deliveries }: DeviceEvidence): boolean {
  return deliveries.some((delivery) => delivery.inDoubt);
}

function acceptances({ tokens }: DeviceEvidence): number {
  return tokens.reduce((sum, token) => sum + token.accepted, 0);
}

function isRetiredWrongly({ isDeleted, retiredReason, tokens }: DeviceEvidence): boolean {
  return !isDeleted && retiredReason !== null && !deadBehaviours.has(tokens.at(-1)!.behaviour);
}
