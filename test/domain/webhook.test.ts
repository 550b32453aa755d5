import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { JsonObject } from '../../domain/json.ts';
import { type FedChange, formEvents, type WebhookFilter, type WebhookWish } from '../../domain/webhook.ts';

const at = new Date('2026-12-24T18:00:00Z');
const change = (type: string, data: JsonObject, subject: string | null = null, appId = 1): FedChange => ({
  ...{ appId, type, subject, data, at },
});
const webhook = (id: string, types: string[], filter: WebhookFilter = {}, appId = 1): WebhookWish => ({
  ...{ id, appId, types, filter },
});
const messages = (...outcomes: string[]) => ({
  messages: outcomes.map((outcome, i) => ({
    message_id: `${i}`,
    outcome,
    reason: outcome === 'rejected' ? 'TooBig' : null,
  })),
});

test('each event goes to those of its app that want its type, in the order in which things happened', () => {
  const all = ['notification.state_changed', 'messages.halted'];
  const events = formEvents(
    [
      change('notification.state_changed', { to: 'sending' }, 'notification:1'),
      change('messages.halted', { lane: 0 }, 'lane:apns:0'),
      change('notification.state_changed', { to: 'completed' }, 'notification:1'),
      change('notification.state_changed', { to: 'sending' }, 'notification:2', 2),
    ],
    [webhook('a', all), webhook('b', ['messages.halted']), webhook('c', all, {}, 3)],
  );
  assert.deepEqual(
    events.map(({ type, subject, data, webhookIds }) => [type, subject, Object.values(data)[0], webhookIds.join()]),
    [
      ['notification.state_changed', 'notification:1', 'sending', 'a'],
      ['messages.halted', 'lane:apns:0', 0, 'a,b'],
      ['notification.state_changed', 'notification:1', 'completed', 'a'],
    ],
  );
});

test('what comes in many pieces is put together, at most two hundred to an event, and nothing is lost', () => {
  const many = Array.from({ length: 450 }, (_, i) => ({ external_id: `${i}` }));
  const changes = many.map((device) => change('devices.retired', { devices: [device] }));
  const events = formEvents(changes, [webhook('a', ['devices.retired']), webhook('b', ['devices.retired'])]);
  assert.deepEqual(
    events.map(({ data, webhookIds, subject }) => [(data.devices as JsonObject[]).length, webhookIds.join(), subject]),
    [
      [200, 'a,b', null],
      [200, 'a,b', null],
      [50, 'a,b', null],
    ],
  );
  assert.deepEqual(
    events.flatMap(({ data }) => data.devices),
    many,
  );
});

test('large items make smaller events', () => {
  const events = Array.from({ length: 10 }, () => ({ text: 'x'.repeat(100_000) }));
  const formed = formEvents([change('events.received', { events })], [webhook('a', ['events.received'])]);
  assert.deepEqual(
    formed.map(({ data }) => (data.events as JsonObject[]).length),
    [2, 2, 2, 2, 2],
  );
});

test('a filter of outcomes and reasons takes the messages apart; where none passes there is no event', () => {
  const wishes = [
    webhook('all', ['messages.finished']),
    webhook('bad', ['messages.finished'], { outcomes: ['rejected', 'failed'] }),
    webhook('big', ['messages.finished'], { reasons: ['TooBig'] }),
    webhook('lost', ['messages.finished'], { outcomes: ['unknown'] }),
  ];
  const events = formEvents(
    [
      change('messages.finished', messages('accepted', 'rejected', 'accepted')),
      change('messages.finished', messages('failed')),
    ],
    wishes,
  );
  assert.deepEqual(
    Object.fromEntries(
      events.map(({ webhookIds, data }) => [
        webhookIds.join(),
        (data.messages as JsonObject[]).map(({ outcome }) => outcome),
      ]),
    ),
    { all: ['accepted', 'rejected', 'accepted', 'failed'], bad: ['rejected', 'failed'], big: ['rejected'] },
  );
});

test('a filter of states lets those moves pass, and says nothing of other types', () => {
  const types = ['notification.state_changed', 'notification.finished'];
  const events = formEvents(
    [
      change('notification.state_changed', { to: 'sending' }),
      change('notification.state_changed', { to: 'halted' }),
      change('notification.finished', { state: 'completed' }),
    ],
    [webhook('a', types, { states: ['halted'] })],
  );
  assert.deepEqual(
    events.map(({ data }) => Object.values(data)[0]),
    ['halted', 'completed'],
  );
});

test('a test goes to the webhook that it names', () => {
  const wishes = [webhook('a', ['messages.halted']), webhook('b', ['messages.halted'])];
  const events = formEvents([change('webhook.test', {}, 'b'), change('webhook.deleted', {}, 'a')], wishes);
  assert.deepEqual(
    events.map(({ webhookIds }) => webhookIds),
    [['b']],
  );
});
