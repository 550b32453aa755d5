/** Checks the books of one send against the simulator's ledger, the witness and the devices, after the run is over. */

import type { InDoubtPolicy } from '../../domain/notification-state.ts';
import type { Outcome } from '../../domain/outcome.ts';
import type { DeviceBehaviour } from '../../simulator/device-tokens.ts';

/** One device of the audience, with all that is known of it. */
export interface DeviceEvidence {
  externalId: string;
  /** Rows of `deliveries`: exactly one is right. */
  deliveries: { outcome: Outcome; inDoubt: boolean; attempts: number }[];
  /** Every token that the device has had, the newest last, with how often the provider got and took the message for it. */
  tokens: { behaviour: DeviceBehaviour; received: number; accepted: number }[];
  isDeleted: boolean;
  isRegisteredAgain: boolean;
  isMoved: boolean;
  retiredReason: string | null;
  /** How often the device was in flight when its batch was taken over. */
  takeovers: number;
}

export interface SendEvidence {
  /** What was asked for. */
  registered: number;
  inDoubtPolicy: InDoubtPolicy;
  hasTtl: boolean;
  wasCancelled: boolean;
  /** Notifications in the books under this run's title. */
  notifications: number;

  /** As the API shows them. */
  state: string;
  isFinished: boolean;
  audience: number;
  pending: number;
  isBalanced: boolean;
  totals: { outcomes: Partial<Record<Outcome, number>>; inDoubt: number } | null;

  /** Of the books themselves. */
  devices: DeviceEvidence[];
  devicesPlannedTwice: number;
  deliveriesOutsideAudience: number;
  /** New owners of a token: they are in no batch. */
  outsidersRetired: number;
  batchesAtFault: number;
  openBatches: number;
  deferrals: number;
  openTransactions: number;
  /** By id. */
  runningWorkflows: string[];

  ledger: { received: number; distinctAccepted: number; inFlight: number; protocolErrors: number };

  /** Disturbances that may leave devices in doubt through no fault of a provider: kills, freezes, cancellations … */
  crashes: number;
  /** Devices in flight, for each time that a batch was taken over. */
  takeovers: number[];
  /** The most devices of one batch that can be in flight at once. */
  windowBound: number;
  /** Devices that a provider, or a connection that broke, may have left without an answer. */
  unansweredBound: number;
  maxAttempts: number;
}

export interface Verdict {
  /** Each a broken promise, in plain words; empty when all is well. */
  problems: string[];
  /** Devices of the audience without an outcome. */
  lost: number;
  /** Acceptances beyond a device's first. */
  repeats: number;
  /** Repeats of devices that the books mark as in doubt. */
  repeatsMarked: number;
  inDoubt: number;
  /** Devices in flight at all takeovers together. */
  inFlight: number;
}

export interface Check {
  /** The promise. */
  name: string;
  /** The fault; undefined when there is none. */
  find(send: SendEvidence): string | undefined;
}

const deadBehaviours: ReadonlySet<DeviceBehaviour> = new Set([
  'unregistered',
  'expiredToken',
  'badToken',
  'wrongTopic',
  'senderMismatch',
]);

/** Their answers are those of healthy devices while the configuration is wrong: not always believed. */
const suspectBehaviours: ReadonlySet<DeviceBehaviour> = new Set(['badToken', 'wrongTopic', 'senderMismatch']);

