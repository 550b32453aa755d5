/** Events on their way to real receivers: order, other tries, workers that die, receivers that end it. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { Webhook } from 'standardwebhooks';
import { claimWebhookOfAnyApp, recordAttempt, takeIdleWebhooksOfAllApps } from '../../db/webhook-deliveries.ts';
import { deleteWebhook, enableWebhook, rotateSecret } from '../../db/webhooks.ts';
import { workerActor } from '../../domain/actor.ts';
import { until } from '../support/until.ts';
import type { ReceivedWebhook } from '../support/webhook-receiver.ts';
import { createWebhookBench, masterKeys, type WebhookBench } from './harness.ts';

let bench: WebhookBench;
before(async () => {
  bench = await createWebhookBench();
});
after(() => bench.close());
afterEach(async () => {
  const { receiver, rows, logged } = bench;
  receiver.answer = () => ({ status: 204 });
  receiver.received.length = 0;
  logged.length = 0;
  await rows(
    'delete from webhooks; delete from webhook_feed; delete from webhook_deliveries; delete from audit_entries',
  );
});

const type = 'notification.state_changed';
const steps = (received: ReceivedWebhook[] = bench.receiver.received) => received.map(({ body }) => body.data.step);
const delivery = async (id: string) =>
  (await bench.rows('select * from webhook_deliveries where webhook_id = $1', [id]))[0];
const webhook = async (id: string) => (await bench.rows('select * from webhooks where id = $1', [id]))[0];

async function happen(...all: [subject: string | null, step: number][]): Promise<void> {
  for (const [subject, step] of all) await bench.feed(type, subject, { step });
  await bench.collect();
}

test('an event comes signed, with its type, its time and its data, under an id that stays', async () => {
  const { id, secret } = await bench.add([type]);
  await happen(['a', 1]);
  bench.receiver.answer = () => ({ status: 500 });
  assert.equal((await bench.deliver(id)).kind, 'waiting');
  bench.receiver.answer = () => ({ status: 204 });
  await bench.elapse(id);
  assert.deepEqual(await bench.deliver(id), { kind: 'idle', waitMs: 0, pending: 0 });
  const [first, second] = bench.receiver.received;
  const { event_id, state, attempts, last_status } = await delivery(id);
  assert.deepEqual([state, attempts, last_status], ['delivered', 2, 204]);
  for (const { headers, text, body } of [first!, second!]) {
    new Webhook(secret).verify(text, headers as Record<string, string>);
    assert.equal(headers['webhook-id'], event_id);
    assert.deepEqual([body.type, body.data], [type, { step: 1 }]);
    assert.ok(Math.abs(Date.parse(body.timestamp) - Date.now()) < 60_000);
  }
});

test('events of a subject come in order however often one fails; other subjects pass it', async () => {
  const { id } = await bench.add([type]);
  await happen(['a', 1], ['a', 2], ['b', 10], ['a', 3], ['b', 11], [null, 20]);
  bench.receiver.answer = ({ body }) => ({ status: body.data.step === 1 ? 500 : 204 });
  const step = await bench.deliver(id);
  assert.deepEqual([step.kind, step.pending], ['waiting', 3]);
  assert.ok(step.waitMs > 4_000 && step.waitMs <= 5_000, `${step.waitMs}`);
  const passed = steps();
  assert.deepEqual([...passed].sort(), [1, 10, 11, 20]);
  assert.ok(passed.indexOf(10) < passed.indexOf(11));
  await bench.elapse(id);
  await bench.deliver(id);
  assert.deepEqual(steps().slice(4), [1]);
  bench.receiver.answer = () => ({ status: 204 });
  await bench.elapse(id);
  assert.equal((await bench.deliver(id)).kind, 'idle');
  assert.deepEqual(steps().slice(5), [1, 2, 3]);
});

test('different subjects go side by side, eight at most', async () => {
  const { id } = await bench.add([type]);
  await happen(...Array.from({ length: 30 }, (_, i): [string, number] => [`s${i}`, i]));
  let open = 0;
  let most = 0;
  const { promise: enough, resolve } = Promise.withResolvers<void>();
  bench.receiver.answer = async () => {
    most = Math.max(most, ++open);
    if (open === 8) resolve();
    await enough;
    open--;
    return { status: 204 };
  };
  assert.equal((await bench.deliver(id)).kind, 'idle');
  assert.equal(most, 8);
  assert.equal(new Set(steps()).size, 30);
});

test('when the tries are spent an event has failed, and the next of its subject goes on', async () => {
  const { id } = await bench.add([type]);
  await happen(['a', 1], ['a', 2]);
  await bench.rows(`update webhook_deliveries set attempts = 9 where seq = (select min(seq) from webhook_deliveries)`);
  bench.receiver.answer = ({ body }) => ({ status: body.data.step === 1 ? 400 : 204, body: 'no such field' });
  assert.equal((await bench.deliver(id)).kind, 'idle');
  const states = await bench.rows('select state, attempts, last_error from webhook_deliveries order by seq');
  assert.deepEqual(
    states.map(({ state, attempts, last_error: error }) => [state, attempts, error]),
    [
      ['failed', 10, 'HTTP 400. no such field'],
      ['delivered', 1, null],
    ],
  );
});

test('a receiver that asks for patience is left alone as a whole', async () => {
  const { id } = await bench.add([type]);
  bench.receiver.answer = () => ({ status: 429, headers: { 'retry-after': '90' } });
  await happen(['a', 1]);
  const step = await bench.deliver(id);
  assert.ok(step.waitMs > 80_000 && step.waitMs <= 90_000, `${step.waitMs}`);
  await happen(['b', 2]);
  assert.ok((await bench.deliver(id)).waitMs > 80_000);
  assert.deepEqual(steps(), [1]);
  assert.deepEqual(await takeIdleWebhooksOfAllApps(bench.database.db), []);
});

test('a receiver that is down is asked by one request at a time, not by one for each event', async () => {
  const { id } = await bench.add([type]);
  await happen(...Array.from({ length: 40 }, (_, i): [string, number] => [`s${i}`, i]));
  bench.receiver.answer = () => ({ status: 502 });
  const step = await bench.deliver(id);
  assert.equal(step.kind, 'waiting');
  assert.ok(steps().length <= 15, `${steps().length}`);
  assert.equal(step.failingSince, (await webhook(id)).failing_since.toISOString());
  bench.receiver.received.length = 0;
  await bench.rows(`update webhooks set blocked_until = '-infinity' where id = $1`, [id]);
  await bench.deliver(id);
  assert.equal(steps().length, 1);
  bench.receiver.answer = () => ({ status: 204 });
  await bench.elapse(id);
  assert.equal((await bench.deliver(id)).kind, 'idle');
  assert.deepEqual(await bench.rows(`select from webhook_deliveries where state <> 'delivered'`), []);
});

describe('a webhook is disabled', () => {
  const disabled = async (id: string) => {
    const { disabled_reason: reason, disabled_at: at } = await webhook(id);
    return at === null ? undefined : reason;
  };

  test('at once by 410; the event that was refused waits for those who enable it again', async () => {
    const { id } = await bench.add([type]);
    await happen(['a', 1], ['a', 2]);
    bench.receiver.answer = () => ({ status: 410 });
    const step = await bench.deliver(id);
    assert.deepEqual([step.kind, step.pending, await disabled(id)], ['disabled', 2, 'gone']);
    assert.equal((await bench.deliver(id)).kind, 'disabled');
    assert.deepEqual(steps(), [1]);
    bench.receiver.answer = () => ({ status: 204 });
    await enableWebhook(bench.database.db, workerActor, 1, id);
    assert.equal((await bench.deliver(id)).kind, 'idle');
    assert.deepEqual(steps(), [1, 1, 2]);
  });

  test('after five days without a success, with a notice in the audit, in the log, and to the others', async () => {
    const { id } = await bench.add([type]);
    const other = await bench.add(['webhook.disabled']);
    await happen(['a', 1]);
    bench.receiver.answer = () => ({ status: 500, body: 'broken' });
    await bench.deliver(id);
    const fail = async (ago: string) => {
      await bench.rows(`update webhooks set failing_since = now() - $2::interval where id = $1`, [id, ago]);
      await bench.elapse(id);
      return bench.deliver(id);
    };
    assert.equal((await fail('4 days 23 hours')).kind, 'waiting');
    assert.equal(await disabled(id), undefined);
    assert.equal((await fail('5 days 1 minute')).kind, 'disabled');
    assert.equal(await disabled(id), 'failing');
    const [entry] = await bench.rows(`select * from audit_entries where action = 'webhook.disable'`);
    assert.deepEqual(
      [entry.actor_kind, entry.changes.reason, entry.changes.last_error],
      ['worker', 'failing', 'HTTP 500. broken'],
    );
    assert.deepEqual(
      bench.logged.map(({ message, webhookId, reason }) => [message, webhookId, reason]),
      [['webhook disabled', id, 'failing']],
    );
    bench.receiver.answer = () => ({ status: 204 });
    await bench.collect();
    assert.equal((await bench.deliver(other.id)).kind, 'idle');
    const { body } = bench.receiver.received.at(-1)!;
    assert.deepEqual([body.type, body.data.webhook_id, body.data.reason], ['webhook.disabled', id, 'failing']);
  });

  test('not while anything is delivered', async () => {
    const { id } = await bench.add([type]);
    await bench.rows(`update webhooks set failing_since = now() - interval '9 days', failures = 99 where id = $1`, [
      id,
    ]);
    await happen(['a', 1]);
    assert.equal((await bench.deliver(id)).kind, 'idle');
    const { failing_since, failures, last_delivered_at } = await webhook(id);
    assert.deepEqual([failing_since, failures, last_delivered_at !== null], [null, 0, true]);
  });
});

describe('two workers', () => {
  test('of which the first was only slow: it records nothing more, and the order holds', async () => {
    const { id } = await bench.add([type]);
    await happen(['a', 1], ['a', 2]);
    const { promise: awake, resolve: wake } = Promise.withResolvers<void>();
    let calls = 0;
    bench.receiver.answer = async () => {
      if (++calls === 1) {
        await awake;
        return { status: 500 };
      }
      return { status: 204 };
    };
    const slow = bench.deliver(id);
    await until(() => calls === 1);
    assert.equal((await bench.deliver(id)).kind, 'idle');
    assert.deepEqual(steps(), [1, 1, 2]);
    wake();
    assert.equal((await slow).kind, 'waiting');
    assert.deepEqual(await bench.rows(`select from webhook_deliveries where state <> 'delivered'`), []);
    assert.equal((await webhook(id)).failures, 0);
  });

  test('of which the first died between the answer and its record: the event comes a second time under its id', async () => {
    const { id } = await bench.add([type]);
    await happen(['a', 1]);
    const { promise: never } = Promise.withResolvers<never>();
    const dying = bench.createSender();
    const send = dying.send.bind(dying);
    dying.send = async (...args) => {
      await send(...args);
      return never;
    };
    void bench.deliver(id, undefined, dying);
    await until(() => steps().length === 1);
    assert.equal((await bench.deliver(id)).kind, 'idle');
    const ids = bench.receiver.received.map(({ headers }) => headers['webhook-id']);
    assert.deepEqual([ids.length, new Set(ids).size], [2, 1]);
  });

  test('a claim that is not the latest records nothing', async () => {
    const { db } = bench.database;
    const { id } = await bench.add([type]);
    await happen(['a', 1]);
    const zombie = (await claimWebhookOfAnyApp(db, id))!;
    await claimWebhookOfAnyApp(db, id);
    const { event_id: eventId } = await delivery(id);
    assert.equal(await recordAttempt(db, zombie, { eventId, attempts: 0 }, { status: 410 }, 0), undefined);
    assert.equal(await claimWebhookOfAnyApp(db, id, zombie.fence), undefined);
    assert.deepEqual([(await delivery(id)).attempts, (await webhook(id)).disabled_at], [0, null]);
  });
});

test('a worker that stops waits for its answers a moment, and leaves the rest to the next one', async () => {
  const { id } = await bench.add([type]);
  await happen(['a', 1], ['b', 2]);
  const stopping = new AbortController();
  const { promise: never } = Promise.withResolvers<never>();
  bench.receiver.answer = ({ body }) => {
    if (steps().length === 2) stopping.abort();
    return body.data.step === 1 ? never : { status: 204 };
  };
  const step = await bench.deliver(id, stopping.signal);
  assert.deepEqual([step.kind, step.waitMs, step.pending], ['stopped', 0, 1]);
  const states = await bench.rows('select state, attempts from webhook_deliveries order by seq');
  assert.deepEqual(
    states.map(({ state, attempts }) => [state, attempts]),
    [
      ['pending', 0],
      ['delivered', 1],
    ],
  );
});

test('during the overlap of two secrets either verifies, and afterwards the new one alone', async () => {
  const { db } = bench.database;
  const { id, secret } = await bench.add([type]);
  const next = await rotateSecret(db, workerActor, 1, id, masterKeys, 3_600);
  const verifies = async (...secrets: string[]) => {
    await happen([null, 1]);
    await bench.deliver(id);
    const { headers, text } = bench.receiver.received.at(-1)!;
    return secrets.map((secret) => {
      try {
        return new Webhook(secret).verify(text, headers as Record<string, string>) !== undefined;
      } catch {
        return false;
      }
    });
  };
  assert.deepEqual(await verifies(secret, next), [true, true]);
  await bench.rows(`update webhooks set previous_until = now() where id = $1`, [id]);
  assert.deepEqual(await verifies(secret, next), [false, true]);
});

test('secrets that do not open send nothing and lose nothing; the log says why', async () => {
  const { id } = await bench.add([type]);
  await happen(['a', 1]);
  await bench.rows(`update webhooks set secret_jwe = 'changed' where id = $1`, [id]);
  const step = await bench.deliver(id);
  assert.deepEqual([step.kind, step.waitMs, step.pending], ['waiting', 60_000, 1]);
  assert.deepEqual(steps(), []);
  assert.match(String(bench.logged[0]?.message), /secret of a webhook cannot be opened/);
  await rotateSecret(bench.database.db, workerActor, 1, id, masterKeys, 3_600);
  assert.equal((await bench.deliver(id)).kind, 'idle', 'another secret mends it');
});

test('what is not delivered to is told to one worker, and to another ten seconds later', async () => {
  const { db } = bench.database;
  const { id } = await bench.add([type]);
  assert.deepEqual(await takeIdleWebhooksOfAllApps(db, [id]), [], 'nothing is due');
  await happen(['a', 1]);
  assert.deepEqual(await takeIdleWebhooksOfAllApps(db), [], 'its workflow may be about to see it');
  const both = await Promise.all([takeIdleWebhooksOfAllApps(db, [id]), takeIdleWebhooksOfAllApps(db, [id])]);
  assert.deepEqual(
    both.flat().map((one) => one.id),
    [id],
  );
  await bench.rows(`update webhooks set busy_until = now() where id = $1`, [id]);
  await bench.rows(`update webhook_deliveries set next_at = now() - interval '3 seconds'`);
  assert.equal((await takeIdleWebhooksOfAllApps(db)).length, 1);
  await bench.rows(`update webhooks set busy_until = now() where id = $1`, [id]);
  await happen(['a', 2]);
  await bench.rows(`update webhook_deliveries set next_at = now() + ($1 - seq) * interval '1 hour'`, [
    (await bench.rows('select max(seq) as last from webhook_deliveries'))[0].last,
  ]);
  assert.deepEqual(await takeIdleWebhooksOfAllApps(db), [], 'what is due waits for what is before it');
});

test('one that is deleted is sent nothing more', async () => {
  const { id } = await bench.add([type]);
  await happen(['a', 1]);
  await deleteWebhook(bench.database.db, workerActor, 1, id);
  assert.equal((await bench.deliver(id)).kind, 'gone');
  assert.deepEqual(steps(), []);
});
