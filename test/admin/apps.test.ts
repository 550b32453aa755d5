import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { createOperator, type Operator } from './operator.ts';

let operator: Operator;
before(async () => {
  operator = await createOperator();
});
after(() => operator.close());

test('an app is created, shown, changed and deleted, and each change tells who did it', async () => {
  const { json, run } = operator;
  const created = await json([
    ...[
      'apps',
      'create',
      'shop',
      '--as',
      'ada',
      '--apns-topic',
      'com.example.shop',
      '--apns-topics',
      'com.example.two',
    ],
    ...['--apns-environment', 'sandbox', '--fcm-project', 'shop-4711', '--ttl', '3_600', '--in-doubt-policy', 'skip'],
  ]);
  assert.deepEqual(
    [created.apns_topic, created.apns_topics, created.default_ttl_seconds, created.default_in_doubt_policy],
    ['com.example.shop', ['com.example.two'], 3_600, 'skip'],
  );
  assert.deepEqual(await json(['apps', 'show', 'shop']), created);

  const changed = await json(['apps', 'update', 'shop', '--as', 'bob', '--ttl', 'none', '--max-devices', '10']);
  assert.deepEqual([changed.default_ttl_seconds, changed.max_devices], [null, 10]);
  assert.match(
    (await run(['apps', 'list'])).stdout,
    /^name +apns topic.*\ndefault .*\nshop +com\.example\.shop +shop-4711 /,
  );

  const { db } = operator.database;
  const app = await db.selectFrom('apps').select('id').where('name', '=', 'shop').executeTakeFirstOrThrow();
  await db
    .insertInto('devices')
    .values({ app_id: app.id, external_id: 'a', provider: 'fcm', platform: 'android', properties: '{}' })
    .execute();
  const refused = await run(['apps', 'delete', 'shop']);
  assert.deepEqual([refused.status, refused.stdout], [1, '']);
  assert.match(refused.stderr, /^The app shop has devices or sends: [^\n]*shop[^\n]*\n$/);
  assert.match((await run(['apps', 'delete', 'shop', '--confirm', 'stop'])).stderr, /^--confirm: /);
  const deleted = await json(['apps', 'delete', 'shop', '--confirm', 'shop', '--as', 'ada']);
  assert.equal(deleted.deletion.stage, 'ending', 'the workers do the rest');

  const told = (await operator.audit()).filter(({ target_id }) => target_id === 'shop');
  assert.deepEqual(
    told.map(({ actor, action }) => [actor, action]),
    [
      ['ada', 'app.create'],
      ['bob', 'app.update'],
      ['ada', 'app.delete'],
    ],
  );
});

test('what an app cannot be is said by the name of the option, with status 2', async () => {
  const wrong: [string[], RegExp][] = [
    [['apps', 'create', 'No!'], /^<name>: Must be 1 to 63/],
    [['apps', 'create', 'x', '--ttl', '99999999'], /^--ttl: /],
    [['apps', 'create', 'x', '--ttl', 'soon'], /^Option '--ttl <seconds>' .* Must be a whole number\.\n/],
    [['apps', 'create', 'x', '--apns-topics', 'one.two'], /^--apns-topics: .*give it one first/],
    [['apps', 'update', 'default', '--apns-environment', 'moon'], /^Option '--apns-environment <name>' .*sandbox/],
    [['apps', 'update', 'default'], /^Name at least one field/],
  ];
  for (const [args, sentence] of wrong) {
    const { status, stdout, stderr } = await operator.run(args);
    assert.deepEqual([status, stdout], [2, ''], args.join(' '));
    assert.match(stderr, sentence);
  }
  const twice = await operator.run(['apps', 'create', 'default']);
  assert.deepEqual([twice.status, twice.stderr], [1, '<name>: There is an app default already.\n']);
});

test('rates are set, shown and cleared', async () => {
  const { json, run } = operator;
  await json(['apps', 'create', 'rated']);
  const set = await run(['rates', 'set', '--app', 'rated', '--provider', 'apns', '--per-second', '500']);
  assert.equal(set.stdout, 'The app rated sends by apns with 500 devices per second.\n');
  assert.deepEqual(await json(['rates', 'list', '--app', 'rated']), {
    apns: { per_second: 500 },
    fcm: { per_second: null },
  });
  assert.deepEqual(await json(['rates', 'clear', '--app', 'rated', '--provider', 'apns']), { per_second: null });
  assert.match((await run(['rates', 'list', '--app', 'rated'])).stdout, /\napns +no limit\nfcm +no limit\n$/);

  const wrong = await run(['rates', 'set', '--app', 'rated', '--provider', 'sms', '--per-second', '5']);
  assert.deepEqual([wrong.status, /--provider/.test(wrong.stderr)], [2, true]);
  assert.match(
    (await run(['rates', 'set', '--app', 'rated', '--provider', 'fcm', '--per-second', '0'])).stderr,
    /^--per-second: /,
  );
});

test('the audit is read newest first, by app and actor, and as lines of JSON', async () => {
  const { json, run } = operator;
  await json(['apps', 'create', 'told', '--as', 'eve']);
  await json(['apps', 'update', 'told', '--as', 'eve', '--ttl', '5']);
  await json(['apps', 'update', 'told', '--as', 'mallory', '--ttl', '6']);
  const lines = (await run(['audit', '--app', 'told', '--json'])).stdout.trimEnd().split('\n');
  const entries = lines.map((line) => JSON.parse(line));
  assert.deepEqual(
    entries.map(({ action, actor, app, request_id }) => [action, actor.kind, actor.id, app, request_id]),
    [
      ['app.update', 'operator', 'mallory', 'told', null],
      ['app.update', 'operator', 'eve', 'told', null],
      ['app.create', 'operator', 'eve', 'told', null],
    ],
  );
  const only = (await run(['audit', '--app', 'told', '--actor', 'eve', '--limit', '1', '--since', '1h'])).stdout;
  assert.match(
    only,
    /^at .*\n.* told +operator eve +app\.update +app told +\{"default_ttl_seconds":\{.*"to":5.*\}\}\n$/,
  );
  assert.equal((await run(['audit', '--since', '2999-01-01', '--json'])).stdout, '');
  assert.equal((await run(['audit', '--since', 'yesterday'])).status, 2);
});
