import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { sql } from 'kysely';
import { insertApp } from '../../db/apps.ts';
import { connect } from '../../db/connect.ts';
import { readInstallationOfAllApps } from '../../db/installation-state.ts';
import { openLanesOfAllApps } from '../../db/lanes.ts';
import { createMetricsHandler } from '../../telemetry/handler.ts';
import { type Installation, watchInstallation } from '../../telemetry/installation-metrics.ts';
import { registry } from '../../telemetry/metrics.ts';
import { createTestApi, type TestApi } from '../api/harness.ts';
import { readMetrics, sumOf } from './families.ts';
import { parseStrictly } from './strict-parser.ts';

const nothing = () => {};
const warnings: object[] = [];
const log = { debug: nothing, info: nothing, warn: (fields: object) => warnings.push(fields), error: nothing };

describe('the state of the books', () => {
  let api: TestApi;
  before(async () => {
    api = await createTestApi();
  });
  after(() => api.close());
  const read = () => readInstallationOfAllApps(api.database.db, { timeoutMs: 3_000, isUploading: true });

  test('is empty where nothing is under way', async () => {
    assert.deepEqual(await read(), {
      ...{
        notifications: [],
        batches: [],
        deferrals: { due: 0, later: 0 },
        lanes: [],
        hosts: [],
        credentials: [],
        rates: [],
        webhooks: [],
        webhookDeliveries: { pending: 0, lagSeconds: 0 },
        exports: { waiting: 0, oldestSeconds: 0 },
      },
    });
  });

  test('has launched and scheduled notifications by state, halted ones by reason, and no draft', async () => {
    const body = { message: { title: 'Hello' }, audience: {} };
    for (const more of [{}, { launch: true }, { launch: true }]) {
      assert.equal((await api.request('POST', '/v1/notifications', { ...body, ...more })).status, 201);
    }
    await sql`
      update notifications set state = 'halted', halt_reason = 'topic', halt_detail = 'Wrong.'
      where id = (select id from notifications where state = 'sending' limit 1)
    `.execute(api.database.db);
    const { notifications } = await read();
    assert.deepEqual(
      notifications.sort((a, b) => a.state.localeCompare(b.state)),
      [
        { state: 'halted', haltReason: 'topic', count: 1 },
        { state: 'sending', haltReason: null, count: 1 },
      ],
    );
  });

  test('has what waits in lanes, how long the oldest has waited that is due, and which are halted', async () => {
    const { db } = api.database;
    await openLanesOfAllApps(db, 'apns', 1);
    for (const n of [1, 2, 3]) {
      const device = { provider: 'apns', platform: 'ios', device_token: String(n).padStart(64, '0') };
      await api.request('PUT', `/v1/devices/d${n}`, device);
      await api.request('POST', '/v1/messages', { to: { external_id: `d${n}` }, message: { title: 'Hello' } });
    }
    const [fresh] = (await read()).lanes;
    assert.deepEqual(
      { ...fresh, lagSeconds: 0 },
      { app: 'default', provider: 'apns', pending: 3, lagSeconds: 0, halted: 0 },
    );
    assert.ok(fresh!.lagSeconds >= 0 && fresh!.lagSeconds < 30, String(fresh!.lagSeconds));

    // The first is to be tried again and has been due for a minute, the second is not due, the third has its outcome.
    await sql`update lanes set horizon = 3`.execute(db);
    await sql`update message_entries set not_before = now() - interval '60 seconds' where position = 0`.execute(db);
    await sql`update message_entries set not_before = now() + interval '60 seconds' where position = 1`.execute(db);
    await sql`update message_entries set outcome = 'accepted', finished_at = now() where position = 2`.execute(db);
    await sql`update lanes set halt_reason = 'credentials', halt_detail = 'No.', halted_at = now()`.execute(db);
    const [behind] = (await read()).lanes;
    assert.ok(behind!.lagSeconds >= 60 && behind!.lagSeconds < 90, String(behind!.lagSeconds));
    assert.equal(behind!.halted, 1);
  });

  test('has hosts, credentials that expire and rates, by the name of their app', async () => {
    const { db } = api.database;
    const id = (await insertApp(db, 'shop', {}))!.id;
    await sql`
      insert into provider_hosts (app_id, provider, host, credential, blocked_until, unreachable_since, last_tried_at, last_error) values
        (${id}, 'apns', 'a.test', 'c', now() + interval '1 minute', null, null, null),
        (${id}, 'apns', 'b.test', 'c', '-infinity', now(), now(), 'x'),
        (${id}, 'fcm', 'c.test', 'c', '-infinity', null, null, null),
        (${id}, 'fcm', 'unused.test', 'c', '-infinity', now() - interval '1 hour', now() - interval '20 minutes', 'x')
    `.execute(db);
    await sql`
      insert into credentials (id, app_id, kind, details, secret_jwe, fingerprint, expires_at, activated_at) values
        (gen_random_uuid(), ${id}, 'apns_certificate', '{}', 'x', 'old', now() + interval '1 day', now() - interval '1 day'),
        (gen_random_uuid(), ${id}, 'apns_certificate', '{}', 'x', 'new', now() + interval '9 days', now())
    `.execute(db);
    await sql`
      insert into rate_limits (scope, rate_per_second, next_at) values
        (${`app:${id}:apns`}, 500, now() + interval '2 seconds'), (${`app:${id}:apns:lanes`}, 400, now()), ('notification:x', 5, now())
    `.execute(db);
    const { hosts, credentials, rates } = await read();
    assert.deepEqual(hosts, [{ app: 'shop', provider: 'apns', blocked: 1, unreachable: 1 }]);
    assert.deepEqual(
      credentials.map(({ secondsLeft, ...rest }) => ({ ...rest, daysLeft: Math.round(secondsLeft / 86_400) })),
      [{ app: 'shop', kind: 'apns_certificate', daysLeft: 9 }],
    );
    assert.equal(rates.length, 1);
    assert.deepEqual(
      { ...rates[0], secondsUntilFree: 0 },
      { app: 'shop', provider: 'apns', perSecond: 500, secondsUntilFree: 0 },
    );
    assert.ok(rates[0]!.secondsUntilFree > 0 && rates[0]!.secondsUntilFree <= 2);
  });

  test('has webhooks that are not well, what waits for them, and books that wait for their upload', async () => {
    const { db } = api.database;
    await sql`
      insert into webhooks (id, app_id, url, types, secret_jwe, failing_since, disabled_at, disabled_reason) values
        (gen_random_uuid(), 1, 'https://a.test', '{}', 'x', null, null, null),
        (gen_random_uuid(), 1, 'https://b.test', '{}', 'x', now(), null, null),
        (gen_random_uuid(), 1, 'https://c.test', '{}', 'x', now(), now(), 'failing')
    `.execute(db);
    await sql`
      update notifications set finished_at = now() - interval '1 minute', launched_at = now() - interval '2 minutes', state = 'cancelled',
        halt_reason = null, halt_detail = null
    `.execute(db);
    assert.deepEqual((await read()).exports, { waiting: 0, oldestSeconds: 0 }, 'no bucket was ever set');
    await sql`insert into book_stores (name, set_at) values ('bucket', now() - interval '1 hour')`.execute(db);
    const { webhooks, webhookDeliveries, exports } = await read();
    assert.deepEqual(webhooks, [{ app: 'default', failing: 1, disabled: 1 }]);
    assert.deepEqual(webhookDeliveries, { pending: 0, lagSeconds: 0 });
    assert.equal(exports.waiting, 3);
    assert.ok(exports.oldestSeconds >= 60 && exports.oldestSeconds < 90, String(exports.oldestSeconds));
  });
});

