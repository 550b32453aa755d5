import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { createMasterKeys } from '../../db/master-keys.ts';
import { collectFeedOfAllApps } from '../../db/webhook-feed.ts';
import { parseNetwork } from '../../domain/webhook-address.ts';
import { createTestApi, type TestApi } from './harness.ts';

const masterKeys = createMasterKeys([{ id: 'test', key: new Uint8Array(32).fill(7) }])!;
const url = 'https://shop.example/hook?key=s3cret';
const addresses: Record<string, string[]> = {
  'shop.example': ['93.184.216.34'],
  'inside.example': ['10.1.2.3', '169.254.169.254'],
  'mixed.example': ['127.0.0.1', '93.184.216.34'],
  'lost.example': [],
};

let api: TestApi;
before(async () => {
  const resolve = async (hostname: string) => addresses[hostname] ?? [];
  api = await createTestApi({ masterKeys, webhooks: { places: { allowedNetworks: [] }, resolve } });
});
after(() => api.close());
beforeEach(() => api.database.pool.query('delete from webhooks; delete from webhook_feed; delete from audit_entries'));

const make = (body: object = {}) => api.request('POST', '/v1/webhooks', { url, types: ['webhook.disabled'], ...body });
const rows = async (text: string, values: unknown[] = []) => (await api.database.pool.query(text, values)).rows;
const audited = () => rows('select action, target_id, changes from audit_entries order by id');
const feed = (type: string, subject: string | null = null, data: object = { n: 1 }) =>
  rows('select feed_webhooks(1, $1, $2, $3)', [type, subject, JSON.stringify(data)]);

test('a webhook is told with its secret once, and then never again', async () => {
  const { status, body } = await make({ types: ['messages.finished'], filter: { outcomes: ['rejected'] } });
  assert.equal(status, 201);
  assert.match(body.secret, /^whsec_[A-Za-z0-9+/]{43}=$/);
  assert.deepEqual([body.state, body.filter, body.pending], ['enabled', { outcomes: ['rejected'] }, 0]);
  const shown = await api.request('GET', `/v1/webhooks/${body.id}`);
  const listed = await api.request('GET', '/v1/webhooks');
  assert.equal(shown.body.url, url);
  assert.deepEqual(listed.body.webhooks, [shown.body]);
  const { secret, ...rest } = body;
  assert.deepEqual(shown.body, rest);
  const stored = JSON.stringify(await rows('select * from webhooks'));
  const told = JSON.stringify(await audited());
  for (const text of [stored, told, shown.text, listed.text]) assert.ok(!text.includes(secret.slice(6, 20)));
  assert.ok(!told.includes('s3cret'), 'a URL may hold what is secret');
});

describe('an address', () => {
  const refused: [string, RegExp][] = [
    ['http://shop.example/', /https/],
    ['ftp://shop.example/', /https/],
    ['no url', /https URL/],
    ['https://user:pass@shop.example/', /no user/],
    ['https://shop.example/#here', /fragment/],
    ['https://169.254.169.254/latest/meta-data', /not a public address/],
    ['https://[::1]/', /not a public address/],
    ['https://0x7f.1/', /127.0.0.1 is not a public address/],
    ['https://inside.example/', /leads to no address that is allowed/],
    ['https://lost.example/', /cannot be looked up/],
  ];
  for (const [url, message] of refused) {
    test(`${url} is refused`, async () => {
      const made = await make({ url });
      assert.deepEqual([made.status, made.body.field], [422, 'url']);
      assert.match(made.body.detail, message);
      const { id } = (await make()).body;
      assert.equal((await api.request('PATCH', `/v1/webhooks/${id}`, { url })).status, 422, 'also as a change');
    });
  }

  test('that also means a public one is left to the worker, which connects to that alone', async () => {
    assert.equal((await make({ url: 'https://mixed.example/' })).status, 201);
  });

  test('within an allowed network may be private, and without TLS', async () => {
    const places = { allowedNetworks: [parseNetwork('10.0.0.0/8')] };
    const inside = await createTestApi({ masterKeys, webhooks: { places } });
    try {
      const made = async (url: string) =>
        (await inside.request('POST', '/v1/webhooks', { url, types: ['webhook.disabled'] })).status;
      assert.deepEqual(
        [await made('http://10.1.2.3:8080/x'), await made('http://192.168.0.1/'), await made('http://8.8.8.8/')],
        [201, 422, 422],
      );
    } finally {
      await inside.close();
    }
  });
});

