/** A misspelt fault never happens, and the test that wanted it passes: so whatever the control API does not know is refused. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { launchSimulator } from '../../simulator/launch.ts';
import { useSimulator } from './fixture.ts';

const fixture = useSimulator();

const refused: [request: string, body: object | undefined, named: RegExp][] = [
  ['POST /settings', { unknown: 1 }, /unknown: no such field; known are apnsWarmUp/],
  ['POST /settings', { toString: 1 }, /toString: no such field/],
  ['POST /settings', { apnsWarmUp: 1 }, /apnsWarmUp must be true or false/],
  ['POST /settings', { answersPerSecond: -1 }, /answersPerSecond must be a whole number/],
  ['POST /settings', { fcmMaxConcurrentStreams: null }, /fcmMaxConcurrentStreams must be/],
  ['POST /settings', { apnsTopics: 'dev.carillon.demo' }, /apnsTopics must be a list, each a text/],
  ['POST /settings', { admission: 'maybe' }, /admission must be one of accept, refuse/],
  ['POST /settings', { admission: 'refuse', admissionListener: 'apns' }, /admissionListener must be one of/],
  ['POST /settings', [], /the body must be an object/],
  ['POST /rules', {}, /action is needed/],
  ['POST /rules', { action: { type: 'vanish' } }, /action\.type must be one of delay, respond/],
  ['POST /rules', { action: { type: 'respond' } }, /action\.status is needed/],
  ['POST /rules', { action: { type: 'respond', status: '410' } }, /action\.status must be an HTTP status/],
  ['POST /rules', { action: { type: 'stall', accepts: true } }, /action\.accepts: no such field/],
  ['POST /rules', { action: { type: 'rstStream', code: 'REFUSED' } }, /action\.code must be one of NO_ERROR/],
  ['POST /rules', { action: { type: 'delay', latency: { distribution: 'normal' } } }, /latency\.distribution must be/],
  ['POST /rules', { action: { type: 'delay', latency: { distribution: 'uniform', minMs: 1 } } }, /latency\.maxMs is/],
  ['POST /rules', { action: { type: 'stall' }, match: { token: 'ab' } }, /match\.token: no such field/],
  ['POST /rules', { action: { type: 'stall' }, match: { every: 0 } }, /match\.every must be/],
  ['POST /rules', { action: { type: 'stall' }, time: 1 }, /time: no such field/],
  ['POST /quota', { perminute: 5 }, /perminute: no such field/],
  ['POST /quota', { perMinute: '5' }, /perMinute must be a whole number of at least 0, or null/],
  ['POST /oauth', { revoke: true }, /revoke: no such field/],
  ['POST /oauth', { expiresInSeconds: '20' }, /expiresInSeconds must be a number/],
  ['POST /clock', {}, /offsetMs is needed/],
  ['POST /clock', { offsetMs: 1, offset: 1 }, /offset: no such field/],
  ['POST /connections/goaway', { lastStream: 1 }, /lastStream: no such field/],
  ['POST /connections/reset', { connection: '1' }, /connection must be/],
  ['POST /connections/max-streams', {}, /limit is needed/],
  ['POST /ledger/lookup', { notificationId: 'x', tokens: [1] }, /tokens must be a list/],
  ['POST /ledger/first-received-at', {}, /notificationIds is needed/],
  ['POST /ledger/reset', { everything: true }, /everything: no such field; there is none/],
  ['GET /ledger/summary?notification=x', undefined, /notification: no such field; known are nid/],
  ['DELETE /rules?id=first', undefined, /id must be a whole number/],
];

test('a field that it does not know, or a value of another kind, is refused by name and changes nothing', async () => {
  const { control, simulator } = fixture;
  const settings = async () => (await fetch(`${simulator.controlUrl}/settings`)).json();
  const before = await settings();
  for (const [request, body, named] of refused) {
    const [method, path] = request.split(' ') as [string, string];
    const answer = await fetch(simulator.controlUrl + path, {
      method,
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    assert.equal(answer.status, 400, `${request} ${JSON.stringify(body)}`);
    assert.match(((await answer.json()) as { error: string }).error, named);
  }
  assert.deepEqual(await settings(), before);
  assert.deepEqual(await control.listRules(), []);
});

test('one wrong setting among right ones changes none of them', async () => {
  const { control, simulator } = fixture;
  const wrong = { apnsMaxConcurrentStreams: 7, admission: 'maybe' as never };
  await assert.rejects(control.changeSettings(wrong), /admission must be/);
  assert.equal(simulator.state.settings.apnsMaxConcurrentStreams, 1000);
});

test('a setting that is unknown at the start ends it', async () => {
  await assert.rejects(
    launchSimulator({ settings: { answerPerSecond: 5 } as never }),
    /answerPerSecond: no such field/,
  );
});
