/** Three apps with the same ids, tokens, users and idempotency keys, and random requests of each: none ever sees, counts or changes what is another's. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import { insertApiKey } from '../../db/api-keys.ts';
import { appScopes } from '../../domain/scopes.ts';
import { apnsToken, createTestApi, type TestApi } from './harness.ts';

let api: TestApi;
before(async () => {
  api = await createTestApi();
});
after(() => api.close());

interface OwnApp {
  name: string;
  key: string;
  /** By external id. */
  devices: Map<string, { token: number; user: string }>;
  notifications: Map<string, { title: string; state: string }>;
  messages: Map<string, { user: string; devices: number }>;
  /** Ids under idempotency keys. */
  drafts: Map<string, string>;
  sent: Map<string, string>;
}

type Step =
  | { kind: 'register'; device: string; token: number; user: string }
  | { kind: 'delete'; device: string }
  | { kind: 'draft'; key: string }
  | { kind: 'message'; user: string; key: string }
  | { kind: 'launch' | 'cancel' | 'remove'; pick: number }
  | { kind: 'reach'; pick: number };

const few = (name: string) => fc.constantFrom(`${name}-1`, `${name}-2`, `${name}-3`);
const pick = fc.nat(1_000);
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ kind: fc.constant('register' as const), device: few('phone'), token: fc.nat(3), user: few('person') }),
  fc.record({ kind: fc.constant('delete' as const), device: few('phone') }),
  fc.record({ kind: fc.constant('draft' as const), key: few('key') }),
  fc.record({ kind: fc.constant('message' as const), user: few('person'), key: few('key') }),
  fc.record({ kind: fc.constantFrom('launch' as const, 'cancel' as const, 'remove' as const), pick }),
  fc.record({ kind: fc.constant('reach' as const), pick }),
);

let lastApp = 0;
const counted = { steps: 0, strangers: 0, looks: 0 };

async function createOwnApp(): Promise<OwnApp> {
  const { db } = api.database;
  lastApp += 1;
  const name = `app-${lastApp}`;
  const { id } = await db.insertInto('apps').values({ name }).returning('id').executeTakeFirstOrThrow();
  const key = await insertApiKey(db, { appId: id, name, scopes: [...appScopes] });
  const empty = {
    devices: new Map(),
    notifications: new Map(),
    messages: new Map(),
    drafts: new Map(),
    sent: new Map(),
  };
  return { name, key, ...empty };
}

function ask(app: OwnApp, method: string, path: string, body?: unknown, headers: Record<string, string> = {}) {
  return api.request(method, path, body, { authorization: `Bearer ${app.key}`, ...headers });
}

async function take(app: OwnApp, others: OwnApp[], step: Step): Promise<void> {
  counted.steps += 1;
  switch (step.kind) {
    case 'register': {
      const { device, token, user } = step;
      const body = { platform: 'ios', device_token: apnsToken(token), user_id: user, properties: { owner: app.name } };
      const answer = await ask(app, 'PUT', `/v1/devices/${device}`, body);
      assert.ok(answer.status < 300, answer.text);
      // A token belongs to the device that registered it last, within the app.
      for (const [id, known] of app.devices) if (known.token === token) app.devices.delete(id);
      app.devices.set(device, { token, user });
      return;
    }
    case 'delete':
      await ask(app, 'DELETE', `/v1/devices/${step.device}`);
      app.devices.delete(step.device);
      return;
    case 'draft': {
      const body = { message: { title: app.name }, audience: {} };
      const { status, body: stored } = await ask(app, 'POST', '/v1/notifications', body, {
        'idempotency-key': step.key,
      });
      const known = app.drafts.get(step.key);
      assert.equal(status, known === undefined ? 201 : app.notifications.has(known) ? 200 : 201);
      if (known !== undefined && app.notifications.has(known)) assert.equal(stored.id, known);
      else app.notifications.set(stored.id, { title: app.name, state: 'draft' });
      app.drafts.set(step.key, stored.id);
      return;
    }
    case 'message': {
      const body = { to: { user_id: step.user }, message: { title: app.name } };
      const {
        body: stored,
        status,
        text,
      } = await ask(app, 'POST', '/v1/messages', body, { 'idempotency-key': step.key });
      const known = app.sent.get(step.key);
      if (known !== undefined) {
        // The same request is a repeat, another one under that key is refused.
        const isSame = app.messages.get(known)!.user === step.user;
        assert.equal(status, isSame ? 202 : 409, text);
        if (isSame) assert.equal(stored.id, known);
        return;
      }
      assert.equal(status, 202, text);
      const devices = [...app.devices.values()].filter(({ user }) => user === step.user).length;
      assert.equal(
        stored.deliveries.filter(({ provider }: { provider: unknown }) => provider !== null).length,
        devices,
      );
      app.messages.set(stored.id, { user: step.user, devices });
      app.sent.set(step.key, stored.id);
      return;
    }
    case 'launch':
    case 'cancel':
    case 'remove': {
      const [id, own] = [...app.notifications][step.pick % Math.max(1, app.notifications.size)] ?? [];
      if (id === undefined || own === undefined) return;
      const [method, path] = step.kind === 'remove' ? ['DELETE', ''] : ['POST', `/${step.kind}`];
      const answer = await ask(app, method!, `/v1/notifications/${id}${path}`);
      if (answer.status >= 300) return;
      if (step.kind === 'remove') app.notifications.delete(id);
      else own.state = answer.body.state;
      return;
    }
    case 'reach': {
      // Everything that is another's is not there.
      const ids = others.flatMap((other) => [
        ...[...other.notifications.keys()].map((id) => `notifications/${id}`),
        ...[...other.messages.keys()].map((id) => `messages/${id}`),
      ]);
      const path = ids[step.pick % Math.max(1, ids.length)];
      if (path === undefined) return;
      const tries: [string, string][] = path.startsWith('messages')
        ? [
            ['GET', ''],
            ['DELETE', ''],
          ]
        : [
            ['GET', ''],
            ['DELETE', ''],
            ['POST', '/launch'],
            ['POST', '/cancel'],
            ['GET', '/deliveries'],
            ['GET', '/progress'],
          ];
      for (const [method, more] of tries) {
        counted.strangers += 1;
        const answer = await ask(app, method, `/v1/${path}${more}`);
        assert.equal(answer.status, 404, `${method} ${path}${more}`);
      }
      for (const { name } of others) {
        for (const [header, where] of [
          [name, '/v1/notifications'],
          [undefined, `/v1/apps/${name}/credentials`],
        ] as const) {
          counted.strangers += 1;
          const answer = await ask(
            app,
            'GET',
            where,
            undefined,
            header === undefined ? {} : { 'Carillon-App': header },
          );
          assert.equal(answer.status, 404, where);
        }
      }
    }
  }
}

