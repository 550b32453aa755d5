import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { connect, transactionWithClient } from '../../db/connect.ts';
import { beginImport, importDevices } from '../../db/device-import.ts';
import { deviceRegistrar } from '../../db/device-registration.ts';
import { findDevice, type Retirement, retirementsAsJson } from '../../db/devices.ts';
import { inTransaction } from '../../db/transaction.ts';
import type { DeviceRegistration } from '../../domain/registration.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { until } from '../support/until.ts';

describe('device registry', () => {
  let database: TestDatabase;
  let registrar: ReturnType<typeof deviceRegistrar>;
  before(async () => {
    database = await createTestDatabase();
    registrar = deviceRegistrar(database);
  });
  after(() => database.close());

  const registration = (externalId: string, deviceToken: string | null): DeviceRegistration => ({
    externalId,
    userId: null,
    provider: 'fcm',
    platform: 'android',
    deviceToken,
    apnsEnvironment: null,
    properties: undefined,
    locale: null,
    timeZone: null,
  });
  const register = (externalId: string, deviceToken: string | null) =>
    registrar(1, registration(externalId, deviceToken));
  const retire = (retirements: Retirement[]) =>
    database.pool.query('select retire_devices($1)', [retirementsAsJson(retirements)]);

  test('registrations look devices and tokens up by their indexes, even where the table has no statistics', async () => {
    const fresh = await createTestDatabase();
    const [own, { pool }] = [connect(fresh.url), fresh];
    const registerOne = deviceRegistrar(own);
    await Promise.all(Array.from({ length: 1_000 }, (_, i) => registerOne(1, registration(`i-${i}`, `i-token-${i}`))));
    await Promise.all(Array.from({ length: 1_000 }, (_, i) => registerOne(1, registration(`i-${i}`, `i-token-${i}`))));
    const rows = Array.from({ length: 3_000 }, (_, i) => registration(`j-${i}`, `j-token-${i}`));
    const options = { importId: await beginImport(own.db), isOwn: false };
    await inTransaction(own.db, (trx) => importDevices(trx, 1, rows, options));
    // Sessions have told what they read when they end.
    await own.db.destroy();
    const { rows: read } = await pool.query(
      `select seq_tup_read, idx_tup_fetch from pg_stat_user_tables where relname = 'devices'`,
    );
    const { seq_tup_read, idx_tup_fetch } = read[0];
    assert.ok(seq_tup_read < 1_000, `${seq_tup_read} rows were read to find others among them`);
    assert.ok(idx_tup_fetch < 10_000, `${idx_tup_fetch} rows were read by index`);
    await fresh.close();
  });

  test('one token may live in two apps and with two providers, each its own', async () => {
    await database.pool.query(`insert into apps (name) values ('second')`);
    const { rows } = await database.pool.query(`select id from apps where name = 'second'`);
    await register('a', 'shared');
    await registrar(rows[0].id, registration('a', 'shared'));
    assert.equal((await findDevice(database.db, 1, 'a'))?.retiredAt, null);
    assert.equal((await findDevice(database.db, rows[0].id, 'a'))?.retiredAt, null);
  });

  test('registered again after it was retired, a device lives again', async () => {
    const { device } = await register('again', 'tok-again');
    const dead = {
      deviceId: device.id,
      deviceToken: 'tok-again',
      invalidAt: new Date(Date.now() + 60_000),
      reason: 'UNREGISTERED',
    };
    await retire([dead]);
    assert.equal((await findDevice(database.db, 1, 'again'))?.retiredReason, 'UNREGISTERED');
    const again = (await register('again', 'tok-again')).device;
    assert.equal(again.retiredAt, null);
    assert.ok(again.registeredAt >= device.registeredAt);
    await retire([{ ...dead, invalidAt: device.registeredAt }]);
    assert.equal(
      (await findDevice(database.db, 1, 'again'))?.retiredAt,
      null,
      'an older 410 is about an older registration',
    );
  });

  test('a device without a token is known and not live; many of them do not disturb each other', async () => {
    await Promise.all(Array.from({ length: 10 }, (_, i) => register(`none-${i}`, null)));
    const { rows } = await database.pool.query(
      `select count(*) from devices where external_id like 'none-%' and retired_at is null`,
    );
    assert.equal(rows[0].count, 10);
  });

  test('workers that retire tokens and imports of the same devices do not deadlock', async () => {
    const registrations = Array.from({ length: 2_000 }, (_, i) =>
      registration(`dl-${(i * 7919) % 2_000}`, `dl-token-${i}`),
    );
    const options = { importId: await beginImport(database.db), isOwn: false };
    await inTransaction(database.db, (trx) => importDevices(trx, 1, registrations, options));
    const { rows } = await database.pool.query(`select id, device_token from devices where external_id like 'dl-%'`);
    const retirements = rows.map((row: { id: number; device_token: string }) => ({
      deviceId: row.id,
      deviceToken: row.device_token,
      invalidAt: new Date(Date.now() + 60_000),
      reason: 'UNREGISTERED',
    }));
    // Not inTransaction: a deadlock must show here, not be tried again.
    await Promise.all([
      ...Array.from({ length: 3 }, () =>
        database.db.transaction().execute((trx) => importDevices(trx, 1, registrations.toReversed(), options)),
      ),
      ...Array.from({ length: 3 }, () => retire(retirements)),
    ]);
  });

  test('registrations that swap tokens in both directions do not deadlock', async () => {
    await register('swap-a', 'swap-1');
    await register('swap-b', 'swap-2');
    const own = connect(database.url);
    const anotherProcess = connect(database.url);
    await Promise.all(
      Array.from({ length: 40 }, (_, i) => {
        const swapped = registration(i % 2 ? 'swap-a' : 'swap-b', `swap-${1 + ((i >> 1) % 2)}`);
        return deviceRegistrar(i % 3 ? own : anotherProcess)(1, swapped);
      }),
    );
    // A deadlock would be tried again and not show otherwise; sessions have counted theirs when they end.
    await Promise.all([own.db.destroy(), anotherProcess.db.destroy()]);
    const { rows } = await database.pool.query(
      'select deadlocks from pg_stat_database where datname = current_database()',
    );
    assert.equal(rows[0].deadlocks, 0);
  });

  test('a registration does not wait for an import that is storing other devices and tokens', async () => {
    await register('busy-1', 'busy-token-1');
    const importId = await beginImport(database.db);
    const rows = Array.from({ length: 500 }, (_, i) => registration(`busy-${i}`, `busy-token-${i}`));
    await database.db.transaction().execute(async (trx) => {
      await importDevices(trx, 1, rows, { importId, isOwn: false });
      // The import has not ended: a statement that waited for it here would wait for ever.
      const { device, isNew } = await register('beside-the-import', 'token-beside');
      assert.deepEqual([isNew, device.retiredAt], [true, null]);
      assert.equal((await register('beside-the-import', 'token-beside-2')).isNew, false);
    });
    assert.equal((await findDevice(database.db, 1, 'busy-499'))?.retiredAt, null);
  });

  /** Waits until a statement of this database waits for another transaction. */
  const untilAStatementWaits = () =>
    until(async () => {
      const { rows } = await database.pool.query(
        `select from pg_locks join pg_stat_activity using (pid) where not granted and datname = current_database()`,
      );
      return rows.length > 0;
    });

  for (const [name, imported] of [
    ['the new device', ['first-a', 'first-token-a']],
    ['the token', ['other-b', 'first-token-b']],
  ] as const) {
    test(`an import that finds a phone was first with ${name} looks again`, async () => {
      const [externalId, token] = imported;
      const phone = name === 'the token' ? 'first-b' : externalId;
      const importId = await beginImport(database.db);
      let attempts = 0;
      let importing: Promise<unknown> = Promise.resolve();
      await transactionWithClient(database.pool, async (db, pool) => {
        await deviceRegistrar({ db, pool })(1, registration(phone, token));
        importing = inTransaction(database.db, (other) => {
          attempts++;
          return importDevices(other, 1, [registration(externalId, token)], { importId, isOwn: false });
        });
        await untilAStatementWaits();
      });
      await importing;
      assert.equal(attempts, 2);
      const byPhone = await findDevice(database.db, 1, phone);
      assert.equal(byPhone?.retiredReason, name === 'the token' ? 'token_moved' : null);
      assert.equal((await findDevice(database.db, 1, externalId))?.retiredAt, null);
    });
  }

  test('hundreds of registrations beside imports of the same devices and tokens all succeed, one live owner a token', async () => {
    let seed = 7;
    const random = (below: number) => {
      seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31;
      return seed % below;
    };
    const any = (round: number) => registration(`race-${round}-${random(150)}`, `race-token-${round}-${random(150)}`);
    for (let round = 0; round < 4; round++) {
      const importRows = async () => {
        const importId = await beginImport(database.db);
        for (let chunk = 0; chunk < 4; chunk++) {
          const rows = Array.from({ length: 100 }, () => any(round));
          await inTransaction(database.db, (trx) => importDevices(trx, 1, rows, { importId, isOwn: chunk % 2 === 0 }));
        }
      };
      const registerOne = () => registrar(1, any(round));
      await Promise.all([importRows(), importRows(), ...Array.from({ length: 150 }, registerOne)]);
    }
    const { rows } = await database.pool.query(
      `select device_token from devices where external_id like 'race-%' and retired_at is null
        group by device_token having count(*) > 1`,
    );
    assert.deepEqual(rows, []);
  });
});
