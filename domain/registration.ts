import type { ApnsEnvironment, Platform, ProviderName } from './device.ts';
import type { JsonValue } from './json.ts';

/** What an app, or a row of an import, says of a device. `deviceToken` is normalised already. */
export interface DeviceRegistration {
  externalId: string;
  userId: string | null;
  provider: ProviderName;
  platform: Platform;
  deviceToken: string | null;
  apnsEnvironment: ApnsEnvironment | null;
  /** Undefined keeps the stored properties. */
  properties: Record<string, JsonValue> | undefined;
  locale: string | null;
  timeZone: string | null;
  /** When the app registered this token, if the import's row says so. */
  registeredAt?: Date | undefined;
}

/** A device's address, and whether it is live. */
export interface Registered {
  externalId: string;
  provider: ProviderName;
  platform: Platform;
  deviceToken: string | null;
  apnsEnvironment: ApnsEnvironment | null;
  registeredAt: Date;
  retiredAt: Date | null;
  retiredReason: string | null;
}

/** Another device registered the token. */
export const tokenMoved = 'token_moved';

/** A device as it is to be stored. */
export interface RegistrationResult extends Registered {
  userId: string | null;
  locale: string | null;
  timeZone: string | null;
  properties: Record<string, JsonValue> | undefined;
  /**
   * When the device was registered. `kept`: as stored; `now`: the moment of the transaction, which PostgreSQL knows more exactly;
   * `said`: as the row says.
   */
  registration: 'kept' | 'now' | 'said';
}

/**
 * Applies registrations in their order to `known`: the stored devices themselves and the owners of their tokens. Returns each of
 * the devices once, and `formerOwners`: devices that only lost their token. However a list is cut into calls, the devices end the
 * same.
 *
 * An app's own registration (`isOwn`) counts as of now. A row of an import is a copy of a registration, of unknown age unless it
 * says `registeredAt`:
 * - The token that the device already has changes neither its registration time nor its retirement, unless the row says that it
 *   is newer. A 410 dated after that time retires the device again, one dated before it no longer does.
 * - Another token registers, unless the row says that it is older than the stored registration.
 * - A token belongs to the device that registered it last: a row that says it is older than the owner's registration makes its
 *   device a former owner, and a device that lost its token gets it back only by a registration after that.
 */
export function applyRegistrations(
  registrations: DeviceRegistration[],
  known: Registered[],
  { isOwn, now }: { isOwn: boolean; now: Date },
): { devices: RegistrationResult[]; formerOwners: Registered[] } {
  const states = new Map(known.map((device) => [device.externalId, device]));
  const owners = new Map(known.filter(isLive).map((device) => [tokenKey(device), device.externalId]));
  const results = new Map<string, RegistrationResult>();
  const losers = new Set<string>();
  for (const registration of registrations) {
    const { externalId, userId, locale, timeZone, properties, registeredAt: saidAt } = registration;
    const before = states.get(externalId);
    const earlier = results.get(externalId);
    const device: RegistrationResult = {
      ...addressOf(registration, before),
      ...{ externalId, userId, locale, timeZone },
      properties: properties ?? earlier?.properties,
      registeredAt: saidAt !== undefined && saidAt < now ? saidAt : now,
      ...{ retiredAt: null, retiredReason: null },
      registration: saidAt === undefined ? 'now' : 'said',
    };
    if (before && !(isOwn && saidAt === undefined) && !isNews(registration, before)) {
      const { registeredAt, retiredAt, retiredReason } = before;
      Object.assign(device, { registeredAt, retiredAt, retiredReason, registration: earlier?.registration ?? 'kept' });
    } else {
      if (before && isLive(before)) owners.delete(tokenKey(before));
      takeToken(device);
    }
    states.set(externalId, device);
    results.set(externalId, device);
  }
  const formerOwners = [...losers].filter((id) => !results.has(id)).map((id) => states.get(id)!);
  return { devices: [...results.values()], formerOwners };

  function takeToken(device: RegistrationResult): void {
    if (device.deviceToken === null) return;
    const owner = states.get(owners.get(tokenKey(device)) ?? '');
    if (owner && device.registration === 'said' && device.registeredAt < owner.registeredAt) {
      device.retiredAt = owner.registeredAt;
      device.retiredReason = tokenMoved;
      return;
    }
    if (owner) {
      const former = { ...owner, retiredAt: device.registeredAt, retiredReason: tokenMoved };
      states.set(owner.externalId, former);
      if (results.has(owner.externalId)) results.set(owner.externalId, former as RegistrationResult);
      losers.add(owner.externalId);
    }
    owners.set(tokenKey(device), device.externalId);
  }
}

/** The address of a row with another token is not taken when the row is older than the stored registration. */
function addressOf(said: DeviceRegistration, before: Registered | undefined) {
  const { provider, platform, deviceToken, apnsEnvironment } =
    before && !hasToken(said, before) && !isNews(said, before) ? before : said;
  return { provider, platform, deviceToken, apnsEnvironment };
}

/** Whether the row of an import is a registration that is not stored yet. */
function isNews(said: DeviceRegistration, before: Registered): boolean {
  const { registeredAt: saidAt } = said;
  if (!hasToken(said, before)) return saidAt === undefined || saidAt >= before.registeredAt;
  // When a provider calls a token dead, the instant that it means lies somewhere after the registration and is not stored: the
  // next send asks again. Another device's registration is stored to the instant.
  const { registeredAt, retiredAt, retiredReason } = before;
  const lostAt =
    retiredReason === tokenMoved && retiredAt !== null && retiredAt > registeredAt ? retiredAt : registeredAt;
  return saidAt !== undefined && saidAt > lostAt;
}

function hasToken(said: DeviceRegistration, before: Registered): boolean {
  return said.provider === before.provider && said.deviceToken === before.deviceToken;
}

/** Whether the device can be sent to. */
export function isLive({ deviceToken, retiredAt }: Pick<Registered, 'deviceToken' | 'retiredAt'>): boolean {
  return deviceToken !== null && retiredAt === null;
}

/** The key that only one live device of an app may have. */
export function tokenKey({ provider, deviceToken }: Pick<Registered, 'provider' | 'deviceToken'>): string {
  return `${provider} ${deviceToken}`;
}

/** What no two live devices of an app have in common: keys of external id and of token. */
export function keysOf({ externalId, provider, deviceToken }: DeviceRegistration): string[] {
  return deviceToken === null
    ? [`device ${externalId}`]
    : [`device ${externalId}`, tokenKey({ provider, deviceToken })];
}