describe('gauges of the books', () => {
  const state = (count: number): Installation => ({
    ...{ notifications: [{ state: 'sending', haltReason: null, count }], batches: [], deferrals: { due: 0, later: 0 } },
    ...{ lanes: [], hosts: [], credentials: [], rates: [], webhooks: [] },
    ...{ webhookDeliveries: { pending: 3, lagSeconds: 0 }, exports: { waiting: 0, oldestSeconds: 0 } },
  });
  const sending = async () => sumOf(await readMetrics(), 'carillon_notifications', { state: 'sending' });
  const isReadable = async () => sumOf(await readMetrics(), 'carillon_books_readable');
  /** Each test has its own. */
  const watch = (...given: Parameters<typeof watchInstallation>) => {
    registry.clear();
    return watchInstallation(...given);
  };

  test('are read once in ten seconds, however often they are asked for, and never twice at once', async () => {
    let [now, reads, open, mostOpen] = [0, 0, 0, 0];
    const prepare = watch(
      async () => {
        mostOpen = Math.max(mostOpen, ++open);
        await new Promise((resolve) => setImmediate(resolve));
        open--;
        return state(++reads);
      },
      log,
      { now: () => now },
    );
    await Promise.all([prepare(), prepare(), prepare()]);
    assert.deepEqual([reads, await sending()], [1, 1]);
    now = 9_999;
    await prepare();
    assert.deepEqual([reads, await sending()], [1, 1]);
    now = 10_000;
    await Promise.all([prepare(), prepare()]);
    assert.deepEqual([reads, mostOpen, await sending(), await isReadable()], [2, 1, 2, 1]);
  });

  test('are left out while the database does not answer, which keeps no scrape waiting', async () => {
    let now = 0;
    const answer = Promise.withResolvers<Installation>();
    let reads = 0;
    const prepare = watch(() => (++reads === 1 ? Promise.resolve(state(5)) : answer.promise), log, {
      now: () => now,
      patienceMs: 5,
    });
    await prepare();
    now += 10_000;
    await prepare();
    const metrics = await readMetrics();
    for (const name of ['carillon_notifications', 'carillon_webhook_deliveries_pending']) {
      assert.equal(metrics.get(name)!.samples.length, 0, name);
    }
    assert.equal(await isReadable(), 0);
    now += 10_000;
    await prepare();
    assert.equal(reads, 2, 'the one that hangs is not joined by another');
    answer.resolve(state(7));
    await answer.promise;
    await prepare();
    assert.deepEqual([await sending(), await isReadable()], [7, 1]);
  });

  test('do not keep a scrape from its answer where PostgreSQL is away', async () => {
    const { db } = connect('postgres://nobody@127.0.0.1:1/nothing');
    warnings.length = 0;
    let now = 0;
    const prepare = watch(() => readInstallationOfAllApps(db, { timeoutMs: 3_000, isUploading: false }), log, {
      now: () => (now += 10_000),
    });
    const handler = createMetricsHandler(log, { prepare });
    for (let i = 0; i < 3; i++) {
      const answer = await handler(new Request('http://metrics/metrics'));
      assert.equal(answer.status, 200);
      const families = parseStrictly(await answer.text(), 'text');
      assert.equal(families.find(({ name }) => name === 'carillon_books_readable')!.samples[0]!.value, 0);
    }
    assert.equal(warnings.length, 1, 'logged once');
    await db.destroy();
  });
});