export const checks: Check[] = [
  {
    name: 'the send ends by itself, or as cancelled where somebody cancelled it',
    find: ({ state, wasCancelled }) =>
      state === 'completed' || (wasCancelled && state === 'cancelled') ? undefined : `it is ${state}`,
  },
  { name: 'the books are closed', find: ({ isFinished }) => (isFinished ? undefined : 'they are open') },
  { name: 'a launch made twice is one notification', find: ({ notifications }) => exactly(notifications, 1) },
  {
    name: 'audience = sum of outcomes + pending',
    find: ({ isBalanced }) => (isBalanced ? undefined : 'it is not'),
  },
  { name: 'nobody is pending at the end', find: ({ pending }) => none(pending) },
  {
    name: 'everybody who was registered at the launch is in the audience',
    find: ({ audience, registered }) => exactly(audience, registered),
  },
  {
    name: 'the batches hold the audience',
    find: ({ audience, devices }) => exactly(devices.length, audience),
  },
  { name: 'nobody is in two batches', find: (send) => none(send.devicesPlannedTwice) },
  { name: 'nobody else has an outcome', find: (send) => none(send.deliveriesOutsideAudience) },
  { name: 'every batch agrees with its groups', find: (send) => none(send.batchesAtFault) },
  {
    name: 'the stored totals are those of the rows',
    find: (send) => differenceOfTotals(send),
  },

  forEveryDevice('everybody has an outcome', ({ deliveries }) => deliveries.length === 0),
  forEveryDevice('nobody has two outcomes', ({ deliveries }) => deliveries.length > 1),
  forEveryDevice(
    'whoever is accepted in the books was accepted by the provider',
    (device) => has(device, 'accepted') && acceptances(device) === 0,
  ),
  forEveryDevice(
    'whoever was accepted by the provider is accepted in the books, or in doubt',
    (device) => acceptances(device) > 0 && !has(device, 'accepted') && !isInDoubt(device),
  ),
  forEveryDevice('every repeat is marked as in doubt', (device) => acceptances(device) > 1 && !isInDoubt(device)),
  forEveryDevice(
    'policy skip never sends twice',
    (device, { inDoubtPolicy }) => inDoubtPolicy === 'skip' && acceptances(device) > 1,
  ),
  forEveryDevice('unknown is only who is in doubt', (device) => has(device, 'unknown') && !isInDoubt(device)),
  forEveryDevice(
    'skipped is only who was deleted, or whose token went to somebody else',
    (device) => has(device, 'skipped') && !device.isDeleted && !device.isMoved,
  ),
  forEveryDevice(
    'rejected is only whose token the provider called bad: the message is sound',
    (device) => has(device, 'rejected') && !device.tokens.some(({ behaviour }) => suspectBehaviours.has(behaviour)),
  ),
  forEveryDevice(
    'unregistered is only who had a dead token',
    (device) => has(device, 'unregistered') && !device.tokens.some(({ behaviour }) => deadBehaviours.has(behaviour)),
  ),
  forEveryDevice(
    'failed is only who was tried often enough',
    (device, { maxAttempts }) =>
      has(device, 'failed') && device.deliveries.some(({ attempts }) => attempts < maxAttempts),
  ),
  forEveryDevice(
    'cancelled is nobody where nobody cancelled',
    (device, { wasCancelled }) => has(device, 'cancelled') && !wasCancelled,
  ),
  forEveryDevice(
    'expired is nobody where the message lives for a day',
    (device, { hasTtl }) => has(device, 'expired') && !hasTtl,
  ),

  forEveryDevice(
    'no living token is retired',
    ({ isDeleted, isMoved, retiredReason, tokens }) =>
      !isDeleted && !isMoved && retiredReason !== null && !deadBehaviours.has(tokens.at(-1)!.behaviour),
  ),
  forEveryDevice(
    'every dead token is retired',
    (device) =>
      has(device, 'unregistered') && !device.isRegisteredAgain && !device.isDeleted && device.retiredReason === null,
  ),
  forEveryDevice(
    'whoever lost its token to another device is retired',
    ({ isMoved, isDeleted, retiredReason }) => isMoved && !isDeleted && retiredReason === null,
  ),
  { name: 'nobody outside the audience is retired', find: (send) => none(send.outsidersRetired) },
  {
    name: 'every request in the ledger is for the audience',
    find: ({ ledger, devices }) => exactly(sum(devices, requests), ledger.received),
  },
  {
    name: 'the ledger counts the same acceptances in sum and by device',
    find: ({ ledger, devices }) =>
      exactly(
        sum(devices, ({ tokens }) => tokens.filter(({ accepted }) => accepted > 0).length),
        ledger.distinctAccepted,
      ),
  },

  {
    name: 'orderly stops leave nobody in doubt',
    find: ({ crashes, takeovers }) => (crashes > 0 ? undefined : none(total(takeovers))),
  },
  {
    name: 'a batch that is taken over has no more in flight than its windows',
    find: ({ takeovers, windowBound }) => atMost(Math.max(0, ...takeovers), windowBound),
  },
  {
    name: 'in doubt is only who was in flight at a takeover, or got no answer',
    find: ({ devices, unansweredBound }) =>
      atMost(devices.filter((device) => isInDoubt(device) && device.takeovers === 0).length, unansweredBound),
  },
  {
    name: 'repeats are at most what was in flight',
    find: ({ devices, takeovers, unansweredBound }) =>
      atMost(sum(devices, repeatsOf), total(takeovers) + unansweredBound),
  },

  { name: 'no batch is open', find: (send) => none(send.openBatches) },
  { name: 'no deferral is left', find: (send) => none(send.deferrals) },
  { name: 'no transaction is open', find: (send) => none(send.openTransactions) },
  {
    name: 'no workflow runs',
    find: ({ runningWorkflows }) =>
      runningWorkflows.length === 0 ? undefined : `these do: ${runningWorkflows.slice(0, 3).join(', ')}`,
  },
  { name: 'no request is in flight at the providers', find: ({ ledger }) => none(ledger.inFlight) },
  { name: 'the sender never broke HTTP/2', find: ({ ledger }) => none(ledger.protocolErrors) },
];

