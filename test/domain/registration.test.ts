import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { applyRegistrations, type DeviceRegistration, type Registered } from '../../domain/registration.ts';

const now = new Date('2026-06-01T00:00:00Z');
const at = (hour: number) => new Date(now.getTime() + (hour - 100) * 3_600_000);

function registration(
  externalId: string,
  deviceToken: string | null,
  saidAt?: number,
  properties?: Record<string, number>,
): DeviceRegistration {
  return {
    ...{ externalId, deviceToken, properties, userId: null, provider: 'fcm', platform: 'android' },
    ...{ apnsEnvironment: null, locale: null, timeZone: null },
    ...(saidAt !== undefined && { registeredAt: at(saidAt) }),
  };
}

type World = Map<string, Registered & { properties: unknown }>;

/** What would be stored after a list of registrations, given in pieces. */
function storedAfter(pieces: DeviceRegistration[][], before: World = new Map()): World {
  const world: World = new Map(before);
  for (const piece of pieces) {
    const { devices, formerOwners } = applyRegistrations(piece, [...world.values()], { isOwn: false, now });
    for (const owner of formerOwners) {
      world.set(owner.externalId, { ...owner, properties: world.get(owner.externalId)?.properties });
    }
    for (const { userId, locale, timeZone, registration: _, properties, ...device } of devices) {
      world.set(device.externalId, {
        ...device,
        properties: properties ?? world.get(device.externalId)?.properties ?? {},
      });
    }
  }
  return world;
}

const anyRegistration = fc
  .record({
    id: fc.constantFrom('a', 'b', 'c', 'd'),
    token: fc.constantFrom('t1', 't2', 't3', null),
    saidAt: fc.option(fc.integer({ min: 1, max: 99 }), { nil: undefined }),
    properties: fc.option(fc.constantFrom({ n: 1 }, { n: 2 }), { nil: undefined }),
  })
  .map(({ id, token, saidAt, properties }) => registration(id, token, saidAt, properties));

/** Provider deaths between two imports: they are what a row must not undo. */
function killed(world: World, deaths: string[]): World {
  return new Map(
    [...world].map(([id, device]) =>
      deaths.includes(id) && device.retiredAt === null && device.deviceToken !== null
        ? [id, { ...device, retiredAt: at(50), retiredReason: 'UNREGISTERED' }]
        : [id, device],
    ),
  );
}

const listOf = (world: World) => [...world.values()].sort((a, b) => (a.externalId < b.externalId ? -1 : 1));

describe('registrations applied in order', () => {
  const lists = fc.array(anyRegistration, { maxLength: 20 });
  const deaths = fc.subarray(['a', 'b', 'c', 'd']);

  test('end the same wherever the list is cut', () => {
    fc.assert(
      fc.property(lists, lists, deaths, fc.nat(20), fc.nat(20), (first, second, dead, cut1, cut2) => {
        const before = killed(storedAfter([first]), dead);
        const [from, to] = [Math.min(cut1, cut2), Math.max(cut1, cut2)];
        const pieces = [second.slice(0, from), second.slice(from, to), second.slice(to)];
        assert.deepEqual(listOf(storedAfter(pieces, before)), listOf(storedAfter([second], before)));
      }),
      { numRuns: 2_000 },
    );
  });

  test('leave one live owner a token', () => {
    fc.assert(
      fc.property(lists, lists, deaths, (first, second, dead) => {
        const world = storedAfter([second], killed(storedAfter([first]), dead));
        const live = listOf(world).filter((device) => device.retiredAt === null && device.deviceToken !== null);
        assert.equal(new Set(live.map((device) => device.deviceToken)).size, live.length);
      }),
      { numRuns: 1_000 },
    );
  });

  test('again, the rows of devices that died revive none and move no instant', () => {
    fc.assert(
      fc.property(fc.uniqueArray(anyRegistration, { selector: (one) => one.externalId }), deaths, (rows, dead) => {
        const before = killed(storedAfter([rows]), dead);
        const after = storedAfter([rows], before);
        for (const [id, device] of before) {
          if (device.retiredReason === 'UNREGISTERED') assert.deepEqual(after.get(id), device);
          else assert.equal(after.get(id)?.registeredAt.getTime(), device.registeredAt.getTime());
        }
      }),
      { numRuns: 1_000 },
    );
  });

  test('a token that went to and fro within one list is lost by every device that lost it', () => {
    const rows = [registration('a', 't1'), registration('b', 't1'), registration('b', 't2')];
    const world = storedAfter([rows]);
    assert.deepEqual(
      listOf(world).map(({ externalId, deviceToken, retiredReason }) => [externalId, deviceToken, retiredReason]),
      [
        ['a', 't1', 'token_moved'],
        ['b', 't2', null],
      ],
    );
  });

  test('an instant a little ahead of ours counts as now', () => {
    assert.deepEqual(storedAfter([[registration('a', 't1', 101)]]).get('a')?.registeredAt, now);
  });
});
