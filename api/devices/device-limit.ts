import type { Kysely } from 'kysely';
import { countDevices, findUnknownIds } from '../../db/device-count.ts';
import type { Database } from '../../db/schema.ts';
import type { App } from '../../domain/app.ts';
import { ApiError } from '../http/api-error.ts';

/** A count is kept for so long at least, … */
const keptMs = 5_000;
/** … and for so many times as long as it took. */
const restFactor = 20;

/** What is known of an app with a limit. */
interface Tally {
  /** As counted, and new ones that were let through since. */
  devices: number;
  /** Let through since without a look whether they are new. */
  unseen: number;
  until: number;
}

/**
 * Keeps apps below their `maxDevices`. An app without a limit costs nothing, one that is far below it a count every few seconds; near it
 * each registration is looked up. The count is this process's own: several of them may let some devices more through than they should,
 * within those few seconds.
 */
export class DeviceLimit {
  readonly #db: Kysely<Database>;
  readonly #tallies = new Map<number, Tally>();

  constructor(db: Kysely<Database>) {
    this.#db = db;
  }

  /** Those of the ids that may not be stored: further devices of an app that has as many as it may. A known device is never among them. */
  async findRefused({ id: appId, maxDevices }: App, externalIds: string[]): Promise<Set<string>> {
    const refused = new Set<string>();
    if (maxDevices === undefined) return refused;
    let tally = await this.#tally(appId, maxDevices);
    if (tally.devices + tally.unseen + externalIds.length <= maxDevices) {
      tally.unseen += externalIds.length;
      return refused;
    }
    // Some of them may be updates: only a new count tells.
    if (tally.unseen > 0) tally = await this.#count(appId, maxDevices);
    const unknown = await findUnknownIds(this.#db, appId, externalIds);
    for (const externalId of unknown) {
      if (tally.devices < maxDevices) tally.devices += 1;
      else refused.add(externalId);
    }
    return refused;
  }

  async #tally(appId: number, maxDevices: number): Promise<Tally> {
    const known = this.#tallies.get(appId);
    return known && known.until > performance.now() ? known : this.#count(appId, maxDevices);
  }

  async #count(appId: number, maxDevices: number): Promise<Tally> {
    const startedAt = performance.now();
    const devices = await countDevices(this.#db, appId, maxDevices);
    const now = performance.now();
    const tally = { devices, unseen: 0, until: now + Math.max(keptMs, restFactor * (now - startedAt)) };
    this.#tallies.set(appId, tally);
    return tally;
  }
}

/** 409: the app has as many devices as it may. */
export function limitReached({ name, maxDevices }: App): ApiError {
  return new ApiError(409, 'device_limit_reached', `The app ${name} has ${maxDevices} devices, which is its limit.`, {
    extra: { max_devices: maxDevices },
  });
}
