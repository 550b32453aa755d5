/**
 * The states of a notification. PostgreSQL is the authority; each move is one conditional UPDATE in `db/notification-moves.ts`.
 *
 * - `draft`: stored, nothing happens. In: creation, unschedule. Out: launch, cancel. A crash leaves it as it is.
 * - `scheduled`: waits for `scheduled_at`. In: launch with a time. Out: the workflow at that time (→ sending), unschedule,
 *   cancel. After a crash the reconciler starts the workflow again.
 * - `sending`: workers may dispatch. In: launch, resume, the schedule. Out: pause, cancel, halt, the last outcome (→ completed).
 *   After a crash the next claim of each batch continues at the device where it stopped.
 * - `paused`: no window may be reserved. In: pause. Out: resume, cancel. A request in flight is recorded when its answer comes.
 * - `halted`: as paused, but the service stopped itself: a configuration fault, or its workflow was terminated. `halt` says why.
 *   No device is lost. In: a worker or the reconciler. Out: resume, cancel.
 * - `completed`: every device has its outcome. Final.
 * - `cancelled`: no window may be reserved; `finished_at` is set once the rest of the audience is recorded. Final.
 */
export const notificationStates = [
  'draft',
  'scheduled',
  'sending',
  'paused',
  'halted',
  'completed',
  'cancelled',
] as const;
export type NotificationState = (typeof notificationStates)[number];

/** What a caller may ask of a notification. */
export type NotificationVerb = 'launch' | 'unschedule' | 'pause' | 'resume' | 'cancel' | 'setRate';

/** What each state allows, and which verbs have led to it or past it, so that a repeat of them is harmless. Others are a conflict. */
const verbsOf: Record<
  NotificationState,
  { allows: readonly NotificationVerb[]; repeats: readonly NotificationVerb[] }
> = {
  draft: { allows: ['launch', 'cancel', 'setRate'], repeats: ['unschedule'] },
  scheduled: { allows: ['launch', 'unschedule', 'cancel', 'setRate'], repeats: [] },
  sending: { allows: ['pause', 'cancel', 'setRate'], repeats: ['launch', 'resume'] },
  paused: { allows: ['resume', 'cancel', 'setRate'], repeats: ['launch', 'pause'] },
  halted: { allows: ['resume', 'cancel', 'setRate'], repeats: ['launch'] },
  completed: { allows: [], repeats: ['launch', 'resume'] },
  // Not of a launch: it was taken back.
  cancelled: { allows: [], repeats: ['cancel'] },
};

export function statesThatAllow(verb: NotificationVerb): NotificationState[] {
  return notificationStates.filter((state) => verbsOf[state].allows.includes(verb));
}

export function isRepeat(verb: NotificationVerb, state: NotificationState): boolean {
  return verbsOf[state].repeats.includes(verb);
}

/**
 * What to do with a device that may have got the message although no answer was recorded. `redeliver`: send again with the same
 * apns-id and collapse id, and mark the delivery `in_doubt`. `skip`: the device ends as `unknown`.
 */
export const inDoubtPolicies = ['redeliver', 'skip'] as const;
export type InDoubtPolicy = (typeof inDoubtPolicies)[number];

export const haltReasons = [
  'credentials',
  'clock',
  'topic',
  'project',
  'environment',
  'payload',
  'workflow_terminated',
  'poison_batch',
  'books',
] as const;
export type HaltReason = (typeof haltReasons)[number];
