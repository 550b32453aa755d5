/** What happens in one run of the chaos program: drawn from its seed alone, so that a seed replays its scenario. */
import type { InDoubtPolicy } from '../../domain/notification-state.ts';
import type { BehaviourShares } from '../../simulator/device-tokens.ts';
import { createRandom } from '../../simulator/random.ts';
import type { Action, RuleInput } from '../../simulator/rules.ts';

export const disturbanceKinds = [
  'kill a worker',
  'stop a worker',
  'freeze a worker',
  'kill the API',
  'kill PostgreSQL',
  'restart PostgreSQL',
  'kill Temporal',
  'pause and resume',
  'GOAWAY on every connection',
  'reset every connection',
  'silence a connection',
  'change devices',
] as const;
export type DisturbanceKind = (typeof disturbanceKinds)[number];

export interface Disturbance {
  kind: DisturbanceKind;
  /** Takes place when this share of the audience has its outcome, 0 to 1. */
  at: number;
  /** Which of the two workers. */
  worker: 0 | 1;
}

export interface Scenario {
  seed: number;
  inDoubtPolicy: InDoubtPolicy;
  /** How many devices the provider treats in another way than "accepted at once", in percent. */
  behaviours: BehaviourShares;
  /** Faults of the providers' servers, each for a limited number of requests. */
  rules: RuleInput[];
  disturbances: Disturbance[];
  /** Cancelled when this share has its outcome; undefined: the send runs to its end. */
  cancelAt: number | undefined;
  /** Cancelled as in Temporal's Web UI, not by the API. */
  cancelsInTemporal: boolean;
}

const behaviourShares: BehaviourShares = {
  unregistered: 3,
  expiredToken: 1,
  badToken: 0.5,
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
  (accept) => ({ type: 'reset', accept }),
  (accept) => ({ type: 'end', accept }),
  (accept) => ({ type: 'html', status: 502, accept }),
  () => ({ type: 'respond', status: 503, reason: 'ServiceUnavailable' }),
  () => ({ type: 'respond', status: 500, reason: 'InternalServerError', delivery: 'truncated' }),
  (accept) => ({ type: 'stall', accept }),
  () => ({ type: 'maxConcurrentStreams', limit: 1 }),
  () => ({ type: 'delay', latency: { distribution: 'uniform', minMs: 50, maxMs: 800 } }),
];

export function drawScenario(seed: number): Scenario {
  const random = createRandom(seed);
  const upTo = (n: number) => Math.floor(random() * n);
  const rules = Array.from({ length: 3 + upTo(3) }, (): RuleInput => {
    const action = serverFaults[upTo(serverFaults.length)]!(random() < 0.5);
    return { match: { every: 50 + upTo(400) }, action, times: 1 + upTo(8) };
  });
  const disturbances = Array.from({ length: 3 + upTo(4) }, (): Disturbance => {
    const kind = disturbanceKinds[upTo(disturbanceKinds.length)]!;
    return { kind, at: 0.03 + random() * 0.85, worker: random() < 0.5 ? 0 : 1 };
  });
  // No run without the fault that everything else is built around.
  disturbances.push({ kind: 'kill a worker', at: 0.05 + random() * 0.7, worker: random() < 0.5 ? 0 : 1 });
  return {
    seed,
    inDoubtPolicy: random() < 0.35 ? 'skip' : 'redeliver',
    behaviours: behaviourShares,
    rules,
    disturbances: disturbances.sort((a, b) => a.at - b.at),
    cancelAt: random() < 0.2 ? 0.3 + random() * 0.6 : undefined,
    cancelsInTemporal: random() < 0.5,
  };
}
