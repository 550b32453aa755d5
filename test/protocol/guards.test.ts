import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type Guard, guardNames } from './guards.ts';
import { type InvariantName, invariants } from './invariants.ts';
import { search } from './search.ts';
import { type Choice, type Event, settingOf } from './setting.ts';

/** What breaks without a guard, and in what setting the search finds it. */
type Row = [breaks: InvariantName, choice: Choice, secondLock?: Guard];

const takenOver = (...may: Event[]): Choice => ({ may: ['take over', ...may] });
const oneDevice = { devices: 1, claims: 3 };
const elsewhere: Choice = { devices: 2, claims: 3, windowSize: 1, ...takenOver('ask elsewhere') };
/** Reduced: neither fence nor horizon is at stake. */
const late: Choice = { claims: 3, lostAnswers: 1, ...takenOver('come late'), isReduced: true };
const orderly: Choice = { claims: 3, may: ['refuse', 'shut down'] };

const rows: Record<Guard, Row[]> = {
  'claimBatch raises the fence': [
    ['every repeat is marked', oneDevice],
    ['nothing is lost', {}],
  ],
  'a claim notes its doubts in one transaction': [
    ['no device is sent to after its outcome', late],
    ['nothing is lost', late],
  ],
  'noteDoubts checks the fence': [],
  'noteDoubts counts fresh devices': [
    ['every repeat is marked', {}],
    ['skip never sends twice', { policy: 'skip' }],
  ],
  'noteDoubts counts dispatched deferrals': [
    ['every repeat is marked', takenOver('refuse')],
    ['skip never sends twice', { policy: 'skip', ...takenOver('refuse') }],
  ],
  'recorded devices are left out': [['no device is sent to after its outcome', {}]],
  'lockBatch checks the fence': [['a device with an outcome has no deferral', elsewhere]],
  'reserve_window reads the state': [
    ['no window is reserved after a stop', { pauses: 1 }],
    ['no window is reserved after a stop', takenOver('cancel')],
    ['no window is reserved after a stop', takenOver('expire')],
  ],
  'reserve_window checks the fence': [['every repeat is marked', {}]],
  'reserve_window moves the horizon': [
    ['the horizon is never behind a dispatch', {}],
    ['every repeat is marked', {}],
  ],
  'reserve_window moves it forward only': [['every repeat is marked', takenOver('refuse')]],
  'reserve_window marks deferrals as dispatched': [['every repeat is marked', takenOver('refuse')]],
  'deferrals are stored before they are sent to again': [['every repeat is marked', takenOver('refuse')]],
  'the policy is asked before a repeat': [['skip never sends twice', { policy: 'skip' }]],
  'the policy is asked after silence': [],
  'repeats end after maxDoubts': [['repeats are limited', { ...oneDevice, ...takenOver('be silent') }]],
  'silence is a doubt': [['every repeat is marked', takenOver('be silent')]],
  'record_deliveries checks the fence': [['every repeat is marked', {}]],
  'deferrals alone check the fence': [['every repeat is marked', { ...oneDevice, ...takenOver('refuse') }]],
  'a finished batch takes no more': [['PostgreSQL refuses no outcome', takenOver('expire', 'give up')]],
  'a device has one row': [['a device has one outcome, counted once', { lostAnswers: 1 }, 'is it stored?']],
  'is it stored?': [['PostgreSQL refuses no outcome', { lostAnswers: 1 }]],
  'the row says in_doubt': [['every repeat is marked', {}]],
  'storeDeferrals ends the dispatch': [['an orderly end leaves no doubt', orderly]],
  'an outcome ends the deferral': [['no device is sent to after its outcome', takenOver('refuse')]],
  'nothing is dispatched after a stop': [['every repeat is marked', { ...oneDevice, ...takenOver('shut down') }]],
  'a device that stepped aside is deferred': [['every repeat is marked', takenOver('step aside', 'shut down')]],
  'undispatched devices are given back': [['an orderly end leaves no doubt', orderly]],
  'returnReserved checks the fence': [
    ['every repeat is marked', { ...oneDevice, ...takenOver('refuse', 'shut down') }],
  ],
  'settleBatch checks the fence': [['a zombie writes nothing', takenOver('expire')]],
  'settleBatch leaves rows alone': [['nothing is lost', takenOver('cancel')]],
  'settleBatch doubts what is below the horizon': [['cancelled and expired were not sent to', takenOver('cancel')]],
  'settleBatch doubts dispatched deferrals': [
    ['cancelled and expired were not sent to', takenOver('refuse', 'cancel')],
  ],
  'settleBatch keeps doubts': [['cancelled and expired were not sent to', takenOver('be silent', 'cancel')]],
};

/** Locks behind a lock: the search finds nothing that breaks without them. */
const spare: [guard: Guard, choice: Choice][] = [
  // In the transaction of its claim no other claim comes between.
  ['noteDoubts checks the fence', { claims: 3, lostAnswers: 1, ...takenOver('refuse', 'come late'), isReduced: true }],
  // With 'is it stored?' no run records a device twice.
  ['a device has one row', { lostAnswers: 2, ...takenOver('refuse', 'be silent'), isReduced: true }],
  // A device that was deferred after silence meets the policy before its next request.
  ['the policy is asked after silence', { policy: 'skip', claims: 3, ...takenOver('be silent'), isReduced: true }],
];

describe('without a guard', () => {
  for (const [guard, broken] of Object.entries(rows) as [Guard, Row[]][]) {
    for (const [breaks, choice, secondLock] of broken) {
      const without = secondLock === undefined ? [guard] : [guard, secondLock];
      test(`"${without.join('" and "')}", this breaks: ${breaks}`, (t) => {
        const only = invariants.filter(({ name }) => name === breaks);
        const { states, violation } = search(settingOf({ ...choice, without }), only);
        t.diagnostic(`${states} states`);
        assert.equal(violation?.invariant, breaks);
        assert.equal(search(settingOf(choice), only).violation, undefined, 'breaks with it too');
      });
    }
  }

  for (const [guard, choice] of spare) {
    test(`"${guard}", nothing breaks`, (t) => {
      const { states, violation } = search(settingOf({ ...choice, without: [guard] }), invariants);
      t.diagnostic(`${states} states`);
      assert.equal(violation, undefined);
    });
  }

  test('something breaks, unless it is a spare one', () => {
    const unexplained = guardNames.filter(
      (guard) => rows[guard].length === 0 && !spare.some(([name]) => name === guard),
    );
    assert.deepEqual(unexplained, []);
  });
});