/** What each app is shown is what it did, whatever the others do. */
async function look(app: OwnApp): Promise<void> {
  counted.looks += 1;
  for (const device of ['phone-1', 'phone-2', 'phone-3']) {
    const { status, body } = await ask(app, 'GET', `/v1/devices/${device}`);
    const known = app.devices.get(device);
    if (known === undefined) {
      if (status !== 404) assert.equal(body.is_live ?? body.retired_at === null, false);
      continue;
    }
    assert.deepEqual([body.user_id, body.properties], [known.user, { owner: app.name }]);
  }
  const size = await ask(app, 'POST', '/v1/audience/estimate', {});
  assert.equal(size.body.devices, app.devices.size);
  const { body: notifications } = await ask(app, 'GET', '/v1/notifications?limit=100');
  const shown = notifications.notifications.map(({ id, title, state }: Record<string, unknown>) => [id, title, state]);
  const expected = [...app.notifications].map(([id, { title, state }]) => [id, title, state]);
  assert.deepEqual(shown.sort(), expected.sort());
  for (const [id] of app.messages) {
    const { body } = await ask(app, 'GET', `/v1/messages/${id}`);
    assert.equal(body.message.title, app.name);
  }
  for (const user of ['person-1', 'person-2', 'person-3']) {
    const { body } = await ask(app, 'GET', `/v1/messages?user_id=${user}&limit=100`);
    for (const { id } of body.messages as { id: string }[]) assert.ok(app.messages.has(id));
  }
  const { body: stats } = await ask(app, 'GET', '/v1/messages/stats');
  const entered = (stats.days as { provider: string | null; entered: number }[])
    .filter(({ provider }) => provider !== null)
    .reduce((sum, day) => sum + day.entered, 0);
  assert.equal(
    entered,
    [...app.messages.values()].reduce((sum, { devices }) => sum + devices, 0),
  );
}

test('three apps that use the same names never meet', async (t) => {
  const steps = fc.array(fc.tuple(fc.nat(2), step), { minLength: 15, maxLength: 40 });
  await fc.assert(
    fc.asyncProperty(steps, async (steps) => {
      const apps = [await createOwnApp(), await createOwnApp(), await createOwnApp()];
      for (const [which, step] of steps) {
        await take(
          apps[which]!,
          apps.filter((_, i) => i !== which),
          step,
        );
      }
      for (const app of apps) await look(app);
    }),
    { numRuns: 25, endOnFailure: true },
  );
  assert.ok(counted.strangers > 100 && counted.steps > 300 && counted.looks === 75, JSON.stringify(counted));
  t.diagnostic(`${counted.steps} steps, ${counted.strangers} requests for what is another's, ${counted.looks} looks`);
});
