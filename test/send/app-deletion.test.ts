/** Apps that are deleted with all that they have, beside one that stays: the real API, PostgreSQL, Temporal and workflows. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { sql } from 'kysely';
import { deleteAppStep } from '../../activities/delete-app.ts';
import { startAppDeletions } from '../../activities/start-app-deletions.ts';
import { insertApiKey } from '../../db/api-keys.ts';
import { beginAppDeletion } from '../../db/app-deletion.ts';
import { collectFeedOfAllApps } from '../../db/webhook-feed.ts';
import { insertWebhook } from '../../db/webhooks.ts';
import { workerActor } from '../../domain/actor.ts';
import { deleteAppWorkflowId } from '../../domain/ids.ts';
import { appScopes } from '../../domain/scopes.ts';
import { notificationsTaskQueue } from '../../domain/task-queues.ts';
import type { Answer } from '../api/harness.ts';
import { accepted, gate } from '../delivery/harness.ts';
import { until } from '../support/until.ts';
import { masterKeys } from '../webhooks/harness.ts';
import { createSendBench, type RunningWorker, type SendBench } from './harness.ts';

let bench: SendBench;
let admin: string;
let worker: RunningWorker | undefined;
let onTestEnd: (() => void) | undefined;
before(async () => {
  bench = await createSendBench();
  const scopes = [...appScopes, 'admin'] as const;
  admin = await insertApiKey(bench.api.database.db, { appId: null, name: 'operator', scopes });
});
after(async () => {
  onTestEnd?.();
  await bench.close();
});

function ask(app: string, method: string, path: string, body?: unknown, type = 'application/json'): Promise<Answer> {
  const headers = { authorization: `Bearer ${admin}`, 'carillon-app': app, 'content-type': type };
  return bench.api.request(method, path, body, headers);
}

async function query<Row>(text: string, values: unknown[] = []): Promise<Row[]> {
  return (await bench.api.database.pool.query(text, values)).rows as Row[];
}

/** With devices, an uploaded list, keys, rates, evidence, and a draft. */
async function makeApp(name: string, devices: number): Promise<number> {
  const settings = { name, rates: { apns: 100_000 } };
  assert.equal((await ask(name, 'POST', '/v1/apps', settings)).status, 201);
  const [{ id }] = (await query<{ id: number }>('select id from apps where name = $1', [name])) as [{ id: number }];
  await query(
    `insert into devices (app_id, external_id, user_id, provider, platform, device_token)
     select $1, 'phone-' || n, 'person-' || n, case n % 2 when 0 then 'apns' else 'fcm' end,
       case n % 2 when 0 then 'ios' else 'android' end, encode(sha256(($2 || n)::bytea), 'hex')
     from generate_series(1, $3::integer) n`,
    [id, name, devices],
  );
  await query("insert into token_departures (device_token, app_id, device_id) values ('gone', $1, 1)", [id]);
  await query("insert into token_evidence (app_id, configuration, accepted, suspicious) values ($1, 'c', 1, 1)", [id]);
  await query("insert into token_suspects (app_id, configuration, device_id) values ($1, 'c', 1)", [id]);
  await query("insert into provider_hosts (app_id, provider, host, credential) values ($1, 'apns', 'h', 'c')", [id]);
  const webhook = { url: 'https://shop.example/', types: ['notification.state_changed'], filter: {} };
  await insertWebhook(bench.api.database.db, workerActor, id, webhook, masterKeys, 20);
  for (let page = 0; page < 2; page++) {
    await query("select feed_webhooks($1, 'notification.state_changed', null, '{}')", [id]);
    if (page === 0) await collectFeedOfAllApps(bench.api.database.db);
  }
  await ask(name, 'POST', `/v1/apps/${name}/keys`, { name: 'k', scopes: ['devices:read'] });
  const uploaded = await ask(name, 'POST', '/v1/notifications', {
    message: { title: 'list' },
    audience: { uploaded: true },
  });
  const lines = ['phone-1', 'phone-2'].map((id) => JSON.stringify({ external_id: id })).join('\n');
  await ask(name, 'PUT', `/v1/notifications/${uploaded.body.id}/audience-list`, lines, 'application/x-ndjson');
  return id;
}

