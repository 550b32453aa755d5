/** The check of chaos runs must itself be beyond doubt: each promise is broken once, in a made-up run where all else is well. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { disturbanceTargets, drawScenario } from './scenario.ts';
import { checks, type DeviceEvidence, type SendEvidence, verify } from './verify.ts';

const accepted: DeviceEvidence = {
  externalId: 'accepted',
  deliveries: [{ outcome: 'accepted', inDoubt: false, attempts: 1 }],
  tokens: [{ behaviour: 'accept', received: 1, accepted: 1 }],
  isDeleted: false,
  isRegisteredAgain: false,
  isMoved: false,
  retiredReason: null,
  takeovers: 0,
};
const dead: DeviceEvidence = {
  ...accepted,
  externalId: 'dead',
  deliveries: [{ outcome: 'unregistered', inDoubt: false, attempts: 1 }],
  tokens: [{ behaviour: 'unregistered', received: 1, accepted: 0 }],
  retiredReason: 'Unregistered',
};
const sentTwice: DeviceEvidence = {
  ...accepted,
  externalId: 'sent twice',
  deliveries: [{ outcome: 'accepted', inDoubt: true, attempts: 2 }],
  tokens: [{ behaviour: 'accept', received: 2, accepted: 2 }],
  takeovers: 1,
};
const moved: DeviceEvidence = {
  ...accepted,
  externalId: 'moved',
  deliveries: [{ outcome: 'skipped', inDoubt: false, attempts: 0 }],
  tokens: [{ behaviour: 'accept', received: 0, accepted: 0 }],
  isMoved: true,
  retiredReason: 'token_moved',
};

/** A run with one device of each kind, in which every promise is kept. */
function soundRun(): SendEvidence {
  return structuredClone<SendEvidence>({
    registered: 4,
    inDoubtPolicy: 'redeliver',
    hasTtl: false,
    wasCancelled: false,
    notifications: 1,
    state: 'completed',
    isFinished: true,
    audience: 4,
    pending: 0,
    isBalanced: true,
    totals: { outcomes: { accepted: 2, unregistered: 1, skipped: 1 }, inDoubt: 1 },
    devices: [accepted, dead, sentTwice, moved],
    devicesPlannedTwice: 0,
    deliveriesOutsideAudience: 0,
    outsidersRetired: 0,
    batchesAtFault: 0,
    openBatches: 0,
    deferrals: 0,
    openTransactions: 0,
    runningWorkflows: [],
    ledger: { received: 4, distinctAccepted: 2, inFlight: 0, protocolErrors: 0 },
    crashes: 1,
    takeovers: [1],
    windowBound: 100,
    unansweredBound: 0,
    maxAttempts: 5,
  });
}

type Break = (run: SendEvidence) => void;

function withOutcome(outcome: DeviceEvidence['deliveries'][number]['outcome']): Break {
  return (run) => {
    run.devices[0]!.deliveries[0]!.outcome = outcome;
  };
}

