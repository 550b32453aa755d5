import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Audience } from '../../domain/audience.ts';
import type { Notification } from '../../domain/notification.ts';
import { labelsOf, type NotificationLabels, notificationStart } from '../../domain/notification-start.ts';

const id = '01890a5d-ac96-774b-bcce-b302099a8057';
const labels: NotificationLabels = { appId: 3, title: 'Autumn sale', audience: 'every live device' };
const start = (changes: Partial<NotificationLabels> = {}) =>
  notificationStart(id, { ...labels, ...changes }, 'staging-notifications');

test('a workflow is started or woken by the id of its notification alone', () => {
  const { workflowId, taskQueue, signal, args, workflowIdReusePolicy, workflowIdConflictPolicy } = start();
  assert.deepEqual(
    { workflowId, taskQueue, signal, args },
    {
      workflowId: `notification-${id}`,
      taskQueue: 'staging-notifications',
      signal: 'wakeSignal',
      args: [{ notificationId: id }],
    },
  );
  assert.equal(workflowIdReusePolicy, 'ALLOW_DUPLICATE', 'one that ended is followed by another');
  assert.equal(workflowIdConflictPolicy, 'USE_EXISTING', 'one that runs is kept');
});

test('the UI shows title, id, app and audience', () => {
  const { memo, staticSummary, staticDetails } = start();
  assert.deepEqual(memo, { notificationId: id, ...labels });
  assert.equal(staticSummary, 'Autumn sale');
  assert.equal(staticDetails, `**Autumn sale**\n\n- id: \`${id}\`\n- app: 3\n- audience: every live device`);
});

test('without a title the summary is the audience, and the details say what it is', () => {
  const { staticSummary, staticDetails, memo } = start({ title: null });
  assert.equal(staticSummary, 'every live device');
  assert.match(staticDetails, /^\*\*Notification\*\*\n/);
  assert.equal(memo.title, null);
});

describe('a title longer than a summary may be is cut to 400 bytes of JSON', () => {
  for (const [what, character, kept] of [
    ['letters', 'a', 398],
    ['letters of two bytes', 'é', 199],
    ['letters of three', '漢', 132],
    ['emoji of four', '🔔', 99],
    ['whole families of 25', '👨‍👩‍👧‍👦', 15],
    ['quotation marks, which JSON writes in two bytes', '"', 199],
  ] as const) {
    test(what, () => {
      assert.equal(start({ title: character.repeat(kept) }).staticSummary, character.repeat(kept));
      for (const count of [kept + 1, 1_000]) {
        const title = character.repeat(count);
        const { staticSummary, staticDetails, memo } = start({ title });
        assert.equal(staticSummary, character.repeat(kept));
        assert.equal(memo.title, title);
        assert.ok(staticDetails.startsWith(`**${title}**`), 'the details have all of it');
      }
    });
  }
});

describe('an audience in words', () => {
  const condition = { property: 'plan', operator: 'eq', value: 'secret plan' } as const;
  const rows: [audience: Audience, words: string][] = [
    [{}, 'every live device'],
    [{ condition }, 'devices that meet a condition'],
    [{ uploaded: true }, 'devices of an uploaded list'],
    [{ externalIds: ['a', 'b'] }, '2 devices by id'],
    [{ externalIds: [] }, '0 devices by id'],
    [{ userIds: ['u', 'v', 'w'] }, 'devices of 3 users'],
    [{ condition, userIds: ['u', 'v'] }, 'devices that meet a condition, among them only devices of 2 users'],
    [
      { condition, externalIds: ['a', 'b'], userIds: ['u', 'v'] },
      'devices that meet a condition, among them only 2 devices by id, among them only devices of 2 users',
    ],
  ];
  for (const [audience, words] of rows) {
    test(`${words}, and no id or value of it`, () => {
      const notification = { id, appId: 3, title: 'Autumn sale', audience } as Notification;
      assert.deepEqual(labelsOf(notification), { ...labels, audience: words });
    });
  }
});