async function send(app: string, rest: object = {}): Promise<string> {
  const body = { message: { title: 'Hello' }, audience: {}, launch: true, ...rest };
  const answer = await ask(app, 'POST', '/v1/notifications', body);
  assert.equal(answer.status, 201, answer.text);
  return answer.body.id;
}

const stateOf = async (app: string, id: string) => (await ask(app, 'GET', `/v1/notifications/${id}`)).body;

function post(app: string, n: number, headers: object = {}): Promise<Answer> {
  const authorized = { authorization: `Bearer ${admin}`, 'carillon-app': app, ...headers };
  return bench.api.request(
    'POST',
    '/v1/messages',
    { to: { user_id: `person-${n}` }, message: { title: 'You' } },
    authorized,
  );
}

/** Rows of the app in every table that names it, and rows that belong to nothing any more. */
async function rowsOf(appId: number): Promise<Record<string, number>> {
  const tables = await query<{ name: string }>(
    `select c.table_name as name from information_schema.columns c join pg_class on relname = c.table_name
     where c.column_name = 'app_id' and c.table_schema = 'public' and not relispartition and relkind in ('r', 'p')
       and c.table_name <> 'audit_entries'`,
  );
  assert.ok(tables.length >= 12);
  const counts: Record<string, number> = {};
  for (const { name } of tables) {
    const [{ rows }] = (await query<{ rows: number }>(`select count(*) as rows from ${name} where app_id = $1`, [
      appId,
    ])) as [{ rows: number }];
    counts[name] = rows;
  }
  const orphans = {
    batches: 'select from batches where notification_id not in (select id from notifications)',
    delivery_groups: 'select from delivery_groups where notification_id not in (select id from notifications)',
    audience_members: 'select from audience_members where list_id not in (select id from audience_lists)',
    message_entries: 'select from message_entries where lane_id not in (select id from lanes)',
    webhook_deliveries: 'select from webhook_deliveries where event_id not in (select id from webhook_events)',
    lane_ends: 'select from lane_ends where lane_id not in (select id from lanes)',
    rate_limits: `select from rate_limits where scope like 'app:${appId}:%'
      or (scope like 'notification:%' and not exists (select from notifications where 'notification:' || id = scope))`,
  };
  for (const [name, text] of Object.entries(orphans)) {
    const [{ rows }] = (await query<{ rows: number }>(`select count(*) as rows from (${text}) o`)) as [
      { rows: number },
    ];
    counts[`stray ${name}`] = rows;
  }
  return counts;
}

function onlyNothing(counts: Record<string, number>): void {
  assert.deepEqual(
    Object.entries(counts).filter(([, rows]) => rows > 0),
    [],
  );
}

/** As if it had been asked for long ago: every API process has heard of it. */
const age = (appId: number, field: 'requestedAt' | 'cancelledAt' = 'requestedAt') =>
  query(`update apps set deletion = jsonb_set(deletion, array[$2], '"2020-01-01T00:00:00Z"') where id = $1`, [
    appId,
    field,
  ]);

const workflowOf = (appId: number) =>
  bench.temporal.client.workflow.getHandle(deleteAppWorkflowId(bench.temporal.taskQueuePrefix, appId));

async function untilGone(name: string): Promise<void> {
  await until(async () => (await ask(name, 'GET', `/v1/apps/${name}`)).status === 404, `${name} to be gone`, 60_000);
}

