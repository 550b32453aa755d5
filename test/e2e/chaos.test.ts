/** Two runs of the chaos program with fixed seeds, and proof that its judge reads the real books. */
import assert from 'node:assert/strict';
import os from 'node:os';
import { after, before, describe, test } from 'node:test';
import { type RawBuilder, sql } from 'kysely';
import { connect, type DatabaseHandle } from '../../db/connect.ts';
import { type Stack, startStack } from '../../local/stack.ts';
import { type ChaosResult, runChaos } from '../chaos/run.ts';
import { drawScenario } from '../chaos/scenario.ts';
import { chaosStack } from '../chaos/settings.ts';
import { verify } from '../chaos/verify.ts';

/** Workers killed, PostgreSQL and Temporal killed and restarted, by the one policy and by the other. */
const redeliverSeed = 12;
const skipSeed = 13;
const devices = 1_500;

describe('a send whose parts are killed, restarted and lied to', { timeout: 170_000 }, () => {
  let stack: Stack;
  let books: DatabaseHandle;
  let lastRun: ChaosResult;

  before(async () => {
    stack = await startStack(chaosStack(os.tmpdir()));
    books = connect(stack.databaseUrl, { maxConnections: 1, applicationName: 'carillon-test' });
  });
  after(async () => {
    await books?.db.destroy();
    await stack?.stop();
  });

  for (const [run, seed, policy] of [
    [0, redeliverSeed, 'redeliver'],
    [1, skipSeed, 'skip'],
  ] as const) {
    test(`keeps every promise (seed ${seed}, policy ${policy})`, async () => {
      assert.equal(drawScenario(seed).inDoubtPolicy, policy);
      lastRun = await runChaos(stack, seed, run, devices);
      const { problems, report, story } = lastRun;
      assert.deepEqual(problems, [], story.join('\n'));
      assert.ok(report.kills >= 2 && report.restarts >= 1, JSON.stringify(report));
      assert.deepEqual(
        {
          devices: report.devices,
          lost: report.lost,
          balanced: report.balanced,
          unmarked: report.repeats - report.repeats_marked,
        },
        { devices, lost: 0, balanced: true, unmarked: 0 },
      );
    });
  }

  const tamperings: Record<string, { promise: string; change: RawBuilder<unknown> }> = {
    'a group is gone': {
      promise: 'everybody has an outcome',
      change: sql`delete from delivery_groups where outcome = 'accepted'`,
    },
    'outcomes are exchanged': {
      promise: 'every batch agrees with its groups',
      change: sql`update delivery_groups set outcome = 'failed' where outcome = 'accepted'`,
    },
    'a dead device is called accepted': {
      promise: 'whoever is accepted in the books was accepted by the provider',
      change: sql`update delivery_groups set outcome = 'accepted' where outcome = 'unregistered'`,
    },
    'a living device is retired': {
      promise: 'no living token is retired',
      change: sql`update devices set retired_at = now(), retired_reason = 'Unregistered' where retired_at is null`,
    },
    'a batch has lost count': {
      promise: 'every batch agrees with its groups',
      change: sql`update batches set accepted = accepted - 1, failed = failed + 1 where accepted > 0`,
    },
  };

  for (const [fault, { promise, change }] of Object.entries(tamperings)) {
    test(`would not have passed where ${fault}`, async () => {
      const trx = await books.db.startTransaction().execute();
      try {
        await change.execute(trx);
        const { problems } = verify(await lastRun.readAgain(trx));
        assert.ok(
          problems.some((problem) => problem.startsWith(promise)),
          problems.join('\n') || 'nothing was noticed',
        );
      } finally {
        await trx.rollback().execute();
      }
    });
  }
});