const breaks: Record<string, Break> = {
  'the send ends by itself, or as cancelled where somebody cancelled it': (run) => {
    run.state = 'cancelled';
  },
  'the books are closed': (run) => {
    run.isFinished = false;
  },
  'a launch made twice is one notification': (run) => {
    run.notifications = 2;
  },
  'audience = sum of outcomes + pending': (run) => {
    run.isBalanced = false;
  },
  'nobody is pending at the end': (run) => {
    run.pending = 1;
  },
  'everybody who was registered at the launch is in the audience': (run) => {
    run.registered = 5;
  },
  'the batches hold the audience': (run) => {
    run.devices.pop();
  },
  'nobody is in two batches': (run) => {
    run.devicesPlannedTwice = 1;
  },
  'nobody else has an outcome': (run) => {
    run.deliveriesOutsideAudience = 1;
  },
  'every batch agrees with its groups': (run) => {
    run.batchesAtFault = 1;
  },
  'the stored totals are those of the rows': (run) => {
    run.totals!.outcomes = { accepted: 3, skipped: 1 };
  },
  'everybody has an outcome': (run) => {
    run.devices[0]!.deliveries = [];
  },
  'nobody has two outcomes': (run) => {
    run.devices[0]!.deliveries.push({ outcome: 'failed', inDoubt: false, attempts: 5 });
  },
  'whoever is accepted in the books was accepted by the provider': (run) => {
    run.devices[0]!.tokens[0]!.accepted = 0;
  },
  'whoever was accepted by the provider is accepted in the books, or in doubt': withOutcome('failed'),
  'every repeat is marked as in doubt': (run) => {
    run.devices[2]!.deliveries[0]!.inDoubt = false;
  },
  'policy skip never sends twice': (run) => {
    run.inDoubtPolicy = 'skip';
  },
  'unknown is only who is in doubt': withOutcome('unknown'),
  'skipped is only who was deleted, or whose token went to somebody else': withOutcome('skipped'),
  'rejected is only whose token the provider called bad: the message is sound': withOutcome('rejected'),
  'unregistered is only who had a dead token': withOutcome('unregistered'),
  'failed is only who was tried often enough': withOutcome('failed'),
  'cancelled is nobody where nobody cancelled': withOutcome('cancelled'),
  'expired is nobody where the message lives for a day': withOutcome('expired'),
  'no living token is retired': (run) => {
    run.devices[0]!.retiredReason = 'Unregistered';
  },
  'every dead token is retired': (run) => {
    run.devices[1]!.retiredReason = null;
  },
  'whoever lost its token to another device is retired': (run) => {
    run.devices[3]!.retiredReason = null;
  },
  'nobody outside the audience is retired': (run) => {
    run.outsidersRetired = 1;
  },
  'every request in the ledger is for the audience': (run) => {
    run.ledger.received = 5;
  },
  'the ledger counts the same acceptances in sum and by device': (run) => {
    run.ledger.distinctAccepted = 3;
  },
  'orderly stops leave nobody in doubt': (run) => {
    run.crashes = 0;
  },
  'a batch that is taken over has no more in flight than its windows': (run) => {
    run.takeovers = [101];
  },
  'in doubt is only who was in flight at a takeover, or got no answer': (run) => {
    run.devices[2]!.takeovers = 0;
  },
  'repeats are at most what was in flight': (run) => {
    run.takeovers = [];
  },
  'no batch is open': (run) => {
    run.openBatches = 1;
  },
  'no deferral is left': (run) => {
    run.deferrals = 1;
  },
  'no transaction is open': (run) => {
    run.openTransactions = 1;
  },
  'no workflow runs': (run) => {
    run.runningWorkflows = ['notification-1'];
  },
  'no request is in flight at the providers': (run) => {
    run.ledger.inFlight = 1;
  },
  'the sender never broke HTTP/2': (run) => {
    run.ledger.protocolErrors = 1;
  },
};

describe('the judge', () => {
  test('finds nothing in a run where every promise is kept, and counts what was repeated', () => {
    assert.deepEqual(verify(soundRun()), {
      problems: [],
      lost: 0,
      repeats: 1,
      repeatsMarked: 1,
      inDoubt: 1,
      inFlight: 1,
    });
  });

  test('has a way to break every promise, and no other', () => {
    assert.deepEqual(Object.keys(breaks).toSorted(), checks.map(({ name }) => name).toSorted());
  });

  for (const [promise, breakIt] of Object.entries(breaks)) {
    test(`notices when this is broken: ${promise}`, () => {
      const run = soundRun();
      breakIt(run);
      const { problems } = verify(run);
      assert.ok(
        problems.some((problem) => problem.startsWith(`${promise}: `)),
        problems.join('\n') || 'nothing was noticed',
      );
    });
  }

  test('counts who was lost, and repeats that nobody marked', () => {
    const run = soundRun();
    run.devices[0]!.deliveries = [];
    run.devices[2]!.deliveries[0]!.inDoubt = false;
    const { lost, repeats, repeatsMarked } = verify(run);
    assert.deepEqual({ lost, repeats, repeatsMarked }, { lost: 1, repeats: 1, repeatsMarked: 0 });
  });
});

describe('a scenario', () => {
  const seeds = Array.from({ length: 300 }, (_, n) => n + 1);
  const scenarios = seeds.map(drawScenario);

  test('is the same for the same seed, and another for another', () => {
    assert.deepEqual(seeds.map(drawScenario), scenarios);
    assert.equal(new Set(scenarios.map(({ disturbances }) => JSON.stringify(disturbances))).size, seeds.length);
  });

  test('has a crash in it, and its disturbances in order', () => {
    const crashes = new Set<string>(['kill a worker', 'kill both workers', 'freeze a worker']);
    for (const { seed, disturbances } of scenarios) {
      assert.ok(
        disturbances.some(({ kind }) => crashes.has(kind)),
        `seed ${seed}`,
      );
      const places = disturbances.map(({ at }) => at);
      assert.deepEqual(
        places,
        places.toSorted((a, b) => a - b),
        `seed ${seed}`,
      );
    }
  });

  test('is drawn from every kind of disturbance and both policies', () => {
    const kinds = scenarios.flatMap(({ disturbances }) => disturbances.map(({ kind }) => kind));
    assert.deepEqual([...new Set(kinds)].toSorted(), Object.keys(disturbanceTargets).toSorted());
    assert.deepEqual(new Set(scenarios.map(({ inDoubtPolicy }) => inDoubtPolicy)), new Set(['redeliver', 'skip']));
  });
});