test('without master keys none is made, and the answer says what to do', async () => {
  const bare = await createTestApi();
  try {
    const { status, body } = await bare.request('POST', '/v1/webhooks', { url, types: ['webhook.disabled'] });
    assert.deepEqual([status, body.code], [409, 'no_master_key']);
  } finally {
    await bare.close();
  }
});

test('bad input names its field', async () => {
  const wrong: [object, string][] = [
    [{ types: [] }, 'types'],
    [{ types: ['notification.opened'] }, 'types[0]'],
    [{ filter: { outcomes: ['lost'] } }, 'filter.outcomes[0]'],
    [{ filter: { color: ['red'] } }, 'filter.color'],
    [{ url: 7 }, 'url'],
  ];
  for (const [body, field] of wrong) {
    const answer = await make(body);
    assert.deepEqual([answer.status, answer.body.field], [422, field], answer.text);
  }
  const { id } = (await make()).body;
  assert.equal((await api.request('PATCH', `/v1/webhooks/${id}`, {})).status, 422);
  assert.equal((await api.request('POST', `/v1/webhooks/${id}/replay`, { since: 'yesterday' })).body.field, 'since');
});

test('an app has twenty at most', async () => {
  for (let i = 0; i < 20; i++) assert.equal((await make()).status, 201);
  const { status, body } = await make();
  assert.deepEqual([status, body.code], [409, 'too_many_webhooks']);
});

test('a change is audited with what is different, and a path only as changed', async () => {
  const { id } = (await make()).body;
  const change = { url: 'https://shop.example/other', types: ['devices.retired'], filter: { states: ['halted'] } };
  const { body } = await api.request('PATCH', `/v1/webhooks/${id}`, change);
  assert.deepEqual([body.url, body.types, body.filter], [change.url, change.types, change.filter]);
  assert.equal((await api.request('PATCH', `/v1/webhooks/${id}`, { filter: null })).body.filter.states, undefined);
  const updates = (await audited()).filter(({ action }) => action === 'webhook.update');
  assert.deepEqual(updates[0].changes, {
    url: 'changed',
    types: { from: ['webhook.disabled'], to: ['devices.retired'] },
    filter: { from: {}, to: { states: ['halted'] } },
  });
});

test('disabled, it is told nothing and tests are refused; enabled, what waited is tried at once', async () => {
  const { id } = (await make({ types: ['notification.finished'] })).body;
  await feed('notification.finished', 'a');
  await collectFeedOfAllApps(api.database.db);
  await rows(`update webhook_deliveries set next_at = now() + interval '1 day' where webhook_id = $1`, [id]);
  const patch = (state: string) => api.request('PATCH', `/v1/webhooks/${id}`, { state });
  const disabled = (await patch('disabled')).body;
  assert.deepEqual([disabled.state, disabled.disabled_reason, disabled.pending], ['disabled', 'by_caller', 1]);
  await patch('disabled');
  const refused = await api.request('POST', `/v1/webhooks/${id}/test`);
  assert.deepEqual([refused.status, refused.body.code], [409, 'webhook_disabled']);
  await feed('notification.finished', 'b');
  assert.deepEqual(await rows('select * from webhook_feed'), []);
  assert.equal((await patch('enabled')).body.state, 'enabled');
  await patch('enabled');
  const [delivery] = await rows(
    'select next_at <= clock_timestamp() as due from webhook_deliveries where webhook_id = $1',
    [id],
  );
  assert.equal(delivery.due, true);
  assert.deepEqual(
    (await audited()).map(({ action }) => action),
    ['webhook.create', 'webhook.disable', 'webhook.enable'],
  );
});

