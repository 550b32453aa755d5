/** What happens in one run of the chaos program: drawn from its seed alone, so that a seed replays its scenario. */
import type { InDoubtPolicy } from '../../domain/notification-state.ts';
import type { BehaviourShares } from '../../simulator/device-tokens.ts';
import { createRandom } from '../../simulator/random.ts';
import type { Action, RuleInput } from '../../simulator/rules.ts';

/** What each disturbance touches: two that touch the same thing follow each other, all others may happen at once. */
export const disturbanceTargets = {
  'kill a worker': ['a worker'],
  'kill both workers': ['both workers'],
  'stop a worker': ['a worker'],
  'freeze a worker': ['a worker'],
  'kill the API': ['API'],
  'kill PostgreSQL': ['PostgreSQL'],
  'restart PostgreSQL': ['PostgreSQL'],
  'kill Temporal': ['Temporal'],
  'restart Temporal': ['Temporal'],
  'pause and resume': ['state'],
  'terminate the workflow': ['state'],
  cancel: ['state'],
  'cancel in Temporal': ['state'],
  'change the rate': [],
  'revoke the APNs key': ['state', 'APNs'],
  'refuse the service account': ['state', 'FCM'],
  'break OAuth': ['FCM'],
  'revoke access tokens': ['FCM'],
  'use up the FCM quota': ['FCM'],
  'admit no connection': ['connections'],
  'GOAWAY on every connection': ['connections'],
  'reset every connection': ['connections'],
  'close every connection': ['connections'],
  'silence a connection': ['connections'],
  'change devices': ['devices'],
} as const satisfies Record<string, readonly string[]>;
export type DisturbanceKind = keyof typeof disturbanceTargets;

const cancellations: readonly DisturbanceKind[] = ['cancel', 'cancel in Temporal'];
const drawnKinds = (Object.keys(disturbanceTargets) as DisturbanceKind[]).filter(
  (kind) => !cancellations.includes(kind),
);
/** Every run has one of these, and everything else is built around it. */
const crashKinds = ['kill a worker', 'kill both workers', 'freeze a worker'] as const;

export interface Disturbance {
  kind: DisturbanceKind;
  /** Takes place when this share of the audience has its outcome, 0 to 1. */
  at: number;
  /** Which of the two workers. */
  worker: 0 | 1;
  /** 0 to 1: chooses one of the forms of the kind. */
  form: number;
}

export interface Scenario {
  seed: number;
  inDoubtPolicy: InDoubtPolicy;
  /** How long the send would take undisturbed; its rate follows from this. */
  sendSeconds: number;
  /** A device without an outcome this long after the launch expires; undefined: a day. */
  ttlSeconds: number | undefined;
  /** kill -9 of the API while the request that launches the send is under way. */
  killsApiAtLaunch: boolean;
  /** Percentages of devices that the provider does not simply accept. */
  behaviours: BehaviourShares;
  /** Faults of the providers' servers, each for a limited number of requests. */
  rules: RuleInput[];
  /** In order of `at`. */
  disturbances: Disturbance[];
}

const behaviourShares: BehaviourShares = {
  unregistered: 3,
  expiredToken: 1,
  badToken: 0.5,
  wrongTopic: 0.3,
  rateLimitedOnce: 1,
  unavailableOnce: 1,
  internalErrorTwice: 0.5,
  alwaysUnavailable: 0.2,
  slow: 1,
  hang: 0.1,
  acceptThenClose: 0.05,
  acceptOnceUnanswered: 0.5,
  refusedOnce: 0.5,
  htmlError: 0.3,
};

/** Each with `accept` as drawn: whether the provider takes the message before it fails. */
const serverFaults: ((accept: boolean) => Action)[] = [
  (accept) => ({ type: 'rstStream', code: 'INTERNAL_ERROR', accept }),
  () => ({ type: 'rstStream', code: 'REFUSED_STREAM' }),
  () => ({ type: 'goaway', last: 'previous', reason: 'Shutdown' }),
  () => ({ type: 'goaway', last: 'this', twice: true }),
  () => ({ type: 'goaway', last: 'zero' }),
  (accept) => ({ type: 'reset', accept }),
  (accept) => ({ type: 'end', accept }),
  (accept) => ({ type: 'blackHole', accept }),
  (accept) => ({ type: 'html', status: 502, accept }),
  () => ({ type: 'html', status: 404 }),
  () => ({ type: 'respond', status: 503, reason: 'ServiceUnavailable' }),
  () => ({ type: 'respond', status: 500, reason: 'InternalServerError', delivery: 'truncated' }),
  () => ({ type: 'respond', status: 429, headers: { 'retry-after': '1' } }),
  () => ({ type: 'respond', status: 500, reason: 'InternalServerError', delivery: 'bytes' }),
  (accept) => ({ type: 'stall', accept }),
  () => ({ type: 'maxConcurrentStreams', limit: 1 }),
  () => ({ type: 'delay', latency: { distribution: 'uniform', minMs: 50, maxMs: 800 } }),
];

export function drawScenario(seed: number): Scenario {
  const random = createRandom(seed);
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)]!;
  const draw = (kind: DisturbanceKind, from: number, to: number): Disturbance => ({
    kind,
    at: from + random() * (to - from),
    worker: random() < 0.5 ? 0 : 1,
    form: random(),
  });

  const rules = Array.from({ length: 3 + Math.floor(random() * 3) }, (): RuleInput => {
    const action = pick(serverFaults)(random() < 0.5);
    return { match: { every: 50 + Math.floor(random() * 400) }, action, times: 1 + Math.floor(random() * 5) };
  });
  const disturbances = [
    draw(pick(crashKinds), 0.05, 0.75),
    ...Array.from({ length: 3 + Math.floor(random() * 4) }, () => draw(pick(drawnKinds), 0.03, 0.88)),
  ];
  if (random() < 0.2) disturbances.push(draw(pick(cancellations), 0.3, 0.9));
  return {
    seed,
    inDoubtPolicy: random() < 0.4 ? 'skip' : 'redeliver',
    sendSeconds: 3 + random() * 3,
    ttlSeconds: random() < 0.1 ? 4 : undefined,
    killsApiAtLaunch: random() < 0.15,
    behaviours: behaviourShares,
    rules,
    disturbances: disturbances.sort((a, b) => a.at - b.at),
  };
}

/** What a disturbance touches, by name. */
export function targetsOf({ kind, worker }: Disturbance): string[] {
  return disturbanceTargets[kind].flatMap((target) => {
    if (target === 'a worker') return [`worker ${worker}`];
    if (target === 'both workers') return ['worker 0', 'worker 1'];
    return [target];
  });
}
