import { byProvider, type ProviderName } from '../domain/device.ts';
import { type Outcome, outcomes } from '../domain/outcome.ts';
import { collected, counter, type Sample } from './metrics.ts';
import { deferralClasses, deferralClassOf, reasonClasses, reasonClassOf } from './reason-class.ts';

/** Devices that ended alike and were recorded together. */
interface RecordedGroup {
  outcome: Outcome;
  httpStatus: number | null;
  reason: string | null;
  attempts: number;
  inDoubt: boolean;
}

/** Whose devices, by name. */
interface Whose {
  app: string;
  provider: ProviderName;
}

/** Plain numbers, for a chunk of a lane may hold a single device. */
class Recorded {
  /** By outcome, then by reason class. */
  readonly deliveries = new Float64Array(outcomes.length * reasonClasses.length);
  attempts = 0;
  inDoubt = 0;
  retired = 0;
}

/** By app, for good: each app that was sent to has some. */
const recorded = byProvider(() => new Map<string, Recorded>());
/** By class. */
const deferrals = byProvider(() => new Float64Array(deferralClasses.length));

function recordedOf({ app, provider }: Whose): Recorded {
  const apps = recorded[provider];
  let own = apps.get(app);
  if (own === undefined) {
    own = new Recorded();
    apps.set(app, own);
  }
  return own;
}

/** To be called once what is recorded is committed: for devices that ended alike together, never for each device. */
export function countRecorded(whose: Whose, group: RecordedGroup, devices: number): void {
  const own = recordedOf(whose);
  const kind = reasonClasses.indexOf(reasonClassOf(group));
  own.deliveries[outcomes.indexOf(group.outcome) * reasonClasses.length + kind]! += devices;
  own.attempts += group.attempts * devices;
  if (group.inDoubt) own.inDoubt += devices;
}

/** As `countRecorded`. */
export function countDeferrals(
  { provider }: Whose,
  waiting: Iterable<{ httpStatus: number | null; doubts: number }>,
): void {
  for (const deferral of waiting) deferrals[provider][deferralClasses.indexOf(deferralClassOf(deferral))]! += 1;
}

/** As `countRecorded`. */
export function countRetirements(whose: Whose, devices: number): void {
  if (devices > 0) recordedOf(whose).retired += devices;
}

function* eachRecorded(read: (own: Recorded) => number): Generator<Sample> {
  for (const [provider, apps] of Object.entries(recorded)) {
    for (const [app, own] of apps) yield { labels: { app, provider }, value: read(own) };
  }
}

collected(
  'counter',
  {
    name: 'carillon_deliveries_total',
    help: 'Devices whose outcome was recorded, of notifications and of messages to one person.',
  },
  function* () {
    for (const [provider, apps] of Object.entries(recorded)) {
      for (const [app, { deliveries }] of apps) {
        for (const [i, value] of deliveries.entries()) {
          if (value === 0) continue;
          const outcome = outcomes[Math.floor(i / reasonClasses.length)]!;
          const reason_class = reasonClasses[i % reasonClasses.length]!;
          yield { labels: { app, provider, outcome, reason_class }, value };
        }
      }
    }
  },
);
collected(
  'counter',
  { name: 'carillon_delivery_attempts_total', help: 'Attempts of the devices whose outcome was recorded.' },
  () => eachRecorded(({ attempts }) => attempts),
);
collected(
  'counter',
  {
    name: 'carillon_deliveries_in_doubt_total',
    help: 'Devices whose outcome was recorded, and which the provider may have been given the message for more than once.',
  },
  () => eachRecorded(({ inDoubt }) => inDoubt),
);
collected(
  'counter',
  {
    name: 'carillon_devices_retired_total',
    help: 'Devices whose token the provider called dead; those that registered since stay alive.',
  },
  () => eachRecorded(({ retired }) => retired),
);
collected(
  'counter',
  {
    name: 'carillon_deferrals_total',
    help: 'Devices that were made to wait for another attempt, by cause.',
  },
  () =>
    Object.entries(deferrals).flatMap(([provider, counts]) =>
      deferralClasses.map((cause, i) => ({ labels: { provider, cause }, value: counts[i]! })),
    ),
);

/**
 * What a run waits for before its next window.
 * - `room`: outcomes that are not written yet. - `reservation`: PostgreSQL's answer. - `rate_limit`. - `deferred`: devices that were
 *   refused for now. - `host`: one that is blocked or cannot be reached. - `platform`: one whose credential was refused.
 */
const waitCauses = ['room', 'reservation', 'rate_limit', 'deferred', 'host', 'platform'] as const;
export type WaitCause = (typeof waitCauses)[number];

/** Counted with every window, which may hold a single device: plain numbers. */
class Windows {
  reserved = 0;
  devices = 0;
  readonly waits = Object.fromEntries(waitCauses.map((cause) => [cause, { count: 0, seconds: 0 }])) as Record<
    WaitCause,
    { count: number; seconds: number }
  >;
}

const windows = byProvider(() => new Windows());

export function countWindow(provider: ProviderName, devices: number): void {
  windows[provider].reserved += 1;
  windows[provider].devices += devices;
}

/** @param ms that were waited, or are to be waited on a durable timer */
export function countWait(provider: ProviderName, cause: WaitCause, ms: number): void {
  const wait = windows[provider].waits[cause];
  wait.count += 1;
  wait.seconds += ms / 1000;
}

const each = (read: (one: Windows) => number) => () =>
  Object.entries(windows).map(([provider, one]) => ({ labels: { provider }, value: read(one) }));
const eachWait = (read: (wait: { count: number; seconds: number }) => number) => () =>
  Object.entries(windows).flatMap(([provider, { waits }]) =>
    waitCauses.map((cause) => ({ labels: { provider, cause }, value: read(waits[cause]) })),
  );

collected(
  'counter',
  { name: 'carillon_windows_total', help: 'Windows that were reserved.' },
  each((one) => one.reserved),
);
collected(
  'counter',
  { name: 'carillon_window_devices_total', help: 'Devices in the windows that were reserved.' },
  each((one) => one.devices),
);
collected(
  'counter',
  { name: 'carillon_window_waits_total', help: 'Waits of runs before their next window, by cause.' },
  eachWait(({ count }) => count),
);
collected(
  'counter',
  {
    name: 'carillon_window_wait_seconds_total',
    help: 'Time that runs waited before their next window, or left to a timer, by cause.',
  },
  eachWait(({ seconds }) => seconds),
);

/** Why runs over batches and lanes ended; `SendEnd` has the words. */
export const runs = counter({
  name: 'carillon_runs_total',
  help: 'Runs over a batch or a lane, by why they ended.',
  labels: ['provider', 'end'],
});

export const halts = counter({
  name: 'carillon_halts_total',
  help: 'Sends and lanes that halted themselves, by reason.',
  labels: ['of', 'reason'],
});