test('an app with sends under way, waiting messages and a worker that stops in the middle is deleted whole; another app has lost nothing', async () => {
  const { apns } = bench.providers;
  worker = await bench.startWorker({ batchSize: 2_000 });
  const shopId = await makeApp('shop', 5_000);
  const otherId = await makeApp('other', 300);
  const done = await Promise.all([send('shop'), send('other')]);
  await until(async () => (await stateOf('shop', done[0])).finished_at !== null);
  await until(async () => (await stateOf('other', done[1])).finished_at !== null);
  for (const app of ['shop', 'other']) {
    await bench.startLanes();
    const sent = await post(app, 2, { prefer: 'wait=20', 'idempotency-key': 'key-1' });
    assert.equal(sent.status, 200, sent.text);
    await post(app, 100_000);
    const told = ['opened', 'own.word'].map((type) => ({ type, nid: done[app === 'shop' ? 0 : 1], device: 'phone-1' }));
    const counted = await ask(app, 'POST', '/v1/events', {
      events: [...told, { ...told[0], nid: sent.body.id, device: 'phone-2' }],
    });
    assert.deepEqual(counted.body, { taken: 3, accepted: 3, repeated: 0, unknown: 0 });
  }
  const waiting = gate();
  apns.answer = async () => {
    await waiting.opened;
    return accepted;
  };
  const underWay = await send('shop');
  await until(async () => (await stateOf('shop', underWay)).state === 'sending' && apns.open > 0);
  const paused = await send('shop', { rate_per_second: 10 });
  assert.equal((await ask('shop', 'POST', `/v1/notifications/${paused}/pause`, {})).status, 200);
  await send('shop', { launch: false, scheduled_at: new Date(Date.now() + 3_600_000).toISOString() });
  for (let n = 2; n < 40; n += 2) await post('shop', n);
  const before = await rowsOf(otherId);
  assert.ok(
    before.devices === 300 &&
      before.messages === 2 &&
      before.notifications === 2 &&
      before.event_devices === 3 &&
      before.webhook_events! > 0,
  );
  const sent = await stateOf('other', done[1]);

  const deleted = await ask('shop', 'DELETE', '/v1/apps/shop?confirm=shop');
  assert.equal(deleted.status, 202);
  await age(shopId);
  assert.equal((await ask('shop', 'GET', '/v1/apps/shop')).body.deletion.stage, 'ending');
  // A device of the second page of three is locked: the deletion gets as far as that, and no further.
  const holder = await bench.api.database.pool.connect();
  onTestEnd = () => holder.release(true);
  await holder.query("begin; select from devices where external_id = 'phone-3000' for update");
  waiting.open();
  apns.answer = () => accepted;
  await until(async () => {
    // What was paused has nobody who looks after it, once it is cancelled.
    await bench.reconcile();
    const { deletion } = (await ask('shop', 'GET', '/v1/apps/shop')).body;
    return deletion.stage === 'deleting' && deletion.notifications >= 4 && deletion.devices > 0;
  });
  assert.equal((await workflowOf(shopId).describe()).status.name, 'RUNNING');
  const stopped = worker.stop();
  await holder.query('rollback');
  await stopped;
  const { deletion } = (await ask('shop', 'GET', '/v1/apps/shop')).body;
  assert.ok(deletion.devices < 5_000, 'it had not ended when the worker stopped');
  assert.equal((await ask('shop', 'DELETE', '/v1/apps/shop?confirm=shop')).status, 202, 'a repeat is harmless');

  worker = await bench.startWorker({ batchSize: 2_000 });
  await untilGone('shop');
  onlyNothing(await rowsOf(shopId));
  const result = await workflowOf(shopId).result();
  const { devices, notifications, messages } = result as Record<string, number>;
  assert.deepEqual([devices, notifications, messages], [5_000, 5, 21]);
  assert.deepEqual(await rowsOf(otherId), before);
  const { books, totals } = await stateOf('other', done[1]);
  assert.deepEqual([books, totals], [sent.books, sent.totals]);
  const entries = await query(
    "select action, actor_kind, changes from audit_entries where target_id = 'shop' order by id",
  );
  assert.deepEqual(entries.slice(-1), [
    { action: 'app.deleted', actor_kind: 'worker', changes: { devices, notifications, messages } },
  ]);
  assert.equal((await send('other')).length, 36, 'the other app sends');
});

test('the lane of an app that is gone has no workflow any more', async () => {
  const appId = await makeApp('lanes', 10);
  await post('lanes', 2);
  await bench.startLanes();
  const running = async () => {
    const open: string[] = [];
    const prefix = `${bench.temporal.taskQueuePrefix}lane-${appId}-`;
    for await (const { workflowId } of bench.temporal.client.workflow.list({
      query: `WorkflowType = 'laneWorkflow' and ExecutionStatus = 'Running'`,
    })) {
      if (workflowId.startsWith(prefix)) open.push(workflowId);
    }
    return open.length;
  };
  await until(async () => (await running()) > 0);
  await ask('lanes', 'DELETE', '/v1/apps/lanes?confirm=lanes');
  await age(appId);
  await untilGone('lanes');
  await until(async () => (await running()) === 0, 'its lanes to end', 60_000);
});