export function verify(send: SendEvidence): Verdict {
  const problems: string[] = [];
  for (const { name, find } of checks) {
    const fault = find(send);
    if (fault !== undefined) problems.push(`${name}: ${fault}`);
  }
  return {
    problems,
    lost: send.devices.filter(({ deliveries }) => deliveries.length === 0).length,
    repeats: sum(send.devices, repeatsOf),
    repeatsMarked: sum(send.devices.filter(isInDoubt), repeatsOf),
    inDoubt: send.devices.filter(isInDoubt).length,
    inFlight: total(send.takeovers),
  };
}

function forEveryDevice(name: string, isAtFault: (device: DeviceEvidence, send: SendEvidence) => boolean): Check {
  return {
    name,
    find(send) {
      const faulty = send.devices.filter((device) => isAtFault(device, send));
      if (faulty.length === 0) return undefined;
      return `not so for ${faulty.length} devices, for example ${JSON.stringify(faulty[0])}`;
    },
  };
}

function differenceOfTotals({ totals, devices }: SendEvidence): string | undefined {
  if (totals === null) return 'there are none';
  const counted: Partial<Record<Outcome, number>> = {};
  for (const { deliveries } of devices) {
    for (const { outcome } of deliveries) counted[outcome] = (counted[outcome] ?? 0) + 1;
  }
  for (const outcome of Object.keys({ ...counted, ...totals.outcomes }) as Outcome[]) {
    const [stored, rows] = [totals.outcomes[outcome] ?? 0, counted[outcome] ?? 0];
    if (stored !== rows) return `${stored} are ${outcome} in the totals, ${rows} in the rows`;
  }
  return exactly(totals.inDoubt, devices.filter(isInDoubt).length);
}

function has({ deliveries }: DeviceEvidence, outcome: Outcome): boolean {
  return deliveries.some((delivery) => delivery.outcome === outcome);
}

function isInDoubt({ deliveries }: DeviceEvidence): boolean {
  return deliveries.some((delivery) => delivery.inDoubt);
}

function acceptances({ tokens }: DeviceEvidence): number {
  return tokens.reduce((times, { accepted }) => times + accepted, 0);
}

function requests({ tokens }: DeviceEvidence): number {
  return tokens.reduce((times, { received }) => times + received, 0);
}

function repeatsOf(device: DeviceEvidence): number {
  return Math.max(0, acceptances(device) - 1);
}

function sum(devices: DeviceEvidence[], of: (device: DeviceEvidence) => number): number {
  return devices.reduce((result, device) => result + of(device), 0);
}

function total(numbers: number[]): number {
  return numbers.reduce((result, number) => result + number, 0);
}

function none(found: number): string | undefined {
  return exactly(found, 0);
}

function exactly(found: number, wanted: number): string | undefined {
  return found === wanted ? undefined : `${found} instead of ${wanted}`;
}

function atMost(found: number, bound: number): string | undefined {
  return found <= bound ? undefined : `${found}, at most ${bound} can be explained`;
}
