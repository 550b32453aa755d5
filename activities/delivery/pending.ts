import type { Deferral } from '../../db/deferrals.ts';
import type { Address } from '../../db/device-addresses.ts';
import type { Reached } from '../../db/token-departures.ts';
import type { InDoubtPolicy } from '../../domain/notification-state.ts';
import type { PayloadError, PreparedMessage } from '../../providers/provider.ts';
import type { DatabaseClock } from './database-clock.ts';
import type { EndWithoutRequest } from './end-without-request.ts';

/** What a device is sent: one for all devices of a batch, in a lane one for each message. */
export interface Content {
  /** Or why the provider can never take the message. */
  prepared: PreparedMessage | PayloadError;
  expiresAt: Date | null;
  inDoubtPolicy: InDoubtPolicy;
}

/** A device that has no outcome yet. */
export interface PendingDevice {
  deviceId: number;
  /** Its place in the batch's frozen array, or in the lane. */
  position: number;
  /** It has a deferral: it waited for another attempt, is in doubt, or was brought forward. */
  wasDeferred: boolean;
  content: Content;
  /** Decided before its turn; undefined: it is sent to. */
  endsAs?: EndWithoutRequest | undefined;
  /** Undefined: the device was deleted, retired or moved to another provider since. */
  address: Address | undefined;
  /** Its phone got the message under another device, which had the token before. */
  reached: Reached | undefined;
  /** When the address was read, by PostgreSQL's clock: a registration after this instant is not the one that was sent to. */
  readAt: Date;
  /** Attempts before this one. */
  attempts: number;
  /** How many of them ended through no fault of the device. */
  excused: number;
  /** How many of them ended without an answer. */
  doubts: number;
  /** When it was last refused for now, by PostgreSQL's clock. */
  refusedAt: Date | null;
  /** Of the request under way, by `ProviderHealth`. */
  requestNumber: number;
}

/** Names a device of a run: by its position, and by its id where that is at hand. */
export type Place = Pick<PendingDevice, 'deviceId' | 'position'>;

/** A deferral of one run's device. */
export type PlacedDeferral = Deferral & Place;

/** Where a run takes its devices from: what is left of a batch, or a lane that goes on for ever. */
export interface Pending {
  /** Looked at with every address that is read. */
  readonly clock: DatabaseClock;
  /** A lane: further devices come, so that none waits for the end of the run. */
  readonly isEndless: boolean;
  /** Devices that wait for a later attempt. */
  readonly deferred: number;
  /** Whether devices that no run has tried are left. */
  readonly hasUntried: boolean;
  /** Only devices that were brought forward are sent to, until `endElsewhere`. */
  readonly isAskingElsewhere: boolean;
  endElsewhere(): void;

  /** Up to `size` devices, not yet taken; empty: nothing can be sent now, or the run is over. */
  peek(size: number): Promise<PendingDevice[]>;
  /** The first `count` of the devices last peeked at are taken. */
  take(count: number): void;
  /** A device that was taken has its turn. */
  noteTried(device: PendingDevice): void;
  /** A device that was taken has its outcome, or waits. */
  noteDone(device: PendingDevice): void;
  /** What was peeked at is out of date. */
  readAgain(): void;
  /** A device is deferred, again or for the first time. */
  defer(deferral: PlacedDeferral): void;
  /** Milliseconds until the next deferred device may be tried; undefined: none waits. */
  msUntilNextDeferred(): number | undefined;
  /** Whether devices that another platform or environment reaches are among those that come next. */
  hasOtherThan(part: Pick<Address, 'platform' | 'apnsEnvironment'>): boolean;
  /** Whether one of those that come next is such. */
  isAnyAhead(isSuch: (device: PendingDevice) => boolean): boolean;
  /** The run has a reason to end: nothing more is waited for. */
  end(): void;
}

/** Devices of one provider that stand or fall together: with the same app, topic and credential. */
export function isSamePart(
  a: Pick<Address, 'platform' | 'apnsEnvironment'>,
  b: Pick<Address, 'platform' | 'apnsEnvironment'>,
): boolean {
  return a.platform === b.platform && a.apnsEnvironment === b.apnsEnvironment;
}
