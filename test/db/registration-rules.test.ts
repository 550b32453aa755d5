import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import fc from 'fast-check';
import { connect, transactionWithClient } from '../../db/connect.ts';
import { beginImport, importDevices } from '../../db/device-import.ts';
import { deviceRegistrar } from '../../db/device-registration.ts';
import { inTransaction } from '../../db/transaction.ts';
import { applyRegistrations, type DeviceRegistration, type Registered } from '../../domain/registration.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';

/** What is stored by whichever way is what `applyRegistrations` says. */
describe('registrations in PostgreSQL', () => {
  let database: TestDatabase;
  let register: ReturnType<typeof deviceRegistrar>;
  const startedAt = new Date();
  before(async () => {
    database = await createTestDatabase();
    register = deviceRegistrar(database);
  });
  after(() => database.close());

  type Step = { kind: 'app' | 'import' | 'registering import'; rows: Row[] } | { kind: 'death'; ids: string[] };
  interface Row {
    id: string;
    token: string | null;
    saidAt: number | undefined;
    properties: { n: number } | undefined;
  }
  type World = Map<string, Registered & { properties: unknown }>;

  const ids = ['a', 'b', 'c', 'd', 'e'];
  const anyRow: fc.Arbitrary<Row> = fc.record({
    id: fc.constantFrom(...ids),
    token: fc.constantFrom('t1', 't2', 't3', 't4', null),
    saidAt: fc.option(fc.integer({ min: 1, max: 99 }), { nil: undefined }),
    properties: fc.option(fc.constantFrom({ n: 1 }, { n: 2 }), { nil: undefined }),
  });
  // Of requests at the same time, in whatever order they are stored, only these end the same.
  const rowsOfApps = fc
    .uniqueArray(anyRow, { selector: ({ id }) => id, maxLength: 5 })
    .map((rows) => rows.filter(({ token }, i) => token === null || rows.findIndex((row) => row.token === token) === i));
  const anyStep: fc.Arbitrary<Step> = fc.oneof(
    rowsOfApps.map((rows) => ({ kind: 'app' as const, rows: rows.map((row) => ({ ...row, saidAt: undefined })) })),
    fc.record({
      kind: fc.constantFrom('import' as const, 'registering import' as const),
      rows: fc.array(anyRow, { maxLength: 8 }),
    }),
    fc.record({ kind: fc.constant('death' as const), ids: fc.subarray(ids) }),
  );

  const registrationOf = (appId: number, { id, token, saidAt, properties }: Row): DeviceRegistration => ({
    ...{ externalId: id, userId: `user-${appId}`, provider: 'fcm', platform: 'android', deviceToken: token },
    ...{ apnsEnvironment: null, properties, locale: 'de-DE', timeZone: null },
    ...(saidAt !== undefined && { registeredAt: new Date(Date.UTC(2025, 0, 1, saidAt)) }),
  });

  function applied(world: World, step: Step, appId: number): World {
    const next: World = new Map(world);
    const now = new Date();
    if (step.kind === 'death') {
      for (const id of step.ids) {
        const device = next.get(id);
        if (device && device.retiredAt === null) next.set(id, { ...device, retiredAt: now, retiredReason: 'DEAD' });
      }
      return next;
    }
    const registrations = step.rows.map((row) => registrationOf(appId, row));
    const { devices, formerOwners } = applyRegistrations(registrations, [...world.values()], {
      isOwn: step.kind !== 'import',
      now,
    });
    for (const owner of formerOwners) {
      next.set(owner.externalId, { ...owner, properties: world.get(owner.externalId)!.properties });
    }
    for (const device of devices) {
      const properties = device.properties ?? world.get(device.externalId)?.properties ?? {};
      next.set(device.externalId, { ...device, properties });
    }
    return next;
  }

  async function store(step: Step, appId: number): Promise<void> {
    if (step.kind === 'death') {
      await database.pool.query(
        `update devices set retired_at = now(), retired_reason = 'DEAD'
          where app_id = $1 and external_id = any($2) and retired_at is null`,
        [appId, step.ids],
      );
      return;
    }
    const registrations = step.rows.map((row) => registrationOf(appId, row));
    if (step.kind === 'app') {
      await Promise.all(registrations.map((registration) => register(appId, registration)));
      return;
    }
    const options = { importId: await beginImport(database.db), isOwn: step.kind !== 'import' };
    await inTransaction(database.db, (trx) => importDevices(trx, appId, registrations, options));
  }

  /** Instants of this test are "now", others are said by a row. */
  const shown = (instant: Date | null) => (instant && instant >= startedAt ? 'now' : (instant?.toISOString() ?? null));

  async function listStored(appId: number): Promise<unknown[]> {
    const { rows } = await database.pool.query(
      `select external_id, user_id, device_token, properties, locale, registered_at, retired_at, retired_reason from devices
        where app_id = $1 order by external_id`,
      [appId],
    );
    return rows.map((row) => [
      ...[row.external_id, row.user_id, row.device_token, row.properties, row.locale],
      ...[shown(row.registered_at), shown(row.retired_at), row.retired_reason],
    ]);
  }

  const listOf = (world: World, appId: number) =>
    [...world.values()]
      .sort((a, b) => (a.externalId < b.externalId ? -1 : 1))
      .map((device) => [
        ...[device.externalId, `user-${appId}`, device.deviceToken, device.properties, 'de-DE'],
        ...[shown(device.registeredAt), shown(device.retiredAt), device.retiredReason],
      ]);

  test('are what the rules say, by requests of apps at once and by imports, in any order', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(anyStep, { minLength: 2, maxLength: 8 }), async (steps) => {
        const { rows } = await database.pool.query(
          `insert into apps (name) values (gen_random_uuid()::text) returning id`,
        );
        const appId = rows[0].id;
        let world: World = new Map();
        for (const step of steps) {
          await store(step, appId);
          world = applied(world, step, appId);
          assert.deepEqual(await listStored(appId), listOf(world, appId), JSON.stringify(step));
        }
      }),
      { numRuns: 150 },
    );
  });

  const simple = (externalId: string, deviceToken: string | null): DeviceRegistration => ({
    ...registrationOf(1, { id: externalId, token: deviceToken, saidAt: undefined, properties: { n: 1 } }),
  });

  test('the answer is the row, of a new device, of a known one and of one that takes a token', async () => {
    await register(1, simple('owner', 'taken'));
    for (const [externalId, token] of [
      ['plain', 'plain-1'],
      ['plain', 'plain-2'],
      ['taker', 'taken'],
    ] as const) {
      const { device, isNew } = await register(1, simple(externalId, token));
      const { rows } = await database.pool.query('select * from devices where app_id = 1 and external_id = $1', [
        externalId,
      ]);
      const [row] = rows;
      assert.deepEqual(
        [device.id, device.bucket, device.registeredAt, device.createdAt, device.updatedAt],
        [row.id, row.bucket, row.registered_at, row.created_at, row.updated_at],
      );
      assert.equal(isNew, token !== 'plain-2');
    }
  });

  test('one that PostgreSQL refuses fails alone, whatever is stored beside it', async () => {
    const wrong = { ...simple('wrong', 'wrong-token'), platform: 'tv' as never };
    const results = await Promise.allSettled(
      [simple('r-1', 'r-1'), wrong, simple('r-2', 'r-2')].map((one) => register(1, one)),
    );
    assert.deepEqual(
      results.map(({ status }) => status),
      ['fulfilled', 'rejected', 'fulfilled'],
    );
  });

  test('a device, or a token, that an import holds keeps only its own registration waiting', async () => {
    await register(1, simple('held', 'held-token'));
    const own = connect(database.url);
    const registerHere = deviceRegistrar(own);
    const settled: string[] = [];
    const begin = (externalId: string, token: string) =>
      registerHere(1, simple(externalId, token)).then(() => settled.push(externalId));
    const others = ['beside-1', 'beside-2', 'beside-3'];
    let waiting: Promise<unknown>[] = [];
    await transactionWithClient(database.pool, async (trx) => {
      const rows = [simple('held', 'held-token'), simple('held-new', 'held-new-token')];
      const importId = await beginImport(database.db);
      await importDevices(trx, 1, rows, { importId, isOwn: false });
      waiting = [begin('held', 'held-token-2'), begin('held-new', 'any-token'), begin('any-new', 'held-new-token')];
      // The import has not ended: what waited for it here would wait for ever.
      await Promise.all(others.map((id) => begin(id, id)));
      assert.deepEqual(settled.toSorted(), others);
    });
    await Promise.all(waiting);
    await own.db.destroy();
    const live = await database.pool.query(
      `select external_id, device_token from devices where retired_at is null and app_id = 1
        and external_id = any('{held,held-new,any-new}') order by 1`,
    );
    assert.deepEqual(
      live.rows.map((row) => `${row.external_id} ${row.device_token}`),
      ['any-new held-new-token', 'held held-token-2', 'held-new any-token'],
    );
  });
});
