import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { retireDevices } from '../../db/deliveries.ts';
import { beginImport, findDevice, importDevices, registerDevice } from '../../db/devices.ts';
import { inTransaction } from '../../db/transaction.ts';
import type { DeviceRegistration } from '../../domain/registration.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';

describe('device registry', () => {
  let database: TestDatabase;
  before(async () => {
    database = await createTestDatabase();
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
    inTransaction(database.db, (trx) => registerDevice(trx, 1, registration(externalId, deviceToken)));

  test('one token may live in two apps and with two providers, each its own', async () => {
    await database.pool.query(`insert into apps (name) values ('second')`);
    const { rows } = await database.pool.query(`select id from apps where name = 'second'`);
    await register('a', 'shared');
    await inTransaction(database.db, (trx) => registerDevice(trx, rows[0].id, registration('a', 'shared')));
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
    await inTransaction(database.db, (trx) => retireDevices(trx, [dead]));
    assert.equal((await findDevice(database.db, 1, 'again'))?.retiredReason, 'UNREGISTERED');
    const again = (await register('again', 'tok-again')).device;
    assert.equal(again.retiredAt, null);
    assert.ok(again.registeredAt >= device.registeredAt);
    await inTransaction(database.db, (trx) => retireDevices(trx, [{ ...dead, invalidAt: device.registeredAt }]));
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
      ...Array.from({ length: 3 }, () => database.db.transaction().execute((trx) => retireDevices(trx, retirements))),
    ]);
  });
});
