import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { LaneBell } from '../../activities/lane-bell.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { until } from '../support/until.ts';

let database: TestDatabase;
before(async () => {
  database = await createTestDatabase();
});
after(() => database.close());

const log = { debug() {}, info() {}, warn() {}, error() {} };
const ring = () => database.pool.query(`select pg_notify('carillon_lanes', '7')`);

test('rings for its lane alone, also after its connection broke', async () => {
  const bell = new LaneBell();
  const stop = new AbortController();
  const rung = { 7: 0, 8: 0 };
  for (const lane of [7, 8] as const) bell.onRing(lane, () => rung[lane]++);
  const listening = bell.listen(database.pool, log, stop.signal);
  // It rings once for all when it begins to listen.
  await until(() => rung[7] === 1 && rung[8] === 1);
  await ring();
  await until(() => rung[7] === 2);
  await database.pool.query(`
    select pg_terminate_backend(pid) from pg_stat_activity
    where datname = current_database() and query = 'listen carillon_lanes'`);
  await until(() => rung[8] === 2);
  await ring();
  await until(() => rung[7] === 4);
  assert.equal(rung[8], 2);
  stop.abort();
  await listening;
});

test('ends when it is asked to while its connection is being made', async () => {
  const stop = new AbortController();
  const listening = new LaneBell().listen(database.pool, log, stop.signal);
  stop.abort();
  await listening;
});
