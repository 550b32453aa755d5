import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createTestDatabase } from '../support/database.ts';
import { connectTestTemporal } from '../support/temporal.ts';

test('each test database is a migrated copy that is gone after close', async () => {
  const [one, other] = await Promise.all([createTestDatabase(), createTestDatabase()]);
  const { rows } = await one.pool.query("select name from apps where name = 'default'");
  assert.deepEqual(rows, [{ name: 'default' }]);
  await one.pool.query("update apps set name = 'changed'");
  assert.equal((await other.pool.query("select 1 from apps where name = 'default'")).rowCount, 1);
  const name = new URL(one.url).pathname.slice(1);
  await one.close();
  const left = await other.pool.query('select 1 from pg_database where datname = $1', [name]);
  assert.equal(left.rowCount, 0);
  await other.close();
});

test('the shared Temporal server answers, and every test has a task queue prefix of its own', async () => {
  const [one, other] = await Promise.all([connectTestTemporal(), connectTestTemporal()]);
  assert.notEqual(one.taskQueuePrefix, other.taskQueuePrefix);
  await one.client.connection.ensureConnected();
  const native = await one.openNativeConnection();
  assert.equal(await one.openNativeConnection(), native);
  await one.close();
  await other.close();
});