test('another secret comes with an overlap, or at once', async () => {
  const made = (await make()).body;
  const rotate = async (body?: object) =>
    (await api.request('POST', `/v1/webhooks/${made.id}/rotate-secret`, body)).body;
  const overlapping = await rotate();
  assert.notEqual(overlapping.secret, made.secret);
  const hours = (Date.parse(overlapping.previous_secret_until) - Date.now()) / 3_600_000;
  assert.ok(hours > 23.9 && hours < 24.1, `${hours}`);
  assert.equal((await rotate({ overlap_seconds: 0 })).previous_secret_until, null);
  assert.equal(
    (await api.request('POST', `/v1/webhooks/${made.id}/rotate-secret`, { overlap_seconds: -1 })).status,
    422,
  );
});

test('a test goes to this webhook alone, whatever its types are', async () => {
  const { id } = (await make()).body;
  await make();
  assert.equal((await api.request('POST', `/v1/webhooks/${id}/test`)).status, 202);
  await collectFeedOfAllApps(api.database.db);
  const { body } = await api.request('GET', `/v1/webhooks/${id}/deliveries`);
  assert.deepEqual(
    body.deliveries.map(({ type, state }: { type: string; state: string }) => [type, state]),
    [['webhook.test', 'pending']],
  );
  assert.equal(
    (await rows('select from webhook_deliveries where event_id = $1', [body.deliveries[0].event_id])).length,
    1,
  );
});

describe('the log of deliveries', () => {
  let id: string;
  let path: string;
  beforeEach(async () => {
    ({ id } = (await make({ types: ['notification.finished'] })).body);
    path = `/v1/webhooks/${id}/deliveries`;
    for (const subject of ['a', 'b', 'c']) await feed('notification.finished', subject);
    await collectFeedOfAllApps(api.database.db);
    await rows(
      `update webhook_deliveries set state = 'failed', attempts = 10, last_status = 500 where webhook_id = $1 and subject <> 'b'`,
      [id],
    );
  });
  const subjects = ({ body }: { body: { deliveries: { subject: string }[] } }) =>
    body.deliveries.map(({ subject }) => subject);

  test('is told newest first, by pages, and by state', async () => {
    assert.deepEqual(subjects(await api.request('GET', path)), ['c', 'b', 'a']);
    assert.deepEqual(subjects(await api.request('GET', `${path}?state=failed`)), ['c', 'a']);
    const first = await api.request('GET', `${path}?limit=2`);
    assert.deepEqual(subjects(await api.request('GET', `${path}?limit=2&cursor=${first.body.next_cursor}`)), ['a']);
  });

  test('one can be delivered again, under the id that it had, with all its attempts', async () => {
    const [latest] = (await api.request('GET', path)).body.deliveries;
    const { status, body } = await api.request('POST', `${path}/${latest.event_id}/replay`);
    assert.equal(status, 202);
    assert.deepEqual([body.event_id, body.state, body.attempts], [latest.event_id, 'pending', 0]);
    assert.equal((await api.request('POST', `${path}/${id}/replay`)).status, 404);
    assert.equal((await api.request('POST', `${path}/none/replay`)).status, 404);
  });

  test('those that failed in a time can be delivered again together', async () => {
    const replay = (body: object) => api.request('POST', `/v1/webhooks/${id}/replay`, body);
    const hour = 3_600_000;
    const at = (ms: number) => new Date(Date.now() + ms).toISOString();
    assert.equal((await replay({ since: at(hour) })).body.replayed, 0);
    assert.equal((await replay({ since: at(-2 * hour), until: at(-hour) })).body.replayed, 0);
    assert.deepEqual((await replay({ since: at(-hour) })).body, { replayed: 2, next_cursor: null });
    assert.deepEqual((await replay({ since: at(-hour) })).body.replayed, 0, 'they wait already');
    const entries = (await audited()).filter(({ action }) => action === 'webhook.replay');
    assert.deepEqual(
      entries.map(({ changes }) => changes.events),
      [2],
    );
  });
});

test('deleted, it is gone with what waits for it; a repeat finds nothing', async () => {
  const { id } = (await make()).body;
  assert.equal((await api.request('DELETE', `/v1/webhooks/${id}`)).status, 204);
  assert.equal((await api.request('DELETE', `/v1/webhooks/${id}`)).status, 404);
  assert.equal((await api.request('GET', `/v1/webhooks/${id}`)).status, 404);
});