test('where Temporal could not be told, the reconciler starts it, once', async () => {
  const appId = await makeApp('deferred', 20);
  const { db } = bench.api.database;
  await beginAppDeletion(db, appId);
  await age(appId);
  const start = () =>
    startAppDeletions(worker!.deps, bench.temporal.client, notificationsTaskQueue(bench.temporal.taskQueuePrefix));
  await Promise.all([start(), start()]);
  await untilGone('deferred');
  onlyNothing(await rowsOf(appId));
});

describe('without a workflow, step by step', () => {
  const { signal } = new AbortController();

  test('whatever a process may still create is waited for: nothing is called gone before', async () => {
    const appId = await makeApp('echo', 5);
    await beginAppDeletion(bench.api.database.db, appId);
    const { deps } = worker!;
    const step = await deleteAppStep(deps, { appId }, signal);
    assert.deepEqual([step.stage, step.deletion?.devices], ['waiting', 5]);
    // By a request that had begun before.
    await query("insert into devices (app_id, external_id, provider, platform) values ($1, 'late', 'fcm', 'web')", [
      appId,
    ]);
    await age(appId);
    assert.equal((await deleteAppStep(deps, { appId }, signal)).stage, 'gone');
    onlyNothing(await rowsOf(appId));
    assert.deepEqual(await deleteAppStep(deps, { appId }, signal), { stage: 'gone', pauseMs: 0 });
  });

  test('killed after every page: it goes on, and counts each row once', async () => {
    const appId = await makeApp('killed', 4_500);
    await worker!.stop();
    for (let n = 2; n < 20; n += 2) await post('killed', n);
    await post('killed', 1_000_000);
    const id = await send('killed');
    await query("update notifications set state = 'cancelled', finished_at = now() where id = $1", [id]);
    await query(
      `insert into batches (notification_id, seq, provider, first_device_id, device_offsets, size, recorded)
       select $1, n, 'fcm', 1, '{0}', 1, B'0' from generate_series(1, 250) n`,
      [id],
    );
    await query(
      `insert into delivery_groups (notification_id, batch_seq, first_position, positions, outcome, attempts, in_doubt)
       select $1, n, 0, B'1', 'accepted', 1, false from generate_series(1, 250) n`,
      [id],
    );
    await beginAppDeletion(bench.api.database.db, appId);
    await age(appId);
    const { deps } = worker!;
    let stops = 0;
    let last: Awaited<ReturnType<typeof deleteAppStep>> | undefined;
    for (let allowed = 0; last?.stage !== 'gone'; allowed++) {
      assert.ok(allowed < 100);
      let checks = 0;
      const dying = {
        throwIfAborted() {
          checks += 1;
          if (checks > allowed % 4) throw new Error('killed');
        },
      } as AbortSignal;
      last = await deleteAppStep(deps, { appId }, allowed < 40 ? dying : signal).catch(() => {
        stops += 1;
        return undefined;
      });
    }
    assert.ok(stops > 8);
    const { devices, notifications, messages } = last.deletion!;
    assert.deepEqual([devices, notifications, messages], [4_500, 2, 10]);
    onlyNothing(await rowsOf(appId));
  });

  test('what no worker ends is ended after a minute: a send whose worker is gone, a lane that nobody has', async () => {
    const appId = await makeApp('orphans', 30);
    const id = await send('orphans');
    await sql`update notifications set planned_at = now(), batch_count = 1 where id = ${id}`.execute(
      bench.api.database.db,
    );
    await query(
      `insert into batches (notification_id, seq, provider, first_device_id, device_offsets, size, recorded, horizon, fence)
       select $1, 1, 'apns', min(id), '{0}', 1, B'0', 1, 1 from devices where app_id = $2`,
      [id, appId],
    );
    await post('orphans', 2);
    await query('update lanes set fence = 1, horizon = 1 where app_id = $1', [appId]);
    await beginAppDeletion(bench.api.database.db, appId);
    await age(appId);
    const { deps } = worker!;
    const first = await deleteAppStep(deps, { appId }, signal);
    assert.equal(first.stage, 'ending', 'workers have their time');
    assert.equal((await deleteAppStep(deps, { appId }, signal)).stage, 'ending');
    await age(appId, 'cancelledAt');
    const last = await deleteAppStep(deps, { appId }, signal);
    assert.equal(last.stage, 'gone');
    onlyNothing(await rowsOf(appId));
  });
});
